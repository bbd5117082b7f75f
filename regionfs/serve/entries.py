"""Attributes -> what LOOKUP, GETATTR and READDIRPLUS are answered with, and for how long the kernel keeps that."""

from __future__ import annotations

from regionfs.attributes import Attributes
from regionfs.extents import BLOCK
from regionfs.wire import codec
from regionfs.wire.replies import Attr, AttrOut, EntryOut

ENTRY_SECONDS = 3600  # names change only when the manifest is read again, and then we say so
MISSED_SECONDS = 60   # the same for a name that is not there; compilers ask for many
ATTR_SECONDS = 1      # sizes and times follow the sources; an open finds out at once

_ENTRY, _ATTR_OUT = codec.LAYOUTS[EntryOut], codec.LAYOUTS[AttrOut]
NO_ENTRY = codec.pack(EntryOut(0, 0, MISSED_SECONDS, 0, 0, 0, Attr(*[0] * len(Attr._fields))))


def entry_out(found: Attributes, flags: int = 0) -> bytes:
    """An EntryOut; `flags` are fuse_attr's."""
    return _ENTRY.pack(found.ino, 0, ENTRY_SECONDS, attr_seconds(found), 0, 0, *_attr(found, flags))


def attr_out(found: Attributes, flags: int = 0) -> bytes:
    """An AttrOut, likewise."""
    return _ATTR_OUT.pack(attr_seconds(found), 0, *_attr(found, flags))


def bare_entry(ino: int, mode: int) -> bytes:
    """An EntryOut that is no lookup: of nothing but a number and a type."""
    return _ENTRY.pack(0, 0, 0, 0, 0, 0, *_attr(Attributes(ino, 0, 0, 0, 0, 0, mode, 1, 0, 0)))


def attr_seconds(found: Attributes) -> int:
    """For how long the kernel may keep them."""
    return ATTR_SECONDS if found.keep else 0


def _attr(found: Attributes, flags: int = 0) -> tuple[int, ...]:
    """The fields of an Attr, as they lie in a packed EntryOut or AttrOut: the names would cost as much as all else."""
    ino, size, blocks, atime, mtime, ctime, mode, nlink, uid, gid, _ = found
    return (ino, size, blocks, atime // 10**9 % 2**64, mtime // 10**9 % 2**64, ctime // 10**9 % 2**64,
            atime % 10**9, mtime % 10**9, ctime % 10**9, mode, nlink, uid, gid, 0, BLOCK, flags)
