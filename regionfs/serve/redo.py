"""What is left to do of a request that a dead server had begun. Pure, but for a look at a source.

Three things tell. Positions that were overtaken: another request was done there, so this one counts as done
before it. The state that the dead server saw before it began: where that has changed, the request was done, or
somebody came after it whom we cannot see. And for an append, which only adds to what others add, the bytes
themselves. Where nothing tells, to do it again is to do the same.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from regionfs.digest import blake2b
from regionfs.execute import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
from regionfs.serve.underway import Range
from regionfs.units import MAX_OFFSET
from regionfs.wire.abi import SetattrValid
from regionfs.wire.requests import FallocateIn, SetattrIn

PAGE = 4096
LOOK = 1 << 20   # bytes that are looked at at a time
HEAD = 4096      # bytes behind a new, smaller end of file that tell whether they were cut off

# positions behind all bytes: attributes by their bit in SETATTR's mask, then extended attributes by name
_VALID = SetattrValid
_ATTRIBUTES = {bit: MAX_OFFSET + place for place, bit in enumerate(
    (_VALID.MODE, _VALID.UID, _VALID.GID, _VALID.ATIME, _VALID.MTIME))}
_NAMES = MAX_OFFSET + len(_ATTRIBUTES)

Read = Callable[[int, int], bytes]  # of (offset, length) of a source


class State(NamedTuple):
    """What a SETATTR finds: the source's attributes, times in ns, and a number for what it would cut off."""

    size: int
    mode: int
    uid: int
    gid: int
    atime: int
    mtime: int
    tail: int


def positions(body: SetattrIn) -> list[Range]:
    """What a SETATTR changes."""
    ranges = [(body.size, MAX_OFFSET)] if body.valid & _VALID.SIZE and body.size < MAX_OFFSET else []
    return ranges + [(at, at + 1) for bit, at in _ATTRIBUTES.items() if body.valid & bit]


def position_of(name: bytes) -> int:
    """Where an extended attribute is; two names may share one."""
    return _NAMES + number_of(name) % MAX_OFFSET


def number_of(value: bytes) -> int:
    """A number for some bytes, never 0."""
    return int.from_bytes(blake2b(value, digest_size=8).digest(), "little") or 1


def state_of(fd: int, body: SetattrIn, before: int | None = None) -> State:
    """What `body` finds now; `before` is the size that the file had when it was begun. OSError."""
    found = os.fstat(fd)
    size = found.st_size if before is None else before
    cuts = body.valid & _VALID.SIZE and body.size < size
    tail = number_of(os.pread(fd, min(HEAD, size - body.size), body.size)) if cuts else 0
    # before 1970 times are negative
    return State(found.st_size, found.st_mode, found.st_uid, found.st_gid, found.st_atime_ns % 2**64,
                 found.st_mtime_ns % 2**64, tail)


def left_of_setattr(body: SetattrIn, before: State, now: State, overtaken: Sequence[Range]) -> SetattrIn:
    """The part of a SETATTR that is still to be done."""
    def newer(at: int) -> bool:
        return any(start <= at < end for start, end in overtaken)

    gone = _VALID(0)
    for bit, was, found in ((_VALID.MODE, before.mode, now.mode), (_VALID.UID, before.uid, now.uid),
                            (_VALID.GID, before.gid, now.gid), (_VALID.MTIME, before.mtime, now.mtime)):
        if newer(_ATTRIBUTES[bit]) or was != found:
            gone |= bit
    if newer(_ATTRIBUTES[_VALID.ATIME]):  # reads change it, so that its change tells nothing
        gone |= _VALID.ATIME
    cut = now.size < before.size or now.tail != before.tail
    beyond = overtaken and min(overtaken)[0] < MAX_OFFSET
    if beyond or (cut if body.size < before.size else now.size >= body.size):
        gone |= _VALID.SIZE
    for bit, at_once in ((_VALID.ATIME, _VALID.ATIME_NOW), (_VALID.MTIME, _VALID.MTIME_NOW)):
        if bit in gone:
            gone |= at_once
    return body._replace(valid=body.valid & ~gone)


def left_of_write(start: int, end: int, overtaken: Sequence[Range]) -> Iterator[Range]:
    """What is left of [start, end), in order."""
    for first, last in sorted(overtaken):
        if start < min(first, end):
            yield start, min(first, end)
        start = max(start, last)
    if start < end:
        yield start, end


def left_of_fallocate(body: FallocateIn, size: int, overtaken: Sequence[Range]) -> Iterator[FallocateIn]:
    """What is left of a FALLOCATE of a file that had `size` bytes: what others have added since then stays."""
    end = body.offset + body.length
    if not body.mode & (PUNCH_HOLE | ZERO_RANGE):
        yield body  # takes nothing away
        return
    for first, last in left_of_write(body.offset, min(end, size), overtaken):
        yield body._replace(offset=first, length=last - first)
    if not body.mode & KEEP_SIZE and end > size:
        yield body._replace(mode=0, offset=size, length=end - size)


def left_of_append(data: memoryview, before: int, size: int, overtaken: Sequence[Range], read: Read) -> memoryview:
    """The bytes of an append that the source, which had `before` bytes and now has `size`, does not have yet.

    Others may have appended, before it and after it, so it is looked for in all that came.
    """
    for at in range(before, size, LOOK):
        if bytes(data) in read(at, LOOK + len(data) - 1):
            return data[len(data):]
    if size >= before + len(data) and _stands(data, before, overtaken, read(before, len(data))):
        return data[len(data):]
    # a kill cuts a write at a page
    part = size - before
    if 0 < part < len(data) and size % PAGE == 0 and read(before, part) == data[:part]:
        return data[part:]
    return data


def _stands(data: memoryview, at: int, overtaken: Sequence[Range], found: bytes) -> bool:
    """True when `data` was written `at`, and all that differs was written over it."""
    newer = [(max(start, at) - at, end - at) for start, end in overtaken if end > at]
    return bool(newer) and all(found[start:end] == data[start:end] for start, end in left_of_write(0, len(data), newer))
