"""The kernel's side of fuse-iomap, played over a socketpair against the real server.

It knows KERNEL.md section 4 and fs/fuse/fuse_iomap.c of the patches: which replies the kernel takes, when it
asks and when its cache of mappings answers, and what it does with a mapping: page cache, write-back, direct
I/O on the block devices themselves. It must not know regionfs's maps: what it reads and writes follows from
the replies alone, so that a wrong one shows as wrong bytes. A reply that breaks a rule is a RuleError.

Like the kernel, and unlike anyone who would be careful:
- write-back joins neighbours by file position and sector number and never compares the device, unless the
  mapping says BOUNDARY and begins here;
- a write goes by a cached read mapping, unasked, while the inode's cache never held a write mapping;
- a completed write drops its range from the cache, and a cache over its limit is dropped whole.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import stat
import threading
from bisect import bisect_right, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Any, Self

from regionfs.fs import FileSystem
from regionfs.manifest.load import load
from regionfs.modes.choose import DEFAULT_ORDER, Ability, Kernel, Mode, choose_all
from regionfs.serve.handshake import handshake
from regionfs.serve.ledger import Ledger
from regionfs.serve.native import Server
from regionfs.source import Sources, inspect_sources
from regionfs.wire import abi, codec, device, iomap_v7
from regionfs.wire.iomap_v7 import (
    NULL_ADDR,
    BeginIn,
    BeginOut,
    ConfigFlag,
    ConfigIn,
    ConfigOut,
    EndIn,
    Io,
    IoendFlag,
    IoendIn,
    IoendOut,
    MapFlag,
    OpFlag,
    Type,
    UpsertOut,
)
from regionfs.wire.parse import IN_HEADER, IN_HEADER_SIZE
from regionfs.wire.replies import Attr, AttrOut, EntryOut, InitOut, OpenOut, OutHeader
from regionfs.wire.requests import FsyncIn, GetattrIn, InitIn, OpenIn, ReleaseIn, SetattrIn, SyncfsIn

PAGE = 4096
RECORD = 32            # bytes of one cached mapping
MAXBYTES = 2**63 - 1
FLAGS = sum(ConfigFlag)
WRITES = OpFlag.WRITE | OpFlag.ZERO | OpFlag.UNSHARE | OpFlag.WRITEBACK
INODE = iomap_v7.ATTR_EXCLUSIVE | iomap_v7.ATTR_IOMAP
YES, NO = Ability(True, ""), Ability(False, "not here")
TIMEOUT = 20           # seconds for a reply

Tamper = Callable[[Server], None]


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


class IomapKernel:
    """One mount, from INIT to DESTROY. `tamper` may spoil the server before it serves."""

    def __init__(self, manifest: Path, *, caches: bool = True, tamper: Tamper | None = None, exclusive: bool = False,
                 passthrough: bool = False, seed: int = 0, modes: tuple[Mode, ...] = DEFAULT_ORDER) -> None:
        self.begins = 0
        self.files: dict[int, File] = {}
        self.devices = Devices(exclusive)
        self._caches = caches
        self._rng = Random(seed)
        self._violation: BaseException | None = None
        self._replies: dict[int, bytes] = {}
        self._arrived = threading.Condition()
        self._unique = 0
        self._ended = False
        self._cache_limit = 256 << 10
        self.block = self.maxbytes = 0
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        loaded = load(manifest)
        facts = inspect_sources(loaded)
        self._sources = Sources(loaded, facts)
        backed = YES if passthrough else NO
        self.fs = FileSystem(loaded, self._sources, choose_all(loaded, facts, Kernel(backed, backed, YES), modes))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._thread = threading.Thread(target=self._serve, args=(theirs, passthrough, tamper), daemon=True)
        self.server: Server

    def __enter__(self) -> Self:
        self._reader.start()
        self._thread.start()
        self._init()
        self._configure()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            if value is None:
                for file in self.files.values():
                    self.writeback(file)
                self.request(abi.Opcode.SYNCFS, 1, codec.pack(SyncfsIn()))
                self.request(abi.Opcode.DESTROY, 0)
        finally:
            self._ended = True
            self._socket.shutdown(socket.SHUT_RDWR)
            self._thread.join(TIMEOUT)
            self._reader.join(TIMEOUT)
            self._socket.close()
            self.devices.close()
            self._sources.close()

    # the connection

    def _serve(self, theirs: socket.socket, passthrough: bool, tamper: Tamper | None) -> None:
        with theirs:
            negotiated = handshake(theirs.fileno(), codec_wanted(passthrough))
            self.server = Server(self.fs, theirs.fileno(), negotiated, Ledger(), self.devices)
            if tamper is not None:
                tamper(self.server)
            self.server.run()

    def _read(self) -> None:
        while data := self._receive():
            header = codec.unpack(OutHeader, data)
            try:
                if header.length != len(data):
                    raise RuleError(f"a reply of {len(data)} bytes says {header.length}")
                if header.unique == 0:
                    self._notified(header.error, data[codec.OUT_HEADER_SIZE:])
            except BaseException as error:
                self._violation = self._violation or error
            with self._arrived:
                self._replies[header.unique] = data
                self._arrived.notify_all()
        with self._arrived:
            self._ended = True
            self._arrived.notify_all()

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(2 << 20)
        except OSError:
            return b""

    def request(self, opcode: int, ino: int, body: bytes = b"") -> bytes:
        """Ask the server and wait; the reply's body. OSError as it answered."""
        self._unique += 2
        header = IN_HEADER.pack(IN_HEADER_SIZE + len(body), opcode, self._unique, ino, 0, 0, 1, 0)
        self._socket.send(header + body)
        with self._arrived:
            there = self._arrived.wait_for(lambda: self._unique in self._replies or self._ended, TIMEOUT)
        assert there and self._unique in self._replies, f"no reply to opcode {opcode}"
        self._check()
        data = self._replies.pop(self._unique)
        error = -codec.unpack(OutHeader, data).error
        if error:
            raise OSError(error, os.strerror(error))
        return data[codec.OUT_HEADER_SIZE:]

    def _check(self) -> None:
        if self._violation is not None:
            violation, self._violation = self._violation, None
            raise violation

    def settle(self) -> None:
        """Wait until the server has told, and we have taken, every mapping it was about to tell."""
        assert self.server.iomap is not None
        self.server.iomap.upserts.settle()
        self.request(abi.Opcode.STATFS, 1)  # its reply comes after them
        self._check()

    def _init(self) -> None:
        flags = abi.InitFlag(0x73FFFFFB | 0x5FD << 32) | iomap_v7.INIT_FLAG
        body = codec.pack(InitIn(7, 99, 131072, flags & 0xFFFFFFFF, flags >> 32))
        reply = codec.unpack(InitOut, self.request(abi.Opcode.INIT, 0, body))
        if reply.minor != iomap_v7.MINOR or not reply.flags & iomap_v7.INIT_FLAG:
            raise RuleError(f"INIT: minor {reply.minor}, flags {reply.flags:#x}")
        self.devices.ready = True

    def _configure(self) -> None:
        body = iomap_v7.pack(ConfigIn(FLAGS, MAXBYTES, self._cache_limit))
        data = self.request(iomap_v7.Opcode.CONFIG, 0, body)
        reply = iomap_v7.unpack(ConfigOut, data)
        self.block = reply.blocksize
        self.maxbytes = reply.maxbytes if reply.flags & ConfigFlag.MAXBYTES else MAXBYTES
        if reply.flags & ConfigFlag.CACHE_MAXBYTES:
            self._cache_limit = min(max(reply.cache_maxbytes, 256), 2 << 20)
        good = (reply.flags & ~FLAGS == 0 and self.block in (512, 1024, 2048, 4096) and 0 < reply.time_gran <= 10**9
                and 0 <= self.maxbytes <= MAXBYTES and data[57:60] == bytes(3))
        if not good:
            raise RuleError(f"CONFIG: {reply}")

    # names

    def open(self, path: str, flags: int = os.O_RDWR) -> File:
        """Look the file up, see that every reply flags its inode, open it."""
        ino = 1
        for name in path.split("/"):
            entry = codec.unpack(EntryOut, self.request(abi.Opcode.LOOKUP, ino, name.encode() + b"\0"))
            ino = entry.nodeid
        attr = codec.unpack(AttrOut, self.request(abi.Opcode.GETATTR, ino, codec.pack(GetattrIn(0, 0)))).attr
        for found in (entry.attr, attr):
            self._check_attr(found, ino)
        opened = codec.unpack(OpenOut, self.request(abi.Opcode.OPEN, ino, codec.pack(OpenIn(flags, 0))))
        if opened.open_flags & ~abi.FOPEN_KEEP_CACHE:
            raise RuleError(f"OPEN: flags {opened.open_flags:#x}")
        return self.files.setdefault(ino, File(ino, attr.size))

    def _check_attr(self, attr: Attr, ino: int) -> None:
        if attr.flags & INODE != INODE or attr.ino != ino:
            raise RuleError(f"attributes of inode {attr.ino}: flags {attr.flags:#x}")

    def close(self, file: File) -> None:
        """What close(2) sends, of a reader too: the times, then RELEASE."""
        valid = abi.SetattrValid.ATIME | abi.SetattrValid.MTIME | abi.SetattrValid.CTIME
        body = codec.pack(SetattrIn(valid, 0, 0, 0, 5, 6, 7, 8, 9, 10, 0, 0, 0))
        self._check_attr(codec.unpack(AttrOut, self.request(abi.Opcode.SETATTR, file.ino, body)).attr, file.ino)
        self.request(abi.Opcode.RELEASE, file.ino, codec.pack(ReleaseIn(0, os.O_RDWR, 0, 0)))

    def evict(self, file: File) -> None:
        """Memory is short: the inode goes, and with it pages and mappings."""
        self.writeback(file)
        with self._arrived:
            self.files[file.ino].read_fork, self.files[file.ino].write_fork = Fork(True), Fork(False)
        file.blocks.clear()

    # mappings

    def mapping(self, file: File, pos: int, count: int, flags: int) -> Io:
        """What covers `pos`: from the cache, or by BEGIN. OSError as the caller would see it."""
        io = self._cached(file, pos, flags) if self._caches else None
        if io is None:
            io = self._begin(file, pos, count, flags)
        if io.type == Type.MAPPED and flags & WRITES and not self.devices.known[io.dev].writable:
            raise OSError(errno.EACCES, "the device is open for reading only")
        return io

    def _cached(self, file: File, pos: int, flags: int) -> Io | None:
        with self._arrived:
            if flags & WRITES and file.write_fork.exists:
                write = file.write_fork.find(pos)
                if write is None:
                    return None
                assert write.type == Type.PURE_OVERWRITE
            io = file.read_fork.find(pos)
        return None if io is not None and io.type == Type.HOLE and flags & WRITES else io

    def _begin(self, file: File, pos: int, count: int, flags: int) -> Io:
        self.begins += 1
        data = self.request(iomap_v7.Opcode.BEGIN, file.ino, iomap_v7.pack(BeginIn(flags, file.ino, pos, count)))
        if len(data) != iomap_v7.LAYOUTS[BeginOut].size:
            raise RuleError(f"BEGIN: a reply of {len(data)} bytes")
        read, write = iomap_v7.unpack(BeginOut, data)
        for io in (read, write):
            self._check_io(io, is_write=io is write)
            if io.type in (Type.NOCACHE, Type.RETRY_CACHE):
                raise RuleError(f"BEGIN: type {io.type}")
            if not io.offset <= pos < io.end:
                raise RuleError(f"BEGIN: [{io.offset}, {io.end}) does not cover {pos}")
        if flags & WRITES and write.type != Type.PURE_OVERWRITE:
            raise RuleError(f"BEGIN: write half {write}")
        if read.type == Type.HOLE and flags & WRITES:
            raise RuleError(f"BEGIN: a hole for a write at {pos}")
        return read

    def _check_io(self, io: Io, *, is_write: bool) -> None:
        """fuse_iomap_check_mapping, and what the kernel does not check but does wrong."""
        if io.type not in list(Type) or io.flags & ~sum(MapFlag):
            raise RuleError(f"type or flags: {io}")
        if io.length == 0 or io.offset % self.block or io.length % self.block:
            raise RuleError(f"not on {self.block}-byte blocks: {io}")
        if io.end >= 2**64 or io.offset >= self.maxbytes or io.end > self.maxbytes:
            raise RuleError(f"past the largest file: {io}")
        if io.type in (Type.MAPPED, Type.UNWRITTEN):
            known = self.devices.known.get(io.dev)
            if known is None or io.addr == NULL_ADDR:
                raise RuleError(f"no such device or address: {io}")
            if io.addr % self.block or io.addr + io.length > known.size:
                raise RuleError(f"not on a block of the device: {io}")
        elif io.dev or io.addr != NULL_ADDR:
            raise RuleError(f"a device where none belongs: {io}")
        if io.type == Type.PURE_OVERWRITE and (not is_write or io.flags):
            raise RuleError(f"overwrite: {io}")
        if io.type in (Type.NOCACHE, Type.RETRY_CACHE) and io.flags:
            raise RuleError(f"flags on an instruction: {io}")

    def _notified(self, code: int, body: bytes) -> None:
        if code != iomap_v7.Notify.UPSERT_MAPPINGS:
            raise RuleError(f"notification {code}")
        message = iomap_v7.unpack(UpsertOut, body)
        self._check_io(message.read, is_write=False)
        self._check_io(message.write, is_write=True)
        if message.nodeid != message.attr_ino or message.read.type in (Type.RETRY_CACHE, Type.NOCACHE):
            raise RuleError(f"UPSERT: {message}")
        with self._arrived:
            file = self.files.get(message.nodeid)
            if file is not None and self._caches:
                file.read_fork.put(message.read, self._cache_limit)
                if message.write.type != Type.NOCACHE:
                    file.write_fork.put(message.write, self._cache_limit)

    def _written(self, file: File, pos: int, length: int) -> None:
        with self._arrived:
            for fork in (file.read_fork, file.write_fork):
                fork.drop(pos, pos + length)

    # reading and writing, as the kernel does it

    def read(self, file: File, pos: int, length: int) -> bytes:
        """Through the page cache."""
        end = min(pos + length, file.size)
        data = bytearray()
        while pos < end:
            block = self._filled(file, pos // self.block, end - pos, 0)
            part = block[pos % self.block:pos % self.block + end - pos]
            data += part
            pos += len(part)
        return bytes(data)

    def _filled(self, file: File, number: int, count: int, flags: int, io: Io | None = None) -> bytearray:
        """A block of the page cache, read if it was not there; by `io` where a write has it already."""
        if number not in file.blocks:
            start = number * self.block
            io = io or self.mapping(file, start, max(count, self.block), flags)
            stop = min(io.end, start + max(count, self.block))
            for pos in range(start, max(stop // self.block * self.block, start + self.block), self.block):
                if pos // self.block not in file.blocks:
                    file.blocks[pos // self.block] = bytearray(self._load(io, pos, self.block))
        return file.blocks[number]

    def _load(self, io: Io, pos: int, length: int) -> bytes:
        if io.type == Type.HOLE:
            return bytes(length)
        data = os.pread(self.devices.known[io.dev].fd, length, io.addr + pos - io.offset)
        assert len(data) == length
        return data

    def write(self, file: File, pos: int, data: bytes) -> int:
        """Through the page cache; short where a later part fails. OSError when the first byte does."""
        done = 0
        while done < len(data):
            rest = len(data) - done
            try:
                io = self.mapping(file, pos + done, rest, OpFlag.WRITE)
            except OSError:
                if done:
                    return done
                raise
            count = min(io.end - pos - done, rest)
            self._store(file, pos + done, data[done:done + count], io)
            done += count
            if count < rest:
                self._end(file, pos + done - count, rest, count, OpFlag.WRITE, io)
        return done

    def _store(self, file: File, pos: int, data: bytes, io: Io) -> None:
        for number in range(pos // self.block, -(-(pos + len(data)) // self.block)):
            block = self._filled(file, number, 0, 0, io)
            start = max(pos, number * self.block)
            stop = min(pos + len(data), (number + 1) * self.block)
            block[start % self.block:start % self.block + stop - start] = data[start - pos:stop - pos]
            file.dirty.add(number)

    def _end(self, file: File, pos: int, count: int, written: int, flags: int, io: Io) -> None:
        body = iomap_v7.pack(EndIn(flags, file.ino, pos, count, written, io))
        if self.request(iomap_v7.Opcode.END, file.ino, body):
            raise RuleError("END: the reply is more than a header")

    def map_write(self, file: File, pos: int, data: bytes) -> None:
        """Store through a shared mapping: each page becomes writable as a whole, or SIGBUS (OSError)."""
        for page in range(pos // PAGE * PAGE, pos + len(data), PAGE):
            at, end = page, min(page + PAGE, file.size)
            while at < end:
                io = self.mapping(file, at, end - at, OpFlag.WRITE | OpFlag.FAULT)
                stop = min(io.end, end)
                for number in range(at // self.block, stop // self.block):
                    self._filled(file, number, 0, 0, io)
                    file.dirty.add(number)
                at = stop
        for index, byte in enumerate(data):
            file.blocks[(pos + index) // self.block][(pos + index) % self.block] = byte

    def writeback(self, file: File) -> None:
        """Write dirty blocks; what meets by position and sector goes in one piece to the first one's device."""
        io: Io | None = None
        piece: list[Any] = []  # device, sector, position, data
        for number in sorted(file.dirty):
            pos = number * self.block
            if io is None or not io.offset <= pos < io.end:
                io = self.mapping(file, pos, self.block, OpFlag.WRITEBACK | self._rng.choice((0, OpFlag.WRITE)))
            sector = (io.addr + pos - io.offset) // 512
            joins = piece and piece[2] + len(piece[3]) == pos and piece[1] + len(piece[3]) // 512 == sector
            if joins and not (io.flags & MapFlag.BOUNDARY and pos == io.offset):
                piece[3] += file.blocks[number]
                continue
            self._submit(file, piece)
            piece = [io.dev, sector, pos, bytearray(file.blocks[number])]
        self._submit(file, piece)
        file.dirty.clear()

    def _submit(self, file: File, piece: list[Any]) -> None:
        if piece:
            dev, sector, pos, data = piece
            assert len(data) == os.pwrite(self.devices.known[dev].fd, data, sector * 512)
            self._ioend(file, IoendFlag.WRITEBACK, pos, sector, len(data), dev)

    def _ioend(self, file: File, flags: int, pos: int, sector: int, written: int, dev: int) -> None:
        body = iomap_v7.pack(IoendIn(flags, 0, file.ino, pos, sector, written, dev))
        reply = iomap_v7.unpack(IoendOut, self.request(iomap_v7.Opcode.IOEND, file.ino, body))
        if reply.newsize != file.size:
            raise RuleError(f"IOEND: size {reply.newsize} instead of {file.size}")
        self._written(file, pos, written)

    def direct_read(self, file: File, pos: int, length: int) -> bytes:
        """O_DIRECT, on the devices."""
        self.writeback(file)
        end, data = min(pos + length, file.size), bytearray()
        flags = OpFlag.DIRECT | self._rng.choice((0, OpFlag.NOWAIT))
        while pos < end:
            io = self.mapping(file, pos, end - pos, flags)
            data += self._load(io, pos, min(io.end, end) - pos)
            pos = min(io.end, end)
        return bytes(data)

    def direct_write(self, file: File, pos: int, data: bytes) -> int:
        """O_DIRECT, on the devices; short where a later part fails."""
        self.writeback(file)
        done = 0
        while done < len(data):
            flags = OpFlag.WRITE | OpFlag.DIRECT | self._rng.choice((0, OpFlag.OVERWRITE_ONLY))
            try:
                io = self.mapping(file, pos + done, len(data) - done, flags)
            except OSError:
                if done:
                    break
                raise
            part = data[done:done + io.end - pos - done]
            at = io.addr + pos + done - io.offset
            assert len(part) == os.pwrite(self.devices.known[io.dev].fd, part, at)
            done += len(part)
        for number in range(pos // self.block, -(-(pos + done) // self.block)):
            file.blocks.pop(number, None)
        self._ioend(file, IoendFlag.DIRECT, pos, NULL_ADDR, done, 0)
        return done

    def zero(self, file: File, pos: int, length: int) -> None:
        """Zeros through the page cache, as after a punched hole; holes are left alone."""
        end = pos + length
        while pos < end:
            io = self.mapping(file, pos, end - pos, OpFlag.ZERO)
            stop = min(io.end, end)
            self._store(file, pos, bytes(stop - pos), io)
            pos = stop

    def unshare(self, file: File, pos: int, length: int) -> None:
        """Nothing is shared: only asked."""
        end = pos + length
        while pos < end:
            pos = self.mapping(file, pos, end - pos, OpFlag.UNSHARE).end

    def report(self, file: File) -> Iterator[Io]:
        """FIEMAP: mappings from 0 on, the last one up to the largest file."""
        pos = 0
        while pos < self.maxbytes:
            io = self.mapping(file, pos, self.maxbytes - pos, OpFlag.REPORT)
            yield io
            if pos >= file.size and io.end < self.maxbytes // PAGE * PAGE:
                raise RuleError(f"REPORT: the hole at the end stops at {io.end}")
            if pos >= file.size:
                return
            pos = io.end

    def seek(self, file: File, pos: int, whence: int) -> int:
        """lseek with SEEK_DATA or SEEK_HOLE."""
        if pos >= file.size:
            raise OSError(errno.ENXIO, "past the end")
        while pos < file.size:
            io = self.mapping(file, pos, file.size - pos, OpFlag.REPORT)
            if (io.type == Type.HOLE) == (whence == os.SEEK_HOLE):
                return pos
            pos = io.end
        if whence == os.SEEK_HOLE:
            return file.size
        raise OSError(errno.ENXIO, "no data")

    def fsync(self, file: File) -> None:
        """Write-back, then the server flushes the devices."""
        self.writeback(file)
        self.request(abi.Opcode.FSYNC, file.ino, codec.pack(FsyncIn(0, self._rng.choice((0, 1)))))


def codec_wanted(passthrough: bool) -> Any:
    """What the daemon asks for where the ioctl says that iomap is there."""
    from regionfs.wire.session import Wanted
    return Wanted(passthrough=passthrough, iomap=True)
