"""iomap mode, the deciding half: which files fit together, and what a question about a file is answered. Pure.

The kernel asks for the mapping that covers a byte, keeps what it is told in a cache, and does the I/O on
block devices itself. Every answer comes from the planner, as everything else that regionfs says about a
file does. Knows no message and no device number; serve.iomap turns these answers into both.

**Block size.** One for the connection: every border of every iomap file is a multiple of it, and it is no
smaller than any device's logical block. Files that cannot agree are parted so that most bytes stay.

**Batches.** The kernel asks once per mapping it does not know, 150 us each. So whatever it asked about, it
is told the window of regions around it, aligned to WINDOW regions: n regions cost n / WINDOW questions at
most, in whatever order they are read.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from regionfs.plan import Mapping, plan_read
from regionfs.regions import Kind, RegionMap

BLOCKS = (4096, 2048, 1024, 512)  # bytes; the kernel takes powers of two from 512 to its page size
MAX_DEVICES = 1024                # the kernel's limit for a connection
WINDOW = 2048                     # regions in a batch; each mapping costs 5-70 us of a thread nobody waits for

Identity = tuple[int, ...]  # SourceFacts.identity


class Candidate(NamedTuple):
    """A file that would be served by iomap, as far as others have to agree with it."""

    path: str
    size: int                      # bytes
    granularity: int               # as granularity() says
    sector: int                    # bytes; the largest logical block of its devices
    devices: frozenset[Identity]


def granularity(regions: RegionMap) -> int:
    """The largest power of two up to 4096 that divides the size and every border, in file and sources."""
    bits = regions.size | BLOCKS[0] | regions.alignment
    return bits & -bits


def settle(candidates: Iterable[Candidate]) -> dict[str, str]:
    """Files that cannot be served beside the others, by path, each with the reason as a sentence."""
    candidates = list(candidates)
    block = max(BLOCKS, key=lambda size: sum(one.size for one in candidates if _fits(one, size)))
    refused: dict[str, str] = {}
    devices: set[Identity] = set()
    for one in candidates:
        if not _fits(one, block):
            refused[one.path] = _misfit(one, block)
        elif len(devices | one.devices) > MAX_DEVICES:
            refused[one.path] = f"the kernel takes {MAX_DEVICES} block devices a mount, and others came first"
        else:
            devices |= one.devices
    return refused


def block_size(granularities: Iterable[int]) -> int:
    """The mount's block for files that fit together."""
    return min(granularities, default=BLOCKS[0])


def begin(regions: RegionMap, pos: int, *, change: bool, limit: int) -> Mapping:
    """The mapping that covers byte `pos`; past the end one hole up to `limit` (bytes, on a block border).

    It begins where its region begins, however far before `pos`. OSError(EROFS) when it shall be changed
    and is not rw: a hole would take the data and lose it.
    """
    mapping = next(covering(regions, pos), None)
    if change and (mapping is None or not mapping.writable):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))
    return mapping or Mapping(regions.size, limit - regions.size, Kind.HOLE)


def covering(regions: RegionMap, pos: int) -> Iterator[Mapping]:
    """The plan from the mapping that covers `pos` on, that one whole; nothing past the end."""
    if pos < regions.size:
        index = regions.first_after(pos)
        inside = index < len(regions) and regions.starts[index] <= pos
        start = regions.starts[index] if inside else regions.ends[index - 1] if index else 0
        yield from plan_read(regions, start, regions.size - start)


def batch(regions: RegionMap, pos: int) -> Iterator[Mapping]:
    """What to tell the kernel after it asked about `pos`: the window from there on, then what lies before."""
    first = window(regions, pos) * WINDOW
    start = regions.ends[first - 1] if first else 0
    end = regions.ends[first + WINDOW - 1] if first + WINDOW < len(regions) else regions.size
    covers = next(covering(regions, pos), None)
    middle = start if covers is None else covers.offset
    yield from plan_read(regions, middle, end - middle)
    yield from plan_read(regions, start, middle - start)


def window(regions: RegionMap, pos: int) -> int:
    """The number of the window that `pos` lies in; a gap belongs to the region after it."""
    return min(regions.first_after(pos), max(len(regions) - 1, 0)) // WINDOW


def _fits(one: Candidate, block: int) -> bool:
    return one.granularity >= block >= one.sector


def _misfit(one: Candidate, block: int) -> str:
    if one.sector > block:
        return f"its devices have {one.sector}-byte sectors, but the mount's other files need {block}-byte blocks"
    return f"it lies on {one.granularity}-byte blocks, but the mount's other files need {block}-byte blocks"
