"""Split sets, against split(1)."""

from __future__ import annotations

from pathlib import Path

import pytest

from regionfs.formats.split import find_set
from regionfs.formats.values import FormatError
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
