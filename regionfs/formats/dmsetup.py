"""device-mapper tables: `start count target arguments` in 512-byte sectors.

Sources: dmsetup(8), "TABLE FORMAT" and "CONCISE FORMAT"; Linux Documentation/admin-guide/device-mapper
linear.rst and zero.rst; comments from `#` on as in dmsetup.c (_parse_line). A table names devices, so
the files of an export need loop devices: their losetup lines stand in the table as comments, where
the reader finds them again. Which file a live loop device shows is in sysfs (see devices.py).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from regionfs.formats.devices import Device, from_system
from regionfs.formats.sides import LaidOut, Piece, lay_out
from regionfs.formats.text import clip, decode, lines, number
from regionfs.formats.values import SECTOR, Composite, Draft, Exported, Foreign, FormatError, Imported
from regionfs.regions import Kind, Region
from regionfs.units import MAX_OFFSET

FIRST_LOOP = 100  # loop devices of an export count from here, above those that losetup -f gives first

_LINE = re.compile(r"(?:(?P<name>[^\s:]+):\s+)?(?P<start>\S+)\s+(?P<count>\S+)\s+(?P<target>\S+)(?:\s+(?P<rest>.*))?")
_LOSETUP = re.compile(r"#\s*(losetup\s+(?:--read-only\s+)?/dev/loop[0-9]+\s.*)")
_CREATE = re.compile(r"#\s*dmsetup create\s+(--readonly\s)?")
_SNIFF = re.compile(rb"(?:^|\n)(?:[^\s:]+:\s+)?[0-9]+\s+[0-9]+\s+(?:linear|zero|error)(?:\s|$)")
_CONCISE = re.compile(rb"[^\s,;#]+,[^\s,;]*,[0-9]*,[a-z]*,\s*[0-9]+\s+[0-9]+\s+[a-z]")
_ESCAPED = re.compile(r"\\(.)|([,;])", re.DOTALL)


class Target(NamedTuple):
    """One line of one table."""

    device: str   # name of the mapped device, "" where the table does not say
    place: str    # for messages
    writable: bool
    line: str     # start count target arguments


def sniff(head: bytes) -> bool:
    """True for the first bytes of a table, plain or concise."""
    return _SNIFF.search(head) is not None or _CONCISE.match(head.lstrip()) is not None


def read(foreign: Foreign, resolve: Callable[[str], Device] = from_system) -> Imported:
    """A composite file per mapped device. Tables that do not say are read as ro."""
    text = decode(foreign)
    known = dict(_attached(foreign))
    draft = Draft(foreign)
    tables: dict[str, list[Region]] = {}
    targets = _concise(foreign, text) if _CONCISE.match(text.lstrip().encode()) else _plain(foreign, text)
    for target in targets:
        regions = tables.setdefault(target.device, [])
        regions.append(_region(draft, target, regions[-1].end if regions else 0, lambda name: known.get(name)
                               or resolve(name)))
    if not tables:
        raise FormatError(f"{foreign.path}: the table has no lines")
    for device, regions in tables.items():
        several = f"{foreign.name}/{device}" if foreign.name else device
        draft.add(draft.default_name() if len(tables) == 1 and (foreign.name or not device) else several,
                  regions[-1].end, regions)
    return draft.done()


def write(composite: Composite) -> Exported:
    """A plain table under comment lines that attach the files; notes are the commands to run."""
    laid = lay_out(composite, SECTOR, lambda region: region.kind is not Kind.DATA)
    composite.check_text(composite.out)
    read_only = not composite.regions.writable
    loops = _loops(composite, laid)
    table = "".join(f"{piece.start // SECTOR} {piece.length // SECTOR} {_target(composite, laid, loops, piece)}\n"
                    for piece in laid.pieces)
    commands = [f"losetup {'--read-only ' if read_only else ''}{device} {shlex.quote(str(path))}"
                for path, device in loops.items()]
    create = ["dmsetup", "create", *(["--readonly"] if read_only else []), _name(composite)]
    commands.append(shlex.join(create if composite.out.name == "-" else [*create, str(composite.out)]))
    head = "".join(f"# {command}\n" for command in commands)
    return Exported((head + table).encode(), laid.side, (*laid.notes, *_access_notes(composite), *commands))


def _plain(foreign: Foreign, text: str) -> Iterator[Target]:
    writable = (match := _CREATE.search(text)) is not None and match[1] is None
    for place, line in lines(foreign, text):
        if line := line.split("#", 1)[0].strip():
            match = _LINE.fullmatch(line)
            if match is None:
                raise FormatError(f"{place}: {clip(line)} is not START COUNT TARGET ARGUMENTS")
            name = match["name"] or ""
            yield Target(name, place, writable, line[match.start("start"):])


def _concise(foreign: Foreign, text: str) -> Iterator[Target]:
    """name,uuid,minor,flags,table[,table...][;...], commas, semicolons and backslashes escaped."""
    for index, fields in enumerate(_split(text.strip()), 1):
        place = f"{foreign.path}: device {index}"
        if fields == [""]:
            continue
        if len(fields) < 5 or fields[3] not in ("", "ro", "rw"):
            raise FormatError(f"{place}: {clip(','.join(fields))} is not NAME,UUID,MINOR,ro or rw,TABLE")
        for line in fields[4:]:
            if _LINE.fullmatch(line.strip()) is None:
                raise FormatError(f"{place}: {clip(line)} is not START COUNT TARGET ARGUMENTS")
            yield Target(fields[0].strip(), place, fields[3] == "rw", line.strip())


def _split(text: str) -> Iterator[list[str]]:
    fields, field, pos = [], "", 0
    for match in _ESCAPED.finditer(text):
        field += text[pos:match.start()] + (match[1] or "")
        pos = match.end()
        if match[2]:
            fields.append(field)
            field = ""
        if match[2] == ";":
            yield fields
            fields = []
    yield [*fields, field + text[pos:]]


def _region(draft: Draft, target: Target, pos: int, resolve: Callable[[str], Device]) -> Region:
    words = target.line.split()
    start = number(words[0], target.place, "the start", unit=SECTOR)
    length = number(words[1], target.place, "the count", unit=SECTOR)
    if start != pos:
        raise FormatError(f"{target.place}: the table goes on at sector {start // SECTOR}, not at {pos // SECTOR}")
    if not 0 < length <= MAX_OFFSET - start:
        raise FormatError(f"{target.place}: {words[1]} sectors is outside 1 sector to 2^63 - 1 bytes in all")
    match words[2:]:
        case ["zero"]:
            return Region(start, start + length, Kind.HOLE)
        case ["error"]:
            return Region(start, start + length, Kind.ERROR)
        case ["linear", name, sectors]:
            offset = number(sectors, target.place, "the offset", unit=SECTOR)
            device = resolve(name)
            if offset + length > device.size:
                raise FormatError(f"{target.place}: ends at byte {offset + length} of {name}, which has {device.size}")
            return draft.take(Region(start, start + length, Kind.SOURCE, draft.source(device.path),
                                     offset + device.offset - start, target.writable), target.place)
    raise FormatError(f"{target.place}: {clip(' '.join(words[2:]))} is not linear DEVICE OFFSET, zero or error")


def _attached(foreign: Foreign) -> Iterator[tuple[str, Device]]:
    """The loop devices of the losetup comments that write() makes."""
    for place, line in lines(foreign):
        if match := _LOSETUP.fullmatch(line):
            try:
                words = [word for word in shlex.split(match[1]) if word != "--read-only"]
            except ValueError as error:
                raise FormatError(f"{place}: {clip(line)}: {error}") from None
            if len(words) != 3:
                raise FormatError(f"{place}: {clip(line)} is not losetup DEVICE FILE")
            yield words[1], Device(Path(words[2]))


def _loops(composite: Composite, laid: LaidOut) -> dict[Path, str]:
    """A loop device per file, in the order of use."""
    paths: dict[Path, str] = {}
    for piece in laid.pieces:
        path = None
        if piece.direct is None and laid.side is not None:
            path = laid.side.path
        elif piece.direct is not None and piece.direct.source and piece.direct.source not in composite.devices:
            path = composite.source(piece.direct.source)
        if path is not None:
            composite.check_text(path)
            if "\n" in str(path):
                raise FormatError(f"{composite.place(piece.start)}: {clip(str(path))} has a line break, "
                                  "which a table cannot say")
            paths.setdefault(path, f"/dev/loop{FIRST_LOOP + len(paths)}")
    return paths


def _target(composite: Composite, laid: LaidOut, loops: dict[Path, str], piece: Piece) -> str:
    region = piece.direct
    if region is None:
        assert laid.side is not None
        return f"linear {loops[laid.side.path]} {piece.offset // SECTOR}"
    if region.kind is not Kind.SOURCE:
        return "zero" if region.kind is Kind.HOLE else "error"
    path = composite.source(region.source)
    device = loops.get(path, str(path))
    if re.search(r"[\s#]", device):
        raise FormatError(f"{composite.place(region.start)}: {clip(device)} has a space, which a table cannot say")
    return f"linear {device} {region.offset // SECTOR}"


def _access_notes(composite: Composite) -> list[str]:
    if composite.regions.writable:
        for region in composite.regions:
            if region.kind is Kind.SOURCE and not region.writable:
                return [f"{composite.place(region.start)} is ro, but a device is rw or ro as a whole: this one is rw"]
    return []


def _name(composite: Composite) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", composite.path.rsplit("/", 1)[-1]).lstrip("-")[:127] or "regionfs"
