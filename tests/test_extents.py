"""Holes and data as they are told: whole blocks, over maps and sparse sources, without a walk per question."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from regionfs import extents
from regionfs.manifest.body import Mapped
from regionfs.manifest.load import loads
from regionfs.regions import Columns, Kind, Region, RegionMap
from regionfs.source import Sources
from tests.test_random_maps import attempt

BLOCK = 4096
TEXT = """
regionfs: 1
files:
  disk:
    size: 100
    regions:
      - {start: 10, source: dense.img, length: 10}
      - {start: 60, error: true, length: 10}
      - {data: {text: inline}}
  sparse:
    size: 40KiB
    regions:
      - {start: 4KiB, source: sparse.img, length: 16KiB}
      - {start: 24KiB, source: sparse.img, length: 8KiB}
  inside:
    size: 40000
    regions:
      - {start: 446, data: {hex: "55aa"}}
      - {start: 9000, source: sparse.img, offset: 4000, length: 9000}
      - {start: 30000, error: true, length: 1}
      - {start: 30100, hole: true, length: 5000}
"""


class Files:
    """The files of TEXT and their open sources."""

    def __init__(self, sources: Sources, maps: dict[str, RegionMap]) -> None:
        self.sources, self.maps = sources, maps

    def ranges(self, name: str) -> list[tuple[int, int]]:
        """All data of a file."""
        return [*extents.data_ranges(self.maps[name], self.sources, 0, self.maps[name].size)]


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    """Sources: dense; sparse with data in the second and fourth of five blocks."""
    (tmp_path / "dense.img").write_bytes(b"d" * 20)
    with open(tmp_path / "sparse.img", "wb") as sparse:
        for block in (1, 3):
            os.pwrite(sparse.fileno(), b"s" * BLOCK, block * BLOCK)
        sparse.truncate(5 * BLOCK)
    manifest = loads(TEXT, tmp_path / "m.yaml")
    maps = {path: file.regions for path, file in manifest.files.items() if isinstance(file.body, Mapped)}
    with Sources(manifest) as sources:
        yield Files(sources, maps)


def test_seek_sees_holes_of_map_and_source(files: Files) -> None:
    """The sources hold data under blocks 2, 4 and 7 of the file; all else is a hole."""
    regions, sources = files.maps["sparse"], files.sources
    data, hole = [], []
    for block in range(10):
        data.append(attempt(extents.seek_data, regions, sources, block * BLOCK))
        hole.append(attempt(extents.seek_hole, regions, sources, block * BLOCK))
    data, hole = ([n // BLOCK if isinstance(n, int) else n for n in found] for found in (data, hole))
    assert [2, 2, 2, 4, 4, 7, 7, 7, "ENXIO", "ENXIO"] == data
    assert [0, 1, 3, 3, 5, 5, 6, 8, 8, 9] == hole


@pytest.mark.parametrize(("size", "data"), [
    (6 * BLOCK, [(2, 3), (4, 5), (7, 8)]), (4 * BLOCK, [(2, 3), (4, 5), (7, 8)]), (2 * BLOCK, [(2, 5), (7, 8)]),
    (BLOCK + 1, [(2, 5), (7, 8)]), (0, [(1, 5), (6, 8)])])
def test_what_a_source_has_lost_is_no_hole(files: Files, tmp_path: Path, size: int,
                                           data: list[tuple[int, int]]) -> None:
    """Reads fail there, so nobody may be told to skip it; holes before its end stay holes."""
    os.truncate(tmp_path / "sparse.img", size)
    assert data == [(start // BLOCK, stop // BLOCK) for start, stop in files.ranges("sparse")]


def test_seek_past_the_end(files: Files) -> None:
    """ENXIO at and past end of file, for both."""
    for offset in (40 * 1024, 50 * 1024):
        assert ["ENXIO"] * 2 == [attempt(seek, files.maps["sparse"], files.sources, offset)
                                 for seek in (extents.seek_data, extents.seek_hole)]


def test_borders_inside_a_block_are_told_outward(files: Files) -> None:
    """Data from byte 446 makes its whole block data; what a source holds is shifted first, then rounded."""
    # of sparse.img bytes 4096..8191 and 12288..12999 are data: at 9096..13191 and 17288..17999
    assert [(0, 4096), (8192, 20480), (28672, 32768)] == files.ranges("inside")
    assert [(0, 100)] == files.ranges("disk")


def test_a_seek_from_inside_a_block_sees_the_block(files: Files) -> None:
    """Behind the last byte of data, but in its block, all is data still."""
    regions, sources = files.maps["inside"], files.sources
    assert [500, 8192, 30050] == [extents.seek_data(regions, sources, offset) for offset in (500, 4096, 30050)]
    assert [4096, 4096, 32768] == [extents.seek_hole(regions, sources, offset) for offset in (500, 4096, 30050)]


def test_allocated_counts_blocks(files: Files) -> None:
    """Holes of the map and of sparse sources take no room; the last block ends with the file."""
    assert (3 * BLOCK, 100, 5 * BLOCK) == tuple(
        extents.allocated(files.maps[name], files.sources) for name in ("sparse", "disk", "inside"))


@pytest.mark.parametrize("seed", range(200))
def test_runs_are_the_blocks_that_are_touched(seed: int) -> None:
    """Of random maps: every block with a byte that is no hole, joined, up to end of file."""
    rng, regions, end = Random(seed), [], 0
    for _ in range(rng.randint(0, 30)):
        start = end + rng.choice((0, 0, 1, 5, rng.randrange(100)))
        end = start + rng.choice((1, 8, rng.randint(1, 40)))
        regions.append(Region(start, end, rng.choice((Kind.HOLE, Kind.ERROR))))
    size = end + rng.choice((0, 1, 50))
    touched = {n // 16 for region in regions if region.kind is Kind.ERROR for n in range(region.start, region.end)}
    runs = [*RegionMap(size, regions).runs(16, 0, size)]
    assert touched == {n // 16 for start, stop in runs for n in range(start, stop)}
    assert all(one[1] < other[0] for one, other in pairwise(runs))
    assert all(start % 16 == 0 and (stop % 16 == 0 or stop == size) for start, stop in runs)


def test_whole_blocks_joins_what_touches() -> None:
    """Ranges in one block, and in neighbouring ones, are one."""
    assert [(0, 8192), (16384, 20480)] == [*extents.whole_blocks([(5, 6), (7, 4096), (4097, 4098), (16385, 16386)])]
    assert [] == [*extents.whole_blocks([])]


class Counted(Sources):
    """Sources that count how often they are asked."""

    asked = 0

    def fd(self, key: str) -> int:
        self.asked += 1
        return super().fd(key)


def test_a_million_regions_are_not_walked_by_a_seek(tmp_path: Path) -> None:
    """Where sources have no holes the answer is looked up: the source is asked a few times, whatever the question."""
    (tmp_path / "a").write_bytes(b"a" * 4096)
    count = 1_000_000
    starts = array("q", range(0, 5000 * count, 5000))
    columns = Columns(starts, array("q", (start + 100 for start in starts)), array("q", (-start for start in starts)),
                      array("i", bytes(4 * count)), bytearray(count))
    regions = RegionMap.from_columns(5000 * count, ["a"], columns)
    manifest = loads("regionfs: 1\nfiles: {f: {regions: [{source: a}]}}\n", tmp_path / "m.yaml")
    with Counted(manifest) as sources:
        for offset in range(0, regions.size, regions.size // 100):
            extents.seek_data(regions, sources, offset)
            extents.seek_hole(regions, sources, offset)
        assert sources.asked <= 200


def test_a_seek_looks_at_so_many_extents_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind the limit all counts as data: more than is there, never less, and still whole blocks."""
    with open(tmp_path / "a", "wb") as source:
        for block in range(0, 40, 2):  # with a byte's shift no block of the file is free of them
            os.pwrite(source.fileno(), b"a", block * BLOCK)
        source.truncate(100 * BLOCK)
    text = "regionfs: 1\nfiles:\n  f:\n    size: 800KiB\n    regions:\n      - {start: 2048, source: a}\n"
    manifest = loads(text, tmp_path / "m.yaml")
    regions = manifest.files["f"].regions
    assert regions is not None
    with Sources(manifest) as sources:
        exact = extents.seek_hole(regions, sources, 0)
        monkeypatch.setattr(extents, "SCAN_LIMIT", 5)
        assert (40 * BLOCK, 101 * BLOCK) == (exact, extents.seek_hole(regions, sources, 0))
        assert exact == extents.seek_hole(regions, sources, exact)
