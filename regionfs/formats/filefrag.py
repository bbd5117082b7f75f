"""`filefrag -v`: the blocks of a device that a file's bytes lie in, as FIEMAP tells them. Import only.

Sources: e2fsprogs misc/filefrag.c for the text; Linux Documentation/filesystems/fiemap.rst for the
flags. An extent becomes a region of the device only when its bytes lie there as they are: unwritten
extents read zeros and become holes; unknown, delayed, inline and encoded ones are refused, and so are
file systems whose physical offsets are not the device's (Btrfs and others). Shared extents of XFS lie
where they are said to. The map is of one moment: the file must not change after it. Two layouts are
read: today's, and that of e2fsprogs before 1.42.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from regionfs.formats.text import clip, lines, number
from regionfs.formats.values import Draft, Foreign, FormatError, Imported
from regionfs.regions import Kind, Region
from regionfs.units import MAX_OFFSET

FILE_SYSTEMS = {"ef53": "ext2, ext3, ext4", "58465342": "XFS"}  # statfs(2) magic, as filefrag prints it
HARMLESS = frozenset({"last", "eof", "merged"})
SHARING = frozenset({"58465342"})  # the extents of a reflinked file lie in place; the next write goes elsewhere
WHY_NOT = {
    "unknown": "where its bytes lie is not known", "unknown_loc": "where its bytes lie is not known",
    "delalloc": "its bytes are not on the device yet; run sync, then filefrag again",
    "encoded": "its bytes are compressed or otherwise encoded", "encrypted": "its bytes are encrypted",
    "not_aligned": "it does not begin on a block", "inline": "its bytes lie among metadata, not in blocks",
    "tail_packed": "its bytes lie in a block with those of other files",
    "shared": "this file system is not known to share blocks in place",
}

_TYPE = re.compile(r"Filesystem type is: ([0-9a-f]+)")
_FILE = re.compile(r"File size of (.+) is ([0-9]+) \([0-9]+ blocks?(?: of ([0-9]+) bytes|, blocksize ([0-9]+))\)")
_EXTENT = re.compile(r"[0-9]+:\s+(\S+?)\.\.\s*(\S+):\s+(\S+?)\.\.\s*(\S+):\s+(\S+):(?:\s+\S+:)?(?:\s+(\S+))?")
# ext logical physical [expected] length [flags], before e2fsprogs 1.42.1
_OLD_EXTENT = re.compile(r"[0-9]+\s+([0-9]+)\s+([0-9]+)\s+(?:[0-9]+\s+)?([0-9]+)(?:\s+([a-z]\S*))?")
_FIBMAP = re.compile(r"(?:First|Last) block: [0-9]+|Discontinuity: .*")
_SAYS_NOTHING = re.compile(r".+: [0-9]+ extents? found(?:, .*)?|ext:? .*|Checking .+|"
                           r"Filesystem cylinder groups (?:is )?approximately [0-9]+")


class Extent(NamedTuple):
    """A line of a report, as it is written. Numbers are blocks; `last` is inclusive."""

    place: str
    line: str
    first: str
    last: str
    physical: str
    physical_last: str
    length: str
    flags: frozenset[str]


class Report(NamedTuple):
    """What is said of one file. `size` and `block` in bytes, `kind` is the file system's magic."""

    name: str
    size: int
    block: int
    kind: str
    extents: list[Extent]


def sniff(head: bytes) -> bool:
    """True for the first bytes of filefrag's report."""
    return head.startswith(b"Filesystem type is: ")


def read(foreign: Foreign) -> Imported:
    """A composite file per file of the report, over the device or image that the caller named, ro."""
    draft = Draft(foreign)
    key = draft.named_source()
    reports = list(_reports(foreign))
    if not reports:
        raise FormatError(f"{foreign.path}: no file's extents; make them with filefrag -v")
    draft.claim(key, str(foreign.path), raw=True)
    for report in reports:
        name = report.name.removeprefix("./").lstrip("/")
        if len(reports) == 1:
            name = foreign.name or name.rsplit("/", 1)[-1]
        elif foreign.name:
            name = f"{foreign.name}/{name}"
        draft.add(name, report.size, _regions(draft, key, report))
    shared = any("shared" in extent.flags for report in reports for extent in report.extents)
    note = "some extents are shared: a write to the file moves them, so make the map anew after one"
    return draft.done(*([note] if shared else []))


def _reports(foreign: Foreign) -> Iterator[Report]:
    report: Report | None = None
    kind = ""
    for place, line in lines(foreign):
        if match := _TYPE.fullmatch(line):
            kind = match[1]
        elif match := _FILE.fullmatch(line):
            if kind not in FILE_SYSTEMS:
                raise FormatError(f"{place}: file system type {clip(kind)} is not one of "
                                  f"{', '.join(f'{magic} ({name})' for magic, name in FILE_SYSTEMS.items())}, "
                                  "whose physical offsets are the device's")
            if report is not None:
                yield report
            size = number(match[2], place, "the file size")
            block = number(match[3] or match[4], place, "the block size")
            if not block:
                raise FormatError(f"{place}: blocks of 0 bytes")
            report = Report(match[1], size, block, kind, [])
        elif report is not None and (extent := _extent(line, place)):
            report.extents.append(extent)
        elif _FIBMAP.fullmatch(line):
            raise FormatError(f"{place}: {clip(line)}: a report by FIBMAP, which names no extents; make one with "
                              "filefrag -v and no -B, on a kernel that has FIEMAP")
        elif not _SAYS_NOTHING.fullmatch(line):
            raise FormatError(f"{place}: {clip(line)} is not a line of filefrag -v")
    if report is not None:
        yield report


def _extent(line: str, place: str) -> Extent | None:
    """An extent in either layout; the old one names no last blocks, so they are worked out."""
    if match := _EXTENT.fullmatch(line):
        return Extent(place, line, match[1], match[2], match[3], match[4], match[5], _flags(match[6]))
    if (match := _OLD_EXTENT.fullmatch(line)) is None:
        return None
    first, physical, length = match.groups()[:3]
    last, physical_last = (str(int(start) + int(length) - 1) for start in (first, physical))
    return Extent(place, line, first, last, physical, physical_last, length, _flags(match[4]))


def _flags(text: str | None) -> frozenset[str]:
    return frozenset((text or "").split(",")) - {""}


def _regions(draft: Draft, key: str, report: Report) -> Iterator[Region]:
    border = 0
    for extent in report.extents:
        place = extent.place
        first, last, physical, physical_last, length = (number(word, place, "a block number", unit=report.block)
                                                        for word in extent[2:7])
        _check_flags(extent, report.kind)
        end = last + report.block
        if not border <= first < end or {end - first, physical_last + report.block - physical} != {length}:
            raise FormatError(f"{place}: {clip(extent.line)} is out of order, or its lengths disagree; "
                              "hexadecimal numbers (-X) cannot be read")
        if physical + length > MAX_OFFSET or end > MAX_OFFSET:
            raise FormatError(f"{place}: the extent ends after 2^63 - 1 bytes")
        border = end
        # blocks allocated past the end of the file show nothing
        if first < report.size and "unwritten" not in extent.flags:
            yield draft.take(Region(first, min(end, report.size), Kind.SOURCE, key, physical - first), place)


def _check_flags(extent: Extent, kind: str) -> None:
    for flag in sorted(extent.flags - HARMLESS - {"unwritten"}):
        if flag != "shared" or kind not in SHARING:
            why = WHY_NOT.get(flag, "what that means is unknown")
            raise FormatError(f"{extent.place}: the extent is {flag}: {why}")
