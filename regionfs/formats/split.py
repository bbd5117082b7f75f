"""Split sets: one file in pieces, found whole by the name of any piece. Import only.

A piece is named by a count between a front and an end that the pieces share: image.001, disk.img_aa,
xaa.gz, part-2, model-00001-of-00005.bin. Which part of a name counts is not written anywhere, so every
reading is tried, and the first that makes a whole set is taken. Sources: split(1) of GNU coreutils for
letters and digits, which grow wider (.yz goes on with .zaaa, .89 with .9000); dd-based imagers and 7-Zip
for .001, which goes on with .1000; hdiutil(1) and Windows for sets whose first piece has no number.
Never guesses: a gap, or two names for one number, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from regionfs.formats.devices import size_of
from regionfs.formats.values import Draft, Foreign, FormatError, Imported
from regionfs.regions import Kind, Region
from regionfs.units import MAX_OFFSET

INSTEAD = "; regionfs stitch OUT --file PATH --concat PIECE... joins pieces by any names, in the order given"

_DIGITS = re.compile(r"[0-9]{1,18}")
_LETTERS = re.compile(r"(?:[a-z]{2,30}|[A-Z]{2,30})(?=\.|$)")
_OF = re.compile(r"-of-([0-9]{1,18})")
# the first piece without a number -> the second, with it; case as it is
_NUMBERLESS = (
    (re.compile(r"(?P<front>.+)\.dmg"), ("{front}.002.dmgpart",)),
    (re.compile(r"(?P<front>.+?)(?P<end>\.[^.]+)?"), ("{front}(2){end}", "{front} (2){end}")),
)
_NUMBERED = re.compile(r"(?P<front>.+?)(?:\.0*(?P<apple>[0-9]{1,9})(?P<part>\.dmgpart)|"
                       r"(?P<space> ?)\((?P<count>[0-9]{1,9})\)(?P<end>\.[^.]+)?)")


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read the name of a piece."""

    front: str
    count: str
    end: str

    def name(self, count: str) -> str:
        """The piece of another count."""
        return f"{self.front}{count}{self.end}"

    @property
    def whole(self) -> str:
        """A name for the file that all pieces make."""
        front = re.sub(r"(?i)([._ -]part)?[._ (-]*$", "", self.front) or self.front
        end = _OF.sub("", self.end).strip(") ")
        front = front or "joined"
        return f"{front}{end}" if "." in f"{front}{end}" else f"{front}{end}.img"


class Set(NamedTuple):
    """Pieces in order, and the name of what they make."""

    pieces: list[Path]
    name: str


class _BrokenSetError(FormatError):
    """Several pieces, but not all of them: this reading is meant, and none after it."""


def sniff(path: Path) -> bool:
    """True when `path` is named as a piece in a way that hardly means anything else, and the first piece is there."""
    if not path.is_file():
        return False
    siblings = _names_in(path.parent)
    return any(_is_plain(path.parent, siblings, reading) for reading in _readings(path.name))


def _is_plain(directory: Path, siblings: list[str], reading: Reading) -> bool:
    """image.001 by its name; image.aa, image_aa, xaa and image_001 with the pieces beside it."""
    dotted = reading.front.endswith(".") or reading.front.lower().endswith(".part")
    if reading.end or not (dotted or reading.front == "x" or reading.front[-1:] in ("_", "-")):
        return False
    if dotted and reading.count.isdigit():
        return True
    try:
        found = _collect(directory, siblings, reading)
    except FormatError:
        return False
    return found is not None and (dotted or (len(found.pieces) > 1 and len(reading.count) > 1))


def read(foreign: Foreign, size: Callable[[Path], int] = size_of) -> Imported:
    """A composite file of all pieces in order, ro."""
    pieces, name = _find(foreign.path)
    draft, regions, pos = Draft(foreign), [], 0
    for piece in pieces:
        length = size(piece)
        if not 0 < length <= MAX_OFFSET - pos:
            raise FormatError(f"{piece}: a piece of {length} bytes after {pos}; the limit is 1 to 2^63 - 1 in all")
        region = Region(pos, pos + length, Kind.SOURCE, draft.source(piece.name), -pos)
        regions.append(draft.take(region, str(piece)))
        # one container may be cut in pieces, but a piece that begins one is cut in another way (EWF, volumes)
        if piece != pieces[0]:
            draft.claim(region.source, str(piece), raw=True)
        pos += length
    draft.add(foreign.name or name, pos, regions)
    return draft.done(*_unequal(pieces, [region.length for region in regions]))


def find_set(path: Path) -> list[Path]:
    """Every piece of the set that `path` is one of, in order. Raises FormatError for a gap or doubt."""
    return _find(path).pieces


def _find(path: Path) -> Set:
    if found := _numberless(path):
        return found
    siblings = _names_in(path.parent)
    alone: Set | None = None
    fault: FormatError | None = None
    for reading in _readings(path.name):
        try:
            found = _collect(path.parent, siblings, reading)
        except _BrokenSetError:
            raise
        except FormatError as error:
            fault = error if fault is None or reading.count.isdigit() else fault
            continue
        if found and found.pieces[1:]:
            return found
        if reading.front.endswith(".") and not reading.end:
            alone = alone or found
    if alone:
        return alone
    raise fault or FormatError(f"{path} is not named as a piece of a set, such as image.001, image.aa, xaa, image_01 "
                               f"or image.part1{INSTEAD}")


def _readings(name: str) -> list[Reading]:
    """What ends last in the name comes first; of letters the most."""
    found = [(match.end(), match.start()) for match in _DIGITS.finditer(name)
             if not (name[:match.start()].endswith("-of-"))]
    for match in _LETTERS.finditer(name):
        found += [(match.end(), start) for start in range(match.start(), match.end() - 1)]
    return [Reading(name[:start], name[start:end], name[end:])
            for end, start in sorted(found, key=lambda one: (-one[0], one[1]))]


def _collect(directory: Path, siblings: list[str], reading: Reading) -> Set | None:
    """The pieces of a reading, None where it cannot be meant. Raises FormatError when they are not whole."""
    names = {count: name for name in siblings if (count := _count(name, reading))}
    if not reading.count.isdigit():
        names = {count: names[count] for count in _letters(names)}
        if reading.count not in names and (not reading.front.endswith(".") or reading.end):
            return None
    counts = sorted(names, key=lambda count: (len(count), count))
    if reading.count not in counts:
        raise FormatError(f"{directory / reading.name(reading.count)}: there is no such piece, or none before it "
                          f"counts as the first{INSTEAD}")
    _check_counts(directory, reading, counts)
    return Set([directory / names[count] for count in counts], reading.whole)


def _check_counts(directory: Path, reading: Reading, counts: list[str]) -> None:
    first = directory / reading.name(counts[0])
    if counts[0].isdigit() and int(counts[0]) > 1:
        raise FormatError(f"{first} is the first piece there is; the ones before it are missing{INSTEAD}")
    for before, after in pairwise(counts):
        if after not in _following(before):
            raise _BrokenSetError(f"{directory / reading.name(before)} is followed by {reading.name(after)}: "
                                  f"pieces between them are missing, or the names do not count{INSTEAD}")
    total = _OF.match(reading.end)
    if total and int(total[1]) != int(counts[-1]) + (int(counts[0]) == 0):
        raise _BrokenSetError(f"{directory / reading.name(counts[-1])} is the last piece there is of {int(total[1])}")


def _count(name: str, reading: Reading) -> str:
    """The count in the name of a sibling, "" where that is none of the same kind."""
    if not (name.startswith(reading.front) and name.endswith(reading.end)
            and len(name) > len(reading.front) + len(reading.end)):
        return ""
    count = name[len(reading.front):len(name) - len(reading.end)]
    if reading.count.isdigit():
        return count if _DIGITS.fullmatch(count) else ""
    return count if _LETTERS.fullmatch(count) and count.islower() == reading.count.islower() else ""


def _names_in(directory: Path) -> list[str]:
    return [other.name for other in directory.iterdir()]


def _letters(counts: Iterable[str]) -> list[str]:
    """Those that can belong to a set that begins with .aa; other words of letters (.img) are no pieces."""
    first = min((len(count) for count in counts if not count.lower().strip("a")), default=0)
    return [count for count in counts
            if len(count) == first or (0 < first < len(count) and count[0].lower() == "z")]


def _following(count: str) -> set[str]:
    """The names that may come next: one more, or the first of the next width of split(1)."""
    low, high = ("0", "9") if count.isdigit() else ("a", "z") if count.islower() else ("A", "Z")
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


def _numberless(path: Path) -> Set | None:
    """A set whose first piece has no number and whose others count from 2."""
    name = path.name
    if match := _NUMBERED.fullmatch(name):
        name = match["front"] + (".dmg" if match["part"] else match["end"] or "")
    for pattern, seconds in _NUMBERLESS:
        if (match := pattern.fullmatch(name)) is None or not path.with_name(name).is_file():
            continue
        words = {key: value or "" for key, value in match.groupdict().items()}
        for second in seconds:
            pieces = [path.with_name(name)]
            while (piece := path.with_name(_next(second.format(**words), len(pieces) + 1))).is_file():
                pieces.append(piece)
            if path in pieces[1:] or (path == pieces[0] and pieces[1:]):
                return Set(pieces, name)
    return None


def _next(second: str, number: int) -> str:
    """The name of the second piece with another number."""
    if second.endswith(".dmgpart"):
        return second.replace(".002.", f".{number:03}.")
    return second.replace("(2)", f"({number})")


def _unequal(pieces: list[Path], lengths: list[int]) -> list[str]:
    """A warning when any piece but the last is of another size than the first, or the last is larger."""
    for piece, length in zip(pieces, lengths, strict=True):
        if length > lengths[0] or (length < lengths[0] and piece != pieces[-1]):
            return [f"warning: {piece.name} has {length} bytes, {pieces[0].name} {lengths[0]}: pieces of one "
                    "split are equal but for a smaller last one; is one damaged or incomplete?"]
    return []
