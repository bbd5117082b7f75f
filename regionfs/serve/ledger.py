"""What a server writes down for its successor: which inodes are open on which backing ids.

Backing ids belong to the connection and outlive the server that made them; the kernel fails every
further open of an inode that names another id. So the table lies in a shared file, written before
the kernel is answered, and a server that takes over reads it. The successor also gets unanswered
requests once more: a journal of the last OPENs and RELEASEs tells it which of those were counted.

A server may die between any two stores. So a record, which is a request and what it made of its
inode, counts once the journal's position has moved past it; its slot is written afterwards, and by
the successor again.

Layout, in 8-byte words: journal position, JOURNAL records of unique, ino, backing id, handles,
stamp, then SLOTS slots of the last four. A slot without handles is free.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from regionfs.digest import blake2b

JOURNAL = 256
SLOTS = 1 << 16
WORDS = 4  # per slot; a record has the request's unique before them
_RECORD = 1 + WORDS
_FIRST = 1 + JOURNAL * _RECORD
_SIZE = 8 * (_FIRST + SLOTS * WORDS)


class Entry(NamedTuple):
    """One open inode; `backing_id` 0 is direct I/O, `stamp` what the backing file was made from."""

    ino: int
    backing_id: int
    handles: int
    stamp: int


class Ledger:
    """The table in the file at `path`, or in memory only without one. Callers exclude each other."""

    def __init__(self, path: Path | None = None) -> None:
        fd = -1 if path is None else os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if fd >= 0:
                os.ftruncate(fd, _SIZE)
            self._words = memoryview(mmap.mmap(fd, _SIZE)).cast("Q")
        finally:
            if fd >= 0:
                os.close(fd)
        self._slots = {entry.ino: slot for slot, entry in self._scan()}
        self._next = 0
        if (last := self.last()) is not None:
            self._apply(last)

    def entries(self) -> list[Entry]:
        """Every open inode that was written down."""
        return [entry for _, entry in self._scan()]

    def last(self) -> Entry | None:
        """What the last request that was counted made of its inode."""
        position = self._words[0]
        if not position:
            return None
        at = 1 + (position - 1) % JOURNAL * _RECORD
        return Entry(*self._words[at + 1:at + _RECORD].tolist())

    def write(self, unique: int, entry: Entry) -> bool:
        """Count a request and what it made of its inode; without handles that is struck out.

        False when the table is full. `unique` 0: no request.
        """
        if entry.handles and entry.ino not in self._slots and len(self._slots) == SLOTS:
            return False
        words = self._words
        position = words[0]
        at = 1 + position % JOURNAL * _RECORD
        words[at], words[at + 1], words[at + 2], words[at + 3], words[at + 4] = unique, *entry
        words[0] = position + 1
        self._apply(entry)
        return True

    def counted(self, unique: int) -> bool:
        """True when a request was counted already."""
        uniques = self._words[1:_FIRST:_RECORD].tolist()
        del uniques[self._words[0] % JOURNAL]  # the record that may be half written
        return unique in uniques

    def _apply(self, entry: Entry) -> None:
        slot = self._slots.get(entry.ino)
        if slot is None:
            if not entry.handles:
                return
            slot = self._slots[entry.ino] = self._free()
        words, at = self._words, _FIRST + slot * WORDS
        words[at + 2] = 0  # free while it is half written
        words[at], words[at + 1], handles, words[at + 3] = entry
        words[at + 2] = handles
        if not handles:
            del self._slots[entry.ino]

    def _free(self) -> int:
        while self._words[_FIRST + self._next * WORDS + 2]:
            self._next = (self._next + 1) % SLOTS
        return self._next

    def _scan(self) -> Iterator[tuple[int, Entry]]:
        handles = self._words[_FIRST + 2::WORDS].tolist()
        for slot, count in enumerate(handles):
            if count:
                at = _FIRST + slot * WORDS
                yield slot, Entry(*self._words[at:at + WORDS].tolist())


def stamp_of(value: object) -> int:
    """A number for what a backing file was made from; 0 for nothing."""
    if value is None:
        return 0
    return int.from_bytes(blake2b(repr(value).encode(), digest_size=8).digest(), "little") or 1
