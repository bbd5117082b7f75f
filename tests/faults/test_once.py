"""A server dies around a system call of a request, which comes again: nothing is done twice, nothing is undone.

The device is a socket: the test is the kernel. A server is held before or after its first call of one kind;
meanwhile others act, through the mount and past it; then it is killed, and its successor gets the request.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import Struct
from typing import Any

import pytest

from regionfs import execute
from regionfs.execute import KEEP_SIZE, PUNCH_HOLE
from regionfs.fs import FileSystem
from regionfs.manifest.load import load
from regionfs.modes.choose import Choice, Mode
from regionfs.serve.ledger import Ledger
from regionfs.serve.native import Server
from regionfs.serve.underway import OVERTAKEN
from regionfs.source import Sources
from regionfs.wire.abi import UNIQUE_RESEND, InitFlag, NotifyCode, Opcode, SetattrValid
from regionfs.wire.codec import LAYOUTS
from regionfs.wire.requests import FallocateIn, SetattrIn, SetxattrIn
from regionfs.wire.session import Negotiated

HEADER = Struct("=IIQQIII4x")
IO = Struct("=QQIIQI4x")
REPLY = Struct("=IiQ")
WRITTEN = Struct("=IiQI4x")
FILES = """regionfs: 1
files:
  part: {regions: [{source: s.img, access: rw, length: 4096}]}
  whole: {whole: s.img, access: rw}
  log: {whole: s.log, access: rw}
"""
NEGOTIATED = Negotiated(minor=40, flags=InitFlag.HAS_RESEND, max_write=1 << 16, max_pages=16, max_readahead=0,
                        max_background=12, congestion_threshold=9, time_gran=1, max_stack_depth=0)


class Kernel:
    """The kernel's end of a connection, and the servers on the other end, one after the other."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kernel, self._ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.kernel.settimeout(20)
        self._held, self._holds = os.pipe()
        self._pid = 0
        self._unique = 2
        with Sources(manifest := load(directory / "map.yaml")) as sources:
            self.inodes = {path: node.ino for path, node in FileSystem(manifest, sources, {
                path: Choice(Mode.USERSPACE, "a test") for path in manifest.files}).tree.files.items()}

    def start(self, hold: str = "", *, after: bool = False) -> None:
        """Have a server, which holds at its first call of `hold`, before or after it is made."""
        resume, self._pid = self._pid != 0, os.fork()
        if self._pid == 0:
            try:
                self._serve(hold, after=after, resume=resume)
            finally:
                os._exit(1)
        if resume:
            assert NotifyCode.RESEND == int.from_bytes(self.kernel.recv(100)[4:8], "little")

    def _serve(self, hold: str, *, after: bool, resume: bool) -> None:
        self.kernel.close()
        manifest = load(self.directory / "map.yaml")
        choices = {path: Choice(Mode.USERSPACE, "a test") for path in manifest.files}
        fs = FileSystem(manifest, Sources(manifest), choices)
        server = Server(fs, self._ours.fileno(), NEGOTIATED, Ledger(self.directory / "ledger"))
        if hold:
            place: Any = execute if hold == "fallocate" else os
            call, calls = getattr(place, hold), iter([True])

            def held(*arguments: Any, **keywords: Any) -> Any:
                first = next(calls, False)
                result = call(*arguments, **keywords) if after or not first else None
                if first:
                    os.write(self._holds, b"!")
                    threading.Event().wait()
                return result
            setattr(place, hold, held)
        server.run(resume)

    def send(self, opcode: int, path: str, body: bytes, unique: int = 0) -> int:
        """A request, or one again; its unique."""
        self._unique += 2
        unique = unique or self._unique
        self.kernel.send(HEADER.pack(HEADER.size + len(body), opcode, unique, self.inodes[path], 0, 0, 0) + body)
        return unique

    def reply(self, unique: int) -> tuple[int, bytes]:
        """(errno, body) of the reply to a request; it is the next one, but for notifications."""
        told, error, body = self.next_reply()
        assert unique == told
        return error, body

    def next_reply(self) -> tuple[int, int, bytes]:
        """(unique, errno, body) of the next reply to any request."""
        told = 0
        while not told:
            message = self.kernel.recv(1 << 17)
            length, error, told = REPLY.unpack_from(message)
        assert len(message) == length
        return told, -error, message[REPLY.size:]

    def ask(self, opcode: int, path: str, body: bytes) -> tuple[int, bytes]:
        """A request and its reply."""
        return self.reply(self.send(opcode, path, body))

    def wait_until_held(self) -> None:
        """The server is where it was to be held."""
        assert b"!" == os.read(self._held, 1)

    def kill(self) -> None:
        """As kill -9 does."""
        os.kill(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)

    def close(self) -> None:
        """End the last server."""
        self.kill()
        self.kernel.close()
        self._ours.close()
        os.close(self._held)
        os.close(self._holds)


@pytest.fixture(params=["1", "0"], ids=["compiled", "python"])
def kernel(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """A connection without a server."""
    monkeypatch.setenv("REGIONFS_FAST", request.param)
    (tmp_path / "map.yaml").write_text(FILES)
    (tmp_path / "s.img").write_bytes(b"A" * 8192)
    (tmp_path / "s.log").write_bytes(b"start\n")
    made = Kernel(tmp_path)
    yield made
    made.close()


def writing(offset: int, data: bytes, flags: int = os.O_RDWR) -> bytes:
    return IO.pack(0, offset, len(data), 0, 0, flags) + data


def setting(valid: int, **fields: int) -> bytes:
    body = SetattrIn(valid, *([0] * 12))._replace(**fields)
    return LAYOUTS[SetattrIn].pack(*body)


def named(name: bytes, value: bytes, flags: int) -> bytes:
    return LAYOUTS[SetxattrIn].pack(len(value), flags) + name + b"\0" + value


def punching(offset: int, length: int) -> bytes:
    return LAYOUTS[FallocateIn].pack(0, offset, length, PUNCH_HOLE | KEEP_SIZE)


def through_death(kernel: Kernel, hold: str, after: bool, request: tuple[int, str, bytes],
                  meanwhile: Callable[[], None] = lambda: None) -> tuple[int, bytes]:
    """The reply to a request whose first server is killed around a call."""
    kernel.start(hold, after=after)
    unique = kernel.send(*request)
    kernel.wait_until_held()
    meanwhile()
    kernel.kill()
    kernel.send(*request, unique=unique | UNIQUE_RESEND)  # the kernel queues it before RESEND returns
    kernel.start()
    return kernel.reply(unique | UNIQUE_RESEND)


AROUND = pytest.mark.parametrize("after", [False, True], ids=["before", "after"])


@AROUND
def test_a_write(kernel: Kernel, after: bool) -> None:
    """It is done, and answered with its count."""
    assert (0, WRITTEN.pack(0, 0, 0, 4)[16:]) == through_death(
        kernel, "pwrite", after, (Opcode.WRITE, "part", writing(1, b"1111")))
    assert b"A1111A" == (kernel.directory / "s.img").read_bytes()[:6]


@AROUND
@pytest.mark.parametrize("end", [2, 4])
def test_a_write_that_was_overtaken(kernel: Kernel, after: bool, end: int) -> None:
    """Another one, which was answered, is not undone; what it did not touch is done."""
    def meanwhile() -> None:
        assert 0 == kernel.ask(Opcode.WRITE, "whole", writing(0, b"2222"[:end]))[0]

    error, _ = through_death(kernel, "pwrite", after, (Opcode.WRITE, "part", writing(0, b"1111")), meanwhile)
    assert 0 == error
    assert b"2222"[:end] + b"1111"[end:] + b"A" == (kernel.directory / "s.img").read_bytes()[:5]


@AROUND
def test_a_write_that_was_overtaken_often(kernel: Kernel, after: bool) -> None:
    """Who would not be known any more waits for it, and nobody gets an error."""
    kernel.start("pwrite", after=after)
    first = kernel.send(*(request := (Opcode.WRITE, "part", writing(0, b"1" * 4096))))
    kernel.wait_until_held()
    for place in range(OVERTAKEN):
        assert 0 == kernel.ask(Opcode.WRITE, "whole", writing(place * 10, b"2"))[0]
    last = kernel.send(*(another := (Opcode.WRITE, "whole", writing(4000, b"3"))))
    assert 0 == kernel.ask(Opcode.WRITE, "log", writing(0, b"4"))[0]  # is answered before it
    kernel.kill()
    for unique, again in (first, request), (last, another):
        kernel.send(*again, unique=unique | UNIQUE_RESEND)
    kernel.start()
    assert {first | UNIQUE_RESEND: 0, last | UNIQUE_RESEND: 0} == dict(kernel.next_reply()[:2] for _ in range(2))
    shown = (kernel.directory / "s.img").read_bytes()
    assert b"2111111111" * OVERTAKEN == shown[:10 * OVERTAKEN]
    assert shown[4000:4001] in (b"1", b"3")


@AROUND
def test_a_write_under_a_truncate_and_a_hole(kernel: Kernel, after: bool) -> None:
    """What was cut off or punched since stays so."""
    def meanwhile() -> None:
        assert 0 == kernel.ask(Opcode.FALLOCATE, "whole", punching(0, 100))[0]
        assert 0 == kernel.ask(Opcode.SETATTR, "whole", setting(SetattrValid.SIZE, size=4096))[0]

    request = Opcode.WRITE, "part", writing(50, b"1" * 100)
    assert 0 == through_death(kernel, "pwrite", after, request, meanwhile)[0]
    assert bytes(100) + b"1" * 50 + b"A" * (4096 - 150) == (kernel.directory / "s.img").read_bytes()


@AROUND
@pytest.mark.parametrize("others", [b"", b"other\n"])
def test_an_append(kernel: Kernel, after: bool, others: bytes) -> None:
    """It is there once, and what others appended, too."""
    def meanwhile() -> None:
        with (kernel.directory / "s.log").open("ab") as file:
            file.write(others)

    error, _ = through_death(kernel, "pwritev", after, (Opcode.WRITE, "log", writing(6, b"MOUNT\n", os.O_APPEND)),
                             meanwhile)
    assert 0 == error
    expected = b"MOUNT\n" + others if after else others + b"MOUNT\n"
    assert b"start\n" + expected == (kernel.directory / "s.log").read_bytes()


def test_an_append_whose_caller_was_interrupted_meanwhile(kernel: Kernel) -> None:
    """INTERRUPT comes before all that comes again; the line is there once."""
    kernel.start("pwritev", after=True)
    unique = kernel.send(*(request := (Opcode.WRITE, "log", writing(6, b"MOUNT\n", os.O_APPEND))))
    kernel.wait_until_held()
    kernel.kill()
    kernel.send(Opcode.INTERRUPT, "log", unique.to_bytes(8, "little"), unique=unique | 1)
    kernel.send(*request, unique=unique | UNIQUE_RESEND)
    kernel.start()
    assert {unique | 1, unique | UNIQUE_RESEND} == {kernel.next_reply()[0] for _ in range(2)}
    assert b"start\nMOUNT\n" == (kernel.directory / "s.log").read_bytes()


@AROUND
@pytest.mark.parametrize("appended", [b"", b"other\n", b"o" * 9000])
def test_a_truncate(kernel: Kernel, after: bool, appended: bytes) -> None:
    """It cuts nothing that was appended after it."""
    def meanwhile() -> None:
        with (kernel.directory / "s.log").open("ab") as file:
            file.write(appended if after else b"")

    request = Opcode.SETATTR, "log", setting(SetattrValid.SIZE, size=2)
    error, shown = through_death(kernel, "ftruncate", after, request, meanwhile)
    assert (0, 104) == (error, len(shown))
    assert b"st" + (appended if after else b"") == (kernel.directory / "s.log").read_bytes()


@AROUND
def test_a_hole_in_what_was_written_since(kernel: Kernel, after: bool) -> None:
    """The bytes stay."""
    request = Opcode.FALLOCATE, "whole", punching(0, 100)

    def meanwhile() -> None:
        assert 0 == kernel.ask(Opcode.WRITE, "part", writing(10, b"2" * 10))[0]

    assert 0 == through_death(kernel, "fallocate", after, request, meanwhile)[0]
    assert bytes(10) + b"2" * 10 + bytes(80) + b"A" == (kernel.directory / "s.img").read_bytes()[:101]


@AROUND
@pytest.mark.parametrize("flags", [0, os.XATTR_CREATE])
@pytest.mark.parametrize("removed", [False, True])
def test_an_extended_attribute(kernel: Kernel, after: bool, flags: int, removed: bool) -> None:
    """It is set without an error; removed through the mount since then, it stays so."""
    def meanwhile() -> None:
        if removed and after:
            assert 0 == kernel.ask(Opcode.REMOVEXATTR, "log", b"user.x\0")[0]

    request = Opcode.SETXATTR, "log", named(b"user.x", b"1", flags)
    assert 0 == through_death(kernel, "setxattr", after, request, meanwhile)[0]
    assert (["user.x"] if not (removed and after) else []) == os.listxattr(kernel.directory / "s.log")


@AROUND
def test_an_extended_attribute_that_is_removed(kernel: Kernel, after: bool) -> None:
    """And one that never was is ENODATA as ever."""
    os.setxattr(kernel.directory / "s.log", "user.x", b"1")
    assert 0 == through_death(kernel, "removexattr", after, (Opcode.REMOVEXATTR, "log", b"user.x\0"))[0]
    assert [] == os.listxattr(kernel.directory / "s.log")
    assert 61 == kernel.ask(Opcode.REMOVEXATTR, "log", b"user.x\0")[0]


@AROUND
def test_a_mode(kernel: Kernel, after: bool) -> None:
    """What another request, or another program, set since then stays."""
    (kernel.directory / "s.img").chmod(0o644)
    request = Opcode.SETATTR, "whole", setting(SetattrValid.MODE, mode=0o100600)

    def meanwhile() -> None:
        if after:
            assert 0 == kernel.ask(Opcode.SETATTR, "whole", setting(SetattrValid.MODE, mode=0o100644))[0]

    assert 0 == through_death(kernel, "fchmod", after, request, meanwhile)[0]
    assert (0o644 if after else 0o600) == (kernel.directory / "s.img").stat().st_mode & 0o777


def test_a_second_death(kernel: Kernel) -> None:
    """The third server knows what the first one had begun, and what was overtaken then."""
    kernel.start("pwrite", after=True)
    unique = kernel.send(Opcode.WRITE, "part", writing(0, b"1111"))
    kernel.wait_until_held()
    assert 0 == kernel.ask(Opcode.WRITE, "whole", writing(0, b"22"))[0]
    kernel.kill()
    kernel.send(Opcode.WRITE, "part", writing(0, b"1111"), unique=unique | UNIQUE_RESEND)
    kernel.start("pwrite", after=True)
    kernel.wait_until_held()
    kernel.kill()
    kernel.send(Opcode.WRITE, "part", writing(0, b"1111"), unique=unique | UNIQUE_RESEND)
    kernel.start()
    assert 0 == kernel.reply(unique | UNIQUE_RESEND)[0]
    assert b"2211" == (kernel.directory / "s.img").read_bytes()[:4]
    assert 0 == kernel.ask(Opcode.WRITE, "whole", writing(0, b"3"))[0]
    kernel.kill()  # before the task was given back, perhaps
    kernel.start()
    assert 0 == kernel.ask(Opcode.WRITE, "whole", writing(0, b"3"))[0]
    assert unique not in Ledger(kernel.directory / "ledger").underway.left()


def test_a_failure_is_answered_again(kernel: Kernel) -> None:
    """A server fails a request, and dies before it can say so: the caller gets that error, whatever holds by then."""
    kernel.start()
    kernel.kill()
    ledger = Ledger(kernel.directory / "ledger")
    task = ledger.underway.begin(8, kernel.inodes["log"], 0, 1)
    ledger.underway.failed(task, 28)
    kernel.send(Opcode.WRITE, "log", writing(0, b"x"), unique=8 | UNIQUE_RESEND)
    kernel.start()
    assert 28 == kernel.reply(8 | UNIQUE_RESEND)[0]
    assert b"start\n" == (kernel.directory / "s.log").read_bytes()
