"""Region maps: which bytes of a composite file lie where.

A RegionMap is immutable: sorted columns searched by bisection, so that a million regions cost
bytes, not objects, and a lookup costs two comparisons a level. It does not know what a source is:
a source is a key.

Invariant of a RegionMap: regions are not empty, sorted, do not overlap, and end at or before
`size`. A gap between regions is a hole.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import reduce
from itertools import compress, islice, repeat
from operator import add, and_, eq, gt, le, lt, ne, or_
from typing import Any, NamedTuple

from regionfs.digest import blake2b
from regionfs.errors import RegionError
from regionfs.units import MAX_OFFSET


class Kind(StrEnum):
    """What a region's bytes are."""

    SOURCE = "source"  # a range of a source
    DATA = "data"      # bytes held in the manifest
    HOLE = "hole"      # zeros
    ERROR = "error"    # reads fail with EIO


@dataclass(frozen=True, slots=True)
class Region:
    """Bytes [start, end) of a composite file, of one kind and one access."""

    start: int              # bytes
    end: int                # bytes, exclusive
    kind: Kind
    source: str = ""        # key in Manifest.sources, for SOURCE
    shift: int = 0          # bytes; offset in the source or in `data` minus start: every cut keeps it
    writable: bool = False  # for SOURCE
    data: bytes = b""       # for DATA: the whole of it, however much of it this region shows

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= MAX_OFFSET:
            raise RegionError(f"[{self.start}, {self.end}) is empty or outside [0, 2^63)")
        if (self.kind is Kind.SOURCE) != bool(self.source):
            raise RegionError(f"[{self.start}, {self.end}): kind {self.kind} with source {self.source!r}")
        if self.writable and self.kind is not Kind.SOURCE:
            raise RegionError(f"[{self.start}, {self.end}): only source regions can be rw")
        if self.kind in (Kind.HOLE, Kind.ERROR) and (self.shift or self.data):
            raise RegionError(f"[{self.start}, {self.end}): kind {self.kind} with an offset or data")
        if self.offset < 0 or self.end + self.shift > MAX_OFFSET:
            raise RegionError(f"[{self.start}, {self.end}): offset {self.offset} is outside [0, 2^63)")
        if self.kind is Kind.DATA and self.end + self.shift > len(self.data):
            raise RegionError(f"[{self.start}, {self.end}): only {len(self.data)} bytes of data")

    @property
    def length(self) -> int:
        """Bytes."""
        return self.end - self.start

    @property
    def offset(self) -> int:
        """The first byte's place in the source or in `data`."""
        return self.start + self.shift

    def clip(self, start: int, end: int) -> Region:
        """The part of this region inside [start, end), which must not be empty."""
        return replace(self, start=max(self.start, start), end=min(self.end, end))

    def moved(self, start: int) -> Region:
        """The same bytes shown at `start`."""
        shift = self.offset - start if self.kind in (Kind.SOURCE, Kind.DATA) else 0
        return replace(self, start=start, end=start + self.length, shift=shift)

    def continues(self, before: Region) -> bool:
        """True when this region goes on where `before` ends, in the file and in the source."""
        return (before.end == self.start and before.kind is self.kind and before.source == self.source
                and before.writable == self.writable and before.data == self.data
                and (before.shift == self.shift or self.kind in (Kind.HOLE, Kind.ERROR)))


HOLE, ERROR, _DATA = -1, -2, -3  # targets below zero; _DATA - n is the nth blob


class Columns(NamedTuple):
    """Regions as columns of one length, sorted by start."""

    starts: array[int]   # "q"; bytes
    ends: array[int]     # "q"; bytes, exclusive
    shifts: array[int]   # "q"; as Region.shift
    targets: array[int]  # "i"; an index of the map's names, HOLE, ERROR or a blob
    writable: bytearray  # 0 or 1

    @staticmethod
    def empty() -> Columns:
        """No regions."""
        return Columns(array("q"), array("q"), array("q"), array("i"), bytearray())


class RegionMap:
    """An immutable region map in sorted columns; 29 bytes a region.

    `size` is the composite file's size in bytes; `names` the source keys its regions use. Columns
    may be read by callers that walk many regions (`starts`, `ends`, `rows`), never changed.
    """

    __slots__ = ("_answers", "_blobs", "_shifts", "_targets", "_writable", "ends", "has_errors",
                 "names", "size", "starts", "stored", "writable", "writable_names")

    def __init__(self, size: int, regions: Iterable[Region]) -> None:
        """Build from regions in order. Raises RegionError when they overlap or pass `size`."""
        columns = Columns.empty()
        self._blobs: list[bytes] = []
        names: dict[str, int] = {}
        blobs: dict[int, int] = {}
        border = 0
        for region in regions:
            if region.start < border:
                raise RegionError(f"[{region.start}, {region.end}) begins before {border}, "
                                  "where the region before it ends")
            border = region.end
            columns.starts.append(region.start)
            columns.ends.append(region.end)
            columns.shifts.append(region.shift)
            columns.writable.append(region.writable)
            columns.targets.append(self._target(region, names, blobs))
        self._settle(size, tuple(names), columns)

    @staticmethod
    def from_columns(size: int, names: Sequence[str], columns: Columns) -> RegionMap:
        """A map of source regions only, checked as a whole; it keeps the columns.

        `columns.targets` are indices of `names`. Raises RegionError for the first region that is wrong.
        """
        made = RegionMap.__new__(RegionMap)
        made._blobs = []
        _check_columns(columns, len(names))
        made._settle(size, tuple(names), columns)
        return made

    def _settle(self, size: int, names: tuple[str, ...], columns: Columns) -> None:
        """Take the columns, and what follows from them all that is asked for often."""
        if (border := columns.ends[-1] if columns.ends else 0) > size:
            raise RegionError(f"regions end at {border}, after the file's size {size}")
        self.size = size
        self.names: Sequence[str] = names
        self.starts, self.ends, self._shifts, self._targets, self._writable = columns
        #: an error region is in the map
        self.has_errors = ERROR in self._targets
        #: any region is rw
        self.writable = 1 in self._writable
        #: keys of the sources that rw regions write to
        self.writable_names = frozenset(names[target] for target in set(compress(self._targets, self._writable)))
        #: bytes that are no hole
        self.stored = sum(self.ends) - sum(self.starts)
        if HOLE in self._targets:
            self.stored -= sum(end - start for start, end, target, _, _ in self.rows() if target == HOLE)
        self._answers: dict[tuple[str, int], Any] = {}  # what was worked out once, by method and argument

    def _target(self, region: Region, names: dict[str, int], blobs: dict[int, int]) -> int:
        match region.kind:
            case Kind.SOURCE:
                return names.setdefault(region.source, len(names))
            case Kind.HOLE:
                return HOLE
            case Kind.ERROR:
                return ERROR
            case Kind.DATA:
                index = blobs.setdefault(id(region.data), len(self._blobs))
                if index == len(self._blobs):
                    self._blobs.append(region.data)
                return _DATA - index

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Region:
        target = self._targets[index]
        start, end = self.starts[index], self.ends[index]
        if target >= 0:
            return Region(start, end, Kind.SOURCE, self.names[target], self._shifts[index],
                          bool(self._writable[index]))
        if target <= _DATA:
            return Region(start, end, Kind.DATA, shift=self._shifts[index], data=self.blob(target))
        return Region(start, end, Kind.HOLE if target == HOLE else Kind.ERROR)

    def __iter__(self) -> Iterator[Region]:
        return map(self.__getitem__, range(len(self.starts)))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, RegionMap):
            return NotImplemented
        if ((self.size, self.starts, self.ends, self._shifts, self._writable)
                != (other.size, other.starts, other.ends, other._shifts, other._writable)):
            return False
        # the same names in another order, or equal blobs apart, may still mean the same
        return (self.names, self._targets, self._blobs) == (other.names, other._targets, other._blobs) or all(
            map(eq, self._contents(), other._contents()))

    def _contents(self) -> Iterator[str | bytes | int]:
        """What each region shows: a source key, inline bytes, HOLE or ERROR."""
        for target in self._targets:
            yield self.names[target] if target >= 0 else self.blob(target) if target <= _DATA else target

    def __hash__(self) -> int:
        return hash((self.size, self.starts.tobytes(), self._shifts.tobytes()))

    def digest(self) -> bytes:
        """16 bytes that only an equal map has; the same names or blobs in another order make them differ."""
        found = blake2b(repr((self.size, self.names, [*map(len, self._blobs)])).encode(), digest_size=16)
        columns = self.columns
        parts: list[array[int] | bytearray | bytes] = [*columns[:4], columns.writable, *self._blobs]
        for part in parts:
            found.update(part)
        return found.digest()

    def __repr__(self) -> str:
        return f"RegionMap(size={self.size}, {len(self)} regions)"

    @property
    def alignment(self) -> int:
        """The largest power of two up to 2^62 that divides every start, end and source offset."""
        bits = reduce(or_, self.starts, 1 << 62) | reduce(or_, self.ends, 0) | reduce(or_, self._shifts, 0)
        return bits & -bits

    def source_ends(self) -> dict[str, int]:
        """Per source key, one past the last byte of it that any region shows."""
        key = ("source_ends", 0)
        if key not in self._answers:
            ends = [0] * len(self.names)
            for target, end in zip(self._targets, map(add, self.ends, self._shifts), strict=True):
                if target >= 0 and end > ends[target]:
                    ends[target] = end
            self._answers[key] = dict(zip(self.names, ends, strict=True))
        answer: dict[str, int] = self._answers[key]
        return answer

    def has_unaligned_errors(self, block: int) -> bool:
        """True when an error region begins or ends inside a `block` of bytes that are not all bad."""
        if not self.has_errors:
            return False
        key = ("has_unaligned_errors", block)
        if key not in self._answers:
            self._answers[key] = any(
                start % block or (end % block and end != self.size)
                for start, end, target, _, _ in self.rows() if target == ERROR)
        answer: bool = self._answers[key]
        return answer

    def runs(self, block: int, offset: int, end: int) -> Iterator[tuple[int, int]]:
        """Ranges of whole blocks (a power of two, bytes) in which any byte is no hole, that share a byte with a range.

        In order and apart from each other; the last may end with the file inside a block.
        """
        starts, ends = self._runs(block)
        for index in range(bisect_right(ends, offset), len(starts)):
            if starts[index] >= end:
                return
            yield starts[index], ends[index]

    def _runs(self, block: int) -> tuple[array[int], array[int]]:
        """Starts and ends of all runs, at the speed of C: there may be a million regions."""
        key = ("runs", block)
        if key not in self._answers:
            starts, ends = self.starts, self.ends
            if HOLE in self._targets:
                full = [*map(ne, self._targets, repeat(HOLE))]
                starts, ends = array("q", compress(starts, full)), array("q", compress(ends, full))
            firsts = array("q", map(and_, starts, repeat(-block)))
            lasts = array("q", map(and_, map(add, ends, repeat(block - 1)), repeat(-block)))
            parted = bytes(map(gt, firsts[1:], lasts))  # whether a hole follows each but the last
            made = firsts[:1] + array("q", compress(firsts[1:], parted)), (
                array("q", compress(lasts, parted)) + lasts[-1:])
            if lasts and lasts[-1] > self.size:
                made[1][-1] = self.size
            self._answers[key] = made
        answer: tuple[array[int], array[int]] = self._answers[key]
        return answer

    def first_after(self, offset: int) -> int:
        """Index of the first region that ends after `offset`; len(self) when none does."""
        index = bisect_right(self.starts, offset)
        return index - 1 if index and self.ends[index - 1] > offset else index

    def overlapping(self, start: int, end: int) -> Iterator[Region]:
        """Regions that share a byte with [start, end), in order, whole."""
        for index in range(self.first_after(start), len(self.starts)):
            if self.starts[index] >= end or start >= end:
                return
            yield self[index]

    def column(self, index: int) -> tuple[int, int, int, int, bool]:
        """(start, end, target, shift, writable) of one region without making an object of it."""
        return (self.starts[index], self.ends[index], self._targets[index], self._shifts[index],
                bool(self._writable[index]))

    @property
    def columns(self) -> Columns:
        """The columns themselves, for whoever reads them as buffers."""
        return Columns(self.starts, self.ends, self._shifts, self._targets, self._writable)

    def targets(self, offset: int, length: int) -> Iterator[tuple[int, str]]:
        """(target, source key) of the source regions that share a byte with a range."""
        for index in range(self.first_after(offset), len(self.starts)):
            if self.starts[index] >= offset + length:
                return
            if (target := self._targets[index]) >= 0:
                yield target, self.names[target]

    def rows(self) -> Iterator[tuple[int, int, int, int, int]]:
        """column() of every region, for whoever has to walk a million."""
        return zip(self.starts, self.ends, self._targets, self._shifts, self._writable, strict=True)

    def blob(self, target: int) -> bytes:
        """The inline bytes behind a `target` of column()."""
        return self._blobs[_DATA - target]


def _check_columns(columns: Columns, names: int) -> None:
    """What Region and RegionMap check region by region, at the speed of C. Raises RegionError."""
    starts, ends, shifts, targets, writable = columns
    if {len(starts)} != {*map(len, columns)}:
        raise RegionError("columns differ in length")
    if not starts:
        return
    if not all(map(lt, starts, ends)) or starts[0] < 0:
        index = next(index for index, start in enumerate(starts) if not 0 <= start < ends[index])
        raise RegionError(f"[{starts[index]}, {ends[index]}) is empty or outside [0, 2^63)")
    if not all(map(le, ends, islice(starts, 1, None))):
        index = next(index for index in range(1, len(starts)) if starts[index] < ends[index - 1])
        raise RegionError(f"[{starts[index]}, {ends[index]}) begins before {ends[index - 1]}, "
                          "where the region before it ends")
    if min(map(add, starts, shifts)) < 0 or max(map(add, ends, shifts)) > MAX_OFFSET:
        raise RegionError("an offset is outside [0, 2^63)")
    if min(targets) < 0 or max(targets) >= names or max(writable) > 1:
        raise RegionError("a region has no source, or is neither ro nor rw")
