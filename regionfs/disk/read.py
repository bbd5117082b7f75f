"""Partition tables read by sfdisk: Table values, no bytes.

Plain files with 4096-byte sectors are read through fdisk, for the reason given in table.py; it
writes sfdisk's dump format (its command `O`), which people keep as well. A GPT whose disk was cut short
lost its backup, and sfdisk then takes no notice of it: it is shown the first sectors with a hole behind
them up to the size that the header states (UEFI 2.10, 5.3.2).
"""

from __future__ import annotations

import json
import os
import re
import tempfile
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from regionfs.disk.tool import run_tool
from regionfs.errors import RegionfsError
from regionfs.units import MAX_OFFSET

_PROTECTIVE = "ee"
_HEAD = 1 << 20  # bytes that hold a table and more
_MAX_DIGITS = 19
_DUMP_HEAD = re.compile(r"([a-z-]+): ([^\s].*)")
_OLD_DEVICE = re.compile(r"# partition table of (\S.*)")
_DUMP_LINE = re.compile(r"^.+? ?: (?P<fields>start=.*)$")
_DUMP_FIELD = re.compile(r'(?P<key>[A-Za-z]+)(?:=\s*(?:"(?P<quoted>[^"]*)"|(?P<plain>[^,]*)))?(?:,\s*|$)')
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
    last: int = 0      # the last sector that partitions of a GPT may use; 0 where the table does not say
    device: str = field(default="", compare=False)  # of a dump: the disk it was made of

    def is_cut(self, size: int) -> bool:
        """True when a disk of `size` bytes ends before what the table itself knows as usable."""
        return self.label == "gpt" and (self.last + 1) * self.sector > size


def read_table(path: Path, sector: int | None = None) -> Table:
    """The table on a disk image or block device.

    `sector` in bytes; None tries what sfdisk sees first, then 4096. Of a GPT disk that was cut short
    the whole table (see Table.is_cut). Raises RegionfsError when there is no table.
    """
    if sector in (None, 512):
        table = _from_json(path)
        if sector in (None, table.sector) and not _protects(table):
            hybrid = table.label == "dos" and _PROTECTIVE in (one.type for one in table.partitions)
            return (hybrid and _of_cut_disk(path, sector)) or table
    if cut := _of_cut_disk(path, sector):
        return cut
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
                  one.get("name", ""), one.get("uuid", "")) for one in entries), found.get("lastlba", 0))


def _of_cut_disk(path: Path, sector: int | None) -> Table | None:
    """The table of a GPT whose header states a larger disk, None where it does not."""
    with path.open("rb", buffering=0) as file:
        head = file.read(_HEAD)
        size = file.seek(0, os.SEEK_END)
    for unit in (512, 4096) if sector is None else (sector,):
        header = head[unit:unit + 92]
        full = (_word(header, 32, 8) + 1) * unit  # where the backup header lies, and its sector
        if header[:8] != b"EFI PART" or not size < full <= MAX_OFFSET or not _is_sound(head, unit):
            continue
        with tempfile.TemporaryDirectory(prefix="regionfs-stitch-") as place:
            disk = Path(place) / "disk"
            try:
                disk.write_bytes(head[:_word(header, 40, 8) * unit])
                os.truncate(disk, full)
                found = _from_json(disk) if unit == 512 else _from_dump(disk, unit)
            except OSError as error:
                raise RegionfsError(f"{path} was cut short: its GPT is for {full} bytes, it has {size}; "
                                    f"the table cannot be read: {error.strerror}") from error
        if _protects(found):
            raise RegionfsError(f"{path} was cut short: its GPT is for {full} bytes, it has {size}, and the table "
                                "itself is damaged")
        return found
    return None


def _is_sound(head: bytes, unit: int) -> bool:
    """True when the header's checksum fits."""
    length = min(_word(head[unit:], 12, 4), unit)
    header = head[unit:unit + length]
    return zlib.crc32(header[:16] + bytes(4) + header[20:]) == _word(header, 16, 4)


def _word(data: bytes, offset: int, count: int) -> int:
    return int.from_bytes(data[offset:offset + count], "little")


def _from_dump(path: Path, sector: int) -> Table:
    with tempfile.TemporaryDirectory(prefix="regionfs-stitch-") as place:
        dump = Path(place) / "dump"
        output = run_tool(["fdisk", "-b", str(sector), str(path)], f"O\n{dump}\nq\n")
        if "does not contain a recognized partition table" in output or not dump.exists():
            raise RegionfsError(f"{path} has no partition table for sectors of {sector} bytes")
        return parse_dump(dump.read_text(encoding="utf-8", errors="surrogateescape"), dump, sector)


def parse_dump(text: str, place: Path, sector: int | None = None) -> Table:
    """What `sfdisk --dump` printed, read from `place`: today's words, and those of util-linux before 2.26.

    `sector` in bytes; None takes what the dump says, else 512. Raises RegionfsError with the line.
    """
    head: dict[str, str] = {}
    partitions = []
    for number, line in enumerate(text.splitlines(), 1):
        if match := _OLD_DEVICE.fullmatch(line):
            head.setdefault("device", match[1])
        elif match := _DUMP_LINE.match(line):
            one = _dumped(line.removesuffix(match["fields"]).rstrip().removesuffix(":"), match["fields"],
                          head.get("device", ""), f"{place}:{number}")
            partitions += [one] if one.sectors else []  # the old form lists all four
        elif match := _DUMP_HEAD.fullmatch(line):
            head[match[1]] = match[2]
    if head.get("unit", "sectors") != "sectors":
        raise RegionfsError(f"{place}: the unit {head['unit']!r} is not sectors")
    for name in ("sector-size", "last-lba"):
        if not re.fullmatch(f"[0-9]{{1,{_MAX_DIGITS}}}", head.setdefault(name, "0")):
            raise RegionfsError(f"{place}: {name} {head[name][:40]} is not a number")
    return Table(head.get("label", "dos"), head.get("label-id", ""), sector or int(head["sector-size"]) or 512,
                 tuple(partitions), int(head["last-lba"]), head.get("device", ""))


def _dumped(node: str, text: str, device: str, place: str) -> Partition:
    fields = {field["key"].lower(): (field["quoted"] or field["plain"] or "").strip()
              for field in _DUMP_FIELD.finditer(text)}
    start, size = fields.get("start", ""), fields.get("size", "")
    if not (start.isdecimal() and size.isdecimal() and start.isascii() and size.isascii()
            and len(start) <= _MAX_DIGITS and len(size) <= _MAX_DIGITS):
        raise RegionfsError(f"{place}: start={start[:40]}, size={size[:40]} are not two numbers of sectors")
    return Partition(_number(node, Path(device), place), int(start), int(size),
                     fields.get("type", fields.get("id", "")), _unmangled(fields.get("name", "")),
                     fields.get("uuid", ""))


def _unmangled(name: str) -> str:
    r"""A name as dumped, with \xHH for each byte that is not plain."""
    data = _MANGLED.sub(lambda match: bytes.fromhex(match[1].decode()), name.encode())
    return data.decode("utf-8", "replace")


def _number(node: str, path: Path, place: str = "") -> int:
    found = re.search(r"[0-9]{1,9}$", node.strip().removeprefix(str(path)))
    if found is None:
        raise RegionfsError(f"{place or path}: {node.strip()!r} is not the name of a partition")
    return int(found[0])
