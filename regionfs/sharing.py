"""Which composite files show the same source bytes, where one of them may write. Pure.

The kernel caches each composite file apart. So that two of them over the same bytes agree at once,
a write through one must drop what the kernel holds of the other; this module says what that is.
Sources are the same when they are the same file or device, whatever their names.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import accumulate
from typing import NamedTuple

from regionfs.manifest.inspect import SourceFacts
from regionfs.manifest.schema import FileSpec, Manifest
from regionfs.plan import plan_read
from regionfs.regions import Kind
from regionfs.units import MAX_OFFSET

Identity = tuple[int, ...]


class Place(NamedTuple):
    """Bytes [start, end) of a source, shown by file `path` at `position`."""

    start: int
    end: int
    path: str
    position: int
    writable: bool


class Span(NamedTuple):
    """A range of a composite file."""

    path: str
    offset: int
    length: int


class Sharing:
    """Places of the sources that some file of the mount may write to."""

    def __init__(self, manifest: Manifest, facts: Mapping[str, SourceFacts]) -> None:
        self._identity = {key: found.identity for key, found in facts.items()}
        self._files = manifest.files
        self._writers_of: dict[Identity, list[str]] = {}
        for file in manifest.files.values():
            for key in file.rw_sources:
                self._writers_of.setdefault(self._identity[key], []).append(file.path)
        written = self._writers_of.keys()
        places: dict[Identity, list[Place]] = {}
        for file in manifest.files.values():
            if written.isdisjoint(self._identity[key] for key in file.sources):
                continue
            for key, place in _places(file):
                if self._identity[key] in written:
                    places.setdefault(self._identity[key], []).append(place)
        self._places = {key: _Index(found) for key, found in places.items() if len(found) > 1}
        #: files that write bytes which are shown somewhere else too
        self.writers = frozenset(place.path for index in self._places.values() for place in index.shared_writers())

    def writers_beside(self, path: str) -> list[str]:
        """Other files that may write a source which `path` shows."""
        mine = {self._identity[key] for key in self._files[path].sources}
        if mine.isdisjoint(self._writers_of):
            return []
        return [other for identity in mine for other in self._writers_of.get(identity, ()) if other != path]

    def elsewhere(self, path: str, offset: int, length: int) -> list[Span]:
        """Where else the rw bytes of `path` in [offset, offset + length) are shown."""
        file = self._files[path]
        if path not in self.writers:
            return []
        if file.whole is not None:
            written = [(file.whole, offset, length, offset)]
        else:
            assert file.regions is not None
            # pages of a shared mapping may begin outside rw ground
            written = [(m.source, m.address, m.length, m.offset)
                       for m in plan_read(file.regions, offset, length) if m.writable]
        spans = []
        for key, start, count, own in written:
            index = self._places.get(self._identity[key])
            for place in index.overlapping(start, start + count) if index else ():
                first, last = max(start, place.start), min(start + count, place.end)
                position = place.position + first - place.start
                if (place.path, position) != (path, own + first - start):
                    spans.append(Span(place.path, position, last - first))
        return spans


def _places(file: FileSpec) -> Iterator[tuple[str, Place]]:
    if file.whole is not None:
        yield file.whole, Place(0, MAX_OFFSET, file.path, 0, file.writable)
    for region in file.regions or ():
        if region.kind is Kind.SOURCE:
            place = Place(region.offset, region.offset + region.length, file.path, region.start, region.writable)
            yield region.source, place


class _Index:
    """Places of one source, found by range; they may overlap each other."""

    def __init__(self, places: list[Place]) -> None:
        self._places = sorted(places)
        self._starts = [place.start for place in self._places]
        self._reach = list(accumulate((place.end for place in self._places), max))

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
