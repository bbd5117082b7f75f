"""Requests that change something, while they are under way: written down so that no successor does one twice.

What a dead server had read and not answered comes again. Whether it was done shows in no answer, so each
such request has a task in the ledger's file, from before its first system call until its reply is given:

    begun       what it changes: positions [start, end) of an inode. Bytes are at their offset, attributes
                at positions behind all bytes (redo.py). `before` is what was there, where that tells later
                whether the request was done.
    overtaken   others that were done there meanwhile, and may be answered: whatever comes first in the
                end, theirs must stay. Every request marks so whom it overlaps, then it is
    done        with this result, an errno or a count: all that is left is to answer.

A thread has one request at a time, so there are as many tasks as threads, and those that a dead server left.
A task that is under way for long keeps its place while thousands come and go; nothing is ever overwritten.
Where ranges do not fit any more, who overtakes waits until the older request is answered, as long as that is a
plain write. Else some are not known, and a successor that would have to do the request again answers EIO. Where
the compiled loop serves it begins tasks too, and makes the stores for Python (loop/underway.c), so that they
exclude each other; to give a task back is one store, which needs no lock.

Layout, in 8-byte words: unique or 0, result or 0, inode, start, end, number of ranges, OVERTAKEN ranges, 7 words
of `before`, whether they hold. A process may die between any two stores: `unique` is written last, `result`
after all marks that it made.
"""

from __future__ import annotations

import errno
import os
import threading
from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING

from regionfs.sharing import Span

if TYPE_CHECKING:
    from regionfs.serve._fast import Table

TASKS = 1024  # 256 threads (relay.LIMIT), as many that died, and room
WORDS = 32
OVERTAKEN, BEFORE = 9, 7
SIZE = TASKS * WORDS  # words
NONE = -1  # the task of a request that nobody writes down: there was no room
_UNIQUE, _RESULT, _INO, _START, _END, _COUNT, _RANGES, _BEFORE = 0, 1, 2, 3, 4, 5, 6, 24
_HOLDS = _BEFORE + BEFORE
_FAILED = 1 << 32  # in a result: the rest is an errno; else it is a count, plus one

Range = tuple[int, int]


class Underway:
    """The tasks in these words, SIZE of them, which are shared with a successor. Safe to use from many threads."""

    def __init__(self, words: memoryview) -> None:
        self._words = words
        self._lock = threading.Lock()
        self._used = TASKS
        self._table: Table | None = None

    def share(self, table: Table) -> None:
        """Let a loop begin tasks, too."""
        table.tasks(self._words)
        self._table = table

    def begin(self, unique: int, ino: int, start: int, end: int) -> int:
        """The task of a request: the one that was begun for it before, else a new one; NONE when there is no room."""
        if self._table is not None:
            return self._table.begin(unique, ino, start, end)
        with self._lock:
            return self._begin(unique, ino, start, end)

    def result(self, task: int) -> int | None:
        """The count that a request was done with, None when it is not certain that it was. OSError when it failed."""
        result = self._words[task * WORDS + _RESULT] if task >= 0 else 0
        if result >= _FAILED:
            raise OSError(result - _FAILED, os.strerror(result - _FAILED))
        return result - 1 if result else None

    def certain(self, task: int) -> bool:
        """True when a request was done or has failed."""
        return task >= 0 and self._words[task * WORDS + _RESULT] != 0

    def overtaken(self, task: int) -> list[Range]:
        """Positions that others have changed since it was begun. EIO when not all are known."""
        at = task * WORDS
        count = self._words[at + _COUNT] if task >= 0 else 0
        if not count:
            return []
        if count > OVERTAKEN:
            raise OSError(errno.EIO, "it is not known any more which bytes are newer than this request")
        words = self._words[at + _RANGES:at + _RANGES + 2 * count].tolist()
        return list(zip(words[::2], words[1::2], strict=True))

    def before(self, task: int) -> list[int] | None:
        """What remember() was told of a task; None when it was not."""
        at = task * WORDS
        return self._words[at + _BEFORE:at + _HOLDS].tolist() if task >= 0 and self._words[at + _HOLDS] else None

    def remember(self, task: int, words: Iterable[int]) -> None:
        """Up to BEFORE words for who must find out whether a task was done."""
        if task >= 0:
            at = task * WORDS + _BEFORE
            for place, word in enumerate(words, at):
                self._words[place] = word
            self._words[task * WORDS + _HOLDS] = 1

    def overtake(self, task: int, places: Iterable[Span], *, waits: bool = False) -> bool:
        """`places` are what a request made them.

        False when it has to wait for an older one, and do this again; only where it `waits`.
        """
        known = True
        for ino, start, length in places:
            if self._table is not None:
                known &= self._table.overtake(task, ino, start, start + length, waits)
            else:
                with self._lock:
                    known &= self._overtake(task, ino, start, start + length, waits)
        return known

    def done(self, task: int, count: int) -> None:
        """A request is done, and what it overtook is told so: its reply is the next thing."""
        if task >= 0:
            self._words[task * WORDS + _RESULT] = count + 1

    def failed(self, task: int, number: int) -> None:
        """A request failed with this errno."""
        if task >= 0:
            self._words[task * WORDS + _RESULT] = _FAILED + number

    def end(self, task: int) -> None:
        """The reply was given."""
        if task >= 0:
            self._words[task * WORDS] = 0

    def left(self) -> dict[int, tuple[int, Span]]:
        """By unique, what a server before this one has begun and not answered: the task, and what it changes."""
        words, found = self._words, {}
        for task, unique in enumerate(words[::WORDS].tolist()):
            if unique:
                ino, start, end = words[task * WORDS + _INO:task * WORDS + _END + 1].tolist()
                found[unique] = task, Span(ino, start, end - start)
        return found

    def _begin(self, unique: int, ino: int, start: int, end: int) -> int:
        """As underway_begin in loop/underway.c."""
        words, free = self._words, NONE
        while self._used and not words[(self._used - 1) * WORDS]:
            self._used -= 1
        for task in range(self._used):
            mine = words[task * WORDS]
            if mine == unique:
                return task
            if not mine and free < 0:
                free = task
        if free < 0 and self._used == TASKS:
            return NONE
        if free < 0:
            free, self._used = self._used, self._used + 1
        at = free * WORDS
        words[at + _HOLDS] = 0
        words[at + _RESULT:at + _RANGES] = array("Q", (0, ino, start, end, 0))
        words[at] = unique
        return free

    def _overtake(self, by: int, ino: int, start: int, end: int, waits: bool) -> bool:
        """As underway_overtake in loop/underway.c."""
        words, known = self._words, True
        for task in range(self._used):
            at = task * WORDS
            if task != by and words[at] and words[at + _INO] == ino:
                first, last = max(start, words[at + _START]), min(end, words[at + _END])
                if first < last:
                    older = by < 0 or words[at] < words[by * WORDS]  # else two might wait for each other
                    waited_for = older and not words[at + _RESULT] and not words[at + _HOLDS]
                    known &= self._add_range(at, first, last, waits and waited_for)
        return known

    def _add_range(self, at: int, start: int, end: int, waits: bool) -> bool:
        words, count = self._words, self._words[at + _COUNT]
        for place in range(at + _RANGES, at + _RANGES + 2 * min(count, OVERTAKEN), 2):
            if start <= words[place + 1] and words[place] <= end:
                words[place], words[place + 1] = min(start, words[place]), max(end, words[place + 1])
                return True
        if count == OVERTAKEN and waits:
            return False
        if count < OVERTAKEN:
            words[at + _RANGES + 2 * count], words[at + _RANGES + 2 * count + 1] = start, end
        words[at + _COUNT] = min(count, OVERTAKEN) + 1
        return True
