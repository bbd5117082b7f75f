"""The planner: a request on a composite file -> mappings that tile it. Pure.

A mapping is one answer in iomap's words. The same plan feeds every mode: userspace executes it,
iomap sends it, composed writes it down. There is no second translation of offsets.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from regionfs.regions import Kind, RegionMap


class Mapping(NamedTuple):
    """Bytes [offset, offset + length) of a composite file and where they lie."""

    offset: int           # bytes in the composite file
    length: int           # bytes, > 0
    kind: Kind
    address: int = 0      # SOURCE: byte in the source; DATA: byte in `data`; else 0
    source: str = ""      # SOURCE: key in Manifest.sources
    writable: bool = False
    data: bytes = b""     # DATA: the whole blob; the bytes are data[address:address + length]

    @property
    def end(self) -> int:
        """One past the last byte in the composite file."""
        return self.offset + self.length


def plan_read(regions: RegionMap, offset: int, length: int) -> Iterator[Mapping]:
    """Tile [offset, offset + length) in order, clipped at end of file; gaps are holes."""
    pos, end = offset, min(offset + length, regions.size)
    index, count = regions.first_after(pos), len(regions)
    while pos < end and index < count:
        start, stop, target, shift, writable = regions.column(index)
        index += 1
        # the gap before this region
        if pos < start:
            if start >= end:
                break
            yield Mapping(pos, start - pos, Kind.HOLE)
            pos = start
        # the part of it that was asked for
        if stop > end:
            stop = end
        yield _mapping(regions, pos, stop - pos, target, shift, writable)
        pos = stop
    # the tail after the last region
    if pos < end:
        yield Mapping(pos, end - pos, Kind.HOLE)


def plan_write(regions: RegionMap, offset: int, length: int) -> Iterator[Mapping]:
    """Mappings of the rw bytes from `offset` on, without gap, up to `length`.

    Empty when `offset` is not in a rw region: the caller answers EROFS. Shorter than `length`
    when writable ground ends before: the caller writes short. Neighbouring rw regions are one
    ground: a write across the border between them is not short.
    """
    for mapping in plan_read(regions, offset, length):
        if not mapping.writable:
            return
        yield mapping


def _mapping(regions: RegionMap, offset: int, length: int,
             target: int, shift: int, writable: bool) -> Mapping:
    if target >= 0:
        return Mapping(offset, length, Kind.SOURCE, offset + shift, regions.names[target], writable)
    if target == -1:
        return Mapping(offset, length, Kind.HOLE)
    if target == -2:
        return Mapping(offset, length, Kind.ERROR)
    return Mapping(offset, length, Kind.DATA, offset + shift, data=regions.blob(target))
