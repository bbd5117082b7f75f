"""The fast path: READs and WRITEs that a compiled loop answers, taught by what Python answered.

The loop (_fast.c, optional) answers what lies in maps that it knows and, for a READ, in the page cache; all
else comes here. After Python has answered a READ or WRITE that the loop did not know, the loop learns the
file's map and the descriptors behind the range. When the tree of files changes it forgets everything.
Without the compiled module, or with REGIONFS_FAST=0, every request comes here.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from regionfs.descriptors import duplicates
from regionfs.fs import FileSystem
from regionfs.serve.relay import Relay
from regionfs.tree import FileNode
from regionfs.wire import device

if TYPE_CHECKING:
    from regionfs.serve._fast import Table


def table() -> Table | None:
    """A table of the compiled module; None without it."""
    if os.environ.get("REGIONFS_FAST") == "0":
        return None
    try:
        from regionfs.serve._fast import Table
    except ImportError:
        return None
    return Table(duplicates())


class FastPath:
    """Receives requests of one connection, answering the common ones by itself."""

    def __init__(self, fs: FileSystem, fd: int) -> None:
        self._fs, self._device = fs, fd
        self._table = table()
        fs.on_share = self.forget

    def receive(self, request: memoryview, answer: memoryview, relay: Relay) -> int | None:
        """Bytes of the next request, negative for a READ that would wait for a disk.

        0 when there will be none; None when another thread leads. `answer` is scratch space. OSError.
        """
        if self._table is None:
            return device.receive(self._device, request)
        return self._table.serve(self._device, request, answer, relay.turns)

    def learn(self, ino: int, offset: int, length: int) -> None:
        """Have such requests answered by the loop from now on, where it can."""
        if self._table is None:
            return
        epoch = self._table.epoch
        node = self._fs.file(ino)
        regions = node.spec.regions
        if not self._table.knows(ino):
            alone = not self._fs.shares_writes(ino)
            self._table.learn(epoch, ino, 0 if regions is None else regions.size,
                              () if regions is None else regions.columns, max(1, len(node.spec.sources)),
                              node.spec.writable and alone)
        keys = regions.targets(offset, length) if regions is not None else [(0, node.spec.sources[0])]
        for target, key in keys:
            if not self._table.use(epoch, ino, target, node.sources.fd(key)):
                self.forget()

    def forget(self) -> None:
        """Files may have changed: nothing is known any more."""
        if self._table is not None:
            self.count()
            self._table.clear()

    def count(self) -> None:
        """Bring the files' counters up to date."""
        if self._table is None:
            return
        for ino, *counts in self._table.harvest():
            node = self._fs.tree.nodes.get(ino)
            if isinstance(node, FileNode):
                node.counters.add(*counts)
