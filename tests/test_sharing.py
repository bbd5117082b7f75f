"""Who shows the same bytes: the index of an interval tree and columns, against bytes that are counted one by one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regionfs import sharing
from regionfs.manifest.body import Mapped, Whole
from regionfs.manifest.schema import FileSpec
from regionfs.regions import Kind, Region, RegionMap
from regionfs.sharing import Sharing, Shown
from tests.harness import PROJECT
from tests.test_scale import MANY, chunks, facts_of, kept_and_peak

LONGEST = 40  # bytes of a source that anybody looks at
KEYS = {"a": (1, 1), "b": (1, 2), "also a": (1, 1)}
Byte = tuple[tuple[int, ...], int]  # of a source: identity and offset


@st.composite
def region_maps(draw: st.DrawFn) -> RegionMap:
    """Up to six regions of three names for two sources."""
    regions, pos = [], 0
    for _ in range(draw(st.integers(0, 6))):
        pos += draw(st.integers(0, 3))
        length = draw(st.integers(1, 12))
        address = draw(st.integers(0, LONGEST - length))
        kind = draw(st.sampled_from([Kind.SOURCE, Kind.SOURCE, Kind.SOURCE, Kind.HOLE]))
        regions.append(Region(pos, pos + length, kind, draw(st.sampled_from([*KEYS])), address - pos,
                              draw(st.booleans())) if kind is Kind.SOURCE else Region(pos, pos + length, kind))
        pos += length
    return RegionMap(pos, regions)


@st.composite
def file_specs(draw: st.DrawFn) -> FileSpec:
    """A region map, or all of a source."""
    if draw(st.integers(0, 3)) == 0:
        return FileSpec("f", Whole(draw(st.sampled_from([*KEYS])), draw(st.booleans())))
    return FileSpec("f", Mapped(draw(region_maps())))


def bytes_of(spec: FileSpec) -> Iterator[tuple[int, Byte, bool]]:
    """(position, byte of a source, writable) of every byte that a file shows."""
    if isinstance(spec.body, Whole):
        yield from ((pos, (KEYS[spec.body.source], pos), spec.writable) for pos in range(LONGEST))
        return
    for region in spec.regions:
        if region.kind is Kind.SOURCE:
            for pos in range(region.start, region.end):
                yield pos, (KEYS[region.source], pos + region.shift), region.writable


class Model:
    """Every byte that is shown, one by one."""

    def __init__(self, specs: list[FileSpec]) -> None:
        self._bytes = {ino: list(bytes_of(spec)) for ino, spec in enumerate(specs, 2)}
        written = {byte[0] for shown in self._bytes.values() for _, byte, writable in shown if writable}
        self._shown: dict[Byte, set[tuple[int, int]]] = {}
        for ino, shown in self._bytes.items():
            for pos, byte, _ in shown:
                if byte[0] in written:
                    self._shown.setdefault(byte, set()).add((ino, pos))

    def elsewhere(self, ino: int, offset: int, length: int) -> set[tuple[int, int]]:
        """(inode, position) of all other bytes that a write changes."""
        return {place for pos, byte, writable in self._bytes[ino] if writable and offset <= pos < offset + length
                for place in self._shown[byte] - {(ino, pos)}}

    def writers(self) -> set[int]:
        return {ino for ino in self._bytes if self.elsewhere(ino, 0, 1 << 40)}


@pytest.mark.parametrize(("near", "most"), [(256, 10_000), (-1, 10_000), (1, 10_000), (2, 3), (0, 0)],
                         ids=["as built", "tree of all", "tree and columns", "small tree", "columns alone"])
@given(specs=st.lists(file_specs(), min_size=1, max_size=6), offset=st.integers(0, LONGEST - 1),
       length=st.integers(1, LONGEST))
def test_it_says_what_counting_bytes_says(near: int, most: int, specs: list[FileSpec], offset: int,
                                          length: int) -> None:
    """Wherever the border between tree and columns lies."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharing, "NEAR", near)
        patch.setattr(sharing, "MOST_IN_TREE", most)
        tried = Sharing(Shown(ino, spec, KEYS) for ino, spec in enumerate(specs, 2))
    model = Model(specs)
    assert model.writers() == tried.writers
    for ino, spec in enumerate(specs, 2):
        # what is past the end of a `whole` source nobody counts
        spans = tried.elsewhere(ino, offset, min(length, LONGEST - offset) if isinstance(spec.body, Whole) else length)
        found = [(span.ino, pos) for span in spans for pos in range(span.offset, span.offset + span.length)]
        assert model.elsewhere(ino, offset, length) == set(found)
        assert all(span.length > 0 for span in spans)


def test_a_file_over_a_whole_map_is_found_without_passing_the_map() -> None:
    """One place lies over all: it alone is in the tree, and the others cost what they cost without it."""
    regions = chunks(MANY, rw=True)
    identities = {key: found.identity for key, found in facts_of(regions).items()}
    files = [Shown(2, FileSpec("f", Mapped(regions)), identities),
             Shown(3, FileSpec("g", Whole("0.img", writable=True)), identities)]
    tried = Sharing(files)
    last = regions.starts[-len(regions.names)]  # the last chunk of the first source
    address = last + regions.columns.shifts[-len(regions.names)]
    assert [(3, address, 5)] == tried.elsewhere(2, last, 5)
    assert [(2, last, 5)] == tried.elsewhere(3, address, 5)
    assert frozenset({2, 3}) == tried.writers
    kept, _ = kept_and_peak(lambda: Sharing(files))
    assert kept < 400 * MANY / len(regions.names) + 100_000


def test_places_beyond_the_border_stay_in_columns() -> None:
    """More places that lie over many others than the tree takes in soon: no tree is made."""
    code = """
import sys
from regionfs import sharing
sharing.NEAR, sharing.MOST_IN_TREE = 0, int(sys.argv[1])
from regionfs.manifest.body import Whole
from regionfs.manifest.schema import FileSpec
files = [sharing.Shown(ino, FileSpec("f", Whole("a", writable=True)), {"a": (1, 1)}) for ino in range(2, 12)]
assert len(sharing.Sharing(files).elsewhere(2, 0, 1)) == 9
print("intervaltree" in sys.modules)
"""
    for most, expected in (("9", "True"), ("8", "False")):
        done = subprocess.run([sys.executable, "-c", code, most], cwd=PROJECT, capture_output=True, text=True,
                              check=True, timeout=60)
        assert expected == done.stdout.strip()


def test_a_mount_without_such_places_does_not_load_the_tree() -> None:
    """It would cost a small mount 20 ms of its start."""
    code = "import sys, regionfs.daemon.server; print('intervaltree' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True,
                          timeout=60)
    assert "False" == done.stdout.strip()
