"""What a million regions and ten thousand files may cost: bytes, never moments of a shared machine."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from array import array
from pathlib import Path

import pytest

from regionfs.attributes import XATTR_LIMIT, map_text
from regionfs.fs import FileSystem
from regionfs.manifest.body import Mapped
from regionfs.manifest.inspect import SourceFacts
from regionfs.manifest.load import load
from regionfs.manifest.schema import FileSpec
from regionfs.modes.choose import Ability, Kernel, Mode, choose_all
from regionfs.modes.geometry import measure
from regionfs.regions import Columns, RegionMap
from regionfs.sharing import Sharing, Shown
from regionfs.source import Sources, inspect_sources
from tests.harness import PROJECT
from tests.scale import CHUNK, SOURCES, write_chunks, write_files

MILLION = 1_000_000
MANY = 100_000

_LOAD = """
import json, sys
from pathlib import Path
from regionfs.daemon import memory, server  # what a server has loaded anyway
from regionfs.manifest.load import load
from regionfs.modes.choose import choose_all
from regionfs.modes.probe import probe
from regionfs.source import inspect_sources

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

memory.settle()
before = resident()
manifest = load(Path(sys.argv[1]))
facts = inspect_sources(manifest)
choices = choose_all(manifest, facts, probe())
print(json.dumps([len(manifest.files["f"].regions), resident() - before]))
"""


def chunks(count: int, *, rw: bool = False) -> RegionMap:
    """The map that tests.scale writes, without files."""
    numbers = range(count)
    starts = array("q", (number * CHUNK for number in numbers))
    offsets = (number // SOURCES * CHUNK for number in numbers)
    return RegionMap.from_columns(count * CHUNK, [f"{number}.img" for number in range(SOURCES)], Columns(
        starts, array("q", (start + CHUNK for start in starts)),
        array("q", (offset - start for start, offset in zip(starts, offsets, strict=True))),
        array("i", (number % SOURCES for number in numbers)), bytearray([rw]) * count))


def facts_of(regions: RegionMap) -> dict[str, SourceFacts]:
    size = len(regions) // SOURCES * CHUNK + CHUNK
    return {name: SourceFacts("file", size, 1, number, 0, 0, 0, 0o644, 0, 0, size // 512)
            for number, name in enumerate(regions.names)}


def kept_and_peak(work: object) -> tuple[int, int]:
    """Bytes that are kept after `work()`, and the most there were meanwhile."""
    assert callable(work)
    tracemalloc.start()
    try:
        result = work()
        kept, peak = tracemalloc.get_traced_memory()
        del result
        return kept, peak
    finally:
        tracemalloc.stop()


@pytest.mark.timeout(120)
def test_a_million_regions_take_at_most_64_bytes_each(tmp_path: Path) -> None:
    """Resident, in a process that loaded a table and chose a mode for it."""
    manifest = write_chunks(tmp_path, MILLION, marked=False)
    done = subprocess.run([sys.executable, "-c", _LOAD, manifest], cwd=PROJECT, capture_output=True, text=True,
                          check=True, timeout=100)
    count, resident = json.loads(done.stdout)
    assert MILLION == count
    assert resident / MILLION <= 64


def test_choosing_a_mode_makes_no_object_per_region() -> None:
    """Two columns while it measures, nothing afterwards."""
    regions = chunks(MANY)
    kept, peak = kept_and_peak(lambda: measure(regions))
    assert kept < 10_000
    assert peak < 24 * MANY


def test_what_is_written_once_is_not_remembered() -> None:
    """A rw map whose regions share no byte needs no index of them."""
    regions = chunks(MANY, rw=True)
    facts = facts_of(regions)
    shown = Shown(2, FileSpec("f", Mapped(regions)), {key: found.identity for key, found in facts.items()})
    kept, peak = kept_and_peak(lambda: Sharing([shown]))
    assert kept < 20_000
    assert peak < 64 * MANY
    assert frozenset() == Sharing([shown]).writers


def test_one_byte_written_twice_is_found_among_many() -> None:
    """The two places that share it, and no other."""
    regions = chunks(MANY, rw=True)
    window = RegionMap.from_columns(CHUNK, ["0.img"], Columns(
        array("q", [0]), array("q", [CHUNK]), array("q", [CHUNK]), array("i", [0]), bytearray([0])))
    identities = {key: found.identity for key, found in facts_of(regions).items()}
    sharing = Sharing([Shown(2, FileSpec("f", Mapped(regions)), identities),
                       Shown(3, FileSpec("g", Mapped(window)), identities)])
    assert frozenset({2}) == sharing.writers
    assert [(3, 0, CHUNK)] == sharing.elsewhere(2, 8 * CHUNK, CHUNK)
    assert [] == sharing.elsewhere(2, 9 * CHUNK, CHUNK)


def test_comparing_maps_makes_no_object_per_region() -> None:
    """A reload compares every file with what it was."""
    one, other = chunks(MANY), chunks(MANY)
    _, peak = kept_and_peak(lambda: one == other)
    assert peak < 10_000
    assert one == other


def test_the_map_attribute_fits_the_kernel() -> None:
    """It holds every region, or says how many there are."""
    for count, expected in ((100, list), (MANY, dict)):
        text = map_text(chunks(count), count * CHUNK)
        assert len(text) <= XATTR_LIMIT
        assert isinstance(json.loads(text), expected)


@pytest.mark.timeout(120)
def test_ten_thousand_files(tmp_path: Path) -> None:
    """Loaded and in the tree; a directory's entries are listed once, however often they are read on."""
    manifest = load(write_files(tmp_path, 10_000, per_directory=10_000))
    no = Ability(False, "not here")
    facts = inspect_sources(manifest)
    choices = choose_all(manifest, facts, Kernel(no, no, no))
    assert {Mode.USERSPACE} == {choice.mode for choice in choices.values()}
    with Sources(manifest, facts) as sources:
        fs = FileSystem(manifest, sources, choices)
        (_, directory, _), = fs.readdir(1)
        assert 10_000 == len(fs.readdir(directory))
        assert fs.readdir(directory) is fs.readdir(directory)
        assert 2 == fs.getattr(directory).nlink
