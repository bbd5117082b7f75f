"""A region map as bars of characters, to scale.

A map of few regions is laid out so that each has a cell at least: a partition table stays visible
on a disk of terabytes, and its neighbours move by a cell. In a crowded map every cell stands for
the same share of the file and shows what fills most of it, or that reads fail somewhere in it.
Nothing depends on colour: a letter is a source, a capital where it is rw, and the other kinds have signs.

Pure: a map goes in, characters come out. Styles are names that rich knows; rich is not imported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_lowercase

from regionfs.plan import Mapping, plan_read
from regionfs.regions import Kind, RegionMap
from regionfs.units import human_size

ROWS = 4      # bars of a map that is too crowded for one
ROOM = 4      # cells per region that a bar has where it is not crowded
MARGIN = 13   # characters around a bar's cells: "1023.9 MiB |" and "|"
LETTERS = ascii_lowercase

_SIGNS = {Kind.DATA: "#", Kind.HOLE: ".", Kind.ERROR: "!"}
_MEANINGS = {"#": "inline data", ".": "hole", "!": "error: reads fail"}
_SIGN_STYLES = {"#": "black on white", ".": "dim", "!": "bold white on red"}
_COLOURS = ("cyan", "green", "yellow", "magenta", "blue")  # red is for errors


@dataclass(frozen=True, slots=True)
class Picture:
    """Bars of cells, and what their characters mean."""

    bars: Sequence[tuple[str, str]]    # where the bar begins, for people; its cells
    legend: Sequence[tuple[str, str]]  # character, meaning
    cell: int                          # bytes a cell stands for, rounded up
    crowded: bool                      # cells show what fills most of them


def draw(regions: RegionMap, width: int) -> Picture:
    """The picture of `regions` in lines of at most `width` characters; no bars for an empty file."""
    columns = max(width - MARGIN, 1)
    count = min(columns * (1 if len(regions) <= columns // ROOM else ROWS), regions.size)
    if not count:
        return Picture((), (), 0, False)
    letters = _letters(regions.names)
    crowded = len(regions) > count // ROOM
    cells = (_summed_up if crowded else _laid_out)(regions, count, letters)
    bars = [(human_size(at * regions.size // count), cells[at:at + columns])
            for at in range(0, count, columns)]
    return Picture(tuple(bars), _legend(letters, set(cells)), -(-regions.size // count), crowded)


def style(glyph: str) -> str:
    """The rich style of one character of a bar or legend."""
    if glyph in _SIGN_STYLES:
        return _SIGN_STYLES[glyph]
    colour = _COLOURS[LETTERS.index(glyph.lower()) % len(_COLOURS)]
    return f"bold black on bright_{colour}" if glyph.isupper() else f"black on {colour}"


def _letters(names: Sequence[str]) -> dict[str, str]:
    """A letter for each source in order of appearance; those past the alphabet share its last."""
    return {name: LETTERS[min(index, len(LETTERS) - 1)] for index, name in enumerate(names)}


def _glyph(mapping: Mapping, letters: dict[str, str]) -> str:
    if mapping.kind is not Kind.SOURCE:
        return _SIGNS[mapping.kind]
    letter = letters[mapping.source]
    return letter.upper() if mapping.writable else letter


def _laid_out(regions: RegionMap, count: int, letters: dict[str, str]) -> str:
    """Cells of a map of few regions: in place, pushed aside where there is no room for one of each."""
    stretches = list(plan_read(regions, 0, regions.size))
    needs = [mapping.kind is not Kind.HOLE for mapping in stretches]
    starts = [mapping.offset * count // regions.size for mapping in stretches]
    free = 0
    for index, need in enumerate(needs):
        starts[index] = max(starts[index], free)
        free = starts[index] + need
    limit = count
    for index in reversed(range(len(starts))):
        starts[index] = limit = min(starts[index], limit - needs[index])
    stops = [*starts[1:], count]
    return "".join(_glyph(mapping, letters) * (stop - start)
                   for mapping, start, stop in zip(stretches, starts, stops, strict=True))


def _summed_up(regions: RegionMap, count: int, letters: dict[str, str]) -> str:
    """Cells of a crowded map; cell n begins at byte n * size // count."""
    size = regions.size
    shares: list[Counter[str]] = [Counter() for _ in range(count)]
    for mapping in plan_read(regions, 0, size):
        offset, end, glyph = mapping.offset, mapping.offset + mapping.length, _glyph(mapping, letters)
        first, last = ((offset + 1) * count - 1) // size, (end * count - 1) // size
        if first == last:
            shares[first][glyph] += mapping.length
            continue
        for cell in range(first, last + 1):
            begin, stop = cell * size // count, (cell + 1) * size // count
            shares[cell][glyph] += min(stop, end) - max(begin, offset)
    bad = _SIGNS[Kind.ERROR]
    return "".join(bad if bad in share else share.most_common(1)[0][0] for share in shares)


def _legend(letters: dict[str, str], used: set[str]) -> tuple[tuple[str, str], ...]:
    names: dict[str, list[str]] = {}
    for name, letter in letters.items():
        names.setdefault(letter, []).append(name)
    lines = []
    for letter, sources in names.items():
        meaning = sources[0] if len(sources) == 1 else f"{len(sources)} other sources"
        lines += [(letter, meaning)] * (letter in used)
        lines += [(letter.upper(), f"{meaning} (rw)")] * (letter.upper() in used)
    return (*lines, *((sign, meaning) for sign, meaning in _MEANINGS.items() if sign in used))
