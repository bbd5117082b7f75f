"""Split sets, against split(1)."""

from __future__ import annotations

from pathlib import Path

import pytest

from regionfs.formats.split import find_set, sniff
from regionfs.formats.values import FormatError
from regionfs.manifest.load import load
from tests.formats.tools import put, regionfs, run


def pieces(directory: Path, *names: str) -> None:
    """Files of one byte."""
    for name in names:
        (directory / name).write_bytes(b"x")


@pytest.mark.parametrize(("options", "count"), [
    ((), 700), (("-d",), 120), (("-a", "3", "--numeric-suffixes=1"), 60), (("-a", "3"), 30),
])
def test_sets_of_split(tmp_path: Path, options: tuple[str, ...], count: int) -> None:
    """Whatever split(1) cuts, grown suffixes too, is joined again from any one piece."""
    data = put(tmp_path / "whole", count * 10 - 3)
    run("split", "-b", "10", *options, tmp_path / "whole", f"{tmp_path}/disk.raw.")
    (tmp_path / "disk.raw.yaml").touch()
    any_piece = sorted(set(tmp_path.glob("disk.raw.*")) - {tmp_path / "disk.raw.yaml"})[count // 2]
    result = regionfs("import", "auto", any_piece, "-o", tmp_path / "m.yaml", "--quiet")
    assert (0, "") == (result.exit_code, result.stderr)
    assert data == regionfs("cat", tmp_path / "m.yaml", "disk.raw").stdout_bytes


def test_numbers_without_zeros_are_in_natural_order(tmp_path: Path) -> None:
    """part10 comes after part9."""
    names = [f"d.part{number}" for number in range(1, 13)]
    pieces(tmp_path, *names)
    assert names == [path.name for path in find_set(tmp_path / "d.part3")]


def test_numbers_grow_past_their_zeros(tmp_path: Path) -> None:
    """.1000 comes after .999."""
    names = [f"d.{number:03}" for number in range(1, 1002)]
    pieces(tmp_path, *names)
    assert names == [path.name for path in find_set(tmp_path / "d.001")]


def test_other_files_are_no_pieces(tmp_path: Path) -> None:
    """Another stem, another scheme and words of letters stay out."""
    pieces(tmp_path, "d.aa", "d.ab", "d.img", "d.001", "e.ac", "d.parta")
    assert ["d.aa", "d.ab"] == [path.name for path in find_set(tmp_path / "d.ab")]


@pytest.mark.parametrize(("names", "whole"), [
    ("xaa xab xac", "x.img"), ("disk.img_aa disk.img_ab", "disk.img"), ("disk-part-aa disk-part-ab", "disk.img"),
    ("disk_001 disk_002", "disk.img"), ("disk_00 disk_01", "disk.img"), ("DISK.AA DISK.AB", "DISK.img"),
    ("disk.dmg disk.002.dmgpart disk.003.dmgpart", "disk.dmg"), ("disk.bin disk(2).bin disk(3).bin", "disk.bin"),
    ("m-00001-of-00003.gguf m-00002-of-00003.gguf m-00003-of-00003.gguf", "m.gguf"), ("xaa.gz xab.gz", "x.gz"),
    ("disk.img.aa.zst disk.img.ab.zst", "disk.img.zst"), ("d.part01.bin d.part02.bin", "d.bin"),
    ("diskaa diskab", "disk.img"), ("001 002", "joined.img"), ("d.1of2 d.2of2", "dof2.img"),
])
def test_names_as_people_have_them(tmp_path: Path, names: str, whole: str) -> None:
    """Each piece finds all of them, in order, whatever lies beside; the file gets what they share as its name."""
    pieces(tmp_path, *names.split(), "other7_aa", "notes.txt")
    found = [[path.name for path in find_set(tmp_path / name)] for name in names.split()]
    assert [names.split()] * len(found) == found
    result = regionfs("import", "split", tmp_path / names.split()[-1], "-o", tmp_path / "m.yaml")
    assert (0, [whole]) == (result.exit_code, list(load(tmp_path / "m.yaml").files))


@pytest.mark.parametrize(("names", "is_set"), [
    ("xaa xab", True), ("d_aa d_ab", True), ("d_001 d_002", True), ("d.001", True), ("d_001", False),
    ("d1.img d2.img", False), ("d.img", False), ("d.bin d(2).bin", False), ("diskaa diskab", False),
    ("m-1-of-2.bin m-2-of-2.bin", False),
])
def test_auto_takes_a_set_only_for_names_that_mean_one(tmp_path: Path, names: str, is_set: bool) -> None:
    """Two disks called d1.img and d2.img are two disks; --split-set and import split take them."""
    pieces(tmp_path, *names.split())
    assert [is_set] * len(names.split()) == [sniff(tmp_path / name) for name in names.split()]


def test_two_numbers_in_a_name_are_not_mixed_up(tmp_path: Path) -> None:
    """A gap in the likelier reading is a gap, though another reading would be whole."""
    pieces(tmp_path, "d1.001", "d1.003", "d2.001")
    with pytest.raises(FormatError, match=r"d1\.001 is followed by d1\.003"):
        find_set(tmp_path / "d1.001")
    pieces(tmp_path, "backup2_aa", "backup2_ab", "backup4_aa")
    assert ["backup2_aa", "backup2_ab"] == [path.name for path in find_set(tmp_path / "backup2_ab")]


@pytest.mark.parametrize("names", ["disk-a disk-b", "d.002 d.003", "d.001 d.003", "disk.002.dmgpart", "disk"])
def test_a_refusal_names_what_joins_any_pieces(tmp_path: Path, names: str) -> None:
    """`stitch --concat` takes pieces by any names."""
    pieces(tmp_path, *names.split())
    result = regionfs("import", "split", tmp_path / names.split()[-1], "-o", tmp_path / "m.yaml")
    assert (1, True) == (result.exit_code, "stitch OUT --file PATH --concat PIECE..." in result.stderr)


def test_the_last_of_a_stated_number_must_be_there(tmp_path: Path) -> None:
    """The names say how many there are."""
    pieces(tmp_path, "m-1-of-3.bin", "m-2-of-3.bin")
    with pytest.raises(FormatError, match=r"m-2-of-3\.bin is the last piece there is of 3"):
        find_set(tmp_path / "m-1-of-3.bin")


def test_volumes_that_are_containers_each_are_refused(tmp_path: Path) -> None:
    """EWF segments count like a set, but their bytes are not the image's; one container cut in pieces is a set."""
    for number in (1, 2):
        (tmp_path / f"d.E0{number}").write_bytes(b"EVF\x09\x0d\x0a\xff\0" + bytes(1000))
        (tmp_path / f"d.gz.00{number}").write_bytes((b"\x1f\x8b\x08" if number == 1 else b"xyz") + bytes(1000))
    result = regionfs("import", "split", tmp_path / "d.E01", "-o", tmp_path / "m.yaml")
    assert (3, True) == (result.exit_code, "d.E02 is an EWF (EnCase) image" in result.stderr)
    assert 0 == regionfs("import", "split", tmp_path / "d.gz.001", "-o", tmp_path / "m.yaml").exit_code


@pytest.mark.parametrize(("names", "why"), [
    (("d.001", "d.003"), "d.001 is followed by d.003"),
    (("d.002", "d.003"), "d.002 is the first piece there is"),
    (("d.aa", "d.ac"), "d.aa is followed by d.ac"),
    (("d.1", "d.01"), "d.1 is followed by d.01"),
    (("d.ab", "d.ac"), "none before it counts as the first"),
    (("d.001.bak", "d"), "is not named as a piece"),
])
def test_gaps_and_doubt_are_refused(tmp_path: Path, names: tuple[str, ...], why: str) -> None:
    """A set that is not whole is never joined."""
    pieces(tmp_path, *names)
    with pytest.raises(FormatError) as caught:
        find_set(tmp_path / names[-1])
    assert why in str(caught.value)


def test_unequal_pieces_are_warned_about(tmp_path: Path) -> None:
    """A short piece in the middle is joined, with a warning that names it."""
    for number, size in enumerate((10, 9, 10), 1):
        put(tmp_path / f"d.00{number}", size)
    result = regionfs("import", "split", tmp_path / "d.001", "-o", tmp_path / "m.yaml", "--quiet")
    assert (0, True) == (result.exit_code, result.stderr.startswith("warning: d.002 has 9 bytes, d.001 10"))


def test_an_empty_piece_is_refused(tmp_path: Path) -> None:
    """A piece without bytes is a fault, not nothing."""
    pieces(tmp_path, "d.001", "d.002")
    (tmp_path / "d.002").write_bytes(b"")
    result = regionfs("import", "split", tmp_path / "d.001", "-o", tmp_path / "m.yaml")
    assert (1, True) == (result.exit_code, "d.002: a piece of 0 bytes" in result.stderr)
