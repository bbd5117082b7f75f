"""Step 5b: plans become bytes: the only pread and pwrite of the data path.

Each function takes the mappings of the planner in order and performs them on open sources. Holes
and inline data cost no I/O. Knows nothing of FUSE; errors are OSErrors with the errno the caller
of read(2) or write(2) should see.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat

from regionfs.descriptors import in_memory
from regionfs.plan import Mapping, plan_read, plan_write
from regionfs.regions import Kind, RegionMap
from regionfs.source import Sources

NOWAIT = getattr(os, "RWF_NOWAIT", 0)  # answer from the page cache or raise BlockingIOError
_libc = ctypes.CDLL(None, use_errno=True)
_ZEROS = memoryview(bytes(1 << 20))
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16  # linux/falloc.h


def read_into(regions: RegionMap, sources: Sources, offset: int, buffer: memoryview, flags: int = 0) -> int:
    """Fill `buffer` with the bytes at `offset`; return how many there are.

    Fewer than asked only at end of file or before bytes that cannot be read; when the very first
    cannot, OSError. With NOWAIT, BlockingIOError when any byte would have to come from a disk.
    """
    done = 0
    for mapping in plan_read(regions, offset, len(buffer)):
        try:
            kind = mapping.kind
            if kind is Kind.SOURCE:
                _read_source(sources, mapping, buffer[done:done + mapping.length], flags)
            elif kind is Kind.HOLE:
                _fill_zeros(buffer[done:done + mapping.length])
            elif kind is Kind.DATA:
                buffer[done:done + mapping.length] = mapping.data[mapping.address:mapping.address + mapping.length]
            else:
                raise OSError(errno.EIO, f"error region at {mapping.offset}")
        except BlockingIOError:
            raise
        except OSError:
            if done:
                return done
            raise
        done += mapping.length
    return done


def read_whole(sources: Sources, key: str, offset: int, buffer: memoryview, flags: int = 0) -> int:
    """As read_into, of a file that is all of one source, whatever its size is now."""
    if flags:
        _read_at_once(sources, key, offset, buffer, flags)
        return len(buffer)
    return os.preadv(sources.fd(key), (buffer,), offset)


def write_from(regions: RegionMap, sources: Sources, offset: int, data: memoryview) -> int:
    """Write `data` at `offset` into rw regions; return how many bytes went in.

    Fewer than given when writable ground or the disk's space ends. OSError(EROFS) when `offset`
    lies in no rw region, the source's own error when nothing at all was written.
    """
    done = 0
    for mapping in plan_write(regions, offset, len(data)):
        try:
            done += _write_source(sources, mapping, data[done:done + mapping.length])
        except OSError:
            if done:
                return done
            raise
        if done < mapping.end - offset:
            return done
    if not done and len(data):
        raise OSError(errno.EROFS, f"no rw region at {offset}")
    return done


def write_pages(regions: RegionMap, sources: Sources, offset: int, data: memoryview) -> None:
    """Write back pages of a shared mapping: the rw bytes among them are written.

    The rest of a page must be what it was; OSError(EROFS), after the rw bytes are safe, when a
    store changed it.
    """
    spoiled = False
    for mapping in plan_read(regions, offset, len(data)):
        part = data[mapping.offset - offset:mapping.end - offset]
        if mapping.writable:
            if _write_source(sources, mapping, part) < mapping.length:
                raise OSError(errno.ENOSPC, f"only a part of the page at {mapping.offset} could be written")
        else:
            spoiled = spoiled or not _holds(regions, sources, mapping, part)
    if spoiled:
        raise OSError(errno.EROFS, f"a shared mapping changed bytes outside rw regions near {offset}")


def punch(regions: RegionMap, sources: Sources, mode: int, offset: int, length: int) -> None:
    """Punch or zero (`mode` as in fallocate(2)) a range that lies wholly in rw ground, else OSError(EROFS)."""
    mappings = list(plan_write(regions, offset, length))
    if sum(mapping.length for mapping in mappings) < length:
        raise OSError(errno.EROFS, f"[{offset}, {offset + length}) reaches outside rw regions")
    for mapping in mappings:
        fallocate(sources.fd_to_write(mapping.source), mode | KEEP_SIZE, mapping.address, mapping.length)


def fallocate(fd: int, mode: int, offset: int, length: int) -> None:
    """fallocate(2), which the os module does not have. Raises OSError."""
    if _libc.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def drop_setid(fd: int) -> None:
    """What the kernel does to a local file that another user writes: no set-id bits remain."""
    mode = os.fstat(fd).st_mode
    if mode & (stat.S_ISUID | stat.S_ISGID):
        os.fchmod(fd, stat.S_IMODE(mode) & ~(stat.S_ISUID | stat.S_ISGID))


def _read_source(sources: Sources, mapping: Mapping, part: memoryview, flags: int) -> None:
    fd, address = sources.fd(mapping.source), mapping.address
    if flags:
        _read_at_once(sources, mapping.source, address, part, flags)
        return
    while part:
        count = os.preadv(fd, (part,), address)
        if count == 0:
            raise OSError(errno.EIO, f"source {mapping.source} ends at {address}, where the map needs bytes")
        part, address = part[count:], address + count


def _read_at_once(sources: Sources, key: str, offset: int, buffer: memoryview, flags: int) -> None:
    """Fill all of `buffer` without waiting for a disk, or raise BlockingIOError."""
    if key in sources.blocking:
        raise BlockingIOError
    try:
        if os.preadv(sources.fd(key), (buffer,), offset, 0 if key in sources.in_memory else flags) == len(buffer):
            return
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:  # this file system knows no RWF_NOWAIT; a tmpfs never waits
            (sources.in_memory if in_memory(sources.fd(key)) else sources.blocking).add(key)
        elif error.errno != errno.EAGAIN:
            raise
    raise BlockingIOError


def _write_source(sources: Sources, mapping: Mapping, part: memoryview) -> int:
    fd, done = sources.fd_to_write(mapping.source), 0
    while done < len(part):
        try:
            done += os.pwrite(fd, part[done:], mapping.address + done)
        except OSError:
            if done:
                break
            raise
    return done


def _holds(regions: RegionMap, sources: Sources, mapping: Mapping, part: memoryview) -> bool:
    """True when the file shows just `part` at `mapping`."""
    now = memoryview(bytearray(mapping.length))
    return read_into(regions, sources, mapping.offset, now) == mapping.length and now == part


def _fill_zeros(part: memoryview) -> None:
    while part:
        count = min(len(part), len(_ZEROS))
        part[:count] = _ZEROS[:count]
        part = part[count:]
