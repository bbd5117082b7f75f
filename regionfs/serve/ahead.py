"""Composed files are read ahead of who reads them in sequence, on another core.

EROFS copies from the page cache of the sources into its own in the thread that reads, and that thread copies once more.
Here the first of these copies is made for it, up to AHEAD segments before it gets there: bench/README.md has what that
brings. Only what the sources' page cache holds is copied: no disk is asked, and none is waited for.

Nobody says where a reader is, for none of its requests comes to us. So the first huge page of every segment is left to
the reader: when it is all in the page cache somebody came by in sequence, and the segments after it are filled. Looked
at ever less often the longer nothing happens: each look comes a fiftieth of that time after the one before.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from itertools import islice

from regionfs.errors import RegionfsError
from regionfs.modes import pages
from regionfs.plan import plan_read
from regionfs.regions import Kind, RegionMap
from regionfs.source import Sources

log = logging.getLogger("regionfs")

SEGMENT = 4         # huge pages; the reader fills the first, and copying all takes it as long as filling three
AHEAD = 4           # segments filled before the reader's place, once it has read as many
PIECES = 64         # of regions in a huge page; to look at more takes longer than to copy them
MOST = 16           # readers followed at once, each with a descriptor
SHORTEST = 0.0001   # seconds between two looks
PART = 50           # of the time since something happened, that passes until the next look


class Reader:
    """Whoever reads one open file in sequence. Used by one thread, but for `left`."""

    def __init__(self, ino: int, fd: int, regions: RegionMap, sources: Sources, huge: int) -> None:
        """A duplicate of `fd` is ours to close; `huge` are the bytes of a huge page."""
        self.ino = ino
        self.left = False  # not to be followed any more
        self._fd = os.dup(fd)
        self._regions, self._sources = regions, sources
        self._huge = huge
        self._front = self._filled = 0  # huge pages: where the reader is looked for, and up to where we have filled
        self._reach = 1                 # segments to fill at the next step
        self._moved = time.monotonic()

    def step(self) -> bool:
        """Fill ahead of the reader if it has got further; False when there is nothing left to do. OSError."""
        if self._there(self._front):
            end = self._front + self._reach * SEGMENT
            for number in range(max(self._filled, self._front), end):
                if number % SEGMENT and self._length(number) > 0 and not self.left:
                    self._fill(number)
            self._filled, self._front, self._reach = end, self._front + SEGMENT, min(2 * self._reach, AHEAD)
            self._moved = time.monotonic()
        return self._length(self._front) > 0

    def due(self) -> float:
        """When the next look is worth it, in seconds as time.monotonic()."""
        now = time.monotonic()
        return now + max(SHORTEST, (now - self._moved) / PART)

    def idle(self) -> float:
        """Seconds since the reader got further."""
        return time.monotonic() - self._moved

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)

    def _fill(self, number: int) -> None:
        offset, length = number * self._huge, self._length(number)
        if not self._there(number) and all_cached(self._regions, self._sources, offset, length):
            pages.fill(self._fd, offset, length)

    def _there(self, number: int) -> bool:
        return pages.cached(self._fd, number * self._huge, self._length(number))

    def _length(self, number: int) -> int:
        return min(self._huge, self._regions.size - number * self._huge)


def all_cached(regions: RegionMap, sources: Sources, offset: int, length: int) -> bool:
    """True when all that the sources have of a range is in the page cache; False also when it is in many pieces.

    SourceError or OSError when a source cannot be opened any more.
    """
    pieces = list(islice(plan_read(regions, offset, length), PIECES + 1))
    return len(pieces) <= PIECES and all(
        piece.kind is not Kind.SOURCE or pages.cached(sources.fd(piece.source), piece.address, piece.length)
        for piece in pieces)


class ReadAhead:
    """The readers of composed files, served by one thread while there are any. Safe to use from many threads."""

    def __init__(self) -> None:
        # on a single core it would only take the reader's time
        self._huge = pages.huge() if len(os.sched_getaffinity(0)) > 1 else 0
        self._readers: list[Reader] = []  # those that have left too, until the thread closes them
        self._change = threading.Condition()
        self._running = False

    def follow(self, ino: int, fd: int, regions: RegionMap, sources: Sources) -> None:
        """The file behind `fd` was opened, for the first time since leave(). Of many the idlest is left."""
        if not self._huge or regions.size <= SEGMENT * self._huge:
            return
        try:
            with self._change:
                staying = [reader for reader in self._readers if not reader.left]
                if len(staying) >= MOST:
                    max(staying, key=Reader.idle).left = True
                if len(self._readers) >= 2 * MOST:  # the thread is held up
                    return
                if not self._running:
                    threading.Thread(target=self._run, name="read-ahead", daemon=True).start()
                    self._running = True
                self._readers.append(Reader(ino, fd, regions, sources, self._huge))
                self._change.notify()
        except (OSError, RuntimeError) as error:  # no descriptor or thread left: it reads alone
            log.debug("reading ahead: %s", error)

    def leave(self, ino: int) -> None:
        """The file was closed."""
        with self._change:
            for reader in self._readers:
                reader.left = reader.left or reader.ino == ino
            self._change.notify()

    def close(self) -> None:
        """Leave all."""
        with self._change:
            for reader in self._readers:
                reader.left = True
            self._change.notify()

    def _run(self) -> None:
        due: dict[Reader, float] = {}
        while work := self._wait(due):
            gone, staying = work
            for reader in gone:
                due.pop(reader, None)
                reader.close()
            for reader in staying:
                if due.get(reader, 0) <= time.monotonic():
                    reader.left = not _step(reader) or reader.left
                    due[reader] = reader.due()

    def _wait(self, due: dict[Reader, float]) -> tuple[list[Reader], list[Reader]] | None:
        """Once there is something to do: those that have left, and those that stay; None when nobody is left."""
        with self._change:
            while self._readers:
                gone = [reader for reader in self._readers if reader.left]
                pause = min(due.get(reader, 0) for reader in self._readers) - time.monotonic()
                if gone or pause <= 0:
                    self._readers = [reader for reader in self._readers if not reader.left]
                    return gone, list(self._readers)
                self._change.wait(pause)
            self._running = False
            return None


def _step(reader: Reader) -> bool:
    try:
        return reader.step()
    except (OSError, RegionfsError) as error:  # the reader will meet it and say so, or the kernel is too old for this
        log.debug("reading ahead: %s", error)
        return False
