"""filefrag reports: of a real ext4 image, and with every flag that makes them untrue."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regionfs.formats.values import FormatError
from regionfs.regions import Kind
from tests.formats.tools import faults, imported, regionfs, resolved, run

HEAD = """Filesystem type is: ef53
File size of ./d/a.bin is 10000 (3 blocks of 4096 bytes)
 ext:     logical_offset:        physical_offset: length:   expected: flags:
"""
REPORT = HEAD + "   0:        0..       0:         10..        10:      1:             unwritten\n" \
                "   1:        2..       2:         20..        20:      1:         12: last,eof\n" \
                "./d/a.bin: 2 extents found\n"


def blocks(image: Path, name: str) -> list[int]:
    """The blocks of a file in an ext4 image, as debugfs tells them."""
    return [int(word) for word in run("debugfs", "-R", f"blocks {name}", image).split()]


def test_extents_of_a_real_file_system(tmp_path: Path) -> None:
    """A file in an ext4 image, read through the map of its blocks, has the file's bytes."""
    data = Random(1).randbytes(30_000)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.bin").write_bytes(data)
    image = tmp_path / "fs.img"
    image.touch()
    os.truncate(image, 4 << 20)
    run("mkfs.ext4", "-q", "-b", "4096", "-d", tmp_path / "in", image)
    lines = [f"{number}: {number}.. {number}: {block}.. {block}: 1:" for number, block in
             enumerate(blocks(image, "a.bin"))]
    text = f"Filesystem type is: ef53\nFile size of a.bin is {len(data)} (8 blocks of 4096 bytes)\n" \
        + "\n".join(lines) + "\n"
    result = regionfs("import", "auto", "-", "-o", tmp_path / "m.yaml", "--source", image, stdin=text.encode())
    assert 0 == result.exit_code, result.output
    assert data == regionfs("cat", tmp_path / "m.yaml", "a.bin").stdout_bytes


def test_report_of_the_tool_is_understood(tmp_path: Path) -> None:
    """What filefrag prints here for a written file is a map of the same size, or refused by its file system."""
    (tmp_path / "a.bin").write_bytes(bytes(range(256)) * 40)
    fd = os.open(tmp_path / "a.bin", os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)
    text = run("filefrag", "-v", tmp_path / "a.bin")
    try:
        found = imported("filefrag", text, tmp_path, source=Path("/dev/vda"), name="a.bin").manifest
    except FormatError as error:
        assert "file system type" in str(error) and "ef53" not in text.splitlines()[0]
    else:
        regions = found.files["a.bin"].regions
        assert regions is not None
        assert (10240, Kind.SOURCE) == (regions.size, regions[0].kind)


def test_unwritten_and_missing_blocks_are_holes(tmp_path: Path) -> None:
    """The last block is cut at the file's size; the file is named as in the report."""
    found = imported("filefrag", REPORT, tmp_path, source=tmp_path / "dev").manifest
    assert [(0, 8192, Kind.HOLE, False), (8192, 10000, Kind.SOURCE, tmp_path / "dev", 20 * 4096, False)] == \
        resolved(found, "a.bin")


def test_several_files_keep_their_paths(tmp_path: Path) -> None:
    """Each file of a report becomes a composite file."""
    text = REPORT + REPORT.replace("Filesystem type is: ef53\n", "").replace("./d/a.bin", "/mnt/b.bin")
    found = imported("filefrag", text, tmp_path, source=tmp_path / "dev", name="x").manifest
    assert ["x/d/a.bin", "x/mnt/b.bin"] == list(found.files)


@pytest.mark.parametrize("flag", ["unknown_loc", "delalloc", "encoded", "encrypted", "not_aligned", "inline",
                                  "tail_packed", "shared", "0x4000"])
def test_unsafe_extents_are_refused(tmp_path: Path, flag: str) -> None:
    """Bytes that do not lie on the device as they are never become a region of it."""
    with pytest.raises(FormatError, match=rf"in\.map:5: the extent is {flag}"):
        imported("filefrag", REPORT.replace("last,eof", f"last,{flag},eof"), tmp_path, source=tmp_path / "dev")


@pytest.mark.parametrize(("old", "new", "why"), [
    ("ef53", "9123683e", "file system type '9123683e'"),
    ("4096 bytes", "0 bytes", "blocks of 0 bytes"),
    ("10..        10:      1", "10..        11:      1", "lengths disagree"),
    ("        2..       2:", "        0..       0:", "out of order"),
    ("        2..       2:", "        a..       a:", "a block number 'a'"),
    ("20..        20", "9999999999999999..  9999999999999999", "a block number"),
    ("./d/a.bin: 2 extents found", "what?", "is not a line of filefrag"),
    (REPORT, "Filesystem type is: ef53\n", "no file's extents"),
])
def test_bad_reports_say_why(tmp_path: Path, old: str, new: str, why: str) -> None:
    """Every fault is a FormatError."""
    assert old in REPORT
    with pytest.raises(FormatError) as caught:
        imported("filefrag", REPORT.replace(old, new), tmp_path, source=tmp_path / "dev")
    assert why in str(caught.value)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(["0:", "1:", "..", "5", "99999999999999999999", " ", "\n", "last", "unwritten",
                                 "0: 0.. 0: 5.. 5: 1:", "1: 1.. 1: 9.. 9: 1: last", "é", "\0"]), max_size=20))
def test_anything_is_a_map_or_a_format_error(words: list[str]) -> None:
    """Arbitrary text is read as a whole map or refused with its place; it ends in no other exception."""
    assert [] == faults(lambda: imported("filefrag", HEAD + "".join(words), Path("/d"), source=Path("/d/dev")))
