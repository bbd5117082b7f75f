"""Regions, the immutable map's invariant and lookup, and the tree against the byte oracle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regionfs.errors import RegionError
from regionfs.regions import Kind, Region, RegionMap
from regionfs.units import MAX_OFFSET
from tests.oracle import Declared, Model, Source
from tests.region_tree import RegionTree

SIZE = 20  # bytes; small, so that random regions meet
A = Region(10, 20, Kind.SOURCE, "a", 5)
B = Region(20, 30, Kind.SOURCE, "b", -20, writable=True)
C = Region(40, 44, Kind.DATA, shift=-40, data=b"data")


@st.composite
def regions(draw: st.DrawFn) -> Region:
    """Any valid region within SIZE."""
    start = draw(st.integers(0, SIZE - 1))
    end = draw(st.integers(start + 1, SIZE))
    kind = draw(st.sampled_from(list(Kind)))
    if kind is Kind.SOURCE:
        offset = draw(st.integers(0, SIZE))
        return Region(start, end, kind, draw(st.sampled_from("ab")), offset - start, draw(st.booleans()))
    if kind is Kind.DATA:
        skip = draw(st.integers(0, 3))
        return Region(start, end, kind, shift=skip - start, data=bytes(range(1, 1 + skip + end - start)))
    return Region(start, end, kind)


@st.composite
def maps(draw: st.DrawFn) -> RegionMap:
    """Any valid map of at most SIZE bytes."""
    tree = RegionTree()
    for region in draw(st.lists(regions(), max_size=8)):
        tree.cover(region)
    return tree.freeze(draw(st.integers(tree.end, SIZE)))


BROKEN: dict[str, Callable[[], Region]] = {
    "is empty": lambda: Region(5, 5, Kind.HOLE),
    "is empty or outside": lambda: Region(-1, 5, Kind.HOLE),
    "outside [0, 2^63)": lambda: Region(0, MAX_OFFSET + 1, Kind.HOLE),
    "with source ''": lambda: Region(0, 5, Kind.SOURCE),
    "kind hole with source 'a'": lambda: Region(0, 5, Kind.HOLE, "a"),
    "only source regions can be rw": lambda: Region(0, 5, Kind.HOLE, writable=True),
    "offset -5 is outside": lambda: Region(5, 9, Kind.SOURCE, "a", -10),
    f"offset {MAX_OFFSET - 4} is outside": lambda: Region(0, 5, Kind.SOURCE, "a", MAX_OFFSET - 4),
    "only 4 bytes of data": lambda: Region(0, 5, Kind.DATA, data=b"four"),
    "kind error with an offset or data": lambda: Region(0, 5, Kind.ERROR, shift=3),
}


@pytest.mark.parametrize("message", BROKEN)
def test_region_checks_itself(message: str) -> None:
    """A region that breaks its invariant cannot be made, and the message says which."""
    with pytest.raises(RegionError) as broken:
        BROKEN[message]()
    assert message in str(broken.value)


@given(regions(), st.data())
def test_clip_keeps_every_byte_in_place(region: Region, data: st.DataObject) -> None:
    """A cut shows the same bytes of the source at the same places."""
    start = data.draw(st.integers(0, region.end - 1))
    end = data.draw(st.integers(max(start, region.start) + 1, SIZE + 5))
    part = region.clip(start, end)
    assert (max(start, region.start), min(end, region.end)) == (part.start, part.end)
    assert replace(region, start=part.start, end=part.end) == part


@given(regions(), st.integers(0, SIZE))
def test_moved_shows_the_same_bytes_elsewhere(region: Region, start: int) -> None:
    """Length and first byte's place in the source stay; moving back gives the region again."""
    moved = region.moved(start)
    assert (start, region.length) == (moved.start, moved.length)
    if region.kind in (Kind.SOURCE, Kind.DATA):
        assert region.offset == moved.offset
    assert region == moved.moved(region.start)


@given(regions(), st.data())
def test_both_sides_of_a_cut_continue(region: Region, data: st.DataObject) -> None:
    """Cut in two, the second part continues the first; the first does not continue the second."""
    if region.length > 1:
        border = data.draw(st.integers(region.start + 1, region.end - 1))
        left, right = region.clip(0, border), region.clip(border, SIZE)
        assert (True, False) == (right.continues(left), left.continues(right))


def test_other_bytes_do_not_continue() -> None:
    """A neighbour with another source, place or access does not continue."""
    after = Region(20, 30, Kind.SOURCE, "a", 5)
    assert after.continues(A)
    for other in (replace(after, source="b"), replace(after, shift=6), replace(after, writable=True)):
        assert not other.continues(A)


@given(maps())
def test_map_gives_back_its_regions(regions: RegionMap) -> None:
    """Columns lose nothing: the regions of a map make an equal map with the same hash."""
    again = RegionMap(regions.size, list(regions))
    assert (list(regions), regions, hash(regions)) == (list(again), again, hash(again))


@given(maps())
def test_map_knows_its_sources_and_access(regions: RegionMap) -> None:
    """`names` are the sources in use, each once; `writable` tells of any rw region."""
    used = [region.source for region in regions if region.kind is Kind.SOURCE]
    assert sorted(set(used)) == sorted(regions.names)
    assert any(region.writable for region in regions) == regions.writable


@given(maps())
def test_map_knows_its_rw_sources(regions: RegionMap) -> None:
    """writable_names() are the sources that any rw region lies on."""
    assert {region.source for region in regions if region.writable} == regions.writable_names


@given(maps(), st.integers(1, 20))
def test_map_knows_of_unaligned_errors(regions: RegionMap, block: int) -> None:
    """Never False when an error region shares a block with bytes that can be read."""
    bad = [False] * regions.size
    for region in regions:
        bad[region.start:region.end] = [region.kind is Kind.ERROR] * region.length
    blocks = [bad[start:start + block] for start in range(0, len(bad), block)]
    if any(any(part) and not all(part) for part in blocks):
        assert regions.has_unaligned_errors(block)


def test_aligned_errors_share_no_block() -> None:
    """Errors on block borders, or up to end of file, leave the good blocks alone."""
    assert not RegionMap(44, [Region(8, 16, Kind.ERROR), Region(40, 44, Kind.ERROR)]).has_unaligned_errors(8)


@given(maps())
def test_map_knows_where_its_sources_end(regions: RegionMap) -> None:
    """source_ends() gives per source the end of the last byte that the map shows."""
    expected: dict[str, int] = {}
    for region in regions:
        if region.kind is Kind.SOURCE:
            expected[region.source] = max(expected.get(region.source, 0), region.offset + region.length)
    assert expected == regions.source_ends()


@given(maps(), st.integers(0, SIZE + 2), st.integers(0, SIZE + 2))
def test_overlapping_finds_all_and_only_those(regions: RegionMap, start: int, end: int) -> None:
    """The bisection finds what looking at every region finds; an empty range shares no byte."""
    expected = [region for region in regions if start < end and region.start < end and region.end > start]
    assert expected == list(regions.overlapping(start, end))


@given(maps(), st.integers(0, SIZE + 2))
def test_first_after_is_the_first_that_ends_later(regions: RegionMap, offset: int) -> None:
    """first_after() is the index of the first region with a byte at or after the offset."""
    expected = next((n for n, region in enumerate(regions) if region.end > offset), len(regions))
    assert expected == regions.first_after(offset)


@pytest.mark.parametrize(("size", "regions", "message"), [
    (60, [A, A.moved(19)], "begins before 20"),
    (60, [B, A], "begins before 30"),
    (29, [A, B], "end at 30, after the file's size 29"),
    (-1, [], "after the file's size -1"),
])
def test_map_refuses_disorder(size: int, regions: list[Region], message: str) -> None:
    """Overlap, disorder and regions past the size cannot become a map."""
    with pytest.raises(RegionError) as refused:
        RegionMap(size, regions)
    assert message in str(refused.value)


def test_maps_differ_by_any_part() -> None:
    """Equal means equal size and equal regions."""
    base = RegionMap(60, [A, B, C])
    assert base == RegionMap(60, [A, B, C])
    others = [RegionMap(61, [A, B, C]), RegionMap(60, [A, B]), RegionMap(60, [A, replace(B, writable=False), C]),
              RegionMap(60, [A, B, replace(C, data=b"DATA")])]
    assert base not in others


def test_inline_data_is_kept_once() -> None:
    """A blob that a cut left in two regions is one object in the map."""
    tree = RegionTree([C])
    tree.cut(41, 42)
    first, second = tree.freeze()
    assert first.data is second.data


def test_a_region_costs_29_bytes() -> None:
    """The columns of a large map stay at what the class promises."""
    regions = RegionMap(10_000, (Region(n, n + 1, Kind.HOLE) for n in range(10_000)))
    columns = (regions.starts, regions.ends, regions._shifts, regions._targets)
    assert 29 * len(regions) == sum(len(c) * c.itemsize for c in columns) + len(regions._writable)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(["cover", "cut"]), regions()), max_size=12))
def test_tree_equals_the_oracle(edits: list[tuple[str, Region]]) -> None:
    """After any covers and cuts each byte is what the last edit there said."""
    sources = {key: Source(key, Path(key), bytearray(3 * SIZE)) for key in "ab"}
    tree, declared = RegionTree(), []
    for operation, region in edits:
        if operation == "cover":
            tree.cover(region)
            declared.append(as_declared(region, sources))
        else:
            tree.cut(region.start, region.end)
            declared.append(Declared(region.start, region.length))
    frozen = tree.freeze(SIZE)
    assert meaning(Model(SIZE, declared)) == meaning(Model(SIZE, [as_declared(r, sources) for r in frozen]))


@given(st.lists(regions(), max_size=6), regions())
def test_add_takes_free_ground_only(taken: list[Region], region: Region) -> None:
    """add() refuses exactly when a byte is taken, and then changes nothing."""
    tree = RegionTree()
    for other in taken:
        tree.cover(other)
    before = list(tree)
    if any(other.start < region.end and region.start < other.end for other in before):
        with pytest.raises(RegionError, match="overlaps"):
            tree.add(region)
        assert before == list(tree)
    else:
        tree.add(region)
        assert sorted([*before, region], key=lambda r: r.start) == list(tree)


@given(maps())
def test_tree_and_map_are_inverses(regions: RegionMap) -> None:
    """A map taken into a tree and frozen again is the same map."""
    assert regions == RegionTree(regions).freeze(regions.size)


def test_tree_refuses_overlapping_regions() -> None:
    """Regions that overlap cannot be taken in at once either."""
    with pytest.raises(RegionError, match=r"\[19, 29\) overlaps \[10, 20\)"):
        RegionTree([A.moved(19), A])


def test_tree_orders_what_it_is_given() -> None:
    """Order of insertion does not matter; the size defaults to the last end."""
    assert RegionMap(44, [A, B, C]) == RegionTree([C, A, B]).freeze()


def test_empty_tree_is_an_empty_map() -> None:
    """No regions: end and size 0."""
    assert (0, RegionMap(0, [])) == (RegionTree().end, RegionTree().freeze())


def as_declared(region: Region, sources: dict[str, Source]) -> Declared:
    """The same region in the oracle's words."""
    if region.kind is Kind.DATA:
        data = region.data[region.offset:region.offset + region.length]
        return Declared(region.start, region.length, "data", data=data)
    source = sources[region.source] if region.source else None
    offset = region.offset if source else 0
    return Declared(region.start, region.length, region.kind.value, source, offset, writable=region.writable)


def meaning(model: Model) -> list[tuple[object, ...]]:
    """Per byte: its place in a source and access, or its value, or None for an error."""
    return [(source.key, index, writable) if source else (store and store[index],)
            for store, index, source, writable in model.bytes]
