"""Split sets: one file in pieces image.001 image.002 ..., found whole by the name of any piece. Import only.

Sources: split(1) of GNU coreutils for .aa and .00, which grow wider (.yz goes on with .zaaa, .89 with
.9000); dd-based imagers and 7-Zip for .001, which goes on with .1000; .part1 counts without zeros. Never
guesses: a gap, or two names for one number, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path

from regionfs.formats.devices import size_of
from regionfs.formats.values import Draft, Foreign, FormatError, Imported
from regionfs.regions import Kind, Region
from regionfs.units import MAX_OFFSET

_PIECE = re.compile(r"(?P<stem>.+)\.(?P<word>[Pp]art|)(?P<count>[0-9]{1,18}|[a-z]{2,18})")


def sniff(path: Path) -> bool:
    """True when `path` is named as a piece and the set's first piece is there."""
    match = _PIECE.fullmatch(path.name)
    if match is None or not path.is_file():
        return False
    return match["count"].isdigit() or path.with_name(f"{match['stem']}.{'a' * len(match['count'])}").exists()


def read(foreign: Foreign, size: Callable[[Path], int] = size_of) -> Imported:
    """A composite file of all pieces in order, ro."""
    pieces = find_set(foreign.path)
    draft, regions, pos = Draft(foreign), [], 0
    for piece in pieces:
        length = size(piece)
        if not 0 < length <= MAX_OFFSET - pos:
            raise FormatError(f"{piece}: a piece of {length} bytes after {pos}; the limit is 1 to 2^63 - 1 in all")
        regions.append(Region(pos, pos + length, Kind.SOURCE, draft.source(piece.name), -pos))
        pos += length
    match = _PIECE.fullmatch(foreign.path.name)
    assert match is not None
    draft.add(foreign.name or (match["stem"] if "." in match["stem"] else f"{match['stem']}.img"), pos, regions)
    return draft.done(*_unequal(pieces, [region.length for region in regions]))


def find_set(path: Path) -> list[Path]:
    """Every piece of the set that `path` is one of, in order. Raises FormatError for a gap or doubt."""
    match = _PIECE.fullmatch(path.name)
    if match is None:
        raise FormatError(f"{path} is not named as a piece of a set: image.001, image.aa or image.part1")
    names = {found["count"]: other for other in path.parent.iterdir()
             if (found := _PIECE.fullmatch(other.name)) and found["count"].isdigit() == match["count"].isdigit()
             and (found["stem"], found["word"]) == (match["stem"], match["word"])}
    counts = sorted(names if match["count"].isdigit() else _letters(names), key=lambda count: (len(count), count))
    if match["count"] not in counts:
        raise FormatError(f"{path}: there is no such piece, or none before it counts as the first")
    if counts[0].isdigit() and int(counts[0]) > 1:
        raise FormatError(f"{names[counts[0]]} is the first piece there is; the ones before it are missing")
    for before, after in pairwise(counts):
        if after not in _following(before):
            raise FormatError(f"{names[before]} is followed by {names[after].name}: pieces between them are missing, "
                              "or the names do not count")
    return [names[count] for count in counts]


def _letters(counts: Iterable[str]) -> list[str]:
    """Those that can belong to a set that begins with .aa; other words of letters (.img) are no pieces."""
    first = min((len(count) for count in counts if not count.strip("a")), default=0)
    return [count for count in counts if len(count) == first or (0 < first < len(count) and count[0] == "z")]


def _following(count: str) -> set[str]:
    """The names that may come next: one more, or the first of the next width of split(1)."""
    low, high = ("0", "9") if count.isdigit() else ("a", "z")
    body = count.rstrip(high)
    found = set()
    if body:
        found.add(body[:-1] + chr(ord(body[-1]) + 1) + low * (len(count) - len(body)))
    elif count.isdigit():
        found.add("1" + low * len(count))
    # 89, 9899, 998999: as many of the highest before the last but one digit as there are widenings behind
    widened = len(count) // 2 - 1
    if count == high * widened + chr(ord(high) - 1) + high * (widened + 1):
        found.add(high * (widened + 1) + low * (widened + 3))
    return found


def _unequal(pieces: list[Path], lengths: list[int]) -> list[str]:
    """A warning when any piece but the last is of another size than the first, or the last is larger."""
    for piece, length in zip(pieces, lengths, strict=True):
        if length > lengths[0] or (length < lengths[0] and piece != pieces[-1]):
            return [f"warning: {piece.name} has {length} bytes, {pieces[0].name} {lengths[0]}: pieces of one "
                    "split are equal but for a smaller last one; is one damaged or incomplete?"]
    return []
