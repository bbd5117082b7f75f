"""A region map as an interval tree: slow, simple, and none of the code under test.

What `over` means, region by region: the model that the manifest's sweep is held against.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from operator import attrgetter

from intervaltree import Interval, IntervalTree

from regionfs.errors import RegionError
from regionfs.regions import Region, RegionMap


class RegionTree:
    """A region map under construction: an interval tree whose intervals never overlap."""

    def __init__(self, regions: Iterable[Region] = ()) -> None:
        """Hold `regions`, in any order. Raises RegionError when two of them overlap."""
        ordered = sorted(regions, key=attrgetter("start"))
        for before, after in pairwise(ordered):
            if after.start < before.end:
                raise _overlap(after, before)
        self._tree = IntervalTree(Interval(region.start, region.end, region) for region in ordered)

    def overlap(self, start: int, end: int) -> list[Region]:
        """Regions that share a byte with [start, end), in order, whole."""
        return [interval.data for interval in sorted(self._tree.overlap(start, end))]

    def add(self, region: Region) -> None:
        """Put `region` where nothing lies. Raises RegionError when something does."""
        if taken := self.overlap(region.start, region.end):
            raise _overlap(region, taken[0])
        self._tree.addi(region.start, region.end, region)

    def cover(self, region: Region) -> None:
        """Put `region` over whatever lies there; what sticks out on either side stays."""
        self.cut(region.start, region.end)
        self._tree.addi(region.start, region.end, region)

    def cut(self, start: int, end: int) -> None:
        """Leave [start, end) without a region; what sticks out on either side stays."""
        for region in self.overlap(start, end):
            self._tree.removei(region.start, region.end, region)
            if region.start < start:
                self._tree.addi(region.start, start, region.clip(region.start, start))
            if region.end > end:
                self._tree.addi(end, region.end, region.clip(end, region.end))

    def __iter__(self) -> Iterator[Region]:
        return (interval.data for interval in sorted(self._tree))

    @property
    def end(self) -> int:
        """Where the last region ends, in bytes; 0 without regions."""
        return int(self._tree.end()) if self._tree else 0

    def freeze(self, size: int | None = None) -> RegionMap:
        """The immutable map; `size` defaults to the end of the last region."""
        return RegionMap(self.end if size is None else size, self)


def _overlap(region: Region, taken: Region) -> RegionError:
    return RegionError(f"[{region.start}, {region.end}) overlaps [{taken.start}, {taken.end})")
