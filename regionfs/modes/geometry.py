"""How a region map fits EROFS: its block, its chunk, and what the two cost. Pure.

A chunk that lies in one run of one source, or of a hole, is mapped; every other chunk (a border between
regions, inline data, a tail that ends inside a block) is copied into the image. Knows no bytes of the
format and none of the file; erofs writes both down.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, replace

from regionfs.plan import Mapping, plan_read
from regionfs.regions import Kind, RegionMap
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
    disagreement, reach, errors = 0, 0, False
    starts, ends = array("q"), array("q")
    for run in runs(regions):
        if run.kind is Kind.SOURCE:
            disagreement |= run.address - run.offset
            reach = max(reach, run.address + run.length)
        elif run.kind is Kind.ERROR:
            errors = True
        if run.kind is not Kind.DATA:
            starts.append(run.offset)
            ends.append(run.end)
    block = next((size for size in BLOCKS if disagreement % size == 0), 0)
    best = Geometry(block, block, 0, 0, reach, errors)
    if best.objection:
        return best
    best = _price(best, regions.size, starts, ends)
    candidate = best
    while candidate.chunk < min(regions.size, _MAX_CHUNK) and candidate.copied <= COPY_LIMIT:
        candidate = _price(replace(candidate, chunk=2 * candidate.chunk), regions.size, starts, ends)
        best = min(best, candidate, key=lambda geometry: geometry.cost)
    return best


def _price(geometry: Geometry, size: int, starts: array[int], ends: array[int]) -> Geometry:
    """What its chunk costs; [starts, ends) are the runs that need no copying inside."""
    block, chunk = geometry.block, geometry.chunk
    count = -(-size // chunk)
    kept = sum(max(0, last_chunk(end, size, block, chunk) - -(-start // chunk))
               for start, end in zip(starts, ends, strict=True))
    return replace(geometry, index=8 * count, copied=(count - kept) * chunk)


def last_chunk(end: int, size: int, block: int, chunk: int) -> int:
    """The chunk after the last whole one before `end`; a file may end inside a chunk, not in a block."""
    return -(-end // chunk) if end == size and size % block == 0 else end // chunk


def runs(regions: RegionMap) -> Iterator[Mapping]:
    """The plan of the whole file with neighbours that continue each other made one."""
    run: Mapping | None = None
    for mapping in plan_read(regions, 0, regions.size):
        if run is not None and _continues(run, mapping):
            run = run._replace(length=run.length + mapping.length)
            continue
        if run is not None:
            yield run
        run = mapping
    if run is not None:
        yield run


def _continues(run: Mapping, mapping: Mapping) -> bool:
    if run.kind is not mapping.kind:
        return False
    if run.kind is Kind.SOURCE:
        return run.source == mapping.source and run.address + run.length == mapping.address
    return run.kind is Kind.HOLE
