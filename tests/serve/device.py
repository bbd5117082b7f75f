"""The fast path on a socket in place of /dev/fuse: a message is a request, one that comes back its reply.

Nothing runs beside the test: after each request comes one that the loop cannot answer, so that receive()
returns. What the loop hands over is answered by nobody; a test does with execute what the engine would.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from struct import Struct
from types import TracebackType
from typing import Any, NamedTuple, Self

from regionfs.descriptors import in_memory
from regionfs.fs import FileSystem
from regionfs.manifest.load import load
from regionfs.modes.choose import Choice, Mode
from regionfs.serve.fast import FastPath, Shown
from regionfs.serve.ledger import Ledger
from regionfs.serve.relay import AWAKE, SINCE, Relay
from regionfs.source import Sources
from regionfs.tree import FileNode
from tests.faults.lives import eventually
from tests.harness import PROJECT

# linux/fuse.h: fuse_in_header, then fuse_read_in or fuse_write_in
REQUEST = Struct("=IIQQIII4xQQIIQI4x")
REPLY = Struct("=IiQ")           # fuse_out_header
WRITTEN = Struct("=IiQI4x")      # and fuse_write_out
OPEN = Struct("=IIQQIII4xII")             # fuse_in_header, fuse_open_in
OPENED = Struct("=IiQQIi")       # fuse_out_header, fuse_open_out
RELEASE = Struct("=IIQQIII4xQIIQ")         # fuse_in_header, fuse_release_in
READ, WRITE = 15, 16
KEEP_CACHE = 2
WRITE_CACHE, WRITE_LOCKOWNER, KILL_SUIDGID = 1, 2, 4
UNIQUE = 4711
ROOM = 1 << 17                   # bytes of a request or a reply
STOP = b"stop"
NOTHING = Shown()                # LOOKUP and GETATTR are Python's


class Handed(NamedTuple):
    """A request that came back for Python; `size` is negative for a READ that would wait for a disk."""

    size: int


class Leader(Relay):
    """A relay whose only thread is the test, with a watchman who is awake and never looks."""

    def __init__(self) -> None:
        super().__init__(lambda relay: None)
        self.turns[AWAKE] = 1

    def leads(self) -> bool:
        """Always."""
        return True


def read_request(ino: int, offset: int, count: int) -> bytes:
    """A READ."""
    return REQUEST.pack(REQUEST.size, READ, UNIQUE, ino, 0, 0, 0, 0, offset, count, 0, 0, 0)


def write_request(ino: int, offset: int, data: bytes, io_flags: int = 0, flags: int = os.O_RDWR) -> bytes:
    """A WRITE; `flags` are those of the file's open."""
    return REQUEST.pack(REQUEST.size + len(data), WRITE, UNIQUE, ino, 0, 0, 0, 0, offset, len(data), io_flags, 0,
                        flags) + data


def open_request(ino: int, flags: int = os.O_RDONLY, unique: int = UNIQUE) -> bytes:
    """An OPEN."""
    return OPEN.pack(OPEN.size, 14, unique, ino, 0, 0, 0, flags, 0)


def release_request(ino: int, unique: int = UNIQUE) -> bytes:
    """A RELEASE."""
    return RELEASE.pack(RELEASE.size, 18, unique, ino, 0, 0, 0, 0, 0, 0, 0)


class Device:
    """A FastPath over `fs`, and the kernel's end of its descriptor."""

    def __init__(self, fs: FileSystem, ledger: Ledger | None = None) -> None:
        self.kernel, self._ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in self.kernel, self._ours:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * ROOM)
        self.fast, self.relay = FastPath(fs, self._ours.fileno(), ledger=ledger), Leader()
        assert self.fast._table is not None
        self.table = self.fast._table
        self.request, self._answer = memoryview(bytearray(ROOM)), memoryview(bytearray(ROOM))

    def receive(self) -> int | None:
        """One call of the loop."""
        return self.fast.receive(self.request, self._answer, self.relay)

    def ask(self, message: bytes) -> bytes | Handed:
        """The reply that the loop made to `message`, or what it handed over."""
        self.kernel.send(message)
        self.kernel.send(STOP)
        size = self.receive()
        assert size is not None
        if bytes(self.request[:len(STOP)]) == STOP and size == len(STOP):
            assert 0 == self.relay.turns[SINCE], "a request that is answered needs no watching"
            return self.kernel.recv(ROOM)
        assert len(STOP) == self.receive()
        return Handed(size)

    def read(self, ino: int, offset: int, count: int) -> bytes | Handed:
        """The bytes of a READ, or that it was handed over."""
        reply = self.ask(read_request(ino, offset, count))
        if isinstance(reply, Handed):
            return reply
        assert (len(reply), 0, UNIQUE) == REPLY.unpack_from(reply)
        return reply[REPLY.size:]

    def write(self, ino: int, offset: int, data: bytes, io_flags: int = 0, flags: int = os.O_RDWR) -> int | Handed:
        """The bytes that a WRITE took, or that it was handed over."""
        reply = self.ask(write_request(ino, offset, data, io_flags, flags))
        if isinstance(reply, Handed):
            return reply
        *header, count = WRITTEN.unpack(reply)
        assert [WRITTEN.size, 0, UNIQUE] == header
        return int(count)

    def open(self, ino: int, flags: int = os.O_RDONLY) -> bool:
        """True when an OPEN was answered, and the page cache kept; False when it was handed over."""
        reply = self.ask(open_request(ino, flags))
        if isinstance(reply, Handed):
            assert OPEN.size == reply.size
            return False
        assert (OPENED.size, 0, UNIQUE, 0, KEEP_CACHE, 0) == OPENED.unpack(reply)
        return True

    def release(self, ino: int) -> bool:
        """True when a RELEASE was answered; False when it was handed over."""
        reply = self.ask(release_request(ino))
        if isinstance(reply, Handed):
            assert RELEASE.size == reply.size
            return False
        assert (REPLY.size, 0, UNIQUE) == REPLY.unpack(reply)
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.kernel.close()
        self._ours.close()
        self.table.clear()


class World(NamedTuple):
    """A manifest's files behind a device."""

    fs: FileSystem
    device: Device

    def ino(self, path: str) -> int:
        """Of a file."""
        return self.fs.tree.files[path].ino

    def learn(self, path: str, offset: int = 0, length: int = 1 << 20) -> int:
        """Let the loop know a file and what lies behind a range of it, as after a WRITE; its inode number."""
        open_to_write(self.fs.tree.files[path])
        self.device.fast.learn(self.ino(path), offset, length)
        return self.ino(path)

    def learn_open(self, path: str) -> int:
        """Let Python open a file until the page cache is kept, then teach the loop; its inode number."""
        node = self.fs.tree.files[path]

        def kept() -> bool:
            opened = self.fs.open(node.ino, os.O_RDONLY)
            node.fill(self.fs.lasting(node, opened))
            return opened.keep_cache

        eventually(kept)  # time stamps settle
        self.device.fast.learn_open(self.ino(path))
        return self.ino(path)


def open_to_write(node: FileNode) -> None:
    """What a file may write is open for that, as after a WRITE to it."""
    with contextlib.suppress(OSError):  # it is gone
        for key in node.spec.rw_sources:
            node.sources.fd_to_write(key)


@contextlib.contextmanager
def served(manifest: Path) -> Iterator[World]:
    """The manifest at this path, its files in userspace mode."""
    loaded = load(manifest)
    choices = {path: Choice(Mode.USERSPACE, "a test") for path in loaded.files}
    with Sources(loaded) as sources:
        fs = FileSystem(loaded, sources, choices)
        with Device(fs) as device:
            yield World(fs, device)


@contextlib.contextmanager
def served_from(directory: Path, files: Mapping[str, Any]) -> Iterator[World]:
    """A manifest of `files`, written to the directory of their sources; nothing is known of them yet."""
    path = directory / "map.yaml"
    path.write_text(json.dumps({"regionfs": 1, "files": files}))
    with served(path) as made:
        yield made


@contextlib.contextmanager
def on_disk(directory: Path) -> Iterator[Path]:
    """`directory`, or where it lies in memory one beside the project: pages that can be dropped."""
    with open(directory / "probe", "wb") as probe:
        if not in_memory(probe.fileno()):
            yield directory
            return
    (PROJECT / "build").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PROJECT / "build") as beside:
        yield Path(beside)


def drop_pages(path: Path, offset: int = 0, length: int = 0) -> None:
    """Let the page cache forget a range of a file."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), offset, length, os.POSIX_FADV_DONTNEED)
