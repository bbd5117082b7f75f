"""The kernel's end of a fuse-iomap connection: requests, replies, notifications, and who answers a mapping.

The first half of iomap_kernel, which says what it is for; this one does no I/O on devices.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from random import Random
from types import TracebackType
from typing import Self

from regionfs.fs import FileSystem
from regionfs.manifest.load import load
from regionfs.modes.choose import DEFAULT_ORDER, Ability, Kernel, Mode, choose_all
from regionfs.modes.loop import attach_loops
from regionfs.serve.handshake import handshake
from regionfs.serve.ledger import Ledger
from regionfs.serve.native import Server
from regionfs.source import Sources, inspect_sources
from regionfs.wire import abi, codec, iomap_v7
from regionfs.wire.iomap_v7 import BeginIn, BeginOut, ConfigFlag, ConfigIn, ConfigOut, Io, OpFlag, Type, UpsertOut
from regionfs.wire.parse import IN_HEADER, IN_HEADER_SIZE
from regionfs.wire.replies import Attr, AttrOut, EntryOut, InitOut, OpenOut, OutHeader
from regionfs.wire.requests import GetattrIn, InitIn, OpenIn, ReleaseIn, SetattrIn, SyncfsIn
from regionfs.wire.session import Wanted
from tests.iomap_state import Devices, File, RuleError, check_io

MAXBYTES = 2**63 - 1
FLAGS = sum(ConfigFlag)
WRITES = OpFlag.WRITE | OpFlag.ZERO | OpFlag.UNSHARE | OpFlag.WRITEBACK
INODE = iomap_v7.ATTR_EXCLUSIVE | iomap_v7.ATTR_IOMAP
YES, NO = Ability(True, ""), Ability(False, "not here")
TIMEOUT = 20           # seconds for a reply
ROOM = 64 << 20        # bytes that a socket takes before it would block
SO_SNDBUFFORCE = 32    # linux/socket.h; needs CAP_NET_ADMIN

Tamper = Callable[[Server], None]


def _make_room(end: socket.socket) -> None:
    """/dev/fuse takes every message at once; `end`, which the server makes non-blocking, takes what has room."""
    try:
        end.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, ROOM)
    except PermissionError:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, ROOM)


class Connection:
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
        _make_room(theirs)
        loaded, self._loops = attach_loops(load(manifest))
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
                self.syncfs()
                self.request(abi.Opcode.DESTROY, 0)
        finally:
            self._ended = True
            self._socket.shutdown(socket.SHUT_RDWR)
            self._thread.join(TIMEOUT)
            self._reader.join(TIMEOUT)
            self._socket.close()
            self.devices.close()
            self._sources.close()
            for fd in self._loops:
                os.close(fd)

    # the connection

    def _serve(self, theirs: socket.socket, passthrough: bool, tamper: Tamper | None) -> None:
        with theirs:
            negotiated = handshake(theirs.fileno(), Wanted(passthrough=passthrough, iomap=True))
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

    def setattr(self, file: File, size: int | None = None, mode: int | None = None, uid: int | None = None) -> Attr:
        """truncate(2), chmod(2), chown(2)."""
        fields = abi.SetattrValid
        valid = (fields.SIZE * (size is not None) | fields.MODE * (mode is not None) | fields.UID * (uid is not None))
        body = codec.pack(SetattrIn(valid, 0, size or 0, 0, 0, 0, 0, 0, 0, 0, mode or 0, uid or 0, 0))
        return codec.unpack(AttrOut, self.request(abi.Opcode.SETATTR, file.ino, body)).attr

    def syncfs(self) -> None:
        """syncfs(2), as umount(2) does it too."""
        self.request(abi.Opcode.SYNCFS, 1, codec.pack(SyncfsIn()))

    def close(self, file: File) -> None:
        """What close(2) sends, of a reader too: the times, then RELEASE."""
        valid = abi.SetattrValid.ATIME | abi.SetattrValid.MTIME | abi.SetattrValid.CTIME
        body = codec.pack(SetattrIn(valid, 0, 0, 0, 5, 6, 7, 8, 9, 10, 0, 0, 0))
        self._check_attr(codec.unpack(AttrOut, self.request(abi.Opcode.SETATTR, file.ino, body)).attr, file.ino)
        self.request(abi.Opcode.RELEASE, file.ino, codec.pack(ReleaseIn(0, os.O_RDWR, 0, 0)))

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
        check_io(io, self.block, self.maxbytes, self.devices, is_write=is_write)

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
