"""bmap 2.0: which blocks of an image hold data. Import only.

Source: bmaptool's bmap-creation documentation and CreateBmap.py. The XML lists inclusive block ranges;
what it does not list is a hole. The file's own checksum is verified, as bmaptool does; the ranges' sums
have no place in a manifest, which a note says. XML with a DOCTYPE is refused before any entity of it
can grow.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from xml.parsers import expat

from regionfs.formats.text import bounded, clip, number
from regionfs.formats.values import Draft, Foreign, FormatError, Imported
from regionfs.regions import Kind, Region
from regionfs.units import MAX_OFFSET

MAX_BLOCK = 1 << 30  # bytes
MAX_DEPTH = 8        # elements
_RANGE = re.compile(r"([0-9]{1,19})(?:\s*-\s*([0-9]{1,19}))?")


@dataclass(slots=True)
class Bmap:
    """The document, as far as it matters."""

    version: str = ""
    values: dict[str, str] = field(default_factory=dict)          # ImageSize, BlockSize, ...
    ranges: list[tuple[int, str]] = field(default_factory=list)   # line, text
    sums: int = 0                                                 # ranges with a checksum


def sniff(head: bytes) -> bool:
    """True for the first bytes of a bmap file."""
    return head.lstrip().startswith(b"<") and re.search(rb"<bmap\b", head) is not None


def read(foreign: Foreign) -> Imported:
    """A composite file of the mapped blocks of the image that the caller named, ro."""
    document = _parse(foreign)
    place = str(foreign.path)
    if document.version.split(".")[0] != "2":
        raise FormatError(f"{place}: bmap version {clip(document.version)} is not 2.x")
    _verify(foreign, document)
    size = bounded(_value(document, "ImageSize", place), place, "ImageSize", least=1)
    block = bounded(_value(document, "BlockSize", place), place, "BlockSize", least=1)
    if block > MAX_BLOCK:
        raise FormatError(f"{place}: BlockSize {block} is more than {MAX_BLOCK}")
    blocks = -(-size // block)
    if "BlocksCount" in document.values and _value(document, "BlocksCount", place) != blocks:
        raise FormatError(f"{place}: BlocksCount is not {blocks}, which ImageSize and BlockSize make")
    draft = Draft(foreign)
    key = draft.named_source()
    spans = _spans(document, blocks, place)
    mapped = sum(last - first + 1 for first, last in spans)
    if "MappedBlocksCount" in document.values and _value(document, "MappedBlocksCount", place) != mapped:
        raise FormatError(f"{place}: MappedBlocksCount is not {mapped}, the blocks of the ranges")
    draft.add(draft.default_name(), size, (
        Region(first * block, min((last + 1) * block, size), Kind.SOURCE, key) for first, last in spans))
    note = f"the checksums of {document.sums} ranges are left out: a manifest has no place for them"
    return draft.done(*([note] if document.sums else []))


def _parse(foreign: Foreign) -> Bmap:
    found, path, text = Bmap(), [""], [""]
    parser = expat.ParserCreate()

    def refuse(*_: object) -> None:
        raise FormatError(f"{foreign.path}:{parser.CurrentLineNumber}: a DOCTYPE is not part of the format")

    def start(name: str, attributes: dict[str, str]) -> None:
        path.append(name)
        text[0] = ""
        if len(path) > MAX_DEPTH:
            raise FormatError(f"{foreign.path}:{parser.CurrentLineNumber}: elements deeper than {MAX_DEPTH - 1}")
        if path == ["", "bmap"]:
            found.version = attributes.get("version", "")
        elif path == ["", "bmap", "BlockMap", "Range"] and "chksum" in attributes:
            found.sums += 1

    def end(name: str) -> None:
        if path == ["", "bmap", "BlockMap", "Range"]:
            found.ranges.append((parser.CurrentLineNumber, text[0].strip()))
        elif path[:2] == ["", "bmap"] and len(path) == 3:
            found.values[name] = text[0].strip()
        path.pop()

    def characters(data: str) -> None:
        text[0] += data

    parser.buffer_text = True
    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = start, end
    parser.CharacterDataHandler = characters
    try:
        parser.Parse(foreign.content, True)
    except (expat.ExpatError, ValueError, LookupError) as error:
        raise FormatError(f"{foreign.path}:{parser.CurrentLineNumber}: not XML that can be used: {error}") from None
    return found


def _verify(foreign: Foreign, document: Bmap) -> None:
    """The file's checksum is taken with zeros in its own place."""
    kind, digest = document.values.get("ChecksumType", ""), document.values.get("BmapFileChecksum", "")
    if not digest:
        return
    if kind.lower() != "sha256" or not re.fullmatch("[0-9a-f]{64}", digest):
        raise FormatError(f"{foreign.path}: BmapFileChecksum of type {clip(kind)} is not a sha256 sum")
    if hashlib.sha256(foreign.content.replace(digest.encode(), b"0" * 64, 1)).hexdigest() != digest:
        raise FormatError(f"{foreign.path}: BmapFileChecksum does not fit: the file is damaged or was edited")


def _value(document: Bmap, name: str, place: str) -> int:
    if name not in document.values:
        raise FormatError(f"{place}: {name} is missing")
    return number(document.values[name], place, name)


def _spans(document: Bmap, blocks: int, place: str) -> list[tuple[int, int]]:
    """(first, last) block of each range, in order."""
    found: list[tuple[int, int]] = []
    for line, text in document.ranges:
        match = _RANGE.fullmatch(text)
        if match is None:
            raise FormatError(f"{place}:{line}: {clip(text)} is not a block or FIRST-LAST")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < blocks <= MAX_OFFSET:
            raise FormatError(f"{place}:{line}: blocks {first}-{last} are outside the image's 0-{blocks - 1}")
        if found and first <= found[-1][1]:
            raise FormatError(f"{place}:{line}: block {first} is not after {found[-1][1]}, where the range before ends")
        found.append((first, last))
    return found
