"""FUSE requests -> calls of the file system -> reply messages: one row per opcode.

Shared by nothing but the native engine; knows messages, not descriptors or threads. A handler
returns the reply's bytes, or raises OSError. Opcodes without a row get ENOSYS, which the kernel
remembers: it stops sending FLUSH, INTERRUPT and the like, and keeps locks to itself.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from typing import cast

from regionfs.attributes import Attributes, Changes
from regionfs.fs import NAME_MAX, FileSystem
from regionfs.modes.choose import Mode
from regionfs.serve.backing import Backings
from regionfs.serve.callers import sees_trusted
from regionfs.serve.entries import NO_ENTRY, attr_out, bare_entry, entry_out
from regionfs.serve.iomap import IomapSession
from regionfs.tree import Directory
from regionfs.wire import abi, codec
from regionfs.wire.abi import Opcode
from regionfs.wire.parse import Request
from regionfs.wire.replies import (
    GetxattrOut,
    LseekOut,
    OpenOut,
    StatfsOut,
)
from regionfs.wire.requests import (
    FallocateIn,
    FsyncIn,
    GetxattrIn,
    LseekIn,
    OpenIn,
    ReadIn,
    SetattrIn,
    SetxattrIn,
)

#: requests that may wait for a disk for long: their thread should not be the one that reads on
TOUCH_DISK = frozenset({Opcode.FSYNC, Opcode.SYNCFS, Opcode.FALLOCATE, Opcode.LSEEK})

Handler = Callable[[Request], bytes]


class Handlers:
    """The table of opcodes over one file system."""

    def __init__(self, fs: FileSystem, backings: Backings, drop: Callable[[int], None],
                 forget: Callable[[int], None], iomap: IomapSession | None = None) -> None:
        """`drop` makes the kernel forget an inode's pages, `forget` what stat(2) shows of it.

        `iomap` where the kernel speaks it on this connection.
        """
        self._drop, self._forget = drop, forget
        self._fs = fs
        self._backings = backings
        self._iomap = iomap
        self.table: dict[int, Handler] = {
            Opcode.LOOKUP: self._lookup,
            Opcode.GETATTR: self._getattr,
            Opcode.SETATTR: self._setattr,
            Opcode.OPEN: self._open,
            Opcode.RELEASE: self._release,
            Opcode.OPENDIR: self._opendir,
            Opcode.READDIR: self._readdir,
            Opcode.READDIRPLUS: self._readdirplus,
            Opcode.RELEASEDIR: _done,
            Opcode.STATFS: self._statfs,
            Opcode.FSYNC: self._fsync,
            Opcode.FSYNCDIR: _done,
            Opcode.SYNCFS: self._syncfs,
            Opcode.GETXATTR: self._getxattr,
            Opcode.LISTXATTR: self._listxattr,
            Opcode.SETXATTR: self._setxattr,
            Opcode.REMOVEXATTR: self._removexattr,
            Opcode.LSEEK: self._lseek,
            Opcode.FALLOCATE: self._fallocate,
            Opcode.DESTROY: _done,
            **dict.fromkeys((Opcode.MKNOD, Opcode.MKDIR, Opcode.SYMLINK, Opcode.LINK, Opcode.UNLINK, Opcode.RMDIR,
                             Opcode.RENAME, Opcode.RENAME2, Opcode.CREATE, Opcode.TMPFILE), _read_only),
            **(iomap.table if iomap is not None else {}),
        }

    def _lookup(self, request: Request) -> bytes:
        parent, name = request.header.nodeid, request.names[0]
        directory = self._fs.tree.nodes.get(parent)
        if isinstance(directory, Directory) and name not in directory.children and len(name) <= NAME_MAX:
            return NO_ENTRY
        return self._entry(self._fs.lookup(parent, name))

    def _getattr(self, request: Request) -> bytes:
        return self._attr_out(self._fs.getattr(request.header.nodeid))

    def _setattr(self, request: Request) -> bytes:
        changes, ino = _changes(cast(SetattrIn, request.body)), request.header.nodeid
        if self._iomap is not None and self._iomap.serves(ino) and changes == _only_times(changes):
            return self._getattr(request)  # the kernel owns an iomap file's times, and tells them at close
        return self._attr_out(self._fs.setattr(ino, changes))

    def _open(self, request: Request) -> bytes:
        body, ino = cast(OpenIn, request.body), request.header.nodeid
        node = self._fs.file(ino)
        try:
            opened = self._fs.open(ino, body.flags)
        except OSError:
            self._backings.withdraw(ino, request.header.unique)
            raise
        if opened.news is not None:
            self._forget(ino)
            node.told.forgotten(opened.news)
        if self._iomap is not None and self._iomap.serves(ino):
            node.counters.opens[Mode.IOMAP] += 1
            return codec.pack(OpenOut(0, 0))
        backed = self._backings.open(node, opened, body.flags, request.header)
        if backed is not None and backed.backing_id:
            node.counters.opens[opened.mode] += 1
            direct = abi.FOPEN_DIRECT_IO if backed.direct else 0
            return codec.pack(OpenOut(0, abi.FOPEN_PASSTHROUGH | direct, backed.backing_id))
        node.counters.opens[Mode.USERSPACE] += 1
        if not opened.keep_cache:
            # the kernel drops them too, but later: an open that comes in between would be told to keep them
            if node.filled:
                self._drop(ino)
            node.fill(self._fs.lasting(node, opened))
        # through the page cache a write(2) comes in pieces of a page, and between two of them others may append
        appends = bool(body.flags & os.O_APPEND) and self._fs.writes_whole(ino)
        direct = opened.direct or backed is not None or appends
        flags = (abi.FOPEN_DIRECT_IO if direct else 0) | (abi.FOPEN_KEEP_CACHE if opened.keep_cache else 0)
        if body.flags & os.O_DIRECT:  # as on a local file, such writes need not wait for each other
            flags |= abi.FOPEN_PARALLEL_DIRECT_WRITES
        return codec.pack(OpenOut(0, flags))

    def _release(self, request: Request) -> bytes:
        self._backings.release(request.header.nodeid, request.header.unique)
        return b""

    def taken_back(self, request: Request) -> None:
        """The kernel did not take the reply any more: no RELEASE will follow an OPEN."""
        if request.header.opcode == Opcode.OPEN:
            self._backings.release(request.header.nodeid, 0)

    def _opendir(self, request: Request) -> bytes:
        self._fs.readdir(request.header.nodeid)
        return codec.pack(OpenOut(0, abi.FOPEN_KEEP_CACHE | abi.FOPEN_CACHE_DIR))

    def _readdir(self, request: Request) -> bytes:
        body = cast(ReadIn, request.body)
        records = (codec.dirent(ino, offset, mode, name)
                   for name, ino, mode, offset in self._entries(request.header.nodeid, body.offset))
        return codec.fill(records, body.size)[0]

    def _readdirplus(self, request: Request) -> bytes:
        body, ino = cast(ReadIn, request.body), request.header.nodeid
        return codec.fill(self._records_plus(ino, body.offset), body.size)[0]

    def _records_plus(self, parent: int, start: int) -> Iterator[bytes]:
        for name, ino, mode, offset in self._entries(parent, start):
            if name in (b".", b".."):  # the kernel wants no lookup of these
                entry = bare_entry(ino, mode)
            else:
                found = self._fs.lookup(parent, name)
                ino, entry = found.ino, self._entry(found)
            yield entry + codec.dirent(ino, offset, mode, name)

    def _entries(self, ino: int, start: int) -> Iterator[tuple[bytes, int, int, int]]:
        """(name, inode, mode, offset of the entry after it) from the entry at `start` on."""
        fixed = ((b".", ino, 0o040000), (b"..", self._fs.parent(ino), 0o040000))
        children = self._fs.readdir(ino)
        for position in range(start, 2 + len(children)):
            if position < 2:
                yield *fixed[position], position + 1
            else:
                name, child, mode = children[position - 2]
                yield name, child, mode, position + 1

    def _statfs(self, request: Request) -> bytes:
        block, blocks, files = self._fs.statfs()
        return codec.pack(StatfsOut(blocks, 0, 0, files, 0, block, NAME_MAX, block))

    def _fsync(self, request: Request) -> bytes:
        body = cast(FsyncIn, request.body)
        self._fs.fsync(request.header.nodeid, bool(body.fsync_flags & abi.FSYNC_FDATASYNC))
        return b""

    def _syncfs(self, request: Request) -> bytes:
        self._fs.sync()
        return b""

    def _getxattr(self, request: Request) -> bytes:
        return _sized(self._fs.getxattr(request.header.nodeid, request.names[0]), cast(GetxattrIn, request.body))

    def _listxattr(self, request: Request) -> bytes:
        header = request.header
        found = self._fs.listxattr(header.nodeid, trusted=sees_trusted(header.uid, header.pid))
        names = b"".join(name + b"\0" for name in found)
        return _sized(names, cast(GetxattrIn, request.body))

    def _setxattr(self, request: Request) -> bytes:
        flags = cast(SetxattrIn, request.body).flags
        self._fs.setxattr(request.header.nodeid, request.names[0], bytes(request.data), flags)
        return b""

    def _removexattr(self, request: Request) -> bytes:
        self._fs.removexattr(request.header.nodeid, request.names[0])
        return b""

    def _lseek(self, request: Request) -> bytes:
        body = cast(LseekIn, request.body)
        return codec.pack(LseekOut(self._fs.lseek(request.header.nodeid, body.offset, body.whence)))

    def _fallocate(self, request: Request) -> bytes:
        body = cast(FallocateIn, request.body)
        self._fs.fallocate(request.header.nodeid, body.mode, body.offset, body.length)
        return b""

    def _entry(self, found: Attributes) -> bytes:
        return entry_out(found, self._inode_flags(found.ino))

    def _attr_out(self, found: Attributes) -> bytes:
        return attr_out(found, self._inode_flags(found.ino))

    def _inode_flags(self, ino: int) -> int:
        return self._iomap.inode_flags(ino) if self._iomap is not None else 0


def _done(request: Request) -> bytes:
    return b""


def _read_only(request: Request) -> bytes:
    raise OSError(errno.EROFS, "the manifest defines the tree")


def _changes(body: SetattrIn) -> Changes:
    valid, fields = body.valid, abi.SetattrValid
    now = time.time_ns()

    def stamp(given: int, at_once: int, seconds: int, nanoseconds: int) -> int | None:
        if valid & at_once:
            return now
        # the field is unsigned on the wire, time_t is not
        signed = seconds - 2**64 if seconds >= 2**63 else seconds
        return signed * 10**9 + nanoseconds if valid & given else None

    return Changes(
        size=body.size if valid & fields.SIZE else None,
        mode=body.mode if valid & fields.MODE else None,
        uid=body.uid if valid & fields.UID else None,
        gid=body.gid if valid & fields.GID else None,
        atime=stamp(fields.ATIME, fields.ATIME_NOW, body.atime, body.atimensec),
        mtime=stamp(fields.MTIME, fields.MTIME_NOW, body.mtime, body.mtimensec),
        drop_setid=bool(valid & fields.KILL_SUIDGID),
    )


def _only_times(changes: Changes) -> Changes:
    return Changes(atime=changes.atime, mtime=changes.mtime, drop_setid=changes.drop_setid)


def _sized(value: bytes, body: GetxattrIn) -> bytes:
    """The protocol's two forms: size 0 asks how large, else the value must fit."""
    if body.size == 0:
        return codec.pack(GetxattrOut(len(value)))
    if len(value) > body.size:
        raise OSError(errno.ERANGE, os.strerror(errno.ERANGE))
    return value
