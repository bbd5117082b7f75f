"""Structs and whole messages to the kernel: values <-> bytes."""

from __future__ import annotations

import errno

import pytest

from regionfs.errors import ProtocolError
from regionfs.wire.abi import MAX_ERRNO, NotifyCode
from regionfs.wire.codec import LAYOUTS, Message, dirent, direntplus, error, fill, notify, pack, reply, unpack, written
from regionfs.wire.replies import Attr, Dirent, EntryOut, NotifyInvalInodeOut, OpenOut, OutHeader, WriteOut
from tests.wire.golden import STRUCTS

IDS = [type(message).__name__ for message, _ in STRUCTS]
ATTR = Attr(9, 4096, 8, 1, 2, 3, 4, 5, 6, 0o100644, 1, 1000, 1000, 0, 512)


def test_every_struct_is_golden() -> None:
    """The golden table has each struct of the layout tables once."""
    assert list(LAYOUTS) == [type(message) for message, _ in STRUCTS]


@pytest.mark.parametrize(("message", "golden"), STRUCTS, ids=IDS)
def test_pack(message: Message, golden: str) -> None:
    """A value becomes exactly the golden bytes."""
    assert bytes.fromhex(golden) == pack(message)


@pytest.mark.parametrize(("message", "golden"), STRUCTS, ids=IDS)
def test_unpack(message: Message, golden: str) -> None:
    """The golden bytes become the value again, at any offset and whatever follows."""
    assert message == unpack(type(message), b"\xff" * 3 + bytes.fromhex(golden) + b"\xff", 3)


@pytest.mark.parametrize(("message", "golden"), STRUCTS, ids=IDS)
def test_truncated(message: Message, golden: str) -> None:
    """A struct cut off at any byte is refused."""
    whole = bytes.fromhex(golden)
    for length in range(len(whole)):
        with pytest.raises(ProtocolError, match=type(message).__name__):
            unpack(type(message), whole[:length])


@pytest.mark.parametrize("offset", [-1, 1, 16, 17, 2**63])
def test_offset_outside(offset: int) -> None:
    """An offset from which the struct does not fit is refused, a negative one too."""
    with pytest.raises(ProtocolError):
        unpack(OutHeader, bytes(16), offset)


def test_reply() -> None:
    """A reply's header counts every part, and keeps the resend bit of unique."""
    header, *parts = reply(2**63 + 5, pack(OpenOut(7, 0)), b"abc")
    assert OutHeader(16 + 16 + 3, 0, 2**63 + 5) == unpack(OutHeader, header)
    assert [pack(OpenOut(7, 0)), b"abc"] == parts


def test_reply_without_body() -> None:
    """FLUSH, RELEASE and others are answered with a header alone."""
    assert [bytes.fromhex("10000000 00000000 0500000000000000")] == reply(5)


def test_error() -> None:
    """errno is positive for callers and negative on the wire."""
    assert bytes.fromhex("10000000 e2ffffff 0500000000000000") == error(5, errno.EROFS)


@pytest.mark.parametrize("number", [0, -5, MAX_ERRNO + 1, 2**40])
def test_error_the_kernel_would_refuse(number: int) -> None:
    """An errno that the kernel would not take becomes EIO, so that the caller is answered at all."""
    assert error(5, errno.EIO) == error(5, number)


def test_notify() -> None:
    """A notification has unique 0 and its code in the error field."""
    header, body = notify(NotifyCode.INVAL_INODE, pack(NotifyInvalInodeOut(2, -1, 0)))
    assert OutHeader(40, 2, 0) == unpack(OutHeader, header)
    assert NotifyInvalInodeOut(2, -1, 0) == unpack(NotifyInvalInodeOut, body)


def test_resend() -> None:
    """RESEND is a header alone."""
    assert [bytes.fromhex("10000000 07000000 0000000000000000")] == notify(NotifyCode.RESEND)


@pytest.mark.parametrize("length", range(1, 18))
def test_dirent(length: int) -> None:
    """A directory entry is padded to 8 bytes, namelen is not, and the type is the mode's."""
    name = b"n" * length
    record = dirent(9, 3, 0o100644, name)
    assert (0, Dirent(9, 3, length, 8)) == (len(record) % 8, unpack(Dirent, record))
    assert name + bytes(-length % 8) == record[24:]


def test_direntplus() -> None:
    """READDIRPLUS puts the entry before the directory entry."""
    entry = EntryOut(2, 0, 1, 1, 0, 0, ATTR)
    record = direntplus(entry, 3, b"disk.img")
    assert (entry, dirent(9, 3, 0o100644, b"disk.img")) == (unpack(EntryOut, record), record[128:])


@pytest.mark.parametrize(("size", "count"), [(0, 0), (31, 0), (32, 1), (63, 1), (64, 2), (96, 3), (4096, 3)])
def test_fill(size: int, count: int) -> None:
    """Whole entries only, as many as fit; the rest is not even computed."""
    records = [dirent(9, number, 0o100644, b"name") for number in range(3)]
    assert (b"".join(records[:count]), count) == fill(iter(records), size)


def test_the_short_reply_to_a_write_is_the_long_one() -> None:
    """written() packs what reply() and pack() make."""
    assert b"".join(reply(7, pack(WriteOut(4096)))) == written(7, 4096)
