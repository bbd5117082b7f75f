"""Regions in the order of the text -> regions in the order of the file. Pure.

A later region lies over an earlier one. Most maps overlap nowhere, and then this is a sort. Where
regions do overlap, one sweep over their starts keeps a heap of those that are alive at the position;
the latest of them shows. That costs n log n, whatever covers what.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from itertools import pairwise

from regionfs.regions import Region


def flatten(layers: Sequence[Region]) -> list[Region]:
    """The regions that show when each of `layers` covers those before it: sorted, without overlap."""
    if is_flat(layers):
        return list(layers)
    order = sorted(layers, key=lambda region: region.start)
    if is_flat(order):
        return order
    return [layers[index].clip(start, end) for index, start, end in _merged(_visible(layers))]


def find_overlaps(layers: Sequence[Region], covers: Sequence[bool]) -> list[tuple[int, int]]:
    """Pairs (later, earlier) of indices that overlap although `covers[later]` is false; each later once."""
    alive: list[tuple[int, int]] = []     # heap of (index, end): the earliest first
    guarded: list[tuple[int, int]] = []   # heap of (-index, end): the latest that may not cover first
    found: dict[int, int] = {}
    for index in sorted(range(len(layers)), key=lambda index: layers[index].start):
        start, end = layers[index].start, layers[index].end
        # this one over an earlier one
        _expire(alive, start)
        if not covers[index] and alive and alive[0][0] < index:
            found[index] = alive[0][0]
        # later ones over this one
        _expire(guarded, start)
        while guarded and -guarded[0][0] > index:
            found[-heappop(guarded)[0]] = index
            _expire(guarded, start)
        heappush(alive, (index, end))
        if not covers[index] and index not in found:
            heappush(guarded, (-index, end))
    return sorted(found.items())


def is_flat(regions: Sequence[Region]) -> bool:
    """True when each region begins at or after the end of the one before it."""
    return all(before.end <= after.start for before, after in pairwise(regions))


def _expire(heap: list[tuple[int, int]], position: int) -> None:
    while heap and heap[0][1] <= position:
        heappop(heap)


def _visible(layers: Sequence[Region]) -> Iterator[tuple[int, int, int]]:
    """(index, start, end) of what shows, in order; cut wherever any layer begins."""
    alive: list[tuple[int, int]] = []  # heap of (-index, end): the latest first
    pos = 0
    order = sorted(range(len(layers)), key=lambda index: layers[index].start)
    for number, index in enumerate(order):
        pos = layers[index].start
        heappush(alive, (-index, layers[index].end))
        until = layers[order[number + 1]].start if number + 1 < len(order) else None
        while alive and (until is None or pos < until):
            top, end = alive[0]
            if end <= pos:
                heappop(alive)
                continue
            stop = end if until is None else min(end, until)
            yield -top, pos, stop
            pos = stop


def _merged(pieces: Iterator[tuple[int, int, int]]) -> Iterator[tuple[int, int, int]]:
    """Join neighbouring pieces of one layer."""
    held: tuple[int, int, int] | None = None
    for index, start, end in pieces:
        if held is not None and held[0] == index and held[2] == start:
            held = (index, held[1], end)
            continue
        if held is not None:
            yield held
        held = (index, start, end)
    if held is not None:
        yield held
