"""What the kernel holds of a fuse-iomap mount: devices, mapping caches, pages; and the rules for a mapping.

The small parts of iomap_kernel, each as fs/fuse/fuse_iomap.c and fuse_iomap_cache.c of the patches have them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from bisect import bisect_right, insort
from dataclasses import dataclass, field
from operator import attrgetter

from regionfs.wire import device
from regionfs.wire.iomap_v7 import NULL_ADDR, Io, MapFlag, Type

RECORD = 32            # bytes of one cached mapping


class RuleError(AssertionError):
    """The server said something the kernel does not take, or takes and loses data by."""


@dataclass
class Device:
    """A block device that the server registered; the kernel has a reference of its own."""

    fd: int
    size: int
    writable: bool


class Devices(device.Registry):
    """BACKING_OPEN and BACKING_CLOSE. `exclusive`: one kind of backing a mount, the first that comes."""

    def __init__(self, exclusive: bool = False) -> None:
        self.ready = False
        self.exclusive = exclusive
        self.kind = ""
        self.known: dict[int, Device] = {}

    def _take(self, kind: str) -> None:
        if not self.ready or (self.exclusive and self.kind not in ("", kind)):
            raise OSError(errno.EPERM, os.strerror(errno.EPERM))
        self.kind = kind

    def backing_device(self, device_fd: int) -> int:
        self._take("iomap")
        if not stat.S_ISBLK(os.fstat(device_fd).st_mode):
            raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))
        access = fcntl.fcntl(device_fd, fcntl.F_GETFL) & os.O_ACCMODE
        self.known[len(self.known) + 1] = Device(os.dup(device_fd), os.lseek(device_fd, 0, os.SEEK_END),
                                                 access == os.O_RDWR)
        return len(self.known)

    def backing_open(self, source_fd: int) -> int:
        self._take("passthrough")
        return 1

    def backing_close(self, backing_id: int) -> None:
        assert backing_id == 1

    def close(self) -> None:
        while self.known:
            os.close(self.known.popitem()[1].fd)


class Fork:
    """One half of an inode's cache of mappings: sorted, without overlap."""

    def __init__(self, exists: bool) -> None:
        self.exists = exists
        self.mappings: list[Io] = []

    def find(self, pos: int) -> Io | None:
        index = bisect_right(self.mappings, pos, key=attrgetter("offset")) - 1
        return self.mappings[index] if index >= 0 and self.mappings[index].end > pos else None

    def put(self, io: Io, limit: int) -> None:
        if len(self.mappings) * RECORD > limit:
            self.mappings.clear()
        self.drop(io.offset, io.end)
        insort(self.mappings, io, key=attrgetter("offset"))
        self.exists = True

    def drop(self, start: int, end: int) -> None:
        first = max(bisect_right(self.mappings, start, key=attrgetter("offset")) - 1, 0)
        last = first
        kept = []
        while last < len(self.mappings) and self.mappings[last].offset < end:
            io = self.mappings[last]
            if io.offset < start:
                kept.append(trim(io, io.offset, min(io.end, start)))
            if io.end > end:
                kept.append(trim(io, max(io.offset, end), io.end))
            last += 1
        self.mappings[first:last] = kept


def trim(io: Io, start: int, end: int) -> Io:
    """The part of a mapping inside [start, end)."""
    addr = io.addr if io.addr == NULL_ADDR else io.addr + start - io.offset
    return io._replace(offset=start, length=end - start, addr=addr)


@dataclass
class File:
    """An inode: what the kernel holds of it."""

    ino: int
    size: int
    read_fork: Fork = field(default_factory=lambda: Fork(True))
    write_fork: Fork = field(default_factory=lambda: Fork(False))
    blocks: dict[int, bytearray] = field(default_factory=dict)  # the page cache, by block
    dirty: set[int] = field(default_factory=set)


def check_io(io: Io, block: int, maxbytes: int, devices: Devices, *, is_write: bool) -> None:
    """fuse_iomap_check_mapping, and what the kernel does not check but does wrong."""
    if io.type not in list(Type) or io.flags & ~sum(MapFlag):
        raise RuleError(f"type or flags: {io}")
    if io.length == 0 or io.offset % block or io.length % block:
        raise RuleError(f"not on {block}-byte blocks: {io}")
    if io.end >= 2**64 or io.offset >= maxbytes or io.end > maxbytes:
        raise RuleError(f"past the largest file: {io}")
    if io.type in (Type.MAPPED, Type.UNWRITTEN):
        known = devices.known.get(io.dev)
        if known is None or io.addr == NULL_ADDR:
            raise RuleError(f"no such device or address: {io}")
        if io.addr % block or io.addr + io.length > known.size:
            raise RuleError(f"not on a block of the device: {io}")
    elif io.dev or io.addr != NULL_ADDR:
        raise RuleError(f"a device where none belongs: {io}")
    if io.type == Type.PURE_OVERWRITE and (not is_write or io.flags):
        raise RuleError(f"overwrite: {io}")
    if io.type in (Type.NOCACHE, Type.RETRY_CACHE) and io.flags:
        raise RuleError(f"flags on an instruction: {io}")
