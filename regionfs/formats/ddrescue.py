"""ddrescue mapfiles: which areas of a rescued image are good. Import only.

Source: the GNU ddrescue manual, "Mapfile structure": comments, one status line, then blocks
`position size status` that follow each other. Only `+` was read from the disk. Bad (`-`) areas become
error regions, and so do those not tried, trimmed or scraped (`?*/`): the image's bytes there are not the
disk's, and serving them would be a silent loss.
"""

from __future__ import annotations

import re

from regionfs.formats.text import clip, lines, number
from regionfs.formats.values import Draft, Foreign, FormatError, Imported
from regionfs.regions import Kind, Region
from regionfs.units import MAX_OFFSET, human_size

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
        good = status == "+"
        regions.append(Region(start, end, Kind.SOURCE if good else Kind.ERROR, key if good else ""))
        pos = end
    if not regions:
        raise FormatError(f"{foreign.path}: the mapfile has no blocks")
    draft.add(draft.default_name(), pos, regions)
    if not any(region.source for region in regions):
        draft.sources.clear()
    lost = [region.length for region in regions if region.kind is Kind.ERROR]
    note = f"{human_size(sum(lost))} in {len(lost)} areas were not rescued; reading them fails with EIO"
    return draft.done(*([note] if lost else []))


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
