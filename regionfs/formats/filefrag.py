"""`filefrag -v`: the blocks of a device that a file's bytes lie in, as FIEMAP tells them. Import only.

Sources: e2fsprogs misc/filefrag.c for the text; Linux Documentation/filesystems/fiemap.rst for the
flags. An extent becomes a region of the device only when its bytes lie there as they are: unwritten
extents read zeros and become holes; unknown, delayed, inline, encoded and shared ones are refused, and
so are file systems whose physical offsets are not the device's (Btrfs and others). The map is of one
moment: the file must not change after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from regionfs.formats.text import clip, lines, number
from regionfs.formats.values import Draft, Foreign, FormatError, Imported
from regionfs.regions import Kind, Region
from regionfs.units import MAX_OFFSET

FILE_SYSTEMS = {"ef53": "ext4", "58465342": "XFS"}  # statfs(2) magic, as filefrag prints it
HARMLESS = frozenset({"last", "eof", "merged"})

_TYPE = re.compile(r"Filesystem type is: ([0-9a-f]+)")
_FILE = re.compile(r"File size of (.+) is ([0-9]+) \([0-9]+ blocks? of ([0-9]+) bytes\)")
_EXTENT = re.compile(r"[0-9]+:\s+(\S+?)\.\.\s*(\S+):\s+(\S+?)\.\.\s*(\S+):\s+(\S+):(?:\s+\S+:)?(?:\s+(\S+))?")
_FOUND = re.compile(r".+: [0-9]+ extents? found(?:, .*)?")


def sniff(head: bytes) -> bool:
    """True for the first bytes of filefrag's report."""
    return head.startswith(b"Filesystem type is: ")


def read(foreign: Foreign) -> Imported:
    """A composite file per file of the report, over the device or image that the caller named, ro."""
    draft = Draft(foreign)
    key = draft.named_source()
    reports = [report for report in _reports(foreign) if report]
    if not reports:
        raise FormatError(f"{foreign.path}: no file's extents; make them with filefrag -v")
    for report in reports:
        (place, line), *extents = report
        match = _FILE.fullmatch(line)
        assert match is not None
        size, block = number(match[2], place, "the file size"), number(match[3], place, "the block size")
        if not block:
            raise FormatError(f"{place}: blocks of 0 bytes")
        name = match[1].removeprefix("./").lstrip("/")
        if len(reports) == 1:
            name = foreign.name or name.rsplit("/", 1)[-1]
        elif foreign.name:
            name = f"{foreign.name}/{name}"
        draft.add(name, size, _regions(key, extents, size, block))
    return draft.done()


def _reports(foreign: Foreign) -> Iterator[list[tuple[str, str]]]:
    """Per file, the line of its size and those of its extents."""
    report: list[tuple[str, str]] = []
    kind = ""
    for place, line in lines(foreign):
        if match := _TYPE.fullmatch(line):
            kind = match[1]
        elif _FILE.fullmatch(line):
            if kind not in FILE_SYSTEMS:
                raise FormatError(f"{place}: file system type {clip(kind)} is not one of "
                                  f"{', '.join(f'{magic} ({name})' for magic, name in FILE_SYSTEMS.items())}, "
                                  "whose physical offsets are the device's")
            yield report
            report = [(place, line)]
        elif report and _EXTENT.fullmatch(line):
            report.append((place, line))
        elif not (line.startswith("ext:") or _FOUND.fullmatch(line)):
            raise FormatError(f"{place}: {clip(line)} is not a line of filefrag -v")
    yield report


def _regions(key: str, extents: list[tuple[str, str]], size: int, block: int) -> Iterator[Region]:
    border = 0
    for place, line in extents:
        match = _EXTENT.fullmatch(line)
        assert match is not None
        first, last, physical, physical_last, length = (number(word, place, "a block number", unit=block)
                                                        for word in match.groups()[:5])
        flags = set((match[6] or "").split(",")) - {""}
        if unsafe := sorted(flags - HARMLESS - {"unwritten"}):
            raise FormatError(f"{place}: the extent is {', '.join(unsafe)}: its bytes do not lie there as they are")
        end = last + block
        if not border <= first < end or {end - first, physical_last + block - physical} != {length}:
            raise FormatError(f"{place}: {clip(line)} is out of order, or its lengths disagree; "
                              "hexadecimal numbers (-X) cannot be read")
        if physical + length > MAX_OFFSET or end > MAX_OFFSET:
            raise FormatError(f"{place}: the extent ends after 2^63 - 1 bytes")
        border = end
        # blocks allocated past the end of the file show nothing
        if first < size and "unwritten" not in flags:
            yield Region(first, min(end, size), Kind.SOURCE, key, physical - first)
