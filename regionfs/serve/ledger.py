"""What a server writes down for its successor: which inodes are open on which backing ids.

Backing ids belong to the connection and outlive the server that made them; the kernel fails every
further open of an inode that names another id. So the table lies in a shared file, written before
the kernel is answered, and a server that takes over reads it. The successor also gets unanswered
requests once more: a journal of the last OPENs and RELEASEs tells it which of those were counted.

Layout, in 8-byte words: journal position, JOURNAL uniques, then SLOTS slots of ino, backing id,
handles, stamp. A slot with ino 0 is free.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

JOURNAL = 256
SLOTS = 1 << 16
WORDS = 4  # per slot
_FIRST = 1 + JOURNAL
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

    def entries(self) -> list[Entry]:
        """Every open inode that was written down."""
        return [entry for _, entry in self._scan()]

    def write(self, entry: Entry) -> bool:
        """Write an inode down, or anew; without handles it is struck out. False when the table is full."""
        # the inode's number goes last in and first out: a half-written slot counts as free
        if not entry.handles:
            slot = self._slots.pop(entry.ino, None)
            if slot is not None:
                self._words[_FIRST + slot * WORDS] = 0
            return True
        slot = self._slots.get(entry.ino)
        if slot is None:
            slot = self._free()
            if slot is None:
                return False
            self._slots[entry.ino] = slot
        at = _FIRST + slot * WORDS
        self._words[at + 1], self._words[at + 2], self._words[at + 3] = entry[1:]
        self._words[at] = entry.ino
        return True

    def counted(self, unique: int) -> bool:
        """True when a request was counted already; else it is now."""
        if unique in self._words[1:_FIRST].tolist():
            return True
        self.count(unique)
        return False

    def count(self, unique: int) -> None:
        """Note a request as counted."""
        position = self._words[0]
        self._words[1 + position % JOURNAL] = unique
        self._words[0] = position + 1

    def _free(self) -> int | None:
        for _ in range(SLOTS):
            slot, self._next = self._next, (self._next + 1) % SLOTS
            if not self._words[_FIRST + slot * WORDS]:
                return slot
        return None

    def _scan(self) -> Iterator[tuple[int, Entry]]:
        inodes = self._words[_FIRST::WORDS].tolist()
        for slot, ino in enumerate(inodes):
            if ino:
                at = _FIRST + slot * WORDS
                yield slot, Entry(*self._words[at:at + WORDS].tolist())


def stamp_of(value: object) -> int:
    """A number for what a backing file was made from; 0 for nothing."""
    if value is None:
        return 0
    return int.from_bytes(blake2b(repr(value).encode(), digest_size=8).digest(), "little") or 1
