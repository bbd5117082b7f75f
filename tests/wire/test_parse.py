"""Whole requests: what the kernel sends is understood, anything else is refused with its lengths."""

from __future__ import annotations

import random
import struct
import time

import pytest

from regionfs.errors import ProtocolError
from regionfs.wire import parse as module
from regionfs.wire.abi import Opcode
from regionfs.wire.codec import LAYOUTS, Message, pack
from regionfs.wire.parse import IN_HEADER_SIZE, IO_REQUEST, IO_REQUEST_SIZE, Request, forgets, parse
from regionfs.wire.requests import ForgetOne, InHeader, InitIn, ReadIn, WriteIn
from tests.wire.golden import REQUESTS

IDS = [row[0].name for row in REQUESTS]
Row = tuple[Opcode, Message | None, bytes, tuple[bytes, ...], bytes]


def request(opcode: int, rest: bytes, length: int | None = None, extlen: int = 0) -> bytes:
    """A request with a header that fits, unless told otherwise."""
    length = IN_HEADER_SIZE + len(rest) if length is None else length
    return pack(InHeader(length, opcode, 6, 2, 1000, 1001, 77, extlen)) + rest


def rest_of(row: Row) -> bytes:
    return (pack(row[1]) if row[1] is not None else b"") + row[2]


def parsed(data: bytes) -> Request:
    """As a server does: the request stands at the front of a larger buffer with other bytes behind it."""
    return parse(bytearray(data) + b"\xff" * 64, len(data))


def test_every_opcode_is_golden() -> None:
    """The golden table has each opcode that the parser knows; DAX's two never come over /dev/fuse."""
    assert set(module.REQUESTS) == {row[0] for row in REQUESTS}
    assert {Opcode.SETUPMAPPING, Opcode.REMOVEMAPPING} == set(Opcode) - set(module.REQUESTS)


@pytest.mark.parametrize("row", REQUESTS, ids=IDS)
def test_parse(row: Row) -> None:
    """A well-formed request gives its header, struct, names and data."""
    opcode, body, _, names, data = row
    rest = rest_of(row)
    header = InHeader(40 + len(rest), opcode, 6, 2, 1000, 1001, 77, 0)
    assert (header, body, names, data) == parsed(request(opcode, rest))


@pytest.mark.parametrize("row", REQUESTS, ids=IDS)
def test_truncated(row: Row) -> None:
    """A request cut off at any byte is refused, whether its header admits that or not."""
    opcode, rest = row[0], rest_of(row)
    whole = request(opcode, rest)
    for length in range(len(whole)):
        with pytest.raises(ProtocolError):
            parsed(whole[:length])
    for length in set(range(len(rest))) - {16 if opcode == Opcode.INIT else -1}:
        with pytest.raises(ProtocolError, match=opcode.name):
            parsed(request(opcode, rest[:length]))


@pytest.mark.parametrize("row", REQUESTS, ids=IDS)
@pytest.mark.parametrize("extra", [b"\0", b"x", b"x\0", bytes(8)])
def test_trailing(row: Row, extra: bytes) -> None:
    """Bytes after the end are refused; only a newer INIT may be longer."""
    opcode, rest = row[0], rest_of(row)
    with pytest.raises(ProtocolError, match=opcode.name):
        parsed(request(opcode, rest + extra, length=IN_HEADER_SIZE + len(rest)))
    if opcode == Opcode.INIT:
        assert row[1] == parsed(request(opcode, rest + extra)).body
        return
    with pytest.raises(ProtocolError, match=opcode.name):
        parsed(request(opcode, rest + extra))


def test_short_init() -> None:
    """Kernels before 7.36 send INIT without flags2."""
    assert InitIn(7, 31, 131072, 0xFF) == parsed(request(Opcode.INIT, struct.pack("=4I", 7, 31, 131072, 0xFF))).body


@pytest.mark.parametrize(("opcode", "rest", "why"), [
    (Opcode.LOOKUP, b"", "strings"),
    (Opcode.LOOKUP, b"\0", "empty"),
    (Opcode.LOOKUP, b"name", "strings"),
    (Opcode.LOOKUP, b"a/b\0", "'/'"),
    (Opcode.LOOKUP, b"/\0", "'/'"),
    (Opcode.SYMLINK, b"a/b\0target\0", "'/'"),
    (Opcode.SYMLINK, b"name\0\0", "empty"),
    (Opcode.RENAME, bytes(8) + b"old\0n/w\0", "'/'"),
    (Opcode.RENAME, bytes(8) + b"old\0", "strings"),
    (Opcode.GETXATTR, bytes(8) + b"\0", "empty"),
    (Opcode.SETXATTR, struct.pack("=II", 3, 0) + b"\0abc", "empty"),
    (Opcode.SETXATTR, struct.pack("=II", 3, 0) + b"abc", "NUL"),
    (Opcode.SETXATTR, struct.pack("=II", 4, 0) + b"user.a\0abc", "4 bytes of data were announced, 3 came"),
    (Opcode.WRITE, pack(WriteIn(7, 0, 2**32 - 1, 0, 0, 0)) + b"abc", "4294967295 bytes"),
    (Opcode.BATCH_FORGET, struct.pack("=II", 2**32 - 1, 0) + bytes(16), "announced, 16 came"),
])
def test_malformed(opcode: Opcode, rest: bytes, why: str) -> None:
    """What does not add up is refused; the message says why and shows no contents."""
    with pytest.raises(ProtocolError, match=why) as caught:
        parsed(request(opcode, rest))
    assert f"malformed {opcode.name} of {40 + len(rest)} bytes: " in str(caught.value)


def test_extensions_were_not_negotiated() -> None:
    """Extensions behind a request are refused: nobody asked for them."""
    with pytest.raises(ProtocolError, match="16 bytes of extensions"):
        parsed(request(Opcode.MKDIR, bytes(8) + b"new\0" + bytes(16), extlen=2))


@pytest.mark.parametrize("size", [0, 39, 105])
def test_impossible_size(size: int) -> None:
    """A size that is no request's or exceeds the buffer is refused before anything is read."""
    with pytest.raises(ProtocolError, match=str(size)):
        parse(bytes(104), size)


@pytest.mark.parametrize("opcode", [0, 7, 48, 54, 4094, 2**32 - 1])
def test_unknown_opcode(opcode: int) -> None:
    """An opcode without a row is handed on with its bytes, for ENOSYS or another table."""
    found = parsed(request(opcode, b"anything"))
    assert (opcode, None, (), b"anything") == (found.header.opcode, *found[1:])


def test_forget() -> None:
    """FORGET names its inode in the header."""
    assert [ForgetOne(2, 3)] == list(forgets(parsed(request(Opcode.FORGET, struct.pack("=Q", 3)))))


def test_batch_forget() -> None:
    """BATCH_FORGET carries a list."""
    rest = struct.pack("=II4Q", 2, 0, 10, 1, 11, 2)
    assert [ForgetOne(10, 1), ForgetOne(11, 2)] == list(forgets(parsed(request(Opcode.BATCH_FORGET, rest))))


@pytest.mark.parametrize("body", [ReadIn(7, 2**40, 4096, 2, 9, 0o100000), WriteIn(7, 2**40, 3, 2, 9, 0o100002)])
def test_hot_path_agrees(body: ReadIn | WriteIn) -> None:
    """IO_REQUEST reads from a READ or WRITE what parse() reads."""
    opcode, data = (Opcode.READ, b"") if isinstance(body, ReadIn) else (Opcode.WRITE, b"abc")
    whole = request(opcode, pack(body) + data)
    found = parsed(whole)
    assert (*found.header[:7], *body) == IO_REQUEST.unpack_from(whole)
    assert data == whole[IO_REQUEST_SIZE:] == found.data


SEEDS = range(8)


@pytest.mark.parametrize("seed", SEEDS)
def test_fuzz(seed: int) -> None:
    """120,000 damaged and random requests in all: each is parsed or refused, nothing else happens."""
    chance, deadline = random.Random(seed), time.monotonic() + 20
    refused = 0
    for _ in range(15_000):
        data = damaged(chance)
        try:
            found = parse(data, len(data))
            list(forgets(found)) if found.header.opcode in (Opcode.FORGET, Opcode.BATCH_FORGET) else None
        except ProtocolError:
            refused += 1
    assert 1_000 < refused < 14_500
    assert time.monotonic() < deadline


def damaged(chance: random.Random) -> bytes:
    """A golden request with some of its bytes changed, cut, doubled or replaced by noise."""
    row = chance.choice(REQUESTS)
    rest = bytearray(rest_of(row))
    match chance.randrange(6):
        case 0:
            del rest[chance.randrange(len(rest) + 1):]
        case 1:
            rest += chance.randbytes(chance.randrange(1, 20))
        case 2:
            rest = bytearray(chance.randbytes(chance.randrange(120)))
        case 3 if rest:
            for _ in range(chance.randrange(1, 4)):
                rest[chance.randrange(len(rest))] = chance.choice([0, 0x2F, 0xFF, chance.randrange(256)])
        case 4:
            rest = rest + rest
    whole = bytearray(request(row[0] if chance.random() < 0.9 else chance.getrandbits(32), bytes(rest)))
    # the header itself, seldom
    if chance.random() < 0.2:
        whole[chance.randrange(min(len(whole), IN_HEADER_SIZE))] = chance.randrange(256)
    return bytes(whole[:chance.randrange(len(whole))] if chance.random() < 0.05 else whole)


def test_padding_is_ignored() -> None:
    """Padding that a later kernel gives a meaning does not make a request malformed."""
    rest = bytearray(pack(ReadIn(7, 0, 4096, 0, 0, 0)))
    rest[-4:] = b"\xff" * 4
    assert ReadIn(7, 0, 4096, 0, 0, 0) == parsed(request(Opcode.READ, bytes(rest))).body
    assert len(rest) == LAYOUTS[ReadIn].size
