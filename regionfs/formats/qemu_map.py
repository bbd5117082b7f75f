"""`qemu-img map --output=json`: which bytes of an image lie where in its file.

Source: QEMU docs/tools/qemu-img.rst, "map"; include/block/block-common.h for what the flags mean
together. Entries tile the image; `zero` without `data` is a hole. QEMU leaves `filename` out, so the
caller names the file, and where several files could be meant the map is refused.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from regionfs.formats.text import bounded, json_value, member
from regionfs.formats.values import Composite, Draft, Exported, Foreign, FormatError, Imported, tiles
from regionfs.regions import Kind, Region


def sniff(head: bytes) -> bool:
    """True for the first bytes of such a map."""
    return head.lstrip().startswith(b"[") and b'"start"' in head and b'"data"' in head


def read(foreign: Foreign) -> Imported:
    """A composite file of the entries, ro."""
    entries = json_value(foreign)
    if not isinstance(entries, list) or not entries:
        raise FormatError(f"{foreign.path}: a list of entries is wanted here")
    draft, regions, pos = Draft(foreign), [], 0
    nameless: list[Region] = []
    for index, entry in enumerate(entries):
        place = f"{foreign.path}: entry {index}"
        start = bounded(member(entry, "start", int, place), place, "start")
        length = bounded(member(entry, "length", int, place), place, "length", least=1)
        if start != pos:
            raise FormatError(f"{place}: starts at {start}, not at {pos}, where the entry before it ends")
        pos = bounded(start + length, place, "the end")
        region = _region(draft, entry, start, pos, place)
        if region.source and "filename" not in entry:
            nameless.append(region)
        regions.append(region)
    _refuse_doubles(nameless, str(foreign.path))
    draft.add(draft.default_name(), pos, regions)
    return draft.done()


def write(composite: Composite) -> Exported:
    """The same map as QEMU prints it, with the file name in every entry of data."""
    entries = [_entry(composite, tile) for tile in tiles(composite.regions)]
    notes = [f"{composite.place(region.start)} is rw, which a map cannot say"
             for region in composite.regions if region.writable]
    return Exported(("[" + ",\n".join(map(json.dumps, entries)) + "]\n").encode(), notes=tuple(notes[:1]))


def _region(draft: Draft, entry: Any, start: int, end: int, place: str) -> Region:
    zero, data = member(entry, "zero", bool, place), member(entry, "data", bool, place)
    if entry.get("compressed"):
        raise FormatError(f"{place}: the bytes at {start} are compressed, so no file holds them as they are")
    if zero and (not data or "offset" not in entry):
        return Region(start, end, Kind.HOLE)
    if "offset" not in entry:
        if data or entry.get("present", True):
            raise FormatError(f"{place}: the bytes at {start} have no offset (encrypted, compressed or not in a file)")
        raise FormatError(f"{place}: the bytes at {start} come from outside the image")
    offset = bounded(member(entry, "offset", int, place), place, "offset")
    bounded(offset + end - start, place, "the end in the file")
    if "filename" in entry:
        key = draft.source(member(entry, "filename", str, place))
    elif bounded(entry.get("depth", 0), place, "depth"):
        raise FormatError(f"{place}: the bytes at {start} lie in a backing file that the map does not name")
    else:
        key = draft.named_source()
    return draft.take(Region(start, end, Kind.SOURCE, key, offset - start), place)


def _refuse_doubles(regions: list[Region], place: str) -> None:
    """Refuse two ranges of the image at one place of the file: a disk of several files without their names."""
    for before, after in pairwise(sorted(regions, key=lambda region: region.offset)):
        if after.offset < before.offset + before.length:
            raise FormatError(f"{place}: byte {after.offset} of the file is mapped twice: the image has several "
                              "files, and the map does not name them")


def _entry(composite: Composite, tile: Region) -> dict[str, Any]:
    if tile.kind in (Kind.DATA, Kind.ERROR):
        raise FormatError(f"{composite.place(tile.start)}: a map cannot say "
                          f"{'inline data' if tile.kind is Kind.DATA else 'that bytes are unreadable'}")
    entry: dict[str, Any] = {"start": tile.start, "length": tile.length, "depth": 0, "present": True,
                             "zero": tile.kind is Kind.HOLE, "data": tile.kind is Kind.SOURCE}
    if tile.kind is Kind.SOURCE:
        entry |= {"offset": tile.offset, "filename": composite.written(composite.source(tile.source))}
    return entry
