"""describe and dump against load: each undoes the other."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from regionfs.manifest.body import Mapped, Whole
from regionfs.manifest.describe import describe, dump
from regionfs.manifest.load import loads
from regionfs.manifest.schema import FileSpec, Manifest, SourceSpec
from regionfs.regions import Kind, Region
from tests.region_tree import RegionTree

SIZE = 10_000  # bytes of each source below
NAMES = ("plain.img", "sub/with space.img", "010", "yes", "größe.img", "a: b", "#x", "tab\there", "'q\"")


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    """A directory with a source for each name."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "sub").mkdir()
        for source in NAMES:
            with (directory / source).open("wb") as file:
                file.truncate(SIZE)
        yield directory


def test_describe_is_explicit(directory: Path) -> None:
    """Each region says its place, source, offset and access; relative paths stay relative."""
    manifest = loads("""
regionfs: 1
sources:
  root: {path: a.img, size: 4KiB}
files:
  f:
    mode: "0600"
    regions:
    - {source: root, access: rw}
    - {align: 1MiB, source: b.img, offset: 1KiB}
    - {data: {text: AB}}
    - {data: {text: ABCD}, offset: 1, length: 2}
    - {length: 3, hole: true}
    - {length: 3, error: true}
  w: {whole: root}
""", directory / "disk.yaml")
    expected = {
        "regionfs": 1,
        "sources": {"root": {"path": "a.img", "size": 4096}},
        "files": {
            "f": {"size": 1055754, "mode": "0600", "regions": [
                {"start": 0, "length": 4096, "source": "root", "offset": 0, "access": "rw"},
                {"start": 1048576, "length": 7168, "source": "b.img", "offset": 1024, "access": "ro"},
                {"start": 1055744, "length": 2, "data": {"hex": "4142"}},
                {"start": 1055746, "length": 2, "data": {"hex": "41424344"}, "offset": 1},
                {"start": 1055748, "length": 3, "hole": True},
                {"start": 1055751, "length": 3, "error": True}]},
            "w": {"whole": "root", "access": "ro"}}}
    assert expected == describe(manifest)


def test_dump_is_for_people(directory: Path) -> None:
    """Sizes are in units, regions one a line."""
    text = "regionfs: 1\nfiles: {f: {size: 4GiB, regions: [{start: 1MiB, source: a.img, length: 100}]}}"
    expected = """regionfs: 1
files:
  f:
    size: 4GiB
    regions:
    - {start: 1MiB, length: 100, source: a.img, offset: 0, access: ro}
"""
    assert expected == dump(loads(text, directory / "disk.yaml"))


def test_long_data_is_base64(directory: Path) -> None:
    """Data over 64 bytes is written in the shorter form."""
    manifest = loads("regionfs: 1\nfiles: {f: {regions: [{data: {file: a.img}}]}}", directory / "disk.yaml")
    assert "base64: YWFh" in dump(manifest)
    assert manifest == loads(dump(manifest), directory / "disk.yaml")


def test_source_elsewhere_stays_absolute(directory: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A path outside of the manifest's directory is written in full."""
    file = tmp_path_factory.mktemp("other") / "x.img"
    file.write_bytes(b"x")
    manifest = loads(f"regionfs: 1\nsources: {{x: {file}}}\nfiles: {{}}", directory / "disk.yaml")
    assert {"x": {"path": str(file)}} == describe(manifest)["sources"]


@st.composite
def manifests(draw: st.DrawFn, base: Path) -> Manifest:
    """Any manifest over the sources in `base`, as values."""
    names = draw(st.lists(st.text(min_size=1, max_size=8).filter(_can_name), unique=True, max_size=3))
    sources = {name: SourceSpec(name, base / draw(st.sampled_from(NAMES)),
                                draw(st.sampled_from((None, SIZE))), named=True, loop=draw(st.booleans()))
               for name in names}
    paths = draw(st.lists(st.text(min_size=1, max_size=8).filter(_can_name), unique=True, max_size=3))
    files = {path: draw(_files(path, (*NAMES, *names))) for path in paths}
    for key in (key for file in files.values() for key in file.sources if key not in sources):
        sources[key] = SourceSpec(key, base / key)
    return Manifest(base / "disk.yaml", sources, files)


def _can_name(text: str) -> bool:
    return "/" not in text and "\0" not in text and text not in (".", "..", *NAMES) and len(text.encode()) < 256


@st.composite
def _files(draw: st.DrawFn, path: str, keys: tuple[str, ...]) -> FileSpec:
    if draw(st.booleans()):
        return FileSpec(path, Whole(draw(st.sampled_from(keys)), draw(st.booleans())))
    tree = RegionTree()
    for region in draw(st.lists(_regions(keys), max_size=6)):
        tree.cover(region)
    regions = tree.freeze(tree.end + draw(st.integers(0, 2**40)))
    mode = draw(st.none() | st.integers(0, 0o777))
    return FileSpec(path, Mapped(regions), mode)


@st.composite
def _regions(draw: st.DrawFn, keys: tuple[str, ...]) -> Region:
    start = draw(st.integers(0, 5000) | st.integers(0, 2**50))
    kind = draw(st.sampled_from(Kind))
    data = draw(st.binary(min_size=1, max_size=100)) if kind is Kind.DATA else b""
    limit = len(data) if kind is Kind.DATA else SIZE
    offset = draw(st.integers(0, limit - 1))
    end = start + draw(st.integers(1, limit - offset))
    match kind:
        case Kind.SOURCE:
            return Region(start, end, kind, draw(st.sampled_from(keys)), offset - start, draw(st.booleans()))
        case Kind.DATA:
            return Region(start, end, kind, shift=offset - start, data=data)
        case _:
            return Region(start, end, kind)


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.data())
def test_load_undoes_dump(base: Path, data: st.DataObject) -> None:
    """Any manifest is equal to what is loaded from its text, and so is its description."""
    manifest = data.draw(manifests(base))
    again = loads(dump(manifest), manifest.path)
    assert manifest == again
    assert describe(manifest) == describe(again)


def test_dump_is_what_any_yaml_reader_sees(directory: Path) -> None:
    """Another YAML reader finds the same strings, whatever they look like."""
    manifest = loads('regionfs: 1\nfiles: {"010": {regions: []}, "yes": {regions: []}}', directory / "disk.yaml")
    assert ["010", "yes"] == list(yaml.safe_load(dump(manifest))["files"])
