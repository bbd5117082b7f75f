"""Partition tables as `sfdisk --json` prints them: GPT and MBR, sectors of any size. Import only.

Source: util-linux libfdisk/src/script.c (write_file_json). A disk gives one composite file per partition
and one per gap between them, so that each byte of the disk is in exactly one file, or in one more for
each partition that overlaps another, as those of isohybrid images do. The table itself is in the gaps;
the types and names in it have no place in a region map, so there is no export: a composite disk already
is an image that sfdisk reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from regionfs.formats.devices import size_of
from regionfs.formats.text import bounded, clip, json_value, member, plain, show
from regionfs.formats.values import Draft, Foreign, FormatError, Imported
from regionfs.regions import Kind, Region

EXTENDED = frozenset({"5", "f", "85"})  # MBR types of a container of logical partitions
PROTECTIVE = "ee"
MAX_SECTOR = 1 << 20                    # bytes


# sfdisk -d of today, and of util-linux before 2.26
_DUMP = re.compile(rb"\A\s*(?:label: (?:gpt|dos)\s*\n|(?:# partition table of \S+\s*\n)+\s*unit: sectors\s*\n)")


class Part(NamedTuple):
    """A partition. Bytes."""

    start: int
    end: int
    number: int
    type: str


def sniff(head: bytes) -> bool:
    """True for the first bytes of sfdisk's JSON or dump, or of a disk with a GPT or an MBR."""
    return ((head.lstrip().startswith(b"{") and b'"partitiontable"' in head)
            or is_dump(head)
            or b"EFI PART" in (head[512:520], head[4096:4104])
            or (head[510:512] == b"\x55\xaa" and _has_mbr_entries(head)))


def is_dump(head: bytes) -> bool:
    """True for the first bytes of what sfdisk --dump prints."""
    return _DUMP.match(plain(head)) is not None


def read(foreign: Foreign, size: Callable[[Path], int] = size_of) -> Imported:
    """A file partN.img per partition and gapN.img per range between, below a directory for the disk."""
    place = str(foreign.path)
    table = member(json_value(foreign), "partitiontable", dict, place)
    if (unit := member(table, "unit", str, place)) != "sectors":
        raise FormatError(f"{place}: the unit {clip(unit)} is not sectors")
    sector = bounded(table.get("sectorsize", 512), place, "sectorsize", least=1)
    if sector & (sector - 1) or not 512 <= sector <= MAX_SECTOR:
        raise FormatError(f"{place}: sectorsize {sector} is not a power of two from 512 to {MAX_SECTOR}")
    device = member(table, "device", str, place)
    draft = Draft(foreign)
    key = draft.named_source() if foreign.source or not device else draft.source(device)
    total = size(draft.sources[key].path)
    entries = table.get("partitions", [])
    if not isinstance(entries, list):
        raise FormatError(f"{place}: partitions {show(entries)} is not a list")
    parts = [_part(entry, device, sector, f"{place}: partitions[{index}]") for index, entry in enumerate(entries)]
    if [part.type for part in parts] == [PROTECTIVE]:
        raise FormatError(f"{place}: only the protective MBR of a GPT: the table was read with the wrong sector "
                          "size; import the disk itself")
    cut = _is_cut(table, sector, total, place)
    base = foreign.name or f"{draft.sources[key].path.name.split('.', 1)[0]}"
    for name, start, end in _ranges(parts, total, place, cut=cut):
        here = max(0, min(end, total) - start)
        regions = [Region(0, here, Kind.SOURCE, key, start)] if here else []
        draft.add(f"{base}/{name}", end - start,
                  [*regions, *([Region(here, end - start, Kind.ERROR)] if here < end - start else [])])
    return draft.done(*_overlaps(parts), *([cut] if cut else []))


def _is_cut(table: dict[str, Any], sector: int, total: int, place: str) -> str:
    """A note when a GPT is for a larger disk, which it says itself, else ""."""
    last = bounded(table.get("lastlba", 0), place, "lastlba", unit=sector)
    if table.get("label") != "gpt" or last + sector <= total:
        return ""
    return (f"the disk was cut short: its table knows usable sectors up to byte {last + sector}, it has {total}; what "
            "is missing of a partition fails with EIO")


def _part(entry: Any, device: str, sector: int, place: str) -> Part:
    node = member(entry, "node", str, place)
    match = re.fullmatch(r"p?([0-9]{1,9})", node.removeprefix(device))
    if match is None:
        raise FormatError(f"{place}: node {clip(node)} is not {device} and a number")
    start = bounded(member(entry, "start", int, place), place, "start", unit=sector)
    length = bounded(member(entry, "size", int, place), place, "size", least=1, unit=sector)
    return Part(start, start + length, int(match[1]), member(entry, "type", str, place))


def _ranges(parts: list[Part], total: int, place: str, *, cut: str) -> list[tuple[str, int, int]]:
    """(file name, start, end) of the partitions and gaps, in the order of the disk."""
    found: list[tuple[str, int, int]] = []
    border = gaps = 0
    for part in sorted(one for one in parts if one.type.lower() not in EXTENDED):
        if part.end > total and not cut:
            raise FormatError(f"{place}: partition {part.number} ends at {part.end}; the disk has {total} bytes: "
                              "it was cut short, or the table is of another one")
        if border < part.start:
            gaps += 1
            found.append((f"gap{gaps}.img", border, part.start))
        found.append((f"part{part.number}.img", part.start, part.end))
        border = max(border, part.end)
    if border < total:
        found.append((f"gap{gaps + 1}.img", border, total))
    return found


def _overlaps(parts: list[Part]) -> list[str]:
    """A note on partitions that begin inside others."""
    last: Part | None = None
    notes = []
    for part in sorted(one for one in parts if one.type.lower() not in EXTENDED):
        if last is not None and part.start < last.end:
            notes.append(f"partition {part.number} begins inside partition {last.number}: both files show those bytes")
        last = part if last is None or part.end > last.end else last
    return notes


def _has_mbr_entries(head: bytes) -> bool:
    """True when the four entries of sector 0 look like partitions: a flag of 0 or 0x80, some of a type."""
    entries = [head[at:at + 16] for at in range(446, 510, 16)]
    return all(entry[0] in (0, 0x80) for entry in entries) and any(entry[4] for entry in entries)
