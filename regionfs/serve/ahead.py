"""Composed files are read ahead of who reads them in sequence, on another core.

EROFS copies from the page cache of the sources into its own in the thread that reads, and that thread copies once more.
Here the first of these copies is made for it, up to AHEAD segments before it gets there: bench/README.md has what that
brings. Nobody says where a reader is, for none of its requests comes to us. So the first huge page of every segment is
left to the reader: when it is all in the page cache somebody came by in sequence, and the segments after it are filled.

Looked at ever less often the longer nothing happens: each look comes a fiftieth of that time after the one before.
"""

from __future__ import annotations

import logging
import os
import threading
import time

from regionfs.modes import pages

log = logging.getLogger("regionfs")

SEGMENT = 4         # huge pages; the reader fills the first, and copying all takes it as long as filling three
AHEAD = 4           # segments filled before the reader's place, once it has read as many
SHORTEST = 0.0001   # seconds between two looks
PART = 50           # of the time since something happened, that passes until the next look


class Reader:
    """Whoever reads one open file in sequence. Used by one thread."""

    def __init__(self, fd: int, huge: int) -> None:
        """A duplicate of `fd` is ours to close; `huge` are the bytes of a huge page."""
        self._fd = os.dup(fd)
        self._huge = huge
        self._size = os.fstat(fd).st_size
        self._front = self._filled = 0  # huge pages: where the reader is looked for, and up to where we have filled
        self._reach = 1                 # segments to fill at the next step
        self._moved = time.monotonic()

    def step(self) -> bool:
        """Fill ahead of the reader if it has got further; False when there is nothing left to do. OSError."""
        if self._there(self._front):
            end = self._front + self._reach * SEGMENT
            for number in range(max(self._filled, self._front), end):
                if number % SEGMENT and self._length(number) > 0 and not self._there(number):
                    pages.fill(self._fd, number * self._huge, self._length(number))
            self._filled, self._front, self._reach = end, self._front + SEGMENT, min(2 * self._reach, AHEAD)
            self._moved = time.monotonic()
        return self._length(self._front) > 0

    def pause(self) -> float:
        """Seconds until the next look is worth it."""
        return max(SHORTEST, (time.monotonic() - self._moved) / PART)

    def close(self) -> None:
        """Let go of the file."""
        os.close(self._fd)

    def _there(self, number: int) -> bool:
        return pages.cached(self._fd, number * self._huge, self._length(number))

    def _length(self, number: int) -> int:
        return min(self._huge, self._size - number * self._huge)


class ReadAhead:
    """The readers of all composed files, served by one thread while there are any. Safe to use from many threads."""

    def __init__(self) -> None:
        # on a single core it would only take the reader's time
        self._huge = pages.huge() if len(os.sched_getaffinity(0)) > 1 else 0
        self._readers: dict[int, Reader] = {}
        self._gone: list[Reader] = []
        self._change = threading.Condition()
        self._running = False

    def follow(self, ino: int, fd: int) -> None:
        """The file behind `fd` was opened for the first time since leave()."""
        if not self._huge or os.fstat(fd).st_size <= SEGMENT * self._huge:
            return
        try:
            reader = Reader(fd, self._huge)
        except OSError as error:  # no descriptor left: it reads alone
            log.debug("reading ahead: %s", error)
            return
        with self._change:
            self._readers[ino] = reader
            self._change.notify()
            if not self._running:
                self._running = True
                threading.Thread(target=self._run, name="read-ahead", daemon=True).start()

    def leave(self, ino: int) -> None:
        """The file was closed."""
        with self._change:
            if (reader := self._readers.pop(ino, None)) is not None:
                self._gone.append(reader)  # the thread may be busy with it
                self._change.notify()

    def close(self) -> None:
        """Leave all."""
        for ino in list(self._readers):
            self.leave(ino)

    def _run(self) -> None:
        while True:
            with self._change:
                while self._gone:
                    self._gone.pop().close()
                if not self._readers:
                    self._running = False
                    return
                readers = dict(self._readers)
            for ino in [ino for ino, reader in readers.items() if not self._step(reader)]:
                self.leave(ino)
            with self._change:
                if self._readers and not self._gone:
                    self._change.wait(min(reader.pause() for reader in self._readers.values()))

    @staticmethod
    def _step(reader: Reader) -> bool:
        try:
            return reader.step()
        except OSError as error:  # the reader will meet it and say so, or the kernel is too old for this
            log.debug("reading ahead: %s", error)
            return False
