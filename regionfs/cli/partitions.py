"""The partition table of a disk or a dump, for the commands that take one.

Joins what disk reads and what formats know of containers: a disk without a table may be an image of
another kind. Knows no manifest.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from regionfs.errors import RegionfsError

if TYPE_CHECKING:
    from regionfs.disk.read import Table


def table_of(disk: Path, sector: int | None = None) -> Table:
    """The table on `disk` for sectors of `sector` bytes, None finds out.

    Raises RegionfsError; a disk without one that begins as a container does is called by its name.
    """
    from regionfs.disk.read import read_table
    from regionfs.formats.fit import container_at
    try:
        return read_table(disk, sector)
    except RegionfsError as error:
        if found := container_at(disk):
            raise RegionfsError(found.advice(disk)) from error
        raise


def as_json(table: Table, device: str) -> bytes:
    """The table in the form of sfdisk --json, which the reader takes."""
    return json.dumps({"partitiontable": {
        "label": table.label, "device": device, "unit": "sectors", "sectorsize": table.sector, "lastlba": table.last,
        "partitions": [{"node": f"{device}p{one.number}", "start": one.start, "size": one.sectors, "type": one.type}
                       for one in table.partitions]}}).encode()


def dump_as_json(text: bytes, place: Path) -> bytes:
    """An `sfdisk --dump` in the same form. Raises RegionfsError with the line."""
    from regionfs.disk.read import parse_dump
    from regionfs.formats.text import plain
    table = parse_dump(plain(text).decode("utf-8", "surrogateescape"), place)
    return as_json(table, table.device)
