"""Which composite files show the same source bytes, where one of them may write. Pure.

The kernel caches each composite file apart. So that two of them over the same bytes agree at once,
a write through one must drop what the kernel holds of the other; this module says what that is.
Sources are the same when they are the same file or device, whatever their names.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, islice
from operator import le
from typing import NamedTuple

from regionfs.manifest.schema import FileSpec
from regionfs.plan import plan_read
from regionfs.units import MAX_OFFSET

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
            if file.spec.whole is not None and file.spec.writable:
                self._whole_writers.setdefault(file.identities[file.spec.whole], []).append(file.ino)
        places: dict[Identity, _Found] = {}
        for file in self._files.values():
            if not written.isdisjoint(file.identities[key] for key in file.spec.sources):
                _gather(file, written, places)
        #: source -> files that show it
        self._shown: dict[Identity, list[int]] = {}
        for file in self._files.values():
            for identity in {file.identities[key] for key in file.spec.sources} & written:
                self._shown.setdefault(identity, []).append(file.ino)
        self._places = {identity: index for identity, found in places.items() if (index := _Index(found.shared()))}
        #: files that write bytes which are shown somewhere else too
        self.writers = frozenset(place.ino for index in self._places.values() for place in index.shared_writers())

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
        if file.spec.whole is not None:
            written = [(file.spec.whole, offset, length, offset)]
        else:
            assert file.spec.regions is not None
            # pages of a shared mapping may begin outside rw ground
            written = [(mapping.source, mapping.address, mapping.length, mapping.offset)
                       for mapping in plan_read(file.spec.regions, offset, length) if mapping.writable]
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

    if file.spec.regions is None:
        if file.spec.whole is not None and (found := of(file.spec.whole)) is not None:
            _add(found, file.ino, 0, MAX_OFFSET, 0, file.spec.writable)
        return
    targets = [of(key) for key in file.spec.regions.names]
    for start, end, target, shift, writable in file.spec.regions.rows():
        if target >= 0 and (found := targets[target]) is not None:
            _add(found, file.ino, start + shift, end + shift, start, writable)


def _add(found: _Found, ino: int, start: int, end: int, position: int, writable: int) -> None:
    found.starts.append(start)
    found.ends.append(end)
    found.inos.append(ino)
    found.positions.append(position)
    found.writable.append(writable)


class _Index:
    """Places of one source, found by range; they may overlap each other."""

    def __init__(self, places: list[Place]) -> None:
        self._places = sorted(places)
        self._starts = [place.start for place in self._places]
        self._reach = list(accumulate((place.end for place in self._places), max))

    def __len__(self) -> int:
        return len(self._places)

    def overlapping(self, start: int, end: int) -> Iterator[Place]:
        for index in range(bisect_left(self._starts, end) - 1, -1, -1):
            if self._reach[index] <= start:
                return
            if self._places[index].end > start:
                yield self._places[index]

    def shared_writers(self) -> Iterator[Place]:
        for place in self._places:
            if place.writable and any(other is not place for other in self.overlapping(place.start, place.end)):
                yield place
