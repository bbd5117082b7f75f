"""The kernel's side in the tests catches wrong servers: each spoils one thing, and each is found out.

A checker that accepts everything would pass every map; so here is a list of what it must not accept.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from regionfs.serve.native import Server
from regionfs.wire import abi, codec, iomap_v7
from regionfs.wire.iomap_v7 import (
    NULL_ADDR,
    BeginIn,
    BeginOut,
    Io,
    IoendOut,
    Opcode,
    OpFlag,
    Type,
    UpsertOut,
    pack,
    unpack,
)
from regionfs.wire.parse import Request
from regionfs.wire.replies import OpenOut
from tests.harness import loop_device
from tests.iomap_connection import Tamper
from tests.iomap_kernel import IomapKernel
from tests.iomap_state import RuleError
from tests.oracle import Declared, Model, Source

CHUNK, CHUNKS = 1024, 8
Change = Callable[[BeginIn, BeginOut], BeginOut]


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """Two loop devices for all tests of this module."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("loop devices need root and /dev/loop-control")
    directory = tmp_path_factory.mktemp("disks")
    with ExitStack() as stack:
        found = []
        for name in "ab":
            (directory / name).write_bytes(bytes(CHUNK * CHUNKS))
            found.append(stack.enter_context(loop_device(directory / name)))
        yield found


def striped(devices: list[Path], tmp_path: Path) -> tuple[Path, Model, list[Source]]:
    """Chunks of two devices in turn, each at its own place, so that sectors go on on the other; the last is ro."""
    sources = [Source(name, path, bytearray(Random(name).randbytes(CHUNK * CHUNKS)), device=True)
               for name, path in zip("ab", devices, strict=True)]
    regions = [Declared(CHUNK * n, CHUNK, "source", sources[n % 2], CHUNK * n, writable=n < CHUNKS - 1)
               for n in range(CHUNKS)]
    lines = [f"      - {{source: {'ab'[n % 2]}, offset: {CHUNK * n}, length: {CHUNK}, "
             f"access: {'rw' if n < CHUNKS - 1 else 'ro'}}}" for n in range(CHUNKS)]
    named = "".join(f"  {source.key}: {source.path}\n" for source in sources)
    manifest = tmp_path / "striped.yaml"
    manifest.write_text(f"regionfs: 1\nsources:\n{named}files:\n  f:\n    size: {CHUNK * (CHUNKS + 1)}\n    regions:\n"
                        + "\n".join(lines) + "\n")
    for source in sources:
        source.put()
    return manifest, Model(CHUNK * (CHUNKS + 1), regions), sources


WRITES = ((100, b"x" * 5000), (CHUNK * (CHUNKS - 2), b"y" * 4000), (CHUNK * (CHUNKS - 1), b"z" * 100))


def use(devices: list[Path], tmp_path: Path, tamper: Tamper | None = None, *, caches: bool = True) -> None:
    """Report, read, write, write to where nothing may be written, flush; compare every byte."""
    manifest, model, sources = striped(devices, tmp_path)
    with IomapKernel(manifest, tamper=tamper, caches=caches) as kernel:
        file = kernel.open("f")
        list(kernel.report(file))
        kernel.evict(file)
        assert model.read(0, file.size) == kernel.read(file, 0, file.size), "when first asked"
        kernel.settle()
        file.blocks.clear()
        assert model.read(0, file.size) == kernel.read(file, 0, file.size), "after the mappings were told"
        for offset, data in WRITES:
            try:
                expected: object = model.write(offset, data)
            except OSError as error:
                expected = error.errno
            try:
                written: object = kernel.write(file, offset, data)
            except OSError as error:
                written = error.errno
            assert expected == written, "what a write returned"
        kernel.fsync(file)
        kernel.settle()
        kernel.evict(file)
        assert model.read(0, file.size) == kernel.read(file, 0, file.size), "after writing"
        kernel.close(file)
    for source in sources:
        assert source.contents == source.get(), f"device {source.key}"


def begins(change: Change) -> Tamper:
    """A server whose answers to BEGIN are spoilt."""
    def tamper(server: Server) -> None:
        good = server._handlers.table[Opcode.BEGIN]

        def bad(request: Request) -> bytes:
            asked = iomap_v7.body(request)
            assert isinstance(asked, BeginIn)
            return pack(change(asked, unpack(BeginOut, good(request))))
        server._handlers.table[Opcode.BEGIN] = bad
    return tamper


def told(change: Callable[[UpsertOut], UpsertOut | None]) -> Tamper:
    """A server that tells spoilt mappings."""
    def tamper(server: Server) -> None:
        assert server.iomap is not None
        upserts = server.iomap.upserts
        good = upserts._send

        def bad(parts: Any) -> bool:
            message = change(unpack(UpsertOut, parts[1]))
            return message is None or good(codec.notify(iomap_v7.Notify.UPSERT_MAPPINGS, pack(message)))
        upserts._send = bad
    return tamper


def both(*tampers: Tamper) -> Tamper:
    """Spoilt in more than one place."""
    def tamper(server: Server) -> None:
        for one in tampers:
            one(server)
    return tamper


def answers(opcode: int, reply: Callable[[bytes], bytes]) -> Tamper:
    """A server whose answers to an opcode are spoilt as bytes."""
    def tamper(server: Server) -> None:
        good = server._handlers.table[opcode]
        server._handlers.table[opcode] = lambda request: reply(good(request))
    return tamper


def read_half(**values: int) -> Change:
    """The same fields in every mapping, the write half fitting."""
    def change(asked: BeginIn, reply: BeginOut) -> BeginOut:
        read = reply.read._replace(**values) if reply.read.type == Type.MAPPED else reply.read
        return BeginOut(read, iomap_v7.overwrite(read))
    return change


def write_half(**values: int) -> Change:
    return lambda asked, reply: reply._replace(write=reply.write._replace(**values))


def plain(io: Io) -> Io:
    return io._replace(flags=0)


def hole_for_writes(asked: BeginIn, reply: BeginOut) -> BeginOut:
    read = iomap_v7.hole(reply.read.offset, reply.read.length) if asked.opflags & OpFlag.WRITE else reply.read
    return BeginOut(read, iomap_v7.overwrite(read))


def not_covering(asked: BeginIn, reply: BeginOut) -> BeginOut:
    read = reply.read._replace(offset=reply.read.end)
    return BeginOut(read, iomap_v7.overwrite(read))


def writes_everywhere(server: Server) -> None:
    """EROFS is never said: ro regions are answered as if they were rw."""
    good = server._handlers.table[Opcode.BEGIN]

    def bad(request: Request) -> bytes:
        asked = iomap_v7.body(request)
        assert isinstance(asked, BeginIn)
        return good(request._replace(data=pack(asked._replace(opflags=0))))
    server._handlers.table[Opcode.BEGIN] = bad


def only_reads(message: UpsertOut) -> UpsertOut:
    """No write half is ever told: a write goes by the read half."""
    return message._replace(write=iomap_v7.nocache(message.read))


def stale(message: UpsertOut) -> UpsertOut:
    """Mappings of a map as it was: everything lay one chunk further on."""
    read = message.read
    addr = (read.addr + CHUNK) % (CHUNK * CHUNKS) if read.type == Type.MAPPED else read.addr
    return message._replace(read=read._replace(addr=addr))


BAD: dict[str, tuple[Tamper, str]] = {
    "unaligned offset": (begins(read_half(offset=1)), "not on 1024-byte blocks"),
    "unaligned length": (begins(read_half(length=700)), "not on 1024-byte blocks"),
    "unaligned address": (begins(read_half(addr=512)), "not on a block of the device"),
    "zero length": (begins(read_half(length=0)), "not on 1024-byte blocks"),
    "past the device": (begins(read_half(addr=CHUNK * CHUNKS)), "not on a block of the device"),
    "past the largest file": (begins(read_half(length=2**63)), "past the largest file"),
    "not covering": (begins(not_covering), "does not cover"),
    "dev 0 on mapped": (begins(read_half(dev=0)), "no such device"),
    "unknown dev": (begins(read_half(dev=77)), "no such device"),
    "no address on mapped": (begins(read_half(addr=NULL_ADDR)), "no such device or address"),
    "device on a hole": (begins(read_half(type=Type.HOLE)), "a device where none belongs"),
    "unknown type": (begins(read_half(type=9)), "type or flags"),
    "unknown flags": (begins(read_half(flags=1 << 12)), "type or flags"),
    "hole to a write": (begins(hole_for_writes), "a hole for a write"),
    "write half empty": (begins(lambda asked, reply: BeginOut(reply.read, Io(0, 0, 0, 0, 0, 0))), "not on 1024"),
    "write half with a device": (begins(write_half(dev=1)), "a device where none belongs"),
    "write half with flags": (begins(write_half(flags=1)), "overwrite"),
    "write half nocache": (begins(write_half(type=Type.NOCACHE)), "type 253"),
    "overwrite in the read half": (begins(lambda asked, reply: BeginOut(reply.write, reply.write)), "overwrite"),
    "short reply": (answers(Opcode.BEGIN, lambda data: data[:-1]), "a reply of 63 bytes"),
    "no boundary": (both(begins(lambda asked, reply: reply._replace(read=plain(reply.read))),
                         told(lambda message: message._replace(read=plain(message.read)))), "after writing"),
    "stale upsert": (told(stale), "when first asked|after the mappings were told"),
    "upsert unaligned": (told(lambda m: m._replace(read=m.read._replace(length=512))), "not on 1024"),
    "upsert with dev 0": (told(lambda m: m._replace(read=m.read._replace(dev=0, type=Type.MAPPED))), "no such device"),
    "upsert without a write half": (told(only_reads), "what a write returned"),
    "no EROFS": (writes_everywhere, "a hole for a write"),
    "wrong size at ioend": (answers(Opcode.IOEND, lambda data: pack(IoendOut(5))), "size 5"),
    "more than a header at end": (answers(Opcode.END, lambda data: bytes(8)), "more than a header"),
    "direct open": (answers(abi.Opcode.OPEN, lambda data: codec.pack(OpenOut(0, abi.FOPEN_DIRECT_IO))), "OPEN: flags"),
    "no inode flags": (answers(abi.Opcode.LOOKUP, lambda data: data[:-4] + bytes(4)), "flags 0x0"),
    "no block size": (answers(Opcode.CONFIG, lambda data: data[:60] + bytes(4) + data[64:]), "CONFIG"),
}


@pytest.mark.parametrize("caches", [True, False])
def test_a_good_server_passes(devices: list[Path], tmp_path: Path, caches: bool) -> None:
    """What the list above spoils is accepted as it is, whether the kernel keeps mappings or asks each time."""
    use(devices, tmp_path, caches=caches)


@pytest.mark.parametrize("name", BAD)
def test_a_bad_server_is_caught(devices: list[Path], tmp_path: Path, name: str) -> None:
    """Each by its own rule, or by bytes that are not the oracle's."""
    tamper, message = BAD[name]
    with pytest.raises((RuleError, AssertionError), match=message):
        use(devices, tmp_path, tamper, caches="upsert" in name)


