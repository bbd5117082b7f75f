"""Structs <-> bytes, and whole messages to the kernel: replies, errors, notifications, listings. Sans-io.

errno is positive here as everywhere; only error() negates it. Requests from the kernel: see parse.
"""

from __future__ import annotations

import errno as errnos
from collections.abc import Iterable
from struct import Struct
from typing import TypeVar

from regionfs.errors import ProtocolError
from regionfs.wire import replies, requests
from regionfs.wire.abi import MAX_ERRNO
from regionfs.wire.replies import Attr, AttrOut, Dirent, EntryOut, OutHeader

Buffer = bytes | bytearray | memoryview
Message = tuple[object, ...]
M = TypeVar("M", bound=Message)

LAYOUTS: dict[type[Message], Struct] = {**requests.LAYOUTS, **replies.LAYOUTS}

OUT_HEADER = LAYOUTS[OutHeader]
_WRITTEN = Struct("=IiQI4x")               # fuse_out_header, fuse_write_out
OUT_HEADER_SIZE = OUT_HEADER.size  # 16


def pack(message: Message) -> bytes:
    """The bytes of one struct; padding is zero."""
    last = message[-1] if message else None
    flat = message[:-1] + last if isinstance(last, Attr) else message
    return LAYOUTS[type(message)].pack(*flat)


def unpack(cls: type[M], buffer: Buffer, offset: int = 0) -> M:
    """The `cls` at byte `offset` of `buffer`; ProtocolError when it ends before the struct does."""
    layout = LAYOUTS[cls]
    if offset < 0 or len(buffer) - offset < layout.size:
        raise ProtocolError(f"{cls.__name__} needs {layout.size} bytes at byte {offset} of {len(buffer)}")
    values = layout.unpack_from(buffer, offset)
    if cls in _ENDING_IN_ATTR:
        attr = len(values) - len(Attr._fields)
        values = (*values[:attr], Attr._make(values[attr:]))
    return cls.__new__(cls, *values)


_ENDING_IN_ATTR = frozenset({EntryOut, AttrOut})


def reply(unique: int, *parts: Buffer) -> list[Buffer]:
    """A successful reply as buffers for one writev(2): header, then `parts`."""
    return [OUT_HEADER.pack(OUT_HEADER_SIZE + sum(map(len, parts)), 0, unique), *parts]


def written(unique: int, size: int) -> bytes:
    """The reply to a WRITE of `size` bytes: header and fuse_write_out in one go, for the hot path."""
    return _WRITTEN.pack(_WRITTEN.size, 0, unique, size)


def error(unique: int, errno: int) -> bytes:
    """A failed reply; `errno` is positive. What the kernel would not take (over 511) becomes EIO."""
    return OUT_HEADER.pack(OUT_HEADER_SIZE, -(errno if 0 < errno <= MAX_ERRNO else errnos.EIO), unique)


def notify(code: int, *parts: Buffer) -> list[Buffer]:
    """A notification (NotifyCode) as buffers for one writev(2); RESEND and INC_EPOCH have no parts."""
    return [OUT_HEADER.pack(OUT_HEADER_SIZE + sum(map(len, parts)), code, 0), *parts]


def dirent(ino: int, offset: int, mode: int, name: bytes) -> bytes:
    """One entry of a READDIR reply, padded to 8 bytes. `offset` is where the entry after it begins."""
    padding = bytes(-len(name) % 8)
    return pack(Dirent(ino, offset, len(name), mode >> 12 & 0xF)) + name + padding


def direntplus(entry: EntryOut, offset: int, name: bytes) -> bytes:
    """One entry of a READDIRPLUS reply; the kernel counts a lookup unless its nodeid is 0 (for . and ..)."""
    return pack(entry) + dirent(entry.attr.ino, offset, entry.attr.mode, name)


def fill(records: Iterable[bytes], size: int) -> tuple[bytes, int]:
    """As many whole `records` as fit into `size` bytes, and how many those are."""
    taken: list[bytes] = []
    for record in records:
        size -= len(record)
        if size < 0:
            break
        taken.append(record)
    return b"".join(taken), len(taken)
