"""What shows when regions lie over each other, against a list of bytes and against every pair."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from regionfs.manifest.layers import find_overlaps, flatten
from regionfs.regions import Kind, Region
from tests.region_tree import RegionTree

SPAN = 60
LAYERS = st.lists(st.tuples(st.integers(0, SPAN - 1), st.integers(1, 20), st.booleans()), max_size=12)


def layer(start: int, length: int, shift: int) -> Region:
    return Region(start, start + length, Kind.SOURCE, "s", shift * 1000)


@given(LAYERS)
def test_every_byte_is_the_latest_layer_over_it(drawn: list[tuple[int, int, bool]]) -> None:
    """Byte by byte, the last region in the text that has the byte shows."""
    layers = [layer(start, length, index) for index, (start, length, _) in enumerate(drawn)]
    expected: list[int | None] = [None] * (SPAN + 20)
    for index, region in enumerate(layers):
        expected[region.start:region.end] = [index] * region.length
    actual: list[int | None] = [None] * (SPAN + 20)
    for region in flatten(layers):
        actual[region.start:region.end] = [region.shift // 1000] * region.length
    assert expected == actual


@given(LAYERS)
def test_layers_are_what_the_editing_tree_makes(drawn: list[tuple[int, int, bool]]) -> None:
    """The sweep and an interval tree that is covered region by region cut the same pieces."""
    layers = [layer(start, length, index) for index, (start, length, _) in enumerate(drawn)]
    tree = RegionTree()
    for region in layers:
        tree.cover(region)
    assert list(tree) == flatten(layers)


@given(LAYERS)
def test_overlaps_are_found_once_for_each_later_region(drawn: list[tuple[int, int, bool]]) -> None:
    """A region is reported exactly when it overlaps an earlier one and may not; the pair does overlap."""
    layers = [layer(start, length, 0) for start, length, _ in drawn]
    covers = [over for *_, over in drawn]
    expected = [index for index, later in enumerate(layers) if not covers[index]
                and any(later.start < other.end and other.start < later.end for other in layers[:index])]
    found = find_overlaps(layers, covers)
    assert expected == [later for later, _ in found]
    assert all(other < later and layers[later].start < layers[other].end and layers[other].start < layers[later].end
               for later, other in found)
