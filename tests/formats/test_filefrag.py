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


@pytest.mark.parametrize("kind", ["ext2", "ext3", "ext4"])
def test_every_layout_of_the_report(tmp_path: Path, kind: str) -> None:
    """Of a real file that needs indirect blocks: today's lines with what ext2 and ext3 add, and the old columns."""
    data = Random(1).randbytes(400_000)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.bin").write_bytes(data)
    image = tmp_path / "fs.img"
    image.touch()
    os.truncate(image, 8 << 20)
    run(f"mkfs.{kind}", "-q", "-b", "1024", "-d", tmp_path / "in", image)
    runs: list[list[int]] = []
    for number, block in enumerate(blocks(image, "a.bin")):
        if runs and runs[-1][1] + runs[-1][2] == block and runs[-1][0] + runs[-1][2] == number:
            runs[-1][2] += 1
        else:
            runs.append([number, block, 1])
    if kind != "ext4":  # debugfs lists indirect blocks among the others
        runs = _without_indirect(data, image, runs)
    new = [f"{index}: {first}.. {first + count - 1}: {block}.. {block + count - 1}: {count}: merged"
           for index, (first, block, count) in enumerate(runs)]
    old = [f"   {index} {first:7} {block:8} {'' if index % 2 else block - 3:8} {count:6} merged"
           for index, (first, block, count) in enumerate(runs)]
    for head, columns, lines in (
            ("Filesystem cylinder groups approximately 7", "(391 blocks of 1024 bytes)",
             [" ext:     logical_offset:        physical_offset: length:   expected: flags:", *new]),
            ("Filesystem cylinder groups is approximately 7", "(391 blocks, blocksize 1024)",
             [" ext logical physical expected length flags", *old])):
        text = "\n".join(["Filesystem type is: ef53", head, f"File size of a.bin is {len(data)} {columns}", *lines,
                          "a.bin: 2 extents found, perfection would be 1 extent", ""])
        result = regionfs("import", "auto", "-", "-o", tmp_path / "m.yaml", "--force", "--source", image,
                          stdin=text.encode())
        assert 0 == result.exit_code, result.output
        assert data == regionfs("cat", tmp_path / "m.yaml", "a.bin").stdout_bytes


def _without_indirect(data: bytes, image: Path, runs: list[list[int]]) -> list[list[int]]:
    """The runs of data, found by their bytes."""
    disk, found, pos = image.read_bytes(), [], 0
    for _, first, count in runs:
        for block in range(first, first + count):
            piece = data[pos * 1024:(pos + 1) * 1024]
            if disk[block * 1024:block * 1024 + len(piece)] == piece and piece:
                found.append([pos, block, 1])
                pos += 1
    return found


def test_shared_extents_of_xfs_lie_in_place(tmp_path: Path) -> None:
    """Every file that cp made has them; a note says what moves them."""
    found = imported("filefrag", REPORT.replace("ef53", "58465342").replace("last,eof", "last,shared,eof"), tmp_path,
                     source=tmp_path / "dev")
    assert [(0, 8192, Kind.HOLE, False), (8192, 10000, Kind.SOURCE, tmp_path / "dev", 20 * 4096, False)] == \
        resolved(found.manifest, "a.bin")
    assert ["some extents are shared"] == [note.partition(":")[0] for note in found.notes]


def test_a_report_by_fibmap_is_called_so(tmp_path: Path) -> None:
    """Old kernels gave no extents; the message says how to get them."""
    with pytest.raises(FormatError, match=r"in\.map:4: 'First block: 7'"):
        imported("filefrag", HEAD + "First block: 7\n", tmp_path, source=tmp_path / "dev")


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
