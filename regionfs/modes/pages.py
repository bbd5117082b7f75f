"""The page cache of a file, by the huge page: how much of one is there, and filling one.

A fault in a mapping that wants huge pages and is read at random fills just the huge page around it, as one folio where
memory allows (do_sync_mmap_readahead in mm/filemap.c): no other call fills a given range in large folios. Knows nothing
of who reads the file.
"""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

SIZE = Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")
LARGEST = 4 << 20  # bytes; where pages are of 64 KiB huge ones are of 512 MiB, which is too much at once
_CACHESTAT = 451   # the same on all architectures; Linux 6.5
POPULATE_READ = 22   # MADV_POPULATE_READ, linux/mman.h

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_FAILED = ctypes.c_void_p(-1).value


class _Range(ctypes.Structure):
    """struct cachestat_range, linux/mman.h; bytes."""

    _fields_ = (("offset", ctypes.c_uint64), ("length", ctypes.c_uint64))


class _Found(ctypes.Structure):
    """struct cachestat; pages."""

    _fields_ = tuple((name, ctypes.c_uint64)
                     for name in ("cached", "dirty", "writeback", "evicted", "recently_evicted"))


def huge() -> int:
    """Bytes of a huge page; 0 where there are none, or too large ones."""
    try:
        size = int(SIZE.read_text())
    except OSError:
        return 0
    return size if size <= LARGEST else 0


def cached(fd: int, offset: int, length: int) -> bool:
    """True when every page of the range is in the page cache or on its way there. OSError."""
    found = _Found()
    where = _Range(offset, length)
    _check(_libc.syscall(ctypes.c_long(_CACHESTAT), ctypes.c_int(fd), ctypes.byref(where), ctypes.byref(found),
                         ctypes.c_uint(0)))
    return bool(found.cached == (offset + length - 1) // mmap.PAGESIZE - offset // mmap.PAGESIZE + 1)


def fill(fd: int, offset: int, length: int) -> None:
    """Read a range into the page cache: at most one huge page, from its border on. OSError.

    Other threads go on meanwhile; but where a disk fails, its second try keeps them from mapping memory.
    """
    address = _libc.mmap(None, length, mmap.PROT_READ, mmap.MAP_SHARED, fd, offset)
    if address == _FAILED:
        _check(-1)
    try:
        for advice in (mmap.MADV_HUGEPAGE, mmap.MADV_RANDOM):
            _check(_libc.madvise(address, length, advice))
        _check(_libc.madvise(address, mmap.PAGESIZE, POPULATE_READ))
    finally:
        _libc.munmap(address, length)


def _check(result: int) -> None:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
