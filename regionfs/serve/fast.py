"""The fast path: the common requests that a compiled loop answers, taught by what Python answered.

The loop (loop/*.c, optional) answers what lies in maps that it knows and, for a READ, in the page cache; all
else comes here. After Python has answered a READ or WRITE that the loop did not know, the loop learns the
file's map and the descriptors behind the range; after an OPEN that found the page cache still true, what the
sources were then, and what stat(2) shows of them; after a second one in passthrough, also where its handles are
counted: see backing. When a mount begins nobody holds anything of it, so all this is learned beforehand. An open
that Python answers begins by having the loop tell nothing of the file. When the tree of files changes it forgets
everything.
Without the compiled module, or with REGIONFS_FAST=0, every request comes here.
"""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from threading import Lock, Thread
from typing import TYPE_CHECKING, NamedTuple

from regionfs.descriptors import duplicates
from regionfs.errors import RegionfsError
from regionfs.fs import FileSystem
from regionfs.manifest.body import Whole
from regionfs.manifest.inspect import SourceFacts
from regionfs.modes.choose import Mode
from regionfs.serve.entries import entry_out
from regionfs.serve.ledger import Ledger
from regionfs.serve.relay import TURN, Relay
from regionfs.source import Sources
from regionfs.stamps import old_enough
from regionfs.tree import FileNode
from regionfs.units import MAX_OFFSET
from regionfs.wire import device

if TYPE_CHECKING:
    from regionfs.serve._fast import Table

log = logging.getLogger("regionfs")

IDLE = 30          # seconds without a request after which no source stays mapped
MOST_SOURCES = 16  # of a file whose OPENs the loop answers: each is a stat(2)
MOST_FILES, MOST_REGIONS = 1 << 15, 64  # learned when a mount begins, which a file takes 20 us longer for
MOST_OPEN = 64     # sources that are opened for that
PATIENCE = 1.0     # seconds that it may take

Known = list[tuple[str, SourceFacts]]  # of each source its path and what was found there
HandOver = Callable[[FileNode, Callable[[int, int], None]], None]


class Shown(NamedTuple):
    """What LOOKUP and GETATTR tell of a file; nothing where Python tells."""

    entry: bytes = b""   # a packed EntryOut
    live: bool = False   # the access time is the source's own
    parent: int = 0      # the directory where LOOKUP finds it
    name: bytes = b""


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

    def __init__(self, fs: FileSystem, fd: int, poll: int = 0, ledger: Ledger | None = None, *,
                 shows: bool = True) -> None:
        """`poll`: microseconds that the loop stays awake for the next request.

        `ledger`: where handles on backing ids of this very descriptor are written down. `shows`: whether names and
        attributes are told by the loop, too.
        """
        self._fs, self._device, self._shows = fs, fd, shows
        self._table = table(poll)
        self._beginning, self._begun = Lock(), False  # no request was read yet, and what the kernel holds is known
        self._counts_handles = self._table is not None and ledger is not None
        if self._table is not None and ledger is not None:
            ledger.share(self._table)
        os.set_blocking(fd, self._table is None)  # the loop asks whether there is more, and waits in poll(2)
        fs.on_share = self.forget
        if self._table is not None:
            fs.on_open = self._table.hide

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
            body = node.spec.body
            self._learn_map(self._table, epoch, node)
            keys = {0: body.source} if isinstance(body, Whole) else dict(body.regions.targets(offset, length))
            for target, key in keys.items():
                self._table.use(epoch, ino, target, node.sources.fd(key))

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
            known = _unchanged(node)
            if known is not None and node.cached == tuple(facts.stamp for _, facts in known):
                self._teach(self._table, epoch, node, known, self._shown(node, known))

    def learn_backed(self, ino: int, hand_over: HandOver) -> None:
        """After an OPEN in passthrough: have the next ones answered by the loop, and RELEASEs.

        `hand_over` as that of Backings.
        """
        if self._table is None or not self._counts_handles:
            return
        epoch = self._table.epoch
        with _gone_is_fine():
            node = self._fs.file(ino)
            if node.choice.mode is not Mode.PASSTHROUGH or node.counters.opens[Mode.PASSTHROUGH] < 2 or (
                    self._fs.is_written(node)):
                return
            # one more open, begun after the source was what it is: it finds what the kernel may still hold
            opened = self._fs.open(ino, os.O_RDONLY)
            if opened.settled and opened.news is None:
                self._teach_backed(self._table, epoch, node, opened.stamps, hand_over)

    def learn_all(self, hand_over: HandOver) -> None:
        """Before a mount's first request: have its files looked up and opened by the loop, as long as nothing changes.

        For so long that nobody waits for a slow source: what is not known by then is learned when it is used.
        `hand_over` as hand_over_unopened() of Backings.
        """
        if self._table is None:
            return
        learner = Thread(target=self._learn_files, args=(self._table, hand_over), name="learner", daemon=True)
        try:
            learner.start()
            learner.join(PATIENCE)
        except RuntimeError as error:  # no thread left
            log.debug("learning the files of a new mount: %s", error)
        with self._beginning:
            self._begun = True

    def _learn_files(self, table: Table, hand_over: HandOver) -> None:
        epoch, now = table.epoch, time.time_ns()
        nodes = list(islice(self._fs.tree.files.values(), MOST_FILES))
        quiet = _Quiet()  # whoever begins to write after `now` gives a source stamps that are not old enough
        opened = {key for node in nodes if node.choice.mode is Mode.USERSPACE for key in node.spec.sources}
        for node in nodes:
            keys = node.spec.sources
            if self._fs.is_written(node) or len(keys) > MOST_SOURCES or node.spec.body.count > MOST_REGIONS:
                continue
            with _gone_is_fine():
                seen = self._fs.look(node)
                if not all(old_enough(facts, now) for facts in seen):
                    continue
                stamps = tuple(facts.stamp for facts in seen)
                if node.choice.mode is Mode.PASSTHROUGH and self._counts_handles:
                    self._teach_backed(table, epoch, node, stamps, partial(self._before_first, hand_over))
                elif node.choice.mode is Mode.USERSPACE and len(opened) <= MOST_OPEN and not self._fs.uncached(node):
                    self._learn_new(table, epoch, node, stamps, quiet)
            if self._begun:
                return

    def _learn_new(self, table: Table, epoch: int, node: FileNode, stamps: object, quiet: _Quiet) -> None:
        """A file in userspace of which the kernel holds nothing, unless the first request was faster."""
        known, body = _unchanged(node), node.spec.body
        if known is None or not all(quiet[node.sources, key] for key in node.spec.sources):
            return
        shown = self._shown(node, known)
        with self._beginning:
            if not self._begun:
                node.fill(stamps)  # with nothing yet
                self._teach(table, epoch, node, known, shown)
                self.learn(node.ino, 0, MAX_OFFSET if isinstance(body, Whole) else body.regions.size)

    def _before_first(self, hand_over: HandOver, node: FileNode, give: Callable[[int, int], None]) -> None:
        with self._beginning:
            if not self._begun:
                hand_over(node, give)

    def _teach(self, table: Table, epoch: int, node: FileNode, known: Known, shown: Shown) -> None:
        """A file in userspace, whose page cache is filled from sources as `known`."""
        self._learn_map(table, epoch, node)
        table.open(epoch, node.ino, tuple(_row(*pair) for pair in known), shown)

    def _teach_backed(self, table: Table, epoch: int, node: FileNode, stamps: object, hand_over: HandOver) -> None:
        """A file in passthrough, whose source was found to be of these `stamps`."""
        known, body = _unchanged(node), node.spec.body
        if known and stamps == (known[0][1].stamp,) and (
                isinstance(body, Whole) or body.regions.size == known[0][1].size):
            self._learn_map(table, epoch, node)
            row, shown = _row(*known[0]), self._shown(node, known)
            hand_over(node, lambda at, made: table.open(epoch, node.ino, (row,), shown, at, made))

    def _shown(self, node: FileNode, known: Known) -> Shown:
        """What LOOKUP and GETATTR tell as long as the sources are as `known`.

        Nothing where the kernel may hold something else, which an open would have to see.
        """
        place, whole = self._fs.tree.place(node), isinstance(node.spec.body, Whole)
        if place is None or not self._shows:
            return Shown()
        found = self._fs.getattr(node.ino)
        if not found.keep or (whole and node.told.facts != known[0][1].shown):
            return Shown()
        return Shown(entry_out(found), whole, *place)

    def take_back(self, ino: int) -> int:
        """Have a file's handles counted by Python; when the source in use was looked at, or 0 if they were before."""
        return 0 if self._table is None else self._table.take_back(ino)

    def _learn_map(self, table: Table, epoch: int, node: FileNode) -> None:
        if table.knows(node.ino):
            return
        body, alone = node.spec.body, not self._fs.shares_writes(node.ino)
        size, columns = (0, ()) if isinstance(body, Whole) else (body.regions.size, body.regions.columns)
        table.learn(epoch, node.ino, size, columns,
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


class _Quiet(dict[tuple[Sources, str], bool]):
    """Whether nobody has a source open for writing; each is opened, and asked once."""

    def __missing__(self, of: tuple[Sources, str]) -> bool:
        sources, key = of
        self[of] = sources.nobody_writes(key)
        return self[of]


def _unchanged(node: FileNode) -> Known | None:
    """What its sources were found to be; None when some are no regular files that are only read."""
    pairs = [node.sources.unchanged(key) for key in node.spec.sources]
    known = [pair for pair in pairs if pair is not None]
    return known if len(known) == len(pairs) else None


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
