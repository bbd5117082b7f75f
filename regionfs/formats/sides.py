"""Which bytes an export names in place, and which it keeps in a side file.

A format names ranges in its own unit. The part of a tile that is on the unit, in the file and in the
source, is named in place; everything else (inline data, holes the format has no word for, the bytes
of borders off the unit) is laid end to end in one side file. Pure: the side file is a region map.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from regionfs.formats.values import Composite, FormatError, SideFile, tiles
from regionfs.regions import Kind, Region, RegionMap
from regionfs.units import align_down, align_up


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes [start, end) of the composite file: `direct`, or at `offset` of the side file."""

    start: int
    end: int
    direct: Region | None = None
    offset: int = 0  # in the side file

    @property
    def length(self) -> int:
        """Bytes."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class LaidOut:
    """Pieces that tile the composite file, the side file they need, and notes on what is lost."""

    pieces: tuple[Piece, ...]
    side: SideFile | None
    notes: tuple[str, ...]


def lay_out(composite: Composite, unit: int, direct: Callable[[Region], bool]) -> LaidOut:
    """Tile the file by `unit`; tiles that `direct` accepts are named in place as far as they are on it.

    Raises FormatError, the region named, for a size off the unit and for error bytes that only the
    side file could hold.
    """
    regions = composite.regions
    if not regions.size:
        raise FormatError(f'files["{composite.path}"] is empty; the format needs at least {unit} bytes')
    if regions.size % unit:
        raise FormatError(f"{composite.place(regions.size - 1)}: the file's size {regions.size} is not a multiple "
                          f"of {unit}, which the format needs")
    pieces: list[Piece] = []
    aside: list[Region] = []
    border = cursor = 0

    def put_aside(start: int, end: int) -> int:
        pieces.append(Piece(start, end, offset=cursor))
        for region in regions.overlapping(start, end):
            part = region.clip(start, end)
            if part.kind is Kind.ERROR:
                raise FormatError(f"{composite.place(part.start)}: the format cannot say that bytes are unreadable"
                                  + (f" unless both ends are multiples of {unit}" if direct(part) else ""))
            if part.kind is not Kind.HOLE:
                aside.append(replace(part.moved(cursor + part.start - start), writable=False))
        return cursor + end - start

    for tile in tiles(regions):
        start, end = align_up(tile.start, unit), align_down(tile.end, unit)
        if start < end and direct(tile) and (tile.kind is not Kind.SOURCE or tile.shift % unit == 0):
            if border < start:
                cursor = put_aside(border, start)
            pieces.append(Piece(start, end, tile.clip(start, end)))
            border = end
    if border < regions.size:
        cursor = put_aside(border, regions.size)
    side = None
    if cursor:
        out = composite.out
        side = SideFile(out.with_name(f"{out.name}.side"), RegionMap(cursor, aside))
    return LaidOut(tuple(pieces), side, tuple(_lost_writes(composite, pieces)))


def _lost_writes(composite: Composite, pieces: list[Piece]) -> list[str]:
    """One note per rw region some of whose bytes are copies in the side file."""
    notes: dict[str, int] = {}
    for piece in pieces:
        if piece.direct is None:
            for region in composite.regions.overlapping(piece.start, piece.end):
                if region.writable:
                    part, place = region.clip(piece.start, piece.end), composite.place(region.start)
                    notes[place] = notes.get(place, 0) + part.length
    return [f"{place}: {count} bytes lie off the format's unit and are copies in the side file; "
            "writes to them do not reach the source" for place, count in notes.items()]
