"""Mutated requests, on the wire and on the control socket: every one is answered, nothing crashes or hangs.

The short form is a few thousand of each, `make torture` 200,000. (The manifest loader's own are in tests/manifest.)
"""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from regionfs.daemon import control, runtime
from regionfs.wire import codec
from regionfs.wire.abi import Opcode
from regionfs.wire.codec import pack
from regionfs.wire.replies import OutHeader
from regionfs.wire.requests import GetattrIn, InHeader
from tests.faults.lives import FILES, SIZE, TORTURE, Lives, make_sources
from tests.harness import PROJECT, Mount
from tests.wire.golden import REQUESTS

pytestmark = pytest.mark.timeout(3600)

WIRE = 200_000 if TORTURE else 10_000
CONTROL = 200_000 if TORTURE else 1_000
BATCH = 100
ROOT = 1
HEADER = 40
LEFT = {Opcode.FORGET, Opcode.BATCH_FORGET}  # get no reply
EDGES = (0, 1, 7, 0xFF, 0xFFFF, 1 << 31, (1 << 32) - 1, 1 << 62, 1 << 63, (1 << 64) - 1)
WITHIN = 30  # seconds for an answer
ROOM = BATCH << 18  # bytes of answers that may lie unread: a write to /dev/fuse never finds it full, a socket's might
SO_SNDBUFFORCE = 32  # asm-generic/socket.h; the socket module has no name for it


class Kernel:
    """The other side of a server's descriptor."""

    def __init__(self, manifest: Path) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, ROOM)
        with theirs:
            self.server = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.fuzzed", str(theirs.fileno()), manifest], cwd=PROJECT,
                pass_fds=[theirs.fileno()], stderr=subprocess.PIPE, text=True)
        self._arrived = threading.Condition()
        self._waiting: set[int] = set()
        self.answers = 0
        self.wrong: list[str] = []
        self.log = ""
        self._threads = [threading.Thread(target=work, daemon=True) for work in (self._listen, self._read_log)]
        for thread in self._threads:
            thread.start()

    def send(self, request: bytes, waits_for: int | None = None) -> None:
        """Any bytes."""
        if waits_for is not None:
            with self._arrived:
                self._waiting.add(waits_for)
        self._socket.send(request)

    def settle(self) -> None:
        """Wait until every request that must be answered was."""
        with self._arrived:
            assert self._arrived.wait_for(lambda: not self._waiting, WITHIN), (
                f"no answer to {self._waiting}\n{self.log[-4000:]}")

    def close(self) -> int:
        """The server's exit status."""
        self._socket.shutdown(socket.SHUT_RDWR)
        try:
            return self.server.wait(WITHIN)
        finally:
            self.server.kill()
            for thread in self._threads:
                thread.join()
            self._socket.close()

    def _listen(self) -> None:
        with suppress(OSError):
            while data := self._socket.recv(2 << 20):
                header = codec.unpack(OutHeader, data)
                if header.length != len(data) or (header.unique and not -4096 < header.error <= 0):
                    self.wrong.append(f"{len(data)} bytes: {header}")
                with self._arrived:
                    self.answers += bool(header.unique)
                    self._waiting.discard(header.unique)
                    self._arrived.notify_all()

    def _read_log(self) -> None:
        assert self.server.stderr is not None
        for line in self.server.stderr:
            self.log = (self.log + line)[-20000:]


def mutations(inodes: list[int], rng: random.Random) -> Iterator[tuple[int, bytes]]:
    """(unique, request) without end: golden requests to real inodes, up to a few fields spoiled."""
    unique = 0
    while True:
        unique += 2
        opcode, struct, names, _, data = rng.choice(REQUESTS)
        body = bytearray((pack(struct) if struct is not None else b"") + (names if names else data))
        for _ in range(rng.randrange(4)):
            spoil(body, rng)
        length = HEADER + len(body)
        if rng.random() < 0.02:
            length = rng.choice((0, 39, length - 1, length + 1, (1 << 32) - 1))
        if rng.random() < 0.02:
            opcode = Opcode.GETATTR if rng.random() < 0.5 else rng.randrange(1 << 32)
        inode = rng.choice(inodes) if rng.random() < 0.95 else rng.choice(EDGES)
        message = pack(InHeader(length, opcode, unique, inode, 0, 0, 1, 0)) + body
        yield unique, message if rng.random() < 0.98 else message[:rng.randrange(1, len(message) + 1)]


def spoil(body: bytearray, rng: random.Random) -> None:
    """One change, as a confused kernel would make it."""
    if not body:
        return
    at = rng.randrange(len(body))
    match rng.randrange(5):
        case 0:
            body[at] ^= 1 << rng.randrange(8)
        case 1:
            at &= ~7
            body[at:at + 8] = rng.choice(EDGES).to_bytes(8, "little")[:len(body) - at]
        case 2:
            at &= ~3
            body[at:at + 4] = (rng.choice(EDGES) & 0xFFFFFFFF).to_bytes(4, "little")[:len(body) - at]
        case 3:
            del body[at:]
        case 4:
            body[at:at] = rng.randbytes(rng.randrange(32))


def test_mutated_requests_on_the_wire(tmp_path: Path) -> None:
    """Each that has a number and wants an answer gets one, in its form; no handler meets what it does not know."""
    make_sources(tmp_path)
    manifest = tmp_path / "fuzz.yaml"
    manifest.write_text(json.dumps({"regionfs": 1, "files": {**FILES, "deep/er.bin": {
        "size": SIZE, "regions": [
            {"start": 100, "data": {"hex": "00ff"}}, {"start": 4096, "length": 512, "error": True},
            {"start": 8192, "length": 1000, "source": "comp-1.img"}]}}}))
    kernel, rng, begun = Kernel(manifest), random.Random(1), time.monotonic()
    try:
        inodes = [ROOT, *known_inodes(manifest)]
        stream = mutations(inodes, rng)
        for number in range(WIRE):
            unique, request = next(stream)
            opcode = int.from_bytes(request[4:8], "little")
            answered = len(request) >= HEADER and opcode not in LEFT
            kernel.send(request, unique if answered else None)
            if number % BATCH == 0:
                kernel.send(pack(InHeader(HEADER + 16, Opcode.GETATTR, unique + 1, ROOT, 0, 0, 1, 0)) +
                            pack(GetattrIn(0, 0)), unique + 1)
                kernel.settle()
        kernel.settle()
    finally:
        status = kernel.close()
    print(f"\n{WIRE} requests, {kernel.answers} answers, {WIRE / (time.monotonic() - begun):.0f} per second")
    assert (0, []) == (status, kernel.wrong[:3])
    assert "Traceback" not in kernel.log, kernel.log[-4000:]


def known_inodes(manifest: Path) -> list[int]:
    """The inode numbers that the server will give."""
    from regionfs.fs import FileSystem
    from regionfs.manifest.load import load
    from regionfs.modes.choose import Choice, Mode
    from regionfs.source import Sources
    loaded = load(manifest)
    with Sources(loaded) as sources:
        choices = dict.fromkeys(loaded.files, Choice(Mode.USERSPACE, ""))
        return list(FileSystem(loaded, sources, choices).tree.nodes)


REQUEST_FORMS = [
    b'{"command": "status"}\n', b'{"command": "reload", "dry_run": true}\n',
    b'{"command": "reload", "manifest": "/nowhere.yaml"}\n', b'{"command": "upgrade", "python": 7}\n',
    b'{"command": ["status"]}\n', b'[' * 5000 + b'\n', b'{"command": "reload", "manifest": "\\ud800"}\n',
    b'{"command": "reload", "manifest": "a\\u0000b"}\n', b'\xff\xfe\n', b'{}\n', b'\n', b'x' * 70000,
    b'{"command": "reload", "dry_run": ' + b'9' * 5000 + b'}\n',
    b'{"command": "reload", "dry_run": true, "manifest": "' + "\u20ac".encode() * 20000 + b'"}\n',
]


@pytest.mark.mounted
def test_mutated_requests_on_the_control_socket(tmp_path: Path) -> None:
    """Each connection gets one line of JSON or is closed; clients that never finish keep nobody waiting."""
    make_sources(tmp_path)
    rng = random.Random(2)
    with Mount(tmp_path, FILES) as mount:
        path, lives = runtime.socket_of(mount.path.resolve()), Lives(mount)
        begun, answers = time.monotonic(), 0
        hangers = [connected(path) for _ in range(60)]
        for hanger in hangers:
            with suppress(OSError):
                hanger.send(b'{"comm')
        for _ in range(CONTROL):
            request = bytearray(rng.choice(REQUEST_FORMS))
            for _ in range(rng.choice((0, 0, 1, 3))):
                spoil(request, rng)
            with connected(path) as client, suppress(BrokenPipeError, ConnectionResetError):
                client.sendall(request)
                client.shutdown(socket.SHUT_WR)
                said = b"".join(iter(lambda: client.recv(65536), b""))
                assert isinstance(json.loads(said), dict)
                answers += 1
        per_second = CONTROL / (time.monotonic() - begun)
        for hanger in hangers:
            hanger.close()
        print(f"\n{CONTROL} control requests, {answers} answers, {per_second:.0f} per second")
        assert lives.holder == control.call(path, "status")["holder_pid"]
        assert "Traceback" not in runtime.log_of(mount.path.resolve()).read_text()
        assert set(FILES) == {entry.name for entry in mount.path.iterdir()}


def connected(path: Path) -> socket.socket:
    """A client that waits no longer than it should have to."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(os.fspath(path))
    client.settimeout(WITHIN)
    return client
