"""bmap 1.x and 2.x: which blocks of an image hold data. Import only.

Source: bmaptool's CreateBmap.py, and BmapCopy.py (_parse_bmap) for the versions: no checksums before 1.3,
SHA-1 in 1.3, any kind in 2.0, which 1.4 is too. The XML lists inclusive block ranges; what it does not
list is a hole. The file's own checksum is verified here, as bmaptool does; the size and the ranges' sums
are claims on the image. XML with a DOCTYPE is refused before any entity of it can grow.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.parsers import expat

from regionfs.formats.text import bounded, clip, number
from regionfs.formats.values import Draft, Foreign, FormatError, Imported, Sum
from regionfs.regions import Kind, Region
from regionfs.units import MAX_OFFSET

MAX_BLOCK = 1 << 30  # bytes
MAX_DEPTH = 8        # elements
KINDS = ("sha256", "sha1", "sha512", "sha384", "sha224", "md5")
_SIGNED = b"-----BEGIN PGP"
_RANGE = re.compile(r"([0-9]{1,19})(?:\s*-\s*([0-9]{1,19}))?")


class Span(NamedTuple):
    """Blocks `first` to `last`, inclusive."""

    first: int
    last: int
    place: str
    digest: str


@dataclass(slots=True)
class Bmap:
    """The document, as far as it matters."""

    version: str = ""
    values: dict[str, str] = field(default_factory=dict)              # ImageSize, BlockSize, ...
    ranges: list[tuple[int, str, str]] = field(default_factory=list)  # line, text, checksum or ""

    @property
    def kind(self) -> str:
        """What sums are made by, as hashlib says it; before 2.0 nothing but SHA-1 was known."""
        return self.values.get("ChecksumType", "sha1").lower()


def sniff(head: bytes) -> bool:
    """True for the first bytes of a bmap file."""
    return head.lstrip().startswith((b"<", _SIGNED)) and re.search(rb"<bmap\b", head) is not None


def read(foreign: Foreign) -> Imported:
    """A composite file of the mapped blocks of the image that the caller named, ro."""
    place = str(foreign.path)
    if foreign.content.lstrip().startswith(_SIGNED):
        raise FormatError(f"{place}: the bmap is signed; take it out of its signature with gpg --decrypt")
    document = _parse(foreign)
    if document.version.split(".")[0] not in ("1", "2"):
        raise FormatError(f"{place}: bmap version {clip(document.version)} is not 1.x or 2.x")
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
    mapped = sum(span.last - span.first + 1 for span in spans)
    if "MappedBlocksCount" in document.values and _value(document, "MappedBlocksCount", place) != mapped:
        raise FormatError(f"{place}: MappedBlocksCount is not {mapped}, the blocks of the ranges")
    draft.claim(key, place, size=size, exact=True, raw=True, sums=tuple(_sums(document, spans, size, block)))
    draft.add(draft.default_name(), size, (draft.take(
        Region(span.first * block, min((span.last + 1) * block, size), Kind.SOURCE, key), span.place)
        for span in spans))
    return draft.done()


def _sums(document: Bmap, spans: list[Span], size: int, block: int) -> Iterator[Sum]:
    for span in spans:
        if span.digest:
            _check_digest(span.place, document.kind, span.digest)
            yield Sum(span.first * block, min((span.last + 1) * block, size), document.kind, span.digest, span.place)


def _parse(foreign: Foreign) -> Bmap:
    found, path, text, digest = Bmap(), [""], [""], [""]
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
        elif path == ["", "bmap", "BlockMap", "Range"]:
            digest[0] = attributes.get("chksum", attributes.get("sha1", ""))

    def end(name: str) -> None:
        if path == ["", "bmap", "BlockMap", "Range"]:
            found.ranges.append((parser.CurrentLineNumber, text[0].strip(), digest[0].strip().lower()))
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
    digest = document.values.get("BmapFileChecksum", document.values.get("BmapFileSHA1", ""))
    if not digest:
        return
    _check_digest(str(foreign.path), document.kind, digest.lower())
    unsigned = foreign.content.replace(digest.encode(), b"0" * len(digest), 1)
    if hashlib.new(document.kind, unsigned).hexdigest() != digest.lower():
        raise FormatError(f"{foreign.path}: the bmap's own checksum does not fit: the file is damaged or was edited")


def _check_digest(place: str, kind: str, digest: str) -> None:
    if kind not in KINDS:
        raise FormatError(f"{place}: checksums of type {clip(kind)} are not one of {', '.join(KINDS)}")
    if not re.fullmatch(f"[0-9a-f]{{{2 * hashlib.new(kind).digest_size}}}", digest):
        raise FormatError(f"{place}: {clip(digest)} is not a {kind} sum")


def _value(document: Bmap, name: str, place: str) -> int:
    if name not in document.values:
        raise FormatError(f"{place}: {name} is missing")
    return number(document.values[name], place, name)


def _spans(document: Bmap, blocks: int, place: str) -> list[Span]:
    """The ranges, in order."""
    found: list[Span] = []
    for line, text, digest in document.ranges:
        match = _RANGE.fullmatch(text)
        if match is None:
            raise FormatError(f"{place}:{line}: {clip(text)} is not a block or FIRST-LAST")
        first, last = int(match[1]), int(match[2] or match[1])
        if not first <= last < blocks <= MAX_OFFSET:
            raise FormatError(f"{place}:{line}: blocks {first}-{last} are outside the image's 0-{blocks - 1}")
        if found and first <= found[-1].last:
            raise FormatError(f"{place}:{line}: block {first} is not after {found[-1].last}, where the range before "
                              "ends")
        found.append(Span(first, last, f"{place}:{line}", digest))
    return found
