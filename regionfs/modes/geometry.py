"""How a region map fits EROFS: its block, its chunk, and what the two cost. Pure.

A chunk that lies in one run of one source, or of a hole, is mapped; every other chunk (a border between
regions, inline data, a tail that ends inside a block) is copied into the image. Knows no bytes of the
format and none of the file; erofs writes both down.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_, sub
from typing import NamedTuple

from regionfs.regions import ERROR, HOLE, RegionMap
from regionfs.units import human_size

BLOCKS = (4096, 2048, 1024, 512)  # bytes; the best first
INDEX_LIMIT = 64 << 20            # bytes of chunk index, 8 a chunk
COPY_LIMIT = 64 << 20             # bytes copied into one image
NO_BLOCK = 0xFFFFFFFF             # start block of a hole; block numbers are smaller
MAX_DEVICES = 0xFFFF              # device ids are u16, and 0 is the image
_MAX_CHUNK = 1 << 30              # bytes; 1 << chunkbits fits a C int on every kernel


@dataclass(frozen=True, slots=True)
class Geometry:
    """How a region map fits EROFS: block and chunk in bytes, and what they cost."""

    block: int     # bytes; 0 where starts and source offsets do not agree modulo 512
    chunk: int     # bytes, a power of two
    index: int     # bytes of chunk index
    copied: int    # bytes copied into the image
    reach: int     # bytes; the furthest end of a mapping in its source
    errors: bool   # an error region is in the map

    @property
    def objection(self) -> str:
        """Why EROFS cannot hold the map, as a sentence; empty when it can."""
        blocks = f"{self.block}-byte blocks"
        if self.errors:
            return "it has an error region"
        if not self.block:
            return f"a region's start and source offset differ modulo {BLOCKS[-1]}"
        if self.index > INDEX_LIMIT:
            return (f"its chunk index would take {human_size(self.index)} with {human_size(self.chunk)} a chunk, "
                    f"over the limit of {human_size(INDEX_LIMIT)}")
        if self.copied > COPY_LIMIT:
            return (f"{human_size(self.copied)} would have to be copied (inline data, borders inside "
                    f"{blocks}), over the limit of {human_size(COPY_LIMIT)}")
        if self.reach > NO_BLOCK * self.block:
            return (f"it reaches {human_size(self.reach)} into a source, over the "
                    f"{human_size(NO_BLOCK * self.block)} that {blocks} can number")
        return ""

    @property
    def cost(self) -> tuple[bool, int]:
        """What to minimise: over a limit last, then the image's size."""
        return bool(self.objection), self.index + self.copied


def measure(regions: RegionMap) -> Geometry:
    """The largest block that all starts and source offsets agree with, and the cheapest chunk.

    A chunk twice as large halves the index and never copies less.
    """
    disagreement, reach = 0, 0
    starts, ends = array("q"), array("q")
    for start, end, target, shift in runs(regions):
        if target >= 0:
            disagreement |= shift
            reach = max(reach, end + shift)
        if target >= ERROR:
            starts.append(start)
            ends.append(end)
    block = next((size for size in BLOCKS if disagreement % size == 0), 0)
    best = Geometry(block, block, 0, 0, reach, regions.has_errors)
    if best.objection:
        return best
    kept = _Kept.of(starts, ends)
    best = _price(best, regions.size, kept)
    candidate = best
    while candidate.chunk < min(regions.size, _MAX_CHUNK) and candidate.copied <= COPY_LIMIT:
        candidate = _price(replace(candidate, chunk=2 * candidate.chunk), regions.size, kept)
        best = min(best, candidate, key=lambda geometry: geometry.cost)
    return best


class _Kept(NamedTuple):
    """Runs [start, end) that need no copying inside; the last stands apart, for it may end with the file."""

    starts: array[int]
    ends: array[int]
    last: tuple[int, int]
    aligned: int  # all of starts and ends are multiples of it
    total: int    # bytes between them
    longest: int  # bytes of the longest

    @staticmethod
    def of(starts: array[int], ends: array[int]) -> _Kept:
        last = (starts.pop(), ends.pop()) if starts else (0, 0)
        bits = reduce(or_, starts, _MAX_CHUNK) | reduce(or_, ends, 0)
        return _Kept(starts, ends, last, bits & -bits, sum(ends) - sum(starts), max(map(sub, ends, starts), default=0))

    def chunks(self, size: int, block: int, chunk: int) -> int:
        """How many chunks lie in one run."""
        start, end = self.last
        count = max(0, last_chunk(end, size, block, chunk) - -(-start // chunk))
        # most maps lie on steps: then there is nothing to walk through
        if chunk <= self.aligned:
            return count + self.total // chunk
        if chunk > self.longest:
            return count
        return count + sum(max(0, end // chunk - -(-start // chunk))
                           for start, end in zip(self.starts, self.ends, strict=True))


def _price(geometry: Geometry, size: int, kept: _Kept) -> Geometry:
    """What its chunk costs."""
    chunk = geometry.chunk
    count = -(-size // chunk)
    return replace(geometry, index=8 * count, copied=(count - kept.chunks(size, geometry.block, chunk)) * chunk)


def last_chunk(end: int, size: int, block: int, chunk: int) -> int:
    """The chunk after the last whole one before `end`; a file may end inside a chunk, not in a block."""
    return -(-end // chunk) if end == size and size % block == 0 else end // chunk


def runs(regions: RegionMap) -> Iterator[tuple[int, int, int, int]]:
    """(start, end, target, shift) that tile the file: neighbours that continue each other are one, gaps are holes.

    The plan of the whole file, from the columns: a million regions are walked when a file is composed.
    """
    start, pos, held, held_shift = 0, 0, HOLE, 0
    for begin, end, target, shift, _ in regions.rows():
        if begin > pos and held != HOLE:
            yield start, pos, held, held_shift
            start, held, held_shift = pos, HOLE, 0
        if target != held or shift != held_shift or target < HOLE:
            if begin > start:
                yield start, begin, held, held_shift
            start, held, held_shift = begin, target, shift
        pos = end
    if regions.size > pos and held != HOLE:
        yield start, pos, held, held_shift
        start, held, held_shift = pos, HOLE, 0
    if regions.size > start:
        yield start, regions.size, held, held_shift
