"""A laid out disk -> regions of a composite file, and a table -> one composite file per partition.

Joins layout, table and the manifest's new text; reads and writes no file itself.
"""

from __future__ import annotations

from collections.abc import Iterator

from regionfs.disk.layout import Layout, Placed
from regionfs.disk.read import Table
from regionfs.disk.table import Piece
from regionfs.disk.types import EXTENDED, type_name
from regionfs.errors import RegionfsError
from regionfs.manifest.edit_new import NewFile, Row, data_fields, source_fields
from regionfs.units import format_size


def disk_file(path: str, layout: Layout, primary: list[Piece], backup: list[Piece]) -> NewFile:
    """The composite file `path`: the table's bytes inline, partitions from their images, holes between."""
    parts = [_part_row(number, one, layout) for number, one in sorted(enumerate(layout.placed, 1),
             key=lambda item: item[1].start) if one.part.length]
    count = len(layout.placed)
    return NewFile(path, layout.size, [*map(_piece_row, primary), *parts, *map(_piece_row, backup)],
                   f"{layout.label.upper()} disk {layout.disk_id}, {count} partition{'s' * (count != 1)}, "
                   f"sectors of {layout.sector} bytes")


def partition_files(table: Table, size: int, source: str, base: str, *, writable: bool = False) -> Iterator[NewFile]:
    """A file `base`/partN.img per partition of the disk `source` of `size` bytes, in the order of numbers.

    An extended partition of an MBR holds the logical ones, which have files of their own, and gets none.
    Of a GPT disk that was cut short, what is missing of a partition is an error region. Raises
    RegionfsError for a partition that reaches past another disk.
    """
    for one in sorted(table.partitions, key=lambda one: one.number):
        if table.label == "dos" and one.type in EXTENDED:
            continue
        start, length = one.start * table.sector, one.sectors * table.sector
        if start + length > size and not table.is_cut(size):
            raise RegionfsError(f"partition {one.number} of {source} ends at {start + length}, after the disk's "
                                f"{size} bytes: the table is for a larger disk, or for other sectors")
        here = max(0, min(length, size - start))
        lost = f"{length - here} bytes of it are missing: the disk was cut short" if here < length else ""
        about = ", ".join(filter(None, (one.name, type_name(one.type), one.uuid, lost)))
        rows = [Row(source_fields(0, here, source, offset=start, writable=writable))] if here else []
        if lost:
            rows.append(Row({"start": format_size(here), "length": format_size(length - here), "error": "true"}))
        yield NewFile(f"{base}/part{one.number}.img", length, rows, about)


def _piece_row(piece: Piece) -> Row:
    return Row(data_fields(piece.start, piece.data), piece.what)


def _part_row(number: int, one: Placed, layout: Layout) -> Row:
    part = one.part
    room = one.sectors * layout.sector - part.length
    about = [f"partition {number}: {type_name(one.type)}", part.name, one.uuid if layout.label == "gpt" else "",
             f"{room} bytes of it are a hole after the image" if room else ""]
    return Row(source_fields(one.start * layout.sector, part.length, part.path, writable=part.writable),
               ", ".join(filter(None, about)))
