"""Partition tables, against sfdisk: every byte of a disk is in exactly one composite file."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regionfs.formats.sfdisk import read
from regionfs.formats.values import Foreign, FormatError, Imported
from regionfs.manifest.load import load
from regionfs.manifest.schema import Manifest
from regionfs.regions import Kind
from tests.formats.tools import faults, regionfs, resolved, run

GPT = "label: gpt\nsize=1MiB, type=U, name=EFI\nstart=6MiB, size=2MiB, type=L\n"
MBR = "label: dos\nsize=1MiB, type=ef, bootable\nsize=5MiB, type=5\nsize=1MiB\nsize=1MiB\n"


def ranges(manifest: Manifest) -> dict[str, tuple[int, int]]:
    """Per file, the range of the disk it shows."""
    found = {}
    for name, file in manifest.files.items():
        assert [Kind.SOURCE] == [region.kind for region in file.regions]
        found[name] = (file.regions[0].offset, file.regions[0].offset + file.regions.size)
    return found


def tables(path: Path, script: str, size: int = 10 << 20) -> None:
    """A disk image partitioned by sfdisk."""
    path.touch()
    os.truncate(path, size)
    subprocess.run(["sfdisk", "-q", str(path)], input=script, text=True, check=True, timeout=50)


def imported(table: Any, size: int = 1 << 20) -> Imported:
    """The reader's answer for sfdisk's JSON."""
    text = json.dumps({"partitiontable": table}).encode()
    return read(Foreign(Path("/d/t.json"), text, Path("/d/m.yaml")), lambda _: size)


def test_gpt_disk(tmp_path: Path) -> None:
    """Two partitions and the three gaps of a GPT disk, found without naming the format."""
    tables(tmp_path / "disk.img", GPT)
    assert 0 == regionfs("import", "auto", tmp_path / "disk.img", "-o", tmp_path / "m.yaml").exit_code
    mib = 1 << 20
    assert {"disk/gap1.img": (0, mib), "disk/part1.img": (mib, 2 * mib), "disk/gap2.img": (2 * mib, 6 * mib),
            "disk/part2.img": (6 * mib, 8 * mib), "disk/gap3.img": (8 * mib, 10 * mib)} == \
        ranges(load(tmp_path / "m.yaml"))


def test_mbr_disk_with_logical_partitions(tmp_path: Path) -> None:
    """The extended partition is no file; its logical ones are, and its tables lie in gaps."""
    tables(tmp_path / "disk.img", MBR)
    assert 0 == regionfs("import", "gpt", tmp_path / "disk.img", "-o", tmp_path / "m.yaml", "--file", "sda").exit_code
    found = ranges(load(tmp_path / "m.yaml"))
    assert {"sda/part1.img", "sda/part3.img", "sda/part4.img"} == {name for name in found if "part" in name}
    borders = sorted(found.values())
    assert [0, *(end for _, end in borders)] == [*(start for start, _ in borders), 10 << 20]


def test_json_and_the_disk_give_the_same(tmp_path: Path) -> None:
    """sfdisk's JSON, from a pipe or a file, is as good as the disk."""
    tables(tmp_path / "disk.img", GPT)
    (tmp_path / "t.json").write_text(run("sfdisk", "--json", tmp_path / "disk.img"))
    for name in ("disk.img", "t.json"):
        assert 0 == regionfs("import", "auto", tmp_path / name, "-o", tmp_path / f"{name}.yaml").exit_code
    assert ranges(load(tmp_path / "disk.img.yaml")) == ranges(load(tmp_path / "t.json.yaml"))


def test_sectors_of_4096(tmp_path: Path, loop_device: Callable[..., AbstractContextManager[Path]]) -> None:
    """A disk made on a device with 4096-byte sectors, read as a device and as an image."""
    image = tmp_path / "disk.img"
    image.touch()
    os.truncate(image, 10 << 20)
    with loop_device(image, "--sector-size", "4096") as device:
        subprocess.run(["sfdisk", "-q", str(device)], input=GPT, text=True, check=False, timeout=50)
        assert 0 == regionfs("import", "gpt", device, "-o", tmp_path / "dev.yaml", "--file", "disk").exit_code
        by_device = ranges(load(tmp_path / "dev.yaml"))
    assert 0 == regionfs("import", "auto", image, "-o", tmp_path / "m.yaml").exit_code
    assert (6 << 20, 8 << 20) == by_device["disk/part2.img"]
    assert by_device == ranges(load(tmp_path / "m.yaml"))


def test_protective_mbr_alone_is_refused(tmp_path: Path) -> None:
    """JSON that sfdisk made of a 4096-byte GPT with the wrong sector size is not a table."""
    table = {"label": "dos", "device": "k", "unit": "sectors",
             "partitions": [{"node": "k1", "start": 1, "size": 7, "type": "ee"}]}
    with pytest.raises(FormatError, match="protective MBR"):
        imported(table)


def entry(**keys: Any) -> dict[str, Any]:
    """A partition of one sector at sector 8."""
    return {"node": "k1", "start": 8, "size": 1, "type": "83", **keys}


@pytest.mark.parametrize(("keys", "why"), [
    ({"unit": "bytes"}, "unit 'bytes'"),
    ({"sectorsize": 513}, "power of two"),
    ({"sectorsize": 0}, "outside 1 to"),
    ({"device": "\ud800"}, "cannot be a path in a manifest"),
    ({"device": None}, "device null is not text"),
    ({"partitions": {}}, "is not a list"),
    ({"partitions": [7]}, "partitions[0]: an object is wanted"),
    ({"partitions": [entry(node="x")]}, "is not k and a number"),
    ({"partitions": [entry(start=-1)]}, "start -1 is outside"),
    ({"partitions": [entry(start=True)]}, "start true is not a whole number"),
    ({"partitions": [entry(size=0)]}, "size 0"),
    ({"partitions": [entry(size=4096)]}, "ends at 2101248; the disk has 1048576"),
    ({"partitions": [entry(), entry(start=16)]}, "two files would be named"),
])
def test_bad_tables_say_why(keys: dict[str, Any], why: str) -> None:
    """Every fault is a FormatError."""
    with pytest.raises(FormatError) as caught:
        imported({"label": "dos", "device": "k", "unit": "sectors", "partitions": [], **keys})
    assert why in str(caught.value)


def test_overlapping_partitions_have_a_file_each() -> None:
    """Isohybrid images have the EFI partition inside the first one; both are windows, which a note says."""
    found = imported({"label": "dos", "device": "k", "unit": "sectors", "partitions": [
        entry(start=0, size=100), entry(node="k2", start=10, size=20), entry(node="k3", start=200)]})
    assert {"k/part1.img": (0, 51200), "k/part2.img": (5120, 15360), "k/gap1.img": (51200, 102400),
            "k/part3.img": (102400, 102912), "k/gap2.img": (102912, 1 << 20)} == ranges(found.manifest)
    assert ("partition 2 begins inside partition 1: both files show those bytes",) == found.notes


@pytest.mark.parametrize("command", [("import", "auto", "disk.img", "-o", "m.yaml"),
                                     ("stitch", "m.yaml", "--from-disk", "disk.img")])
def test_a_gpt_disk_that_was_cut_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                       command: tuple[str, ...]) -> None:
    """What is there of its partitions is shown, what is missing cannot be read, and it is told."""
    monkeypatch.chdir(tmp_path)
    tables(tmp_path / "disk.img", GPT)
    os.truncate(tmp_path / "disk.img", 7 << 20)
    result = regionfs(*command)
    assert (0, True) == (result.exit_code, "cut short" in result.stderr)
    mib = 1 << 20
    assert [(0, mib, Kind.SOURCE, tmp_path / "disk.img", mib, False)] == resolved(load(tmp_path / "m.yaml"),
                                                                                  "disk/part1.img")
    assert [(0, mib, Kind.SOURCE, tmp_path / "disk.img", 6 * mib, False), (mib, 2 * mib, Kind.ERROR, False)] == \
        resolved(load(tmp_path / "m.yaml"), "disk/part2.img")


@pytest.mark.parametrize("script", [GPT, MBR])
def test_a_dump_is_as_good_as_the_disk(tmp_path: Path, script: str) -> None:
    """`sfdisk -d`, found without naming the format, and with another image named."""
    tables(tmp_path / "disk.img", script)
    (tmp_path / "t.dump").write_text(run("sfdisk", "-d", tmp_path / "disk.img"))
    (tmp_path / "disk.img").rename(tmp_path / "copy.img")
    assert 1 == regionfs("import", "auto", tmp_path / "t.dump", "-o", tmp_path / "m.yaml").exit_code
    result = regionfs("import", "auto", tmp_path / "t.dump", "-o", tmp_path / "m.yaml", "--source",
                      tmp_path / "copy.img")
    assert 0 == result.exit_code, result.output
    assert 0 == regionfs("import", "gpt", tmp_path / "copy.img", "-o", tmp_path / "n.yaml").exit_code
    assert ranges(load(tmp_path / "m.yaml")) == ranges(load(tmp_path / "n.yaml"))


@pytest.mark.parametrize("name", ["qcow2", "vdi", "vhdx", "vmdk"])
def test_a_container_has_no_table_and_is_called_by_its_name(tmp_path: Path, name: str) -> None:
    """A disk image of another kind, given as a disk."""
    run("qemu-img", "create", "-q", "-f", name, tmp_path / "d.img", "4M")
    for command in (("import", "gpt", tmp_path / "d.img", "-o", tmp_path / "m.yaml"),
                    ("stitch", tmp_path / "m.yaml", "--from-disk", tmp_path / "d.img")):
        result = regionfs(*command)
        assert (1, True) == (result.exit_code, "qemu-img convert -O raw" in result.stderr)


def test_a_disk_without_a_table_is_refused(tmp_path: Path) -> None:
    """An image full of zeros has no partitions to speak of."""
    (tmp_path / "disk.img").write_bytes(bytes(1 << 20))
    result = regionfs("import", "gpt", tmp_path / "disk.img", "-o", tmp_path / "m.yaml")
    assert (1, False) == (result.exit_code, (tmp_path / "m.yaml").exists())


JSON = st.recursive(st.sampled_from([None, True, -1, 0, 1, 512, 1 << 70, 0.5, "sectors", "k", "k1", "ee", "83"]),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(
                        ["node", "start", "size", "type", "partitions", "unit", "device", "sectorsize"]), inner),
                    max_leaves=12)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(JSON, st.lists(JSON, max_size=2))
def test_anything_is_a_map_or_a_format_error(table: Any, partitions: list[Any]) -> None:
    """Arbitrary JSON is read as whole maps or refused with its place; it ends in no other exception."""
    assert [] == faults(lambda: imported(table))
    assert [] == faults(lambda: imported({"unit": "sectors", "device": "k", "partitions": partitions}))
