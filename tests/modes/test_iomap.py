"""iomap mode: which files fit together, and what the kernel is answered; the planner is the only source."""

from __future__ import annotations

import errno
from collections.abc import Mapping as Table
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from regionfs.manifest.body import Mapped, Whole
from regionfs.manifest.inspect import SourceFacts
from regionfs.manifest.schema import FileSpec, Manifest
from regionfs.modes import shapes
from regionfs.modes.choose import Ability, Kernel, choose_all
from regionfs.modes.iomap import (
    BLOCKS,
    MAX_DEVICES,
    WINDOW,
    Candidate,
    batch,
    begin,
    block_size,
    covering,
    granularity,
    settle,
    window,
)
from regionfs.plan import Mapping, plan_read
from regionfs.regions import Kind, Region, RegionMap

LIMIT = 1 << 40
YES = Ability(True, "")


def source(start: int, length: int, key: str = "disk", offset: int = 0, *, rw: bool = False) -> Region:
    return Region(start, start + length, Kind.SOURCE, key, shift=offset - start, writable=rw)


def random_map(rng: Random, regions: int = 12, block: int = 512) -> RegionMap:
    """Gaps, holes, ro and rw regions, neighbours with and without a border in between."""
    made, end = [], 0
    for _ in range(rng.randint(1, regions)):
        start = end + block * rng.choice((0, 0, 0, 1, 5))
        end = start + block * rng.randint(1, 6)
        made.append(Region(start, end, Kind.HOLE) if rng.random() < 0.2 else
                    source(start, end - start, rng.choice("ab"), block * rng.randrange(64), rw=rng.random() < 0.4))
    return RegionMap(end + block * rng.choice((0, 0, 3)), made)


@pytest.mark.parametrize(("regions", "expected"), [
    (RegionMap(8192, [source(0, 8192)]), 4096),
    (RegionMap(8192, [source(0, 8192, offset=1024)]), 1024),
    (RegionMap(8192 + 512, [source(0, 8192)]), 512),
    (RegionMap(8192, [source(512, 512)]), 512),
    (RegionMap(8192, [source(0, 100)]), 4),
    (RegionMap(0, []), 4096),
])
def test_granularity(regions: RegionMap, expected: int) -> None:
    """The largest power of two that divides every border, in the file and in its sources."""
    assert expected == granularity(regions)


@pytest.mark.parametrize("seed", range(200))
def test_shapes_agree(seed: int) -> None:
    """A file's shape is refused just when its granularity is below its devices' sectors."""
    rng = Random(seed)
    regions = random_map(rng, block=rng.choice((256, 512, 1024, 4096)))
    sector = rng.choice((512, 4096))
    facts: Table[str, SourceFacts] = {
        key: SourceFacts("block", LIMIT, 1, number, number, 0, 0, 0o600, 0, 0, 0, sector)
        for number, key in enumerate("ab", 1)}
    file = FileSpec("f", Mapped(regions).read_only())  # what is written twice is refused for that
    refused = shapes.iomap(file, facts, shapes.Neighbours.of([file], facts))
    assert bool(file.sources) and granularity(regions) >= sector if not refused else (
        not file.sources or granularity(regions) < sector)


def candidate(path: str, size: int, blocks: int, sector: int = 512, devices: int = 1) -> Candidate:
    return Candidate(path, size, blocks, sector, frozenset((hash(path), number) for number in range(devices)))


@pytest.mark.parametrize(("candidates", "refused"), [
    ([], {}),
    ([candidate("a", 10, 512), candidate("b", 10, 4096)], {}),
    ([candidate("a", 10, 512), candidate("b", 99, 4096, 4096)],
     {"a": "it lies on 512-byte blocks, but the mount's other files need 4096-byte blocks"}),
    ([candidate("a", 99, 512), candidate("b", 10, 4096, 4096)],
     {"b": "its devices have 4096-byte sectors, but the mount's other files need 512-byte blocks"}),
    ([candidate("a", 1, 512, devices=MAX_DEVICES - 1), candidate("b", 9, 512, devices=2), candidate("c", 1, 512)],
     {"b": "the kernel takes 1024 block devices a mount, and others came first"}),
])
def test_settle(candidates: list[Candidate], refused: dict[str, str]) -> None:
    """Files that cannot agree on a block are parted so that most bytes stay; devices are counted in order."""
    assert refused == settle(candidates)


def test_block_size() -> None:
    """The largest that divides every border of every file."""
    assert (4096, 1024) == (block_size([]), block_size([4096, 1024, 2048]))


def test_choose_parts_files_that_cannot_agree() -> None:
    """The file that loses is served in userspace and says why; the others stay."""
    facts = {"small": SourceFacts("block", 1 << 20, 1, 1, 1, 0, 0, 0o600, 0, 0, 0, 512),
             "large": SourceFacts("block", 1 << 30, 1, 2, 2, 0, 0, 0o600, 0, 0, 0, 4096)}
    files = {"odd": FileSpec("odd", Mapped(RegionMap(1536, [source(0, 1536, "small")]))),
             "disk": FileSpec("disk", Whole("large"))}
    chosen = choose_all(Manifest(Path("m"), files=files), facts, Kernel(YES, YES, YES))
    assert {"odd": "userspace: it lies on 512-byte blocks, but the mount's other files need 4096-byte blocks",
            "disk": "iomap: 1 region on block devices, all on block borders"} == {
                path: str(choice) for path, choice in chosen.items()}


@pytest.mark.parametrize("seed", range(100))
def test_begin_is_the_plan(seed: int) -> None:
    """For every byte the answer is the planner's mapping of its region, whole and on block borders."""
    regions = random_map(Random(seed))
    planned = list(plan_read(regions, 0, regions.size))
    for mapping in planned:
        for pos in (mapping.offset, mapping.offset + 1, mapping.end - 1):
            assert mapping == begin(regions, pos, change=False, limit=LIMIT)
        assert 0 == (mapping.offset | mapping.length | mapping.address) % BLOCKS[-1]


@pytest.mark.parametrize("seed", range(100))
def test_changes(seed: int) -> None:
    """A change is answered in rw regions and refused with EROFS everywhere else, past the end too."""
    regions = random_map(Random(seed))
    for mapping in (*plan_read(regions, 0, regions.size), Mapping(regions.size, 512, Kind.HOLE)):
        if mapping.writable:
            assert mapping == begin(regions, mapping.offset, change=True, limit=LIMIT)
            continue
        with pytest.raises(OSError) as caught:
            begin(regions, mapping.offset, change=True, limit=LIMIT)
        assert errno.EROFS == caught.value.errno


@pytest.mark.parametrize("pos", [4096, 4097, 1 << 39])
def test_past_the_end(pos: int) -> None:
    """One hole from the end of the file to the limit."""
    regions = RegionMap(4096, [source(0, 4096)])
    assert Mapping(4096, LIMIT - 4096, Kind.HOLE) == begin(regions, pos, change=False, limit=LIMIT)


@pytest.mark.parametrize("seed", range(100))
def test_covering(seed: int) -> None:
    """From any byte on: its mapping whole, then the rest of the plan; nothing past the end."""
    rng = Random(seed)
    regions = random_map(rng)
    pos = rng.randrange(regions.size)
    planned = [mapping for mapping in plan_read(regions, 0, regions.size) if mapping.end > pos]
    assert planned == list(covering(regions, pos))
    assert [] == list(covering(regions, regions.size))


MANY = RegionMap(512 * 2 * 10_000, [source(1024 * n, 512, offset=512 * n) for n in range(10_000)])


def test_a_batch_is_the_window_around() -> None:
    """Windows lie on a grid and tile the file; a batch begins at the position asked for."""
    for number in range(5):
        pos = 1024 * (number * WINDOW + 700) + 5
        told = list(batch(MANY, pos))
        assert (number, 1024 * (number * WINDOW + 700)) == (window(MANY, pos), told[0].offset)
        ordered = sorted(told)
        assert all(before.end == after.offset for before, after in pairwise(ordered))
        first = max(1024 * number * WINDOW - 512, 0)
        last = min(1024 * (number + 1) * WINDOW - 512, MANY.size)
        assert (first, last) == (ordered[0].offset, ordered[-1].end)


def test_a_batch_past_the_end_or_of_nothing_is_a_window() -> None:
    """A file of one hole, and a question past the end, are told in one window as well."""
    assert [Mapping(0, 4096, Kind.HOLE)] == list(batch(RegionMap(4096, []), 700))
    assert [Mapping(0, 4096, Kind.HOLE)] == list(batch(RegionMap(4096, []), 9000))
    assert [] == list(batch(RegionMap(0, []), 0))
