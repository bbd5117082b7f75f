"""The pyfuse3 engine: the same file system behind libfuse, userspace mode only.

pyfuse3 3.5 has no lseek, fallocate, copy_file_range or passthrough, and tells neither which reads
fill the page cache nor which writes come from a mapping; what follows for users stands in the
README's table of engines. Handles are inode numbers: they carry no state.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar, cast

import pyfuse3
import trio

from regionfs.attributes import Attributes, Changes
from regionfs.errors import RegionfsError
from regionfs.execute import NOWAIT
from regionfs.fs import NAME_MAX, FileSystem
from regionfs.modes.choose import Mode
from regionfs.serve.callers import sees_trusted
from regionfs.serve.entries import ENTRY_SECONDS, attr_seconds
from regionfs.serve.threads import PAUSE

log = logging.getLogger("regionfs")

PAGE = 4096
T = TypeVar("T")


def mount(fs: FileSystem, mountpoint: str, options: set[str]) -> None:
    """Mount through libfuse; run() then serves. In the main thread. `options` are words of libfuse's -o."""
    signal.signal(signal.SIGALRM, lambda number, frame: None)  # see _nudged
    pyfuse3.init(Operations(fs), mountpoint, options)


def run() -> None:
    """Serve until the mount is gone; in any thread."""
    try:
        with _nudged():
            trio.run(pyfuse3.main)
    finally:
        pyfuse3.close(unmount=False)


@contextmanager
def _nudged() -> Iterator[None]:
    """SIGALRM to the calling thread, every second.

    pyfuse3 3.5 reads the device with the interpreter's lock held, after poll(2) said that something is there. When
    that has vanished meanwhile, for its caller was killed, it would wait for the next request and all threads with
    it. A signal ends the read with EINTR, and pyfuse3 polls again.
    """
    class Event(ctypes.Structure):  # struct sigevent, 64 bytes; timer_create(2)
        _fields_ = (("value", ctypes.c_void_p), ("number", ctypes.c_int), ("notify", ctypes.c_int),
                    ("thread", ctypes.c_int), ("padding", ctypes.c_char * (52 - ctypes.sizeof(ctypes.c_void_p))))

    thread_id = 4  # SIGEV_THREAD_ID, asm-generic/siginfo.h
    event = Event(None, signal.SIGALRM, thread_id, threading.get_native_id(), b"")
    every_second = (ctypes.c_long * 4)(1, 0, 1, 0)  # struct itimerspec
    libc, timer = ctypes.CDLL(None, use_errno=True), ctypes.c_void_p()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    made = libc.timer_create(time.CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)) == 0
    if not made or libc.timer_settime(timer, 0, every_second, None):
        log.warning("no timer (%s): a caller that is killed may stop the mount until somebody else asks",
                    os.strerror(ctypes.get_errno()))
    try:
        yield
    finally:
        if made:
            libc.timer_delete(timer)


class Operations(pyfuse3.Operations):
    """pyfuse3's calls -> the file system. What may wait for a disk runs in trio's worker threads."""

    supports_dot_lookup = False
    enable_writeback_cache = False
    enable_acl = True  # a source's POSIX ACL decides who may open it; see wire/session

    def __init__(self, fs: FileSystem) -> None:
        super().__init__()
        self._fs = fs
        self._direct: set[int] = set()  # inodes opened uncached

    async def lookup(self, parent: int, name: bytes, ctx: object) -> pyfuse3.EntryAttributes:
        with _errors():
            if name in (b".", b".."):
                return self._entry(self._fs.getattr(parent if name == b"." else self._fs.parent(parent)))
            return self._entry(self._fs.lookup(parent, name))

    async def getattr(self, ino: int, ctx: object = None) -> pyfuse3.EntryAttributes:
        with _errors():
            return self._entry(self._fs.getattr(ino))

    async def setattr(self, ino: int, attr: Any, fields: Any, fh: int | None, ctx: object) -> pyfuse3.EntryAttributes:
        changes = Changes(
            size=attr.st_size if fields.update_size else None,
            mode=attr.st_mode & 0o7777 if fields.update_mode else None,
            uid=attr.st_uid if fields.update_uid else None,
            gid=attr.st_gid if fields.update_gid else None,
            atime=attr.st_atime_ns if fields.update_atime else None,
            mtime=attr.st_mtime_ns if fields.update_mtime else None,
        )
        with _errors():
            return await self._change(ino, changes)

    async def _change(self, ino: int, changes: Changes) -> pyfuse3.EntryAttributes:
        before = self._fs.getattr(ino).size
        entry = self._entry(await _in_thread(lambda: self._fs.setattr(ino, changes)))
        if changes.size is not None and changes.size != before:
            start, end = sorted((changes.size, before))
            await self._drop(ino, start, end - start)
        return entry

    async def open(self, ino: int, flags: int, ctx: object) -> pyfuse3.FileInfo:
        with _errors():
            opened = await _in_thread(lambda: self._fs.open(ino, flags))
            node = self._fs.file(ino)
            if opened.news is not None:
                await _invalidated(ino, attr_only=True)
                node.told.forgotten(opened.news)
            if node.filled and not opened.keep_cache:
                await _invalidated(ino)
            if not opened.keep_cache:
                node.fill(await _in_thread(lambda: self._fs.lasting(node, opened)))
            if flags & os.O_TRUNC:  # libfuse negotiates it: no SETATTR follows
                await self._change(ino, Changes(size=0))
        self._fs.file(ino).counters.opens[Mode.USERSPACE] += 1
        if opened.direct:
            self._direct.add(ino)
        return pyfuse3.FileInfo(fh=ino, direct_io=opened.direct, keep_cache=opened.keep_cache)

    async def read(self, fh: int, off: int, size: int) -> bytes:
        buffer = bytearray(size)
        # a direct read may be short before an error region; what looks like pages may be a mapping's
        paging = fh not in self._direct or (off % PAGE == 0 and size % PAGE == 0)
        with _errors(), memoryview(buffer) as view:
            try:
                count = self._fs.read_into(fh, off, view, paging=paging, flags=NOWAIT)
            except BlockingIOError:
                count = await _in_thread(lambda: self._fs.read_into(fh, off, view, paging=paging))
        if count < size:
            del buffer[count:]
        return cast(bytes, buffer)  # any contiguous buffer does; bytes would be a copy

    async def write(self, fh: int, off: int, buf: bytes) -> int:
        with _errors():
            count = await _in_thread(lambda: self._fs.write(fh, off, memoryview(buf)))
            await self._drop(fh, off, count)
            return count

    async def release(self, fh: int) -> None:
        pass

    async def flush(self, fh: int) -> None:
        pass

    async def fsync(self, fh: int, datasync: bool) -> None:
        with _errors():
            await _in_thread(lambda: self._fs.fsync(fh, datasync))

    async def opendir(self, ino: int, ctx: object) -> int:
        with _errors():
            self._fs.readdir(ino)
        return ino

    async def readdir(self, fh: int, start: int, token: pyfuse3.ReaddirToken) -> None:
        with _errors():
            children = self._fs.readdir(fh)
            for position in range(start, len(children)):
                name, ino, _ = children[position]
                if not pyfuse3.readdir_reply(token, name, self._entry(self._fs.getattr(ino)), position + 1):
                    return

    async def releasedir(self, fh: int) -> None:
        pass

    async def fsyncdir(self, fh: int, datasync: bool) -> None:
        pass

    async def statfs(self, ctx: object) -> pyfuse3.StatvfsData:
        block, blocks, files = self._fs.statfs()
        data = pyfuse3.StatvfsData()
        data.f_bsize = data.f_frsize = block
        data.f_blocks, data.f_bfree, data.f_bavail = blocks, 0, 0
        data.f_files, data.f_ffree, data.f_favail = files, 0, 0
        data.f_namemax = NAME_MAX
        return data

    async def getxattr(self, ino: int, name: bytes, ctx: object) -> bytes:
        with _errors():
            return self._fs.getxattr(ino, name)

    async def listxattr(self, ino: int, ctx: Any) -> list[bytes]:
        with _errors():
            return self._fs.listxattr(ino, trusted=sees_trusted(ctx.uid, ctx.pid))

    async def setxattr(self, ino: int, name: bytes, value: bytes, ctx: object) -> None:
        with _errors():
            self._fs.setxattr(ino, name, value, 0)

    async def removexattr(self, ino: int, name: bytes, ctx: object) -> None:
        with _errors():
            self._fs.removexattr(ino, name)

    async def forget(self, inode_list: object) -> None:
        pass  # inodes come from the manifest's paths and are never forgotten

    async def mknod(self, *args: object) -> NoReturn:
        raise pyfuse3.FUSEError(errno.EROFS)

    mkdir = symlink = link = unlink = rmdir = rename = create = mknod  # type: ignore[assignment]  # one answer for all

    async def _drop(self, ino: int, offset: int, length: int) -> None:
        """Drop the kernel's pages of every other file that shows these bytes; libfuse has no ranges here."""
        others = {other for other, _, _ in self._fs.elsewhere(ino, offset, length)}
        for other in others:
            await _invalidated(other)

    def _entry(self, found: Attributes) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        entry.st_ino, entry.st_mode, entry.st_nlink = found.ino, found.mode, found.nlink
        entry.st_uid, entry.st_gid, entry.st_rdev = found.uid, found.gid, 0
        entry.st_size, entry.st_blocks, entry.st_blksize = found.size, found.blocks, PAGE
        entry.st_atime_ns, entry.st_mtime_ns, entry.st_ctime_ns = found.atime, found.mtime, found.ctime
        entry.generation, entry.entry_timeout = 0, ENTRY_SECONDS
        entry.attr_timeout = attr_seconds(found)
        return entry


def _invalidate(ino: int, attr_only: bool = False) -> None:
    try:
        pyfuse3.invalidate_inode(ino, attr_only=attr_only)
    except OSError as error:
        if error.errno != errno.ENOENT:  # the kernel holds nothing of it
            raise


async def _in_thread(call: Callable[[], T]) -> T:
    """In another thread; where none can be started in this one, and everybody waits with it."""
    begun = False

    def work() -> T:
        nonlocal begun
        begun = True
        return call()

    try:
        return await trio.to_thread.run_sync(work)
    except RuntimeError:
        if begun:
            raise
        return call()


async def _invalidated(ino: int, attr_only: bool = False) -> None:
    """Invalidate in another thread, for it may wait for answers of this one; as soon as one can be started."""
    begun = False

    def work() -> None:
        nonlocal begun
        begun = True
        _invalidate(ino, attr_only)

    while True:
        try:
            return await trio.to_thread.run_sync(work)
        except RuntimeError:
            if begun:
                raise
            await trio.sleep(PAUSE)


@contextmanager
def _errors() -> Iterator[None]:
    """Handlers may raise FUSEError only."""
    try:
        yield
    except (OSError, RegionfsError) as error:
        raise pyfuse3.FUSEError(error.errno or errno.EIO) from error
