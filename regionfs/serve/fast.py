"""The fast path: READs, WRITEs and OPENs that a compiled loop answers, taught by what Python answered.

The loop (loop/*.c, optional) answers what lies in maps that it knows and, for a READ, in the page cache; all
else comes here. After Python has answered a READ or WRITE that the loop did not know, the loop learns the
file's map and the descriptors behind the range; after an OPEN that found the page cache still true, what the
sources were then; after a second one in passthrough, also where its handles are counted: see backing. When the
tree of files changes it forgets everything.
Without the compiled module, or with REGIONFS_FAST=0, every request comes here.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from regionfs.descriptors import duplicates
from regionfs.errors import RegionfsError
from regionfs.fs import FileSystem
from regionfs.manifest.inspect import SourceFacts
from regionfs.modes.choose import Mode
from regionfs.serve.ledger import Ledger
from regionfs.serve.relay import TURN, Relay
from regionfs.tree import FileNode
from regionfs.wire import device

if TYPE_CHECKING:
    from regionfs.serve._fast import Table

IDLE = 30          # seconds without a request after which no source stays mapped
MOST_SOURCES = 16  # of a file whose OPENs the loop answers: each is a stat(2)


def table(poll: int = 0) -> Table | None:
    """A table of the compiled module; None without it. `poll`: microseconds awake before the loop sleeps."""
    if os.environ.get("REGIONFS_FAST") == "0":
        return None
    try:
        from regionfs.serve._fast import Table
    except ImportError:
        return None
    return Table(duplicates(), poll * 1000, IDLE * 1000)


class FastPath:
    """Receives requests of one connection, answering the common ones by itself."""

    def __init__(self, fs: FileSystem, fd: int, poll: int = 0, ledger: Ledger | None = None) -> None:
        """`poll`: microseconds that the loop stays awake for the next request.

        `ledger`: where handles on backing ids of this very descriptor are written down.
        """
        self._fs, self._device = fs, fd
        self._table = table(poll)
        self._counts_handles = self._table is not None and ledger is not None
        if self._table is not None and ledger is not None:
            ledger.share(self._table)
        os.set_blocking(fd, self._table is None)  # the loop asks whether there is more, and waits in poll(2)
        fs.on_share = self.forget

    def receive(self, request: memoryview, answer: memoryview, relay: Relay) -> int | None:
        """Bytes of the next request, negative for a READ that would wait for a disk.

        0 when there will be none; None when another thread leads. `answer` is scratch space. OSError.
        """
        if self._table is None:
            return device.receive(self._device, request)
        turn = relay.turns[TURN]
        if not relay.leads():  # looked at after the turn: it is ours, or None comes at once
            return None
        return self._table.serve(self._device, request, answer, relay.turns, turn)

    def learn(self, ino: int, offset: int, length: int) -> None:
        """Have such requests answered by the loop from now on, where it can."""
        if self._table is None:
            return
        epoch = self._table.epoch  # before anything is looked at: who changes it forgets after
        with _gone_is_fine():
            node = self._fs.file(ino)
            regions = node.spec.regions
            self._learn_map(self._table, epoch, node)
            keys = {0: node.spec.sources[0]} if regions is None else dict(regions.targets(offset, length))
            for target, key in keys.items():
                if not self._table.use(epoch, ino, target, node.sources.fd(key)):
                    self.forget()
                    return

    def learn_open(self, ino: int) -> None:
        """After an OPEN for reading in userspace that kept the page cache: have the next ones answered by the loop."""
        if self._table is None:
            return
        epoch = self._table.epoch
        with _gone_is_fine():
            node = self._fs.file(ino)
            if node.choice.mode is not Mode.USERSPACE or len(node.spec.sources) > MOST_SOURCES or (
                    self._fs.is_written(node)):
                return
            seen = [node.sources.unchanged(key) for key in node.spec.sources]
            known = [pair for pair in seen if pair is not None]
            if len(known) < len(seen) or node.cached != tuple(facts.stamp for _, facts in known):
                return
            self._learn_map(self._table, epoch, node)
            self._table.open(epoch, ino, tuple(_row(*pair) for pair in known))

    def learn_backed(self, ino: int, hand_over: Callable[[FileNode, Callable[[int, int], None]], None]) -> None:
        """After an OPEN in passthrough: have the next ones answered by the loop, and RELEASEs.

        `hand_over` as that of Backings.
        """
        if self._table is None or not self._counts_handles:
            return
        table, epoch = self._table, self._table.epoch
        with _gone_is_fine():
            node = self._fs.file(ino)
            if node.choice.mode is not Mode.PASSTHROUGH or node.counters.opens[Mode.PASSTHROUGH] < 2 or (
                    self._fs.is_written(node)):
                return
            key, = node.spec.sources
            pair = node.sources.unchanged(key)
            if pair is None:
                return
            # one more open, begun after the source was what it is: it finds what the kernel may still hold
            opened, regions = self._fs.open(ino, os.O_RDONLY), node.spec.regions
            if opened.stamps != (pair[1].stamp,) or not opened.settled or opened.news is not None or (
                    regions is not None and regions.size != pair[1].size):
                return
            self._learn_map(table, epoch, node)
            hand_over(node, lambda at, made: table.open(epoch, ino, (_row(*pair),), at, made))

    def take_back(self, ino: int) -> int:
        """Have a file's handles counted by Python; when the source in use was looked at, or 0 if they were before."""
        return 0 if self._table is None else self._table.take_back(ino)

    def _learn_map(self, table: Table, epoch: int, node: FileNode) -> None:
        if table.knows(node.ino):
            return
        regions = node.spec.regions
        alone = not self._fs.shares_writes(node.ino)
        table.learn(epoch, node.ino, 0 if regions is None else regions.size, () if regions is None else regions.columns,
                    max(1, len(node.spec.sources)), node.spec.writable and alone, node.counters)

    def forget(self) -> None:
        """Files may have changed: nothing is known any more."""
        if self._table is not None:
            self._table.clear()
            self.count()

    def count(self) -> None:
        """Bring the files' counters up to date."""
        if self._table is None:
            return
        for counters, *counts in self._table.harvest():
            counters.add(*counts)


def _row(place: str, facts: SourceFacts) -> tuple[bytes | int, ...]:
    """A source as the table wants it."""
    return (os.fsencode(place), facts.device, facts.inode, stat.S_IFREG | facts.mode, facts.uid, facts.gid,
            facts.size, facts.blocks, *divmod(facts.mtime_ns, 10**9), *divmod(facts.ctime_ns, 10**9))


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    """A file or source that went away since: whoever asks next is told."""
    try:
        yield
    except (OSError, RegionfsError):
        return
