"""Which composite files show the same source bytes, where one of them may write. Pure.

The kernel caches each composite file apart. So that two of them over the same bytes agree at once,
a write through one must drop what the kernel holds of the other; this module says what that is.
Sources are the same when they are the same file or device, whatever their names.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, compress, islice
from operator import le, not_
from typing import TYPE_CHECKING, NamedTuple

from regionfs.manifest.body import Whole
from regionfs.manifest.schema import FileSpec
from regionfs.plan import plan_read
from regionfs.units import MAX_OFFSET

if TYPE_CHECKING:
    from intervaltree import IntervalTree

NEAR = 256             # places that begin inside one of the columns, at most
MOST_IN_TREE = 10_000  # places of one source, see _Index

Identity = tuple[int, ...]


class Shown(NamedTuple):
    """One composite file as far as sharing is concerned."""

    ino: int
    spec: FileSpec
    identities: Mapping[str, Identity]  # of its sources, by key


class Place(NamedTuple):
    """Bytes [start, end) of a source, shown by file `ino` at `position`."""

    start: int
    end: int
    ino: int
    position: int
    writable: bool


class Span(NamedTuple):
    """A range of a composite file."""

    ino: int
    offset: int
    length: int


class Sharing:
    """Places of the sources that some file of the mount may write to."""

    def __init__(self, files: Iterable[Shown]) -> None:
        self._files = {file.ino: file for file in files}
        #: sources that some file may write
        self.written = written = frozenset(
            file.identities[key] for file in self._files.values() for key in file.spec.rw_sources)
        self._whole_writers: dict[Identity, list[int]] = {}
        for file in self._files.values():
            body = file.spec.body
            if isinstance(body, Whole) and body.writable:
                self._whole_writers.setdefault(file.identities[body.source], []).append(file.ino)
        places: dict[Identity, _Found] = {}
        for file in self._files.values():
            if not written.isdisjoint(file.identities[key] for key in file.spec.sources):
                _gather(file, written, places)
        #: source -> files that show it
        self._shown: dict[Identity, list[int]] = {}
        for file in self._files.values():
            for identity in {file.identities[key] for key in file.spec.sources} & written:
                self._shown.setdefault(identity, []).append(file.ino)
        self._places = {identity: _Index(shared) for identity, found in places.items() if (shared := found.shared())}
        #: files that write bytes which are shown somewhere else too
        self.writers = frozenset(ino for index in self._places.values() for ino in index.writers)

    def whole_writers_beside(self, ino: int) -> list[int]:
        """Other files that are the whole of a source which `ino` shows, and may write it."""
        if not self._whole_writers:
            return []
        file = self._files[ino]
        mine = {file.identities[key] for key in file.spec.sources}
        return [other for identity in mine for other in self._whole_writers.get(identity, ()) if other != ino]

    def beside(self, ino: int) -> set[int]:
        """Other files that show a source which `ino` shows and some file may write."""
        file = self._files[ino]
        mine = {file.identities[key] for key in file.spec.sources}
        return {other for identity in mine for other in self._shown.get(identity, ())} - {ino}

    def elsewhere(self, ino: int, offset: int, length: int) -> list[Span]:
        """Where else the rw bytes of `ino` in [offset, offset + length) are shown."""
        if ino not in self.writers:
            return []
        file = self._files[ino]
        body = file.spec.body
        if isinstance(body, Whole):
            written = [(body.source, offset, length, offset)]
        else:
            # pages of a shared mapping may begin outside rw ground
            written = [(mapping.source, mapping.address, mapping.length, mapping.offset)
                       for mapping in plan_read(body.regions, offset, length) if mapping.writable]
        spans = []
        for key, start, count, own in written:
            index = self._places.get(file.identities[key])
            for place in index.overlapping(start, start + count) if index else ():
                first, last = max(start, place.start), min(start + count, place.end)
                position = place.position + first - place.start
                if (place.ino, position) != (ino, own + first - start):
                    spans.append(Span(place.ino, position, last - first))
        return spans


class _Found:
    """Places of one source in columns: most are shown once, and of those no object is made."""

    def __init__(self) -> None:
        self.starts, self.ends, self.inos, self.positions = (array("q") for _ in range(4))
        self.writable = bytearray()

    def shared(self) -> list[Place]:
        """Those that overlap another, by start."""
        order: Sequence[int] = range(len(self.starts))
        if not all(map(le, self.starts, islice(self.starts, 1, None))):
            order = sorted(order, key=self.starts.__getitem__)
        found: list[Place] = []
        before, reach, taken = -1, -1, False  # the place that reached furthest, how far, whether it was found
        for index in order:
            start, end = self.starts[index], self.ends[index]
            overlaps = start < reach
            if overlaps and not taken:
                found.append(self._place(before))
                taken = True
            if overlaps:
                found.append(self._place(index))
            if end > reach:
                before, reach, taken = index, end, overlaps
        return found

    def _place(self, index: int) -> Place:
        return Place(self.starts[index], self.ends[index], self.inos[index], self.positions[index],
                     bool(self.writable[index]))


def _gather(file: Shown, wanted: Container[Identity], places: dict[Identity, _Found]) -> None:
    """Add the places of one file in the sources that are wanted."""
    def of(key: str) -> _Found | None:
        identity = file.identities[key]
        return places.setdefault(identity, _Found()) if identity in wanted else None

    body = file.spec.body
    if isinstance(body, Whole):
        if (found := of(body.source)) is not None:
            _add(found, file.ino, 0, MAX_OFFSET, 0, body.writable)
        return
    targets = [of(key) for key in body.regions.names]
    for start, end, target, shift, writable in body.regions.rows():
        if target >= 0 and (found := targets[target]) is not None:
            _add(found, file.ino, start + shift, end + shift, start, writable)


def _add(found: _Found, ino: int, start: int, end: int, position: int, writable: int) -> None:
    found.starts.append(start)
    found.ends.append(end)
    found.inos.append(ino)
    found.positions.append(position)
    found.writable.append(writable)


class _Index:
    """Places of one source, found by range; they may overlap each other. All of them overlap another.

    Sorted columns answer in 1.2 us, but have to pass over all places that begin inside a longer one: 13 us for 256
    of them, 1.2 ms for 10,000. An interval tree answers in 2 us where it holds one place and in 110 us where it
    holds 10,000 that overlap. So it holds the few places that lie over many others, and of those no more than it takes
    in soon: it is built at 70 us a place, 0.7 s for 10,000 and a minute for a million. Beyond that, columns alone.
    """

    def __init__(self, places: list[Place]) -> None:
        places.sort()
        #: files that may write one of them
        self.writers = {place.ino for place in places if place.writable}
        starts = [place.start for place in places]
        passed = [bisect_left(starts, place.end) - index - 1 > NEAR for index, place in enumerate(places)]
        if 0 < sum(passed) <= MOST_IN_TREE:
            self._wide: IntervalTree | None = tree_of(compress(places, passed))
            places = [*compress(places, map(not_, passed))]
        else:
            self._wide = None
        self._places = places
        self._starts = [place.start for place in places]
        self._reach = list(accumulate((place.end for place in places), max))

    def overlapping(self, start: int, end: int) -> Iterator[Place]:
        """Places that share a byte with [start, end), in no order."""
        if self._wide is not None:
            yield from (found.data for found in self._wide.overlap(start, end))
        for index in range(bisect_left(self._starts, end) - 1, -1, -1):
            if self._reach[index] <= start:
                return
            if self._places[index].end > start:
                yield self._places[index]


def tree_of(places: Iterable[Place]) -> IntervalTree:
    """Places as an interval tree."""
    from intervaltree import Interval, IntervalTree  # 20 ms, and few mounts need it

    return IntervalTree(Interval(place.start, place.end, place) for place in places)
