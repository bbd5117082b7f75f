"""Partition tables read by sfdisk: Table values, no bytes.

Plain files with 4096-byte sectors are read through fdisk, for the reason given in table.py; it
writes sfdisk's dump format (its command `O`).
"""

from __future__ import annotations

import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from regionfs.disk.tool import run_tool
from regionfs.errors import RegionfsError

_PROTECTIVE = "ee"
_DUMP_LINE = re.compile(r"^.+? : (?P<fields>start=.*)$")
_DUMP_FIELD = re.compile(r'(?P<key>[a-z]+)(?:=\s*(?:"(?P<quoted>[^"]*)"|(?P<plain>[^,]*)))?(?:,\s*|$)')
_MANGLED = re.compile(rb"\\x([0-9a-fA-F]{2})")


@dataclass(frozen=True, slots=True)
class Partition:
    """One entry. Sectors of the table's size."""

    number: int
    start: int
    sectors: int
    type: str        # GUID, or one byte in hex
    name: str = ""
    uuid: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    """A partition table. `label` is "gpt" or "dos", as sfdisk says it."""

    label: str
    id: str
    sector: int  # bytes
    partitions: tuple[Partition, ...]


def read_table(path: Path, sector: int | None = None) -> Table:
    """The table on a disk image or block device.

    `sector` in bytes; None tries what sfdisk sees first, then 4096. Raises RegionfsError when there
    is no table.
    """
    if sector in (None, 512):
        table = _from_json(path)
        if sector in (None, table.sector) and not _protects(table):
            return table
    table = _from_dump(path, sector or 4096)
    if _protects(table):
        raise RegionfsError(f"{path} has the protective MBR of a GPT, but no GPT for sectors of {table.sector} bytes")
    return table


def _protects(table: Table) -> bool:
    return table.label == "dos" and [one.type for one in table.partitions] == [_PROTECTIVE]


def _from_json(path: Path) -> Table:
    text = run_tool(["sfdisk", "--json", str(path)])
    found = json.loads(text)["partitiontable"]
    entries = found.get("partitions", [])
    return Table(found["label"], found.get("id", ""), found.get("sectorsize", 512), tuple(
        Partition(_number(one["node"], path), one["start"], one["size"], one["type"],
                  one.get("name", ""), one.get("uuid", "")) for one in entries))


def _from_dump(path: Path, sector: int) -> Table:
    with tempfile.TemporaryDirectory(prefix="regionfs-stitch-") as place:
        dump = Path(place) / "dump"
        output = run_tool(["fdisk", "-b", str(sector), str(path)], f"O\n{dump}\nq\n")
        if "does not contain a recognized partition table" in output or not dump.exists():
            raise RegionfsError(f"{path} has no partition table for sectors of {sector} bytes")
        return _parse_dump(dump.read_text(encoding="utf-8"), path, sector)


def _parse_dump(text: str, path: Path, sector: int) -> Table:
    head = dict(line.split(": ", 1) for line in text.split("\n\n", 1)[0].splitlines() if ": " in line)
    partitions = []
    for line in text.splitlines():
        if match := _DUMP_LINE.match(line):
            node = line.removesuffix(" : " + match["fields"])
            fields = {field["key"]: (field["quoted"] or field["plain"] or "").strip()
                      for field in _DUMP_FIELD.finditer(match["fields"])}
            partitions.append(Partition(_number(node, path), int(fields["start"]), int(fields["size"]),
                                        fields["type"], _unmangled(fields.get("name", "")), fields.get("uuid", "")))
    return Table(head["label"], head.get("label-id", ""), sector, tuple(partitions))


def _unmangled(name: str) -> str:
    r"""A name as dumped, with \xHH for each byte that is not plain."""
    data = _MANGLED.sub(lambda match: bytes.fromhex(match[1].decode()), name.encode())
    return data.decode("utf-8", "replace")


def _number(node: str, path: Path) -> int:
    found = re.search(r"[0-9]+$", node.strip().removeprefix(str(path)))
    if found is None:
        raise RegionfsError(f"{path}: {node.strip()!r} is not the name of a partition")
    return int(found[0])
