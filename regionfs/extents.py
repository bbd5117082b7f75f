"""Step 5c: which ranges of a composite file hold data and which are holes, as SEEK_DATA and st_blocks tell it.

Data is told outward to blocks of BLOCK bytes, counted from the file's beginning: a hole is always a whole number of
blocks that read as zeros (the last one may end with the file), whatever the borders of the map are. Readers take the
block for granted: they ask for whole sectors, and believe one answer for all of a sector. An error region counts as
data. The plan itself stays exact. Knows nothing of FUSE.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator

from regionfs.plan import plan_read
from regionfs.regions import Kind, RegionMap
from regionfs.source import Sources
from regionfs.units import align_down, align_up

BLOCK = 4096           # bytes; st_blksize and f_bsize, the largest sector that a client assumes
SCAN_LIMIT = 1 << 15   # regions and extents looked at by one question; what lies behind counts as data
_FEW_SOURCES = 64      # are asked at once whether there is anything to look at


def seek_data(regions: RegionMap, sources: Sources, offset: int) -> int:
    """The first byte at or after `offset` that is not in a hole. OSError(ENXIO) when none is."""
    for start, _ in data_ranges(regions, sources, offset, regions.size, SCAN_LIMIT):
        return start
    raise OSError(errno.ENXIO, f"no data after {offset}")


def seek_hole(regions: RegionMap, sources: Sources, offset: int) -> int:
    """The first byte at or after `offset` in a hole; end of file counts as one. OSError(ENXIO) past it."""
    if offset >= regions.size:
        raise OSError(errno.ENXIO, f"{offset} is at or past end of file")
    for start, end in data_ranges(regions, sources, offset, regions.size, SCAN_LIMIT):
        return offset if start > offset else end
    return offset


def allocated(regions: RegionMap, sources: Sources) -> int:
    """Bytes of the file that are in no hole, exact up to SCAN_LIMIT."""
    return sum(end - start for start, end in data_ranges(regions, sources, 0, regions.size, SCAN_LIMIT))


def data_ranges(regions: RegionMap, sources: Sources, offset: int, end: int,
                limit: int | None = None) -> Iterator[tuple[int, int]]:
    """Ranges [start, stop) of [offset, end) that are not holes, in order and apart from each other.

    A hole of the map or of a source. Only the first `limit` regions and extents are looked at one by one. SourceError
    or OSError where a source cannot be asked.
    """
    end = min(end, regions.size)
    sparse = _Sparse(sources)
    if offset >= end:
        return
    if len(regions.names) <= _FEW_SOURCES and not any(sparse[key] for key in regions.names):
        ranges = regions.runs(BLOCK, offset, end)
    else:
        first, last = align_down(offset, BLOCK), min(align_up(end, BLOCK), regions.size)
        ranges = whole_blocks(_exact(regions, sources, sparse, first, last, limit))
    for start, stop in ranges:
        yield max(start, offset), min(stop, end)


def whole_blocks(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Ranges in order -> the ranges of whole blocks that they touch, joined where nothing lies between."""
    first = last = 0
    for start, stop in ranges:
        start = align_down(start, BLOCK)
        if start > last:
            if first < last:
                yield first, last
            first = start
        last = max(last, align_up(stop, BLOCK))
    if first < last:
        yield first, last


def extents(fd: int, offset: int, end: int) -> Iterator[tuple[int, int]]:
    """Allocated ranges of a source within [offset, end), exact; all of it where the source cannot tell.

    What lies behind its end is gone, and no hole: who reads there is told so, who skips a hole would take it for zeros.
    """
    while offset < end:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
            stop = min(os.lseek(fd, start, os.SEEK_HOLE), end)
        except OSError as error:
            if error.errno == errno.ENXIO:  # a hole to the end of the source
                gone = max(offset, os.fstat(fd).st_size)
            elif error.errno in (errno.EINVAL, errno.EOPNOTSUPP):  # block devices know no SEEK_DATA
                gone = offset
            else:
                raise
            if gone < end:
                yield gone, end
            return
        if start >= end:
            return
        yield start, stop
        offset = stop


def _exact(regions: RegionMap, sources: Sources, sparse: _Sparse, offset: int, end: int,
           limit: int | None) -> Iterator[tuple[int, int]]:
    """Ranges that hold data, to the byte; behind `limit` regions and extents those of the map."""
    steps = 0
    for mapping in plan_read(regions, offset, end - offset):
        if limit is not None and steps > limit:
            yield from regions.runs(BLOCK, mapping.offset, end)
            return
        steps += 1
        if mapping.kind is Kind.SOURCE and sparse[mapping.source]:
            shift = mapping.offset - mapping.address
            for start, stop in extents(sources.fd(mapping.source), mapping.address, mapping.address + mapping.length):
                yield start + shift, stop + shift
                steps += 1
                if limit is not None and steps > limit:
                    yield stop + shift, mapping.end
                    break
        elif mapping.kind is not Kind.HOLE:
            yield mapping.offset, mapping.end


class _Sparse(dict[str, bool]):
    """Whether sources have holes, by key; each is asked once."""

    def __init__(self, sources: Sources) -> None:
        super().__init__()
        self._sources = sources

    def __missing__(self, key: str) -> bool:
        fd = self._sources.fd(key)
        self[key] = next(extents(fd, 0, size), (0, 0)) != (0, size) if (size := os.fstat(fd).st_size) else False
        return self[key]
