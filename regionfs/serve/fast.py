"""The fast path: READs and WRITEs that a compiled loop answers, taught by what Python answered.

The loop (loop/*.c, optional) answers what lies in maps that it knows and, for a READ, in the page cache; all
else comes here. After Python has answered a READ or WRITE that the loop did not know, the loop learns the
file's map and the descriptors behind the range. When the tree of files changes it forgets everything.
Without the compiled module, or with REGIONFS_FAST=0, every request comes here.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from regionfs.descriptors import duplicates
from regionfs.errors import RegionfsError
from regionfs.fs import FileSystem
from regionfs.serve.relay import TURN, Relay
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
        try:
            self._learn(self._table, epoch, ino, offset, length)
        except (OSError, RegionfsError):  # the file or a source went away since: whoever asks next is told
            return

    def _learn(self, table: Table, epoch: int, ino: int, offset: int, length: int) -> None:
        node = self._fs.file(ino)
        regions = node.spec.regions
        if not table.knows(ino):
            alone = not self._fs.shares_writes(ino)
            table.learn(epoch, ino, 0 if regions is None else regions.size, () if regions is None else regions.columns,
                        max(1, len(node.spec.sources)), node.spec.writable and alone, node.counters)
        keys = {0: node.spec.sources[0]} if regions is None else dict(regions.targets(offset, length))
        for target, key in keys.items():
            if not table.use(epoch, ino, target, node.sources.fd(key)):
                self.forget()
                return

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
