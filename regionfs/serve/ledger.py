"""What a server writes down for its successor: which inodes are open on which backing ids.

Backing ids belong to the connection and outlive the server that made them; the kernel fails every
further open of an inode that names another id. So the table lies in a shared file, written before
the kernel is answered, and a server that takes over reads it. The successor also gets unanswered
requests once more: a journal of the last OPENs and RELEASEs tells it which of those were counted.

A server may die between any two stores. So a record, which is a request and what it made of its
inode, counts once the journal's position has moved past it; its slot is written afterwards, and by
the successor again. Where the compiled loop serves, it makes the same stores by itself (loop/ledger.c),
for the inodes that were handed to it, and Python's as well, so that they exclude each other.

Layout, in 8-byte words: journal position, JOURNAL records of unique, ino, backing id, handles,
stamp, then SLOTS slots of the last four. A slot without handles is free; its other words change only then.
Behind them are the tasks of underway.py.
"""

from __future__ import annotations

import logging
import mmap
import os
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from regionfs.digest import blake2b
from regionfs.serve import underway

if TYPE_CHECKING:
    from regionfs.serve._fast import Table

log = logging.getLogger("regionfs")

JOURNAL = 1 << 14  # of all that is counted while one thread gets to its answer; the loop counts 200 in a millisecond
SLOTS = 1 << 16
WORDS = 4  # per slot; a record has the request's unique before them
_RECORD = 1 + WORDS
_FIRST = 1 + JOURNAL * _RECORD
_TASKS = _FIRST + SLOTS * WORDS
_SIZE = 8 * (_TASKS + underway.SIZE)


class Entry(NamedTuple):
    """One open inode; `backing_id` 0 is direct I/O, `stamp` what the backing file was made from."""

    ino: int
    backing_id: int
    handles: int
    stamp: int


def open_ledger(path: Path) -> int:
    """The ledger's file at `path`, with all of its room; where the file system has none, memory without a name.

    So no store into it can fail: that would be a SIGBUS, for this server and for every one after it.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(fd, 0, _SIZE)
    except OSError as error:
        os.close(fd)
        log.warning("%s: %s; it is kept in memory, and does not outlive the holder", path, error.strerror)
        path.unlink(missing_ok=True)
        fd = os.memfd_create("regionfs-ledger", os.MFD_CLOEXEC)
        os.ftruncate(fd, _SIZE)
    return fd


class Ledger:
    """The table in open_ledger's file, or in memory only without one. Callers exclude each other."""

    def __init__(self, place: Path | int | None = None) -> None:
        """`place`: a path, or a descriptor that stays the caller's."""
        fd = -1 if place is None else open_ledger(place) if isinstance(place, Path) else place
        try:
            if fd >= 0 and os.fstat(fd).st_size < _SIZE:  # an older version made it
                os.posix_fallocate(fd, 0, _SIZE)
            self._words = memoryview(mmap.mmap(fd, _SIZE)).cast("Q")
        finally:
            if isinstance(place, Path):
                os.close(fd)
        #: what other requests change, while they are under way
        self.underway = underway.Underway(self._words[_TASKS:])
        self._slots = {entry.ino: slot for slot, entry in self._scan()}
        self._used = bytearray(SLOTS)  # 1 for each of them
        for slot in self._slots.values():
            self._used[slot] = 1
        self._before = array("Q", self._journal(0))
        self._table: Table | None = None
        last = self._last()
        if last is not None and (free := self._slot(last.ino)) is not None:
            self._fill(_at(free), last)
            self.settle(last.ino)

    def __contains__(self, ino: int) -> bool:
        """False for an inode that is not open; the loop may have struck out others."""
        return ino in self._slots

    def share(self, table: Table) -> None:
        """Let a loop write beside us."""
        table.share(self._words[:_TASKS], JOURNAL)
        self.underway.share(table)
        self._table = table

    def entries(self) -> list[Entry]:
        """Every open inode that was written down, by slot."""
        inos = sorted(self._slots, key=self._slots.__getitem__)
        return [entry for entry in map(self.get, inos) if entry is not None]

    def get(self, ino: int) -> Entry | None:
        """An inode's entry; None when it is not open."""
        slot = self._slots.get(ino)
        if slot is None:
            return None
        entry = Entry(*self._words[_at(slot):_at(slot) + WORDS].tolist())
        return entry if entry.handles else None

    def at(self, ino: int) -> int:
        """Where the slot of an open inode is, in words, for a loop that writes to it until settle()."""
        return _at(self._slots[ino])

    def reserve(self, ino: int) -> int | None:
        """The same of an inode that nobody has opened yet; None when there is no slot left."""
        slot = self._slot(ino)
        return None if slot is None else _at(slot)

    def settle(self, ino: int) -> bool:
        """An inode is not the loop's any more; True when it is open."""
        slot = self._slots.get(ino)
        if slot is None:
            return False
        if self._words[_at(slot) + 2]:
            return True
        del self._slots[ino]
        self._used[slot] = 0
        return False

    def settle_all(self) -> None:
        """No inode is the loop's any more."""
        for ino in list(self._slots):
            self.settle(ino)

    def write(self, unique: int, entry: Entry) -> bool:
        """Count a request and what it made of its inode; without handles that is struck out.

        False when the table is full. `unique` 0: no request.
        """
        slot = self._slot(entry.ino)
        if slot is None:
            return False
        if self._table is None:
            self._store(unique, _at(slot), entry)
        else:
            self._table.write(unique, _at(slot), *entry)
        self.settle(entry.ino)
        return True

    def counted(self, unique: int) -> bool:
        """True when a server before this one counted a request, and did not take that back by counting it again."""
        return self._before.count(unique) % 2 == 1

    def recent(self) -> set[int]:
        """Backing ids that the last requests named, open or not."""
        return set(self._journal(2))

    def _last(self) -> Entry | None:
        """What the last request that was counted made of its inode."""
        position = self._words[0]
        if not position:
            return None
        at = 1 + (position - 1) % JOURNAL * _RECORD
        return Entry(*self._words[at + 1:at + _RECORD].tolist())

    def _journal(self, word: int) -> list[int]:
        """A word of each record but the one that may be half written."""
        position = self._words[0]
        column: list[int] = self._words[1 + word:1 + min(position, JOURNAL) * _RECORD:_RECORD].tolist()
        if position >= JOURNAL:
            del column[position % JOURNAL]
        return column

    def _slot(self, ino: int) -> int | None:
        """An inode's slot, a free one for a new inode; None when there is none."""
        slot = self._slots.get(ino)
        if slot is None:
            slot = self._used.find(0)
            if slot < 0:
                return None
            self._slots[ino] = slot
            self._used[slot] = 1
        return slot

    def _store(self, unique: int, at: int, entry: Entry) -> None:
        """As ledger_write in loop/ledger.c."""
        words = self._words
        position = words[0]
        record = 1 + position % JOURNAL * _RECORD
        words[record], words[record + 1], words[record + 2], words[record + 3], words[record + 4] = unique, *entry
        words[0] = position + 1
        self._fill(at, entry)

    def _fill(self, at: int, entry: Entry) -> None:
        words = self._words
        if not words[at + 2]:
            words[at], words[at + 1], _, words[at + 3] = entry
        words[at + 2] = entry.handles

    def _scan(self) -> Iterator[tuple[int, Entry]]:
        if not self._words[0]:  # nothing was ever written: no page of it need be there
            return
        handles = self._words[_FIRST + 2:_TASKS:WORDS].tolist()
        for slot, count in enumerate(handles):
            if count:
                yield slot, Entry(*self._words[_at(slot):_at(slot) + WORDS].tolist())


def _at(slot: int) -> int:
    return _FIRST + slot * WORDS


def stamp_of(value: object) -> int:
    """A number for what a backing file was made from; 0 for nothing."""
    if value is None:
        return 0
    return int.from_bytes(blake2b(repr(value).encode(), digest_size=8).digest(), "little") or 1
