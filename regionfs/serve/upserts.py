"""Telling the kernel mappings before it asks: off the path of replies, one message a mapping.

Each question (BEGIN) means that the kernel's cache did not know; then a batch around it goes out from a
thread of its own. The queue is short and a batch bounded: what does not fit is asked for again.

A window is told whole when it was not told lately. Asked again at once, the kernel has dropped parts of it
(each completed write drops its range) or keeps nothing: then each batch is half the one before, so that
many small writes do not repeat a window each. After a question that is itself a write it is short at once.

**Writes and the cache** (fs/fuse/fuse_iomap.c of the patches). A write looks for a write mapping first. An
inode whose cache never held any counts as one without such a half, and the write goes wherever the read
mapping points, without a question: into read-only regions too. Once one write mapping was told, a write
that finds none asks. So in a file with rw regions every message brings a write mapping along, its own or the
first rw region's; not only the first message, since the inode may be dropped and come back in between.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from errno import ENOENT, ESTALE
from itertools import islice
from typing import NamedTuple

from regionfs.modes import iomap
from regionfs.plan import Mapping
from regionfs.regions import RegionMap
from regionfs.serve.threads import begin
from regionfs.wire import codec, iomap_v7
from regionfs.wire.iomap_v7 import Io, Notify, UpsertOut

log = logging.getLogger("regionfs")

QUEUE = 64       # batches that wait
LEAST = 8        # mappings in a batch
LATELY = 1.0     # seconds
REMEMBERED = 4096  # windows

Send = Callable[[list[codec.Buffer]], bool]


class Batch(NamedTuple):
    """One file's mappings around a position, in the order they are told."""

    ino: int
    regions: RegionMap
    pos: int
    io: Callable[[Mapping], Io]
    first_rw: Io | None        # of a file with rw regions
    change: bool               # the kernel asked for a write

    @property
    def window(self) -> tuple[int, int]:
        """Inode and window."""
        return self.ino, iomap.window(self.regions, self.pos)

    def messages(self, count: int) -> Iterator[UpsertOut]:
        """One mapping each, `count` at most."""
        for mapping in islice(iomap.batch(self.regions, self.pos), count):
            yield self._message(mapping)

    def _message(self, mapping: Mapping) -> UpsertOut:
        read = self.io(mapping)
        place = read if mapping.writable else self.first_rw
        write = iomap_v7.nocache(read) if place is None else iomap_v7.overwrite(place)
        return UpsertOut(self.ino, self.ino, read, write)


class Upserts:
    """A thread that tells batches in turn; it starts with the first one."""

    def __init__(self, send: Send, before_first: Callable[[], None]) -> None:
        self._send = send
        self._before_first = before_first
        self._queue: queue.Queue[Batch | None] = queue.Queue(QUEUE)
        self._waiting: set[tuple[int, int]] = set()             # windows in the queue
        self._told: OrderedDict[tuple[int, int], tuple[float, int]] = OrderedDict()  # window -> when, how many
        self._lock = threading.Lock()
        self._closed = False
        self._thread: threading.Thread | None = None

    def add(self, batch: Batch) -> None:
        """Tell `batch` by and by, unless the same waits already or too many do."""
        with self._lock:
            if self._closed or batch.window in self._waiting:
                return
            if self._thread is None:
                self._thread = begin(self._run, name="upserts")
            if self._thread is None:  # none to be had: the kernel asks for what it is not told
                return
            try:
                self._queue.put_nowait(batch)
            except queue.Full:
                return
            self._waiting.add(batch.window)

    def settle(self) -> None:
        """Wait until everything added so far has been told."""
        self._queue.join()

    def stop(self) -> None:
        """Tell no more."""
        with self._lock:
            self._closed = True

    def close(self) -> None:
        """Tell no more; returns when the thread has ended."""
        self.stop()
        if self._thread is not None:
            self._queue.put(None)
            self._thread.join()

    def _run(self) -> None:
        self._before_first()
        while (batch := self._queue.get()) is not None:
            try:
                self._tell(batch)
            finally:
                with self._lock:
                    self._waiting.discard(batch.window)
                self._queue.task_done()
        self._queue.task_done()

    def _count(self, batch: Batch) -> int:
        """How many mappings this batch may have."""
        now = time.monotonic()
        when, last = self._told.pop(batch.window, (0.0, 0))
        count = 2 * iomap.WINDOW if now - when > LATELY else max(last // 2, LEAST)
        if batch.change:
            count = LEAST
        self._told[batch.window] = now, count
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)
        return count

    def _tell(self, batch: Batch) -> None:
        try:
            for message in batch.messages(self._count(batch)):
                if self._closed or not self._send(codec.notify(Notify.UPSERT_MAPPINGS, iomap_v7.pack(message))):
                    return
        except OSError as error:
            if error.errno not in (ENOENT, ESTALE):  # the kernel has forgotten the inode
                log.warning("telling the kernel mappings: %s", error)
