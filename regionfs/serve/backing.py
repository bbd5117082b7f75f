"""Backing files: what the kernel reads and writes for an inode without asking the daemon.

The kernel's rules (fs/fuse/iomode.c), which every open of an inode must keep, else its caller sees
EIO: while an inode is open in passthrough, each further open names the very same backing id; an
inode with cached pages in use cannot become passthrough. So an inode's first open decides how it is
served until its last handle is gone:

    backed   a backing id of the source (passthrough) or of a composed file, shared by all handles
    direct   userspace, uncached: what an O_DIRECT open of a composed file gets, which EROFS cannot do, and a file
             beside old handles that its kernel mode would not agree with

Every reply to OPEN is matched by one RELEASE, also where the kernel then failed the open; a reply
that the kernel did not take any more is taken back by `release`. Where an inode's backing no longer
shows what the file shows now, the file gets a new inode, and ESTALE makes the kernel look the name up
again, but once only. So the thread that got it takes what it finds then, if that was made after it
had asked first: it shows all that was closed before its open(2) began. Who came by no name, but by a
bind mount of the file or /proc/PID/fd, finds the same inode again. Such a handle names the backing id,
as the kernel demands, and has its reads sent here, where they find what the file shows now; for its
mappings the pages of the backing file are dropped.

An inode's entry is in the ledger. While nothing but handles of a plain file come and go, the compiled
loop changes it (hand_over); whoever needs it here takes the inode back first, at once: what the loop
has begun by then it leaves to us.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol

from regionfs.errors import RegionfsError
from regionfs.fs import FileSystem, Opened
from regionfs.modes.choose import Mode
from regionfs.modes.composed import compose, image_directory
from regionfs.serve.ahead import ReadAhead
from regionfs.serve.fast import FastPath
from regionfs.serve.ledger import SLOTS, Entry, Ledger, stamp_of
from regionfs.tree import FileNode
from regionfs.wire.abi import UNIQUE_RESEND
from regionfs.wire.requests import InHeader

log = logging.getLogger("regionfs")

KEPT = 128   # composed files kept mounted after their last close, with their page cache
_UNBACKED = (Mode.USERSPACE, Mode.IOMAP)
UNPROVEN = 1   # stamp of a composed file whose sources may change without other stamps; stamp_of gives none so small
RECENT = 1024  # backing ids that may be a dead server's; each server makes a few before it may die


class Backed(NamedTuple):
    """How a handle is served."""

    backing_id: int  # 0: none
    direct: bool     # reads come to the server, uncached


class Registry(Protocol):
    """What the device offers: numbers for descriptors."""

    def backing_open(self, source_fd: int) -> int:
        """A backing id for the file behind a descriptor. OSError when the kernel refuses."""

    def backing_close(self, backing_id: int) -> None:
        """Give a backing id back."""


class Backings:
    """The backing ids of one connection, one per open inode. Safe to use from many threads.

    Whoever changes an inode's entry has the inode for itself meanwhile: registering may wait for a slow
    source, and no other file shall wait with it.
    """

    def __init__(self, fs: FileSystem, registry: Registry, ledger: Ledger, fast: FastPath | None = None) -> None:
        """`fast`: who may count handles beside us."""
        self._fs = fs
        self._fast = fast
        self._registry = registry
        self._ledger = ledger
        self._made: dict[int, int] = {}   # open inode -> when its sources were looked at, as Opened.since
        #: thread that was sent to look again -> when it asked first, likewise, and which file it wants
        self._asked: dict[int, tuple[int, str]] = {}
        self._composed = ComposedFiles(fs)
        self._ahead = ReadAhead()
        self._lock = threading.Lock()               # for the ledger and what is beside it
        self._busy: set[int] = set()                # inodes whose entry a thread has for itself
        self._freed = threading.Condition(self._lock)
        self._waiting = 0                           # threads that wait for _freed

    def __len__(self) -> int:
        """Backing ids in use."""
        with self._lock:
            return sum(use.backing_id > 0 for use in self._ledger.entries())

    def recover(self) -> None:
        """Give back what a server had just registered, or just let go of, when it died: no entry names it.

        The kernel numbers upwards (idr_alloc_cyclic in fs/fuse/backing.c): such an id is among the newest, or
        is that of an entry that was struck out lately.
        """
        fd = os.memfd_create("regionfs", os.MFD_CLOEXEC)
        try:
            newest = self._registry.backing_open(fd)
        except OSError:  # not permitted: then there are no ids
            return
        finally:
            os.close(fd)
        suspects = {*range(max(1, newest - RECENT), newest + 1), *self._ledger.recent()}
        for suspect in suspects - {0, *(use.backing_id for use in self._ledger.entries())}:
            with suppress(OSError):
                self._registry.backing_close(suspect)

    def open(self, node: FileNode, opened: Opened, flags: int, header: InHeader) -> Backed | None:
        """What to answer this OPEN with; None for plain userspace.

        OSError: ESTALE when the name has to be looked up again; EINVAL for O_DIRECT where the backing file in
        use cannot do it.
        """
        self._take(node.ino)
        direct = False
        try:
            asked = self._asked.pop(header.pid, None)
            if asked is not None and asked[1] != node.spec.path:  # it has given up on that one
                asked = None
            use = self._ledger.get(node.ino)
            if use is None:
                # it may have fallen back since `opened`; an inode older than its file's iomap is served by us
                if node.choice.mode in _UNBACKED:
                    return None
                use = self._first(node, opened, flags)
                if use is None:
                    return None
                self._made[node.ino] = opened.since
            elif self._counted(header.unique):
                return Backed(use.backing_id, self._outdated(use, node, opened))
            elif use.backing_id and self._outdated(use, node, opened):
                if asked is None:
                    self._asked[header.pid] = opened.since, node.spec.path
                    self._part(node, opened.since)
                    raise OSError(errno.ESTALE, node.spec.path)
                direct = self._made.get(node.ino, 0) < asked[0]
                if direct:
                    self._composed.drop_pages(node.ino)
            elif use.backing_id and opened.mode is Mode.COMPOSED and flags & os.O_DIRECT:
                raise OSError(errno.EINVAL, f"{node.spec.path} is open without O_DIRECT, and a composed file has none")
            if not self._write(header.unique, use, use.handles + 1):
                log.warning("over %d files are open at once: the rest is served in userspace", SLOTS)
                self._unregister(use)
                return None
            return Backed(use.backing_id, direct or not use.backing_id)
        finally:
            self._give_back(node.ino)

    def release(self, ino: int, unique: int) -> None:
        """A handle of the inode is gone; the last one frees the backing id. `unique` 0: not a request."""
        if ino in self._ledger and not self._counted(unique):  # else its handles were answered without us
            self._one_less(ino, unique)

    def _one_less(self, ino: int, unique: int) -> None:
        self._take(ino)
        try:
            use = self._ledger.get(ino)
            if use is None:
                return
            self._write(unique, use, use.handles - 1)
            if use.handles == 1:
                self._unregister(use)
        finally:
            self._give_back(ino)

    def withdraw(self, ino: int, unique: int) -> None:
        """An OPEN fails: if a server before this one counted it, and died before it answered, it is counted no more."""
        if self._counted(unique):
            self._one_less(ino, unique)

    def hand_over(self, node: FileNode, give: Callable[[int, int], None]) -> None:
        """Let the loop count the handles of a passthrough file that is open and shows what its source is now.

        `give` is told where its slot is in the ledger, and when its source was looked at.
        """
        self._take(node.ino)
        try:
            with self._lock:
                use = self._ledger.get(node.ino)
                # who was sent to look again is known here only
                wanted = [path for _, path in list(self._asked.values())]
                if use and use.backing_id and not use.stamp and node.spec.path not in wanted:
                    give(self._ledger.at(node.ino), self._made.pop(node.ino, 1))
        finally:
            self._give_back(node.ino)

    def hand_over_unopened(self, node: FileNode, give: Callable[[int, int], None]) -> None:
        """The same of a file that nobody has opened yet."""
        with self._lock:
            at = self._ledger.reserve(node.ino)
            if at is not None:
                give(at, 1)

    def drop(self, ino: int) -> None:
        """Bytes of a file were written; if it is composed for an older manifest, its pages are stale."""
        self._composed.drop(ino)

    def close(self) -> None:
        """Let go of every composed file; handles that are still open go on."""
        self._ahead.close()
        self._composed.close()

    def _take(self, ino: int) -> None:
        """Have an inode's entry for oneself, until _give_back."""
        with self._lock:
            while ino in self._busy:
                self._waiting += 1
                self._freed.wait()
                self._waiting -= 1
            self._busy.add(ino)
            self._reclaim(ino)

    def _reclaim(self, ino: int) -> None:
        """The loop shall not change an inode's entry any more. With the lock."""
        made = self._fast.take_back(ino) if self._fast is not None else 0
        if made and self._ledger.settle(ino):
            self._made[ino] = made

    def _give_back(self, ino: int) -> None:
        with self._lock:
            self._busy.discard(ino)
            if self._waiting:
                self._freed.notify_all()

    def _write(self, unique: int, use: Entry, handles: int) -> bool:
        """Remember and write down that it has so many; False when an inode finds no room."""
        use = Entry(use.ino, use.backing_id, handles, use.stamp)
        with self._lock:
            if not self._ledger.write(unique & ~UNIQUE_RESEND, use):
                if self._fast is not None:
                    self._fast.forget()
                self._ledger.settle_all()
                if not self._ledger.write(unique & ~UNIQUE_RESEND, use):
                    return False
            if not handles:
                self._made.pop(use.ino, None)
            return True

    def _outdated(self, use: Entry, node: FileNode, opened: Opened) -> bool:
        """True when the inode's backing file does not show what the file shows now."""
        # the pages of a composed file that a dead server made cannot be dropped when somebody writes its sources
        orphan = opened.mode is Mode.COMPOSED and use.ino not in self._made
        return orphan or use.stamp != _stamp(node, opened) or not self._fs.fits_whole(node, opened)

    def _part(self, node: FileNode, since: int) -> None:
        """Let the name lead to an inode that nobody has open on a backing file older than `since`."""
        with self._lock:
            current = self._fs.tree.files.get(node.spec.path)
            if current is None:
                return
            self._reclaim(current.ino)  # for whoever looks again asks us
            use = self._ledger.get(current.ino)
            if use and use.backing_id and self._made.get(use.ino, 0) < since:
                self._fs.renew(current)

    def _counted(self, unique: int) -> bool:
        """True for a request that came again and had been counted before its server died."""
        return bool(unique & UNIQUE_RESEND) and self._ledger.counted(unique & ~UNIQUE_RESEND)

    def _first(self, node: FileNode, opened: Opened, flags: int) -> Entry | None:
        """How an inode that nobody has open is served; None: from now on in userspace.

        Where userspace is forbidden, OSError instead: EINVAL for O_DIRECT, else EIO.
        """
        if opened.mode is Mode.COMPOSED and flags & os.O_DIRECT:
            if not self._fs.userspace:
                raise OSError(errno.EINVAL, f"{node.spec.path}: a composed file has no O_DIRECT")
            return Entry(node.ino, 0, 0, 0)
        if not self._fs.fits_whole(node, opened):
            if not self._fs.userspace:
                raise OSError(errno.EIO, f"{node.spec.path}: its source has grown, and no other mode is allowed")
            return Entry(node.ino, 0, 0, 0)
        if self._fs.userspace and self._fs.kept_by_us(node):
            return Entry(node.ino, 0, 0, 0)
        try:
            return self._register(node, opened)
        except (OSError, RegionfsError) as error:
            words = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
            if not self._fs.userspace:
                log.error("%s: %s failed (%s), and no other mode is allowed", node.spec.path, opened.mode, words)
                raise OSError(errno.EIO, words) from error
            log.warning("%s: %s failed (%s); it is served in userspace from now on", node.spec.path, opened.mode, words)
            # what the next server cannot be told: for these handles only, which the ledger tells of
            return None if self._fs.fall_back([node], f"{opened.mode} failed: {words}") else Entry(node.ino, 0, 0, 0)

    def _register(self, node: FileNode, opened: Opened) -> Entry:
        if opened.mode is Mode.COMPOSED:
            with self._composed.borrow(node, opened) as (lasting, fd):
                backing_id = self._registry.backing_open(fd)
                self._ahead.follow(node.ino, fd, node.spec.regions, node.sources)
                return Entry(node.ino, backing_id, 0, UNPROVEN if lasting is None else stamp_of(lasting))
        return Entry(node.ino, self._registry.backing_open(self._fs.source_fd(node)), 0, 0)

    def _unregister(self, use: Entry) -> None:
        if use.backing_id:
            self._ahead.leave(use.ino)
            self._registry.backing_close(use.backing_id)


def _stamp(node: FileNode, opened: Opened) -> int:
    """What makes a backing file outdated: nothing for passthrough, it is the source itself."""
    return stamp_of((node.digest, opened.stamps)) if opened.mode is Mode.COMPOSED else 0


class ComposedFiles:
    """Composed files by inode, kept open while their sources stay what they were. Callers of one inode take turns."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        #: inode -> (its map and the stamps of its sources, None where they prove nothing; descriptor)
        self._files: OrderedDict[int, tuple[object, int]] = OrderedDict()
        self._directory: Path | None = None
        self._lock = threading.Lock()

    @contextmanager
    def borrow(self, node: FileNode, opened: Opened) -> Iterator[tuple[object, int]]:
        """What it was made from (None where that proves nothing later), and a descriptor of it.

        It shows the file over its sources as they are now. OSError or ComposeError.
        """
        shows = node.digest, opened.stamps
        with self._lock:
            known = self._files.pop(node.ino, None)
        if known is not None and known[0] != shows:
            os.close(known[1])
            known = None
        if known is None:
            if self._directory is None:
                self._directory = image_directory()
            lasting = None if self._fs.lasting(node, opened) is None else shows  # before it is read
            known = (lasting, self._compose(node, self._directory))
        try:
            yield known
        finally:
            self._keep(node.ino, known)

    def drop(self, ino: int) -> None:
        """Have the kernel read a file's sources again, as far as no mapping holds its pages."""
        with self._lock:
            if ino in self._files:  # no part of it: a large folio goes only as a whole
                os.posix_fadvise(self._files[ino][1], 0, 0, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Close them all."""
        with self._lock:
            while self._files:
                os.close(self._files.popitem()[1][1])

    def _keep(self, ino: int, file: tuple[object, int]) -> None:
        with self._lock:
            self._files[ino] = file
            for gone in [other for other in self._files if other not in self._fs.tree.nodes]:
                os.close(self._files.pop(gone)[1])
            if len(self._files) > KEPT:
                os.close(self._files.popitem(last=False)[1][1])

    def drop_pages(self, ino: int) -> None:
        """Let an open composed file be read from its sources again, as far as nobody maps it."""
        with self._lock:
            if ino in self._files:
                os.posix_fadvise(self._files[ino][1], 0, 0, os.POSIX_FADV_DONTNEED)

    def _compose(self, node: FileNode, directory: Path) -> int:
        return compose(node.spec.regions, self._fs.source_fds(node), self._reader(node), directory)

    def _reader(self, node: FileNode) -> Callable[[int, int], bytes]:
        def read(offset: int, length: int) -> bytes:
            buffer = bytearray(length)
            count = self._fs.read_into(node.ino, offset, memoryview(buffer), paging=False, count=False)
            return bytes(buffer[:count])
        return read
