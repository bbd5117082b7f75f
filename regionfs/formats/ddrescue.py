"""ddrescue mapfiles: which areas of a rescued image are good. Import only.

Source: the GNU ddrescue manual, "Mapfile structure": comments, one status line, then blocks
`position size status` that follow each other. Only `+` was read from the disk. Bad (`-`) areas become
error regions, and so do those not tried, trimmed or scraped (`?*/`): the image's bytes there are not the
disk's, and serving them would be a silent loss. Positions are those of the input; with -o they lie
elsewhere in the image (Invoking ddrescue, `--output-position`), which only the comment with the command
line tells.
"""

from __future__ import annotations

import re

from regionfs.formats.text import clip, lines, number
from regionfs.formats.values import Draft, Foreign, FormatError, Imported
from regionfs.regions import Kind, Region
from regionfs.units import MAX_OFFSET, human_size

_COMMAND = re.compile(r"#\s*Command line:\s*(?:\S*/)?ddrescue\s+(.*)")
# clones of ddrescue that write its mapfiles, such as hddsuperclone's --outputoffset
_ELSEWHERE = re.compile(r"#\s*Command line:(?!\s*(?:\S*/)?ddrescue(?:log)?\s).*\s--?o[a-z-]*(?:offset|pos)",
                        re.IGNORECASE)
_FLAGS = "[ABCdDfGIJMnNOpqRStuvwWy]*"  # short options without a value, which may stand before one with it
_OPTIONS = {name: re.compile(rf"\s(?:-{_FLAGS}{name[0]}\s*|--{name[:3]}[a-z-]*[=\s]\s*)(\S+)(?=\s)")
            for name in ("input", "output")}
_SECTOR_SIZE = re.compile(rf"\s(?:-{_FLAGS}b\s*|--sec[a-z-]*[=\s]\s*)(\S+)(?=\s)")
_NUMBER = re.compile(r"(?P<digits>0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})"
                     r"(?:(?P<sector>s)|(?:(?P<power>[kKMGTPEZY])(?P<binary>i)?)?B?)")
_STATUS = re.compile(r"(0[xX][0-9a-fA-F]+|[0-9]+)\s+([?*/\-FG+])(?:\s+[0-9]+)?")
_BLOCK = re.compile(r"(\S+)\s+(\S+)\s+(\S+)")
_SNIFF = re.compile(rb"(?:^|\n)0x[0-9a-fA-F]+\s+[?*/\-FG+](?:\s+[0-9]+)?\s*\n")


def sniff(head: bytes) -> bool:
    """True for the first bytes of a mapfile."""
    return b"\0" not in head and (b"ddrescue" in head.split(b"\n", 1)[0] or _SNIFF.search(head) is not None)


def read(foreign: Foreign) -> Imported:
    """A composite file of the good areas of the image that the caller named, ro."""
    draft = Draft(foreign)
    key, pos = draft.named_source(), 0
    shift = _shift(foreign)
    regions: list[Region] = []
    stripped = ((place, line.split("#", 1)[0].strip()) for place, line in lines(foreign))  # notes of --annotate
    rows = ((place, line) for place, line in stripped if line)
    place, line = next(rows, (str(foreign.path), ""))
    if _STATUS.fullmatch(line) is None:
        raise FormatError(f"{place}: {clip(line)} is not the status line CURRENT_POS CURRENT_STATUS PASS")
    for place, line in rows:
        start, end, status = _block(line, place)
        if regions and start != pos:
            raise FormatError(f"{place}: the block begins at {start:#x}, not at {pos:#x}, where the one before ends")
        if start > pos:  # ddrescue was told to begin there
            regions.append(Region(0, start, Kind.ERROR))
        if status != "+":
            regions.append(Region(start, end, Kind.ERROR))
        elif start + shift < 0 or end + shift > MAX_OFFSET:
            raise FormatError(f"{place}: position {start:#x} would be byte {start + shift} of the image, as the "
                              "mapfile's command line has it (-i, -o)")
        else:
            regions.append(draft.take(Region(start, end, Kind.SOURCE, key, shift), place))
        pos = end
    if not regions:
        raise FormatError(f"{foreign.path}: the mapfile has no blocks")
    draft.add(draft.default_name(), pos, regions)
    if not any(region.source for region in regions):
        draft.sources.clear()
    lost = [region.length for region in regions if region.kind is Kind.ERROR]
    draft.claim(key, str(foreign.path), size=max(pos + shift, 0))
    notes = [f"{human_size(sum(lost))} in {len(lost)} areas were not rescued; reading them fails with EIO"] * bool(lost)
    if shift:
        notes.append(f"position 0 of the map is taken for byte {shift} of the image: its command line has an output "
                     "position (-o) that is not the input's")
    return draft.done(*notes)


def _shift(foreign: Foreign) -> int:
    """Bytes from a position of the map to its place in the image, as the command line in the comments says."""
    for place, line in lines(foreign):
        if not line.startswith("#"):
            break
        if _ELSEWHERE.match(line):
            raise FormatError(f"{place}: {clip(line)}: another program's output position, which is not known here; "
                              "without that line the image is taken to have each byte in its place")
        if match := _COMMAND.match(line):
            found = {name: _option(match[1], name, place) for name in ("input", "output")}
            source, target = found["input"] or 0, found["output"]
            return 0 if target is None else target - source
    return 0


def _option(command: str, name: str, place: str) -> int | None:
    """Bytes of --input-position or --output-position, None where it is not given; the words are not quoted."""
    found = _OPTIONS[name].findall(f" {command} ")
    if not found:
        return None
    scale = _SECTOR_SIZE.search(f" {command} ")
    value = _scaled(found[-1], _scaled(scale[1], 512) if scale else 512)
    if value is None:
        raise FormatError(f"{place}: the {name} position {clip(found[-1])} cannot be read, so where the image has "
                          "the map's bytes is unknown; write it as a number of bytes")
    return value


def _scaled(text: str, sector: int | None) -> int | None:
    """A number as ddrescue's options have it: C's notation and one of s, k, Ki, M, Mi, ..., perhaps with B."""
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    digits = match["digits"]
    base = 16 if digits[:2] in ("0x", "0X") else 8 if digits[0] == "0" else 10
    try:
        value = int(digits, base)
    except ValueError:
        return None
    if match["sector"]:
        return None if sector is None else value * sector
    power = " kmgtpezy".index(match["power"].lower()) if match["power"] else 0
    return int(value * (1024 if match["binary"] else 1000) ** power)


def _block(line: str, place: str) -> tuple[int, int, str]:
    match = _BLOCK.fullmatch(line)
    if match is None or match[3] not in tuple("?*/-+"):
        raise FormatError(f"{place}: {clip(line)} is not POSITION SIZE and one of ? * / - +")
    start, size = _number(match[1], place, "the position"), _number(match[2], place, "the size")
    if not 0 < size <= MAX_OFFSET - start:
        raise FormatError(f"{place}: size {size:#x} at {start:#x} is outside 1 to 2^63 - 1 in all")
    return start, start + size, match[3]


def _number(text: str, place: str, what: str) -> int:
    """C's notation, without its octal."""
    if re.fullmatch("0[0-9]+", text):
        raise FormatError(f"{place}: {what} {clip(text)} begins with 0: octal or decimal? write 0x...")
    return number(text, place, what, base=16 if text[:2] in ("0x", "0X") else 10)
