"""crosvm composite disks: a golden message both ways, round trips, and bytes cut and changed anywhere."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regionfs.formats.crosvm import MAGIC
from regionfs.formats.values import FormatError
from regionfs.manifest.load import load
from regionfs.regions import Kind
from tests.formats.tools import exported, faults, imported, put, put_manifest, regionfs, resolved

# as protoc --encode writes CompositeDisk {version: 2, component_disks {file_path: "a.img" file_offset: 512}
# component_disks {file_path: "b.img" offset: 4096 read_write_capability: READ_WRITE} length: 8192}
GOLDEN = MAGIC + bytes.fromhex(
    "08 02"                                             # version
    "12 0a 0a 05 61 2e 69 6d 67 20 80 04"               # a.img, offset 0, READ_ONLY, file_offset 512
    "12 0c 0a 05 62 2e 69 6d 67 10 80 20 18 01"         # b.img at 4096, READ_WRITE
    "18 80 40")                                         # length
BAD_VERSION = GOLDEN.replace(b"\x08\x02", b"\x08\x03")


def test_golden_message_both_ways(tmp_path: Path) -> None:
    """The specification's bytes are read as the map and written from it."""
    put(tmp_path / "a.img", 8192)
    put(tmp_path / "b.img", 8192)
    (tmp_path / "d.composite").write_bytes(GOLDEN)
    assert 0 == regionfs("import", "auto", tmp_path / "d.composite", "-o", tmp_path / "m.yaml",
                         "--file", "disk.img").exit_code
    assert [(0, 4096, Kind.SOURCE, tmp_path / "a.img", 512, False),
            (4096, 8192, Kind.SOURCE, tmp_path / "b.img", 0, True)] == resolved(load(tmp_path / "m.yaml"))
    assert GOLDEN == exported("crosvm", tmp_path / "m.yaml", tmp_path / "out").content


def test_holes_and_inline_data_go_into_the_side_file(tmp_path: Path) -> None:
    """Bytes that no source holds are kept next to the disk, byte for byte, holes sparse."""
    data = put(tmp_path / "a.img", 1000)
    manifest = put_manifest(tmp_path, [{"data": {"text": "x"}}, {"source": "a.img", "length": 700},
                                       {"hole": True, "length": "1MiB"}])
    assert 0 == regionfs("export", "crosvm", manifest, "disk.img", "-o", tmp_path / "d.cd").exit_code
    again = regionfs("import", "auto", tmp_path / "d.cd", "-o", tmp_path / "n.yaml", "--file", "disk.img")
    assert (0, (1 << 20) + 1) == (again.exit_code, (tmp_path / "d.cd.side").stat().st_size)
    assert 8 >= (tmp_path / "d.cd.side").stat().st_blocks
    assert b"x" + data[:700] + bytes(1 << 20) == regionfs("cat", tmp_path / "n.yaml", "disk.img").stdout_bytes


@pytest.mark.parametrize(("region", "why"), [
    ({"error": True, "length": 4096}, "regions[0] [0, 4096): the format cannot say that bytes are unreadable"),
    ({"source": "a.img", "length": 100, "access": "rw"}, "regions[0] [0, 100): rw regions of 100 bytes"),
])
def test_export_names_the_region_it_cannot_say(tmp_path: Path, region: dict[str, object], why: str) -> None:
    """Bad areas and odd rw sizes are refused with their place."""
    put(tmp_path / "a.img", 4096)
    with pytest.raises(FormatError) as caught:
        exported("crosvm", put_manifest(tmp_path, [region]), tmp_path / "o")
    assert why in str(caught.value)


@pytest.mark.parametrize(("content", "why"), [
    (b"composite", "does not begin with composite_disk"),
    (MAGIC, "version 0"),
    (BAD_VERSION, "version 3"),
    (MAGIC + b"\x08\x01\x18\x05", "no component begins at 0"),
    (MAGIC + b"\x08\x01", "length 0"),
    (GOLDEN.replace(b"\x10\x80\x20", b"\x10\x80\x00"), "the next one begins"),
    (GOLDEN.replace(b"\x18\x80\x40", b"\x18\x80\x20"), "or the disk ends, at 4096"),
    (GOLDEN.replace(b"\x18\x01", b"\x18\x02"), "read_write_capability 2"),
    (GOLDEN.replace(b"a.img", b"\xff.img"), "is not UTF-8"),
    (GOLDEN + b"\x20\x01", "field 4 of wire type 0"),
    (GOLDEN + b"\x0a\x00", "field 1 of wire type 2"),
    (GOLDEN + b"\x18" + b"\xff" * 9 + b"\x02", "more than 64 bits"),
    (GOLDEN + b"\x18" + b"\xff" * 9 + b"\x01", "length"),
    (GOLDEN + b"\x12\x7f", "reaches past the end"),
])
def test_bad_disks_say_why(tmp_path: Path, content: bytes, why: str) -> None:
    """Every fault is a FormatError."""
    with pytest.raises(FormatError) as caught:
        imported("crosvm", content, tmp_path)
    assert why in str(caught.value)


def test_truncated_anywhere_is_refused(tmp_path: Path) -> None:
    """No prefix of a disk is a disk."""
    for end in range(len(GOLDEN)):
        with pytest.raises(FormatError):
            imported("crosvm", GOLDEN[:end], tmp_path)


@pytest.mark.parametrize("seed", range(20))
def test_round_trip_of_random_maps(tmp_path: Path, seed: int) -> None:
    """Whatever components there are, the export reads back as the same map."""
    rng = Random(seed)
    put(tmp_path / "a.img", 1 << 16)
    regions = [{"source": "a.img", "offset": rng.randrange(30_000), "length": rng.choice((4096, 8192)),
                "access": "rw"} if rng.random() < 0.5 else
               {"source": "a.img", "offset": rng.randrange(30_000), "length": rng.randint(1, 9000)}
               for _ in range(rng.randint(1, 9))]
    manifest = put_manifest(tmp_path, regions)
    back = imported("crosvm", exported("crosvm", manifest, tmp_path / "o").content, tmp_path, name="disk.img")
    assert resolved(load(manifest)) == resolved(back.manifest)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(len(MAGIC), len(GOLDEN) - 1), st.integers(0, 255), st.binary(max_size=6))
def test_anything_is_a_map_or_a_format_error(at: int, value: int, more: bytes) -> None:
    """A disk with changed and added bytes is a whole map or refused with its place, and no other exception."""
    content = bytearray(GOLDEN)
    content[at] = value
    assert [] == faults(lambda: imported("crosvm", bytes(content) + more, Path("/tmp")))
