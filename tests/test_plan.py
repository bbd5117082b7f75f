"""The planner: mappings tile the request, in order, clipped at end of file; writes stay on rw ground."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from regionfs.plan import Mapping, plan_read, plan_write
from regionfs.regions import Kind, Region, RegionMap
from tests.test_regions import SIZE, maps

DISK = RegionMap(100, [
    Region(10, 20, Kind.SOURCE, "a", 5),
    Region(20, 30, Kind.SOURCE, "b", -20, writable=True),
    Region(30, 40, Kind.SOURCE, "a", 0, writable=True),
    Region(50, 54, Kind.DATA, shift=-49, data=b"xdata"),
    Region(60, 70, Kind.ERROR),
    Region(70, 80, Kind.HOLE),
])
OFFSETS = st.integers(0, SIZE + 2)


def test_plan_of_the_whole_file() -> None:
    """Every kind of region, and the gaps between, before and after them."""
    assert [
        Mapping(0, 10, Kind.HOLE),
        Mapping(10, 10, Kind.SOURCE, 15, "a"),
        Mapping(20, 10, Kind.SOURCE, 0, "b", True),
        Mapping(30, 10, Kind.SOURCE, 30, "a", True),
        Mapping(40, 10, Kind.HOLE),
        Mapping(50, 4, Kind.DATA, 1, data=b"xdata"),
        Mapping(54, 6, Kind.HOLE),
        Mapping(60, 10, Kind.ERROR),
        Mapping(70, 10, Kind.HOLE),
        Mapping(80, 20, Kind.HOLE),
    ] == list(plan_read(DISK, 0, 1000))


def test_plan_inside_one_region() -> None:
    """A request within a region is one mapping, its address moved along."""
    assert [Mapping(13, 4, Kind.SOURCE, 18, "a")] == list(plan_read(DISK, 13, 4))


def test_plan_inside_a_gap() -> None:
    """A request within a gap is one hole of just its length."""
    assert [Mapping(42, 3, Kind.HOLE)] == list(plan_read(DISK, 42, 3))


def test_plan_at_and_past_the_end() -> None:
    """Nothing at end of file, nothing after it, the rest before it."""
    assert [[], [], [Mapping(99, 1, Kind.HOLE)]] == [list(plan_read(DISK, at, 50)) for at in (100, 101, 99)]


@given(maps(), OFFSETS, OFFSETS)
def test_mappings_tile_the_request(regions: RegionMap, offset: int, length: int) -> None:
    """In order, without gap or overlap, none empty, from the offset to the end of request or file."""
    position = offset
    for mapping in plan_read(regions, offset, length):
        assert position == mapping.offset
        assert mapping.length > 0
        position = mapping.end
    assert max(offset, min(offset + length, regions.size)) == position


@given(maps(), OFFSETS, OFFSETS)
def test_mappings_say_what_the_regions_say(regions: RegionMap, offset: int, length: int) -> None:
    """Each byte of each mapping has the place that its region, looked up alone, gives it."""
    for mapping in plan_read(regions, offset, length):
        for position in range(mapping.offset, mapping.end):
            region = next(regions.overlapping(position, position + 1), Region(position, position + 1, Kind.HOLE))
            address = position + region.shift if region.kind in (Kind.SOURCE, Kind.DATA) else 0
            assert (region.kind, region.source, region.writable, region.data) == (
                mapping.kind, mapping.source, mapping.writable, mapping.data)
            assert address == (mapping.address + position - mapping.offset if address else 0)


@given(maps(), OFFSETS, OFFSETS, OFFSETS)
def test_a_plan_can_be_cut_anywhere(regions: RegionMap, offset: int, first: int, second: int) -> None:
    """Two requests in a row give the same bytes as one."""
    def places(start: int, length: int) -> list[tuple[object, ...]]:
        return [(m.offset + n, m.kind, m.source, m.address + n if m.source or m.data else 0)
                for m in plan_read(regions, start, length) for n in range(m.length)]
    assert places(offset, first + second) == places(offset, first) + places(offset + first, second)


def test_write_crosses_the_border_between_rw_regions() -> None:
    """Neighbouring rw regions are one ground; the plan ends where it ends."""
    assert [Mapping(25, 5, Kind.SOURCE, 5, "b", True), Mapping(30, 10, Kind.SOURCE, 30, "a", True)] == list(
        plan_write(DISK, 25, 50))


def test_write_outside_rw_ground_has_no_plan() -> None:
    """Beginning in a ro region, a gap, inline data, an error region or past the end: nothing."""
    assert [[]] * 6 == [list(plan_write(DISK, at, 50)) for at in (0, 15, 40, 52, 60, 100)]


@given(maps(), OFFSETS, OFFSETS)
def test_a_write_plan_is_the_rw_prefix_of_the_read_plan(regions: RegionMap, offset: int, length: int) -> None:
    """It never skips, and stops before the first byte that is not rw."""
    reading, writing = list(plan_read(regions, offset, length)), list(plan_write(regions, offset, length))
    assert writing == reading[:len(writing)]
    assert all(mapping.writable for mapping in writing)
    assert not any(mapping.writable for mapping in reading[len(writing):len(writing) + 1])
