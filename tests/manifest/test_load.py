"""What a valid manifest means: places, lengths, kinds, sources and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from regionfs.manifest.body import Whole
from regionfs.manifest.load import load, loads
from regionfs.manifest.schema import FileSpec, Manifest, SourceSpec
from regionfs.regions import Kind, Region, RegionMap

pytestmark = pytest.mark.usefixtures("directory")


def read(text: str) -> Manifest:
    return loads(text, Path("disk.yaml"))


def region_map(*regions: str, size: str = "") -> RegionMap:
    """The map of a file with these regions, each in flow form."""
    lines = "".join(f"  - {{{region}}}\n" for region in regions)
    text = f"regionfs: 1\nfiles:\n f:\n  {f'size: {size}' if size else '# size'}\n  regions:\n{lines}"
    found = read(text).files["f"].regions
    assert found is not None
    return found


def spans(found: RegionMap) -> list[tuple[int, int, str]]:
    return [(region.start, region.end, str(region.kind)) for region in found]


def file_spec(fields: str) -> FileSpec:
    return read(f"regionfs: 1\nfiles: {{f: {{{fields}}}}}").files["f"]


def test_source_region() -> None:
    """A source region shows the source from its offset, read-only."""
    expected = [Region(512, 1536, Kind.SOURCE, "a.img", 100 - 512)]
    assert expected == list(region_map("start: 512, length: 1KiB, source: a.img, offset: 100"))


def test_rw_region() -> None:
    """`access: rw` makes a region writable."""
    assert [Region(0, 4096, Kind.SOURCE, "a.img", 0, True)] == list(region_map("source: a.img, access: rw"))


def test_length_defaults_to_the_rest_of_the_source() -> None:
    """Without a length a region reaches the end of its source."""
    assert [(0, 4000, "source")] == spans(region_map("source: a.img, offset: 96"))


def test_region_follows_the_one_before() -> None:
    """Without a start a region begins where the one before it in the text ends."""
    expected = [(0, 4096, "source"), (4096, 4196, "hole"), (4196, 12388, "source")]
    assert expected == spans(region_map("source: a.img", "length: 100, hole: true", "source: b.img"))


def test_following_is_by_text_not_by_place() -> None:
    """The one before is the one written before, wherever it lies."""
    expected = [(0, 10, "hole"), (10, 20, "error"), (100, 110, "hole")]
    assert expected == spans(region_map("start: 100, length: 10, hole: true", "start: 0, length: 10, hole: true",
                                        "length: 10, error: true"))


def test_align() -> None:
    """A region without a start is placed on the next multiple of `align`, of any number."""
    expected = [(0, 10, "hole"), (12, 22, "hole"), (4096, 4106, "hole")]
    assert expected == spans(region_map("length: 10, hole: true", "length: 10, hole: true, align: 3",
                                        "length: 10, hole: true, align: 4KiB"))


def test_size_defaults_to_the_end_of_the_last_region() -> None:
    """A file ends with its regions."""
    assert 5096 == region_map("start: 1000, source: a.img").size


def test_size_may_be_larger() -> None:
    """What lies after the last region is a hole."""
    assert 2**40 == region_map("source: a.img", size="1TiB").size


def test_no_regions() -> None:
    """A file of a hole only."""
    assert RegionMap(1000, []) == file_spec("size: 1000, regions: []").regions


def test_over_cuts_what_lies_below() -> None:
    """A later region that says over shows; the earlier one shows on either side, at its own offsets."""
    expected = [Region(0, 100, Kind.SOURCE, "a.img"), Region(100, 200, Kind.ERROR),
                Region(200, 4096, Kind.SOURCE, "a.img")]
    assert expected == list(region_map("source: a.img", "start: 100, length: 100, error: true, over: true"))


def test_over_nothing() -> None:
    """Over may be said where nothing lies below."""
    assert [(0, 4096, "source")] == spans(region_map("source: a.img, over: true"))


def test_covered_rw_region_is_not_writable() -> None:
    """A file whose only rw region is covered is read-only."""
    spec = file_spec("regions: [{source: a.img, access: rw}, {start: 0, source: a.img, over: true}]")
    assert (False, 0o444) == (spec.writable, spec.permissions)


@pytest.mark.parametrize(("data", "expected"), [
    ('hex: "33c0 8ed0"', b"\x33\xc0\x8e\xd0"),
    ("base64: AAEC/w==", b"\0\1\2\xff"),
    ('text: "héllo\\n"', "héllo\n".encode()),
    ("file: a.img", b"a" * 4096),
])
def test_data(data: str, expected: bytes) -> None:
    """Inline bytes are written as hex, base64 or text, or taken from a file."""
    assert [Region(0, len(expected), Kind.DATA, data=expected)] == list(region_map(f"data: {{{data}}}"))


def test_part_of_data() -> None:
    """A region may show a part of its inline bytes."""
    expected = [Region(8, 10, Kind.DATA, shift=1 - 8, data=b"abcd")]
    assert expected == list(region_map("start: 8, length: 2, offset: 1, data: {text: abcd}"))


def test_whole() -> None:
    """`whole` is one source, read-only unless it says rw."""
    assert FileSpec("f", Whole("a.img")) == file_spec("whole: a.img")


def test_whole_rw() -> None:
    """A whole file may be rw."""
    assert FileSpec("f", Whole("a.img", writable=True)) == file_spec("whole: a.img, access: rw")


def test_mode() -> None:
    """`mode` is octal in quotes."""
    assert 0o640 == file_spec('mode: "0640", regions: []').permissions


def test_named_source() -> None:
    """A name stands for its path; an absolute path stays, a relative one is below the manifest's directory."""
    expected = {"one": SourceSpec("one", Path.cwd() / "a.img", 4096, True),
                "two": SourceSpec("two", Path.cwd() / "b.img", None, True)}
    assert expected == read(f"""
regionfs: 1
sources:
  one: {{path: a.img, size: 4KiB}}
  two: {Path.cwd()}/b.img
files: {{}}
""").sources


def test_name_goes_before_path() -> None:
    """A word that is a name is not a path."""
    manifest = read("regionfs: 1\nsources: {a.img: b.img}\nfiles: {f: {regions: [{source: a.img}]}}")
    assert Path.cwd() / "b.img" == manifest.sources["a.img"].path


def test_two_names_for_one_path() -> None:
    """One path may have several names."""
    manifest = read("regionfs: 1\nsources: {x: a.img, y: a.img}\nfiles: {f: {regions: [{source: x}, {source: y}]}}")
    assert ("x", "y") == manifest.files["f"].sources


def test_path_below_the_manifest(directory: Path) -> None:
    """Relative paths do not depend on where the program runs."""
    (directory / "sub").mkdir()
    (directory / "sub" / "m.yaml").write_text("regionfs: 1\nfiles: {f: {whole: ../a.img}}")
    manifest = load(Path("sub/m.yaml"))
    assert directory / "sub" / "../a.img" == manifest.sources["../a.img"].path


@pytest.mark.parametrize(("text", "expected"), [
    ("4096", 4096), ("'4096'", 4096), ("0x1000", 4096), ("8s", 4096), ("4KiB", 4096), ("4 KiB", 4096),
    ("4KB", 4000), ("1.5KiB", 1536), ("1", 1)])
def test_numbers(text: str, expected: int) -> None:
    """A number is judged by its text, in quotes or not."""
    assert expected == region_map(f"length: {text}, hole: true").size


def test_byte_order_mark() -> None:
    """A UTF-8 byte order mark, as some editors write, is no problem."""
    assert ["f"] == list(loads(b"\xef\xbb\xbfregionfs: 1\nfiles: {f: {regions: []}}", Path("m.yaml")).files)


def test_files_keep_the_order_of_the_text() -> None:
    """Files are listed as written."""
    assert ["b", "c/d", "a"] == list(read("""
regionfs: 1
files:
  b: {regions: []}
  c/d: {regions: []}
  a: {regions: []}
""").files)


def test_hundred_thousand_regions() -> None:
    """A large map of patches over a base loads as what it says."""
    base = "regionfs: 1\nfiles:\n f:\n  regions:\n  - {length: 1GiB, hole: true}\n"
    text = base + "".join(f"  - {{start: {index * 8192}, length: 4096, error: true, over: true}}\n"
                          for index in range(100_000))
    regions = read(text).files["f"].regions
    assert regions is not None
    assert (200_000, Region(8192, 12288, Kind.ERROR)) == (len(regions), regions[2])
