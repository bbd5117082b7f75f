"""qemu-img map, against qemu-img: what it prints is read, what we print means the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from regionfs.formats.values import FormatError
from regionfs.manifest.load import load
from regionfs.regions import Kind
from tests.formats.tools import exported, faults, imported, nearly, put, put_manifest, regionfs, resolved, run


def entry(start: int, length: int, **keys: Any) -> dict[str, Any]:
    """One entry of data at offset 0."""
    return {"start": start, "length": length, "depth": 0, "present": True, "zero": False, "data": True,
            "offset": 0, **keys}


@pytest.mark.parametrize("form", ["raw", "qcow2"])
def test_the_map_of_an_image_gives_its_bytes(tmp_path: Path, form: str) -> None:
    """Importing qemu-img's map of an image, then reading through it, gives the disk's bytes."""
    data = bytes(200_000) + bytes(range(256)) * 400 + bytes(300_000)
    data = data.ljust(1 << 20, b"\0")
    (tmp_path / "raw").write_bytes(data)
    run("qemu-img", "convert", "-f", "raw", "-O", form, tmp_path / "raw", tmp_path / "image")
    text = run("qemu-img", "map", "-f", form, "--output=json", tmp_path / "image")
    result = regionfs("import", "auto", "-", "-o", tmp_path / "m.yaml", "--source", tmp_path / "image",
                      "--file", "disk.img", stdin=text.encode())
    assert 0 == result.exit_code, result.output
    assert Kind.HOLE in {tile[2] for tile in resolved(load(tmp_path / "m.yaml"))}
    assert data == regionfs("cat", tmp_path / "m.yaml", "disk.img").stdout_bytes


def test_import_then_export_is_the_same_map(tmp_path: Path) -> None:
    """Entries with their file names come back as they were, in QEMU's form."""
    put(tmp_path / "a.img", 8192)
    entries = [entry(0, 4096, offset=512, filename="a.img"),
               {"start": 4096, "length": 4096, "depth": 0, "present": True, "zero": True, "data": False},
               entry(8192, 100, offset=7, filename="a.img")]
    text = "[" + ",\n".join(json.dumps(one) for one in entries) + "]\n"
    (tmp_path / "m.json").write_text(text)
    assert 0 == regionfs("import", "auto", tmp_path / "m.json", "-o", tmp_path / "m.yaml").exit_code
    assert 0 == regionfs("export", "qemu-map", tmp_path / "m.yaml", "m.img", "-o", tmp_path / "n.json").exit_code
    assert text == (tmp_path / "n.json").read_text()


def test_zero_with_data(tmp_path: Path) -> None:
    """Zeros that the file holds are its bytes; zeros it does not hold for sure are a hole."""
    regions = imported("qemu-map", json.dumps([
        entry(0, 8, zero=True, filename="a"), entry(8, 8, zero=True, data=False, filename="a")]), tmp_path)
    assert [(0, 8, Kind.SOURCE, tmp_path / "a", 0, False), (8, 16, Kind.HOLE, False)] == \
        resolved(regions.manifest, "in.img")


@pytest.mark.parametrize(("entries", "why"), [
    ([], "a list of entries"),
    ({}, "a list of entries"),
    ([entry(1, 8)], "starts at 1, not at 0"),
    ([entry(0, 0)], "length 0"),
    ([entry(0, 8)], "name it with --source"),
    ([entry(0, 8, depth=1)], "backing file that the map does not name"),
    ([entry(0, 8, compressed=True)], "compressed"),
    ([entry(0, 8, offset="x")], "offset"),
    ([entry(0, 8, zero=0)], "zero"),
    ([entry(0, 8, filename="")], "cannot be a path"),
    ([entry(0, 2**63)], "length"),
    ([entry(0, 8, offset=2**63 - 4, filename="a")], "the end in the file"),
    ([{"start": 0, "length": 8, "zero": False, "data": True}], "have no offset"),
    ([{"start": 0, "length": 8, "zero": False, "data": False, "present": False}], "outside the image"),
])
def test_bad_maps_say_why(tmp_path: Path, entries: Any, why: str) -> None:
    """Every fault is a FormatError."""
    with pytest.raises(FormatError) as caught:
        imported("qemu-map", json.dumps(entries), tmp_path)
    assert why in str(caught.value)


@pytest.mark.parametrize(("text", "why"), [
    ("[1,", ":1:4: not JSON"), ("[NaN]", "NaN"), ('[{"a":1,"a":2}]', "twice"), ("[" * 100_000, "not JSON"),
    ("[" + "9" * 5000 + "]", "not JSON"), ("\0", "NUL"), (b"\xff", "byte 0 is not utf-8"),
])
def test_bad_json_says_why(tmp_path: Path, text: str | bytes, why: str) -> None:
    """What is not JSON, or JSON meant to hurt, is a FormatError with its place."""
    with pytest.raises(FormatError) as caught:
        imported("qemu-map", text, tmp_path)
    assert why in str(caught.value)


def test_a_disk_of_several_nameless_files_is_refused(tmp_path: Path) -> None:
    """QEMU's map of a VMDK with two extents does not say which file an offset is in."""
    run("qemu-img", "create", "-q", "-f", "vmdk", "-o", "subformat=twoGbMaxExtentFlat", tmp_path / "d.vmdk", "3G")
    text = run("qemu-img", "map", "--output=json", tmp_path / "d.vmdk")
    with pytest.raises(FormatError, match="mapped twice"):
        imported("qemu-map", text, tmp_path, source=tmp_path / "d-f001.vmdk")


@pytest.mark.parametrize("region", [{"data": {"text": "x"}}, {"error": True, "length": 1}])
def test_export_names_the_region_it_cannot_say(tmp_path: Path, region: dict[str, Any]) -> None:
    """Inline data and bad areas are refused with their place."""
    manifest = put_manifest(tmp_path, [{"hole": True, "length": 5}, region])
    with pytest.raises(FormatError, match=r"regions\[1\] \[5, 6\): a map cannot say"):
        exported("qemu-map", manifest, tmp_path / "o.json")


MAP = json.dumps([entry(0, 8), entry(8, 4, offset=100, filename="a"), entry(12, 8, zero=True, data=False)])
VALUES = (0, 1, -1, 1 << 64, True, False, None, "a", [], {})


@settings(max_examples=250, deadline=None, derandomize=True)
@given(st.lists(st.dictionaries(
    st.sampled_from(["start", "length", "depth", "present", "zero", "data", "offset", "filename", "compressed"]),
    st.sampled_from(VALUES)), max_size=3).map(json.dumps) | nearly(MAP, [json.dumps(value) for value in VALUES]))
@example(MAP)
def test_anything_is_a_map_or_a_format_error(text: str) -> None:
    """Arbitrary entries are read as a whole map or refused with their place; they end in no other exception."""
    assert [] == faults(lambda: imported("qemu-map", text, Path("/tmp"), source=Path("/tmp/a")), valid=text == MAP)
