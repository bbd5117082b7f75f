"""ddrescue mapfiles: what was not rescued can never be read as if it were."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from regionfs.formats.values import FormatError
from regionfs.manifest.load import load
from regionfs.regions import Kind
from tests.formats.tools import faults, imported, nearly, put, regionfs, resolved, run

HEAD = """# Mapfile. Created by GNU ddrescue version 1.27
# Command line: ddrescue /dev/sdb rescue.img rescue.map
# current_pos  current_status  current_pass
0x00001000     +               1
#      pos        size  status
"""
MAP = HEAD + "0x00000000  0x00001000  +\n0x00001000  0x00000200  -\n0x00001200  512  ?\t#  4608 B\n" \
    "0x1400  0x00000C00  +\n"


def test_bad_areas_fail_and_good_ones_are_the_image(tmp_path: Path) -> None:
    """Good areas show the image at the same place; all others are error regions, told with their size."""
    put(tmp_path / "r.img", 8192)
    (tmp_path / "r.map").write_text(MAP)
    result = regionfs("import", "auto", tmp_path / "r.map", "-o", tmp_path / "m.yaml", "--source", tmp_path / "r.img",
                      "--quiet")
    assert (0, "1 KiB in 2 areas were not rescued; reading them fails with EIO\n") == \
        (result.exit_code, result.stderr)
    image = tmp_path / "r.img"
    assert [(0, 0x1000, Kind.SOURCE, image, 0, False), (0x1000, 0x1400, Kind.ERROR, False),
            (0x1400, 0x2000, Kind.SOURCE, image, 0x1400, False)] == resolved(load(tmp_path / "m.yaml"), "r.img")


def test_an_image_shorter_than_its_good_areas_is_invalid(tmp_path: Path) -> None:
    """The manifest is checked before it is written: exit status 3, and no file."""
    put(tmp_path / "r.img", 8191)
    (tmp_path / "r.map").write_text(MAP)
    result = regionfs("import", "ddrescue", tmp_path / "r.map", "-o", tmp_path / "m.yaml",
                      "--source", tmp_path / "r.img")
    assert (3, False) == (result.exit_code, (tmp_path / "m.yaml").exists())
    assert f"regionfs: {tmp_path}/r.map:9: reaches to byte 8192 of {tmp_path}/r.img, which has 8191\n" == result.stderr


def test_the_image_must_be_named(tmp_path: Path) -> None:
    """A mapfile does not say which image it is about."""
    with pytest.raises(FormatError, match="name it with --source"):
        imported("ddrescue", MAP, tmp_path)


@pytest.mark.parametrize("options", [
    ("-o", "1MiB"), ("-fo1MiB",), ("--output-position=1MiB",), ("-i", "64KiB", "-o", "0"), ("-i64Ki", "-s", "1MiB"),
    ("-b", "1024", "-o", "4s"), ("-o", "0x100000", "-i", "0x8000"),
])
def test_output_positions_are_followed(tmp_path: Path, options: tuple[str, ...]) -> None:
    """Where ddrescue put the bytes is known from its command line; what is shown is the disk, or EIO."""
    data = put(tmp_path / "disk", 2 << 20)
    run("ddrescue", "-q", *options, tmp_path / "disk", tmp_path / "img", tmp_path / "map")
    result = regionfs("import", "auto", tmp_path / "map", "-o", tmp_path / "m.yaml", "--source", tmp_path / "img")
    assert 0 == result.exit_code, result.output
    tiles = resolved(load(tmp_path / "m.yaml"), "map.img")
    image = (tmp_path / "img").read_bytes()
    good = [(start, end, rest[1]) for start, end, kind, *rest in tiles if kind is Kind.SOURCE]
    assert good
    assert [data[start:end] for start, end, _ in good] == [image[at:at + end - start] for start, end, at in good]
    assert (options[0] == "-i64Ki") != ("output position (-o)" in result.stderr)


@pytest.mark.parametrize(("line", "why"), [
    ("ddrescue -o 1x a b", "in.map:2: the output position '1x' cannot be read"),
    ("hddsuperclone --outputoffset 512 a b", "another program's output position"),
    ("ddrescue --input-position=08 -o 0 a b", "the input position '08' cannot be read"),
    ("ddrescue -i 1MiB -o 0 a b", "in.map:6: position 0x0 would be byte -1048576 of the image"),
])
def test_positions_that_cannot_be_are_refused(tmp_path: Path, line: str, why: str) -> None:
    """Never guessed: other bytes would be shown."""
    with pytest.raises(FormatError) as caught:
        imported("ddrescue", MAP.replace("ddrescue /dev/sdb rescue.img rescue.map", line), tmp_path,
                 source=tmp_path / "r.img")
    assert why in str(caught.value)


def test_a_larger_image_is_told(tmp_path: Path) -> None:
    """It may be another one."""
    put(tmp_path / "r.img", 8193)
    (tmp_path / "r.map").write_text(MAP)
    result = regionfs("import", "auto", tmp_path / "r.map", "-o", tmp_path / "m.yaml", "--source", tmp_path / "r.img")
    assert (0, True) == (result.exit_code, "has 8193 bytes; the map speaks of the first 8192" in result.stderr)


@pytest.mark.parametrize(("text", "why"), [
    ("", "is not the status line"),
    ("# only a comment", "is not the status line"),
    (HEAD, "no blocks"),
    (HEAD + "0 1 +\n2 1 +", "begins at 0x2, not at 0x1"),
    (HEAD + "0 0 +", "size 0x0"),
    (HEAD + "0 1 !", "is not POSITION SIZE"),
    (HEAD + "0 1", "is not POSITION SIZE"),
    (HEAD + "0x8000000000000000 1 +", "the position"),
    (HEAD + "1 0x7fffffffffffffff +", "size 0x7fffffffffffffff at 0x1"),
    (HEAD + "010 1 +", "octal or decimal"),
    (HEAD + "x 1 +", "the position 'x'"),
])
def test_bad_mapfiles_say_why(tmp_path: Path, text: str, why: str) -> None:
    """Every fault is a FormatError."""
    with pytest.raises(FormatError) as caught:
        imported("ddrescue", text, tmp_path, source=tmp_path / "r.img")
    assert why in str(caught.value)


WORDS = ("0x0", "0x10", "16", "0", "99999999999999999999", "0xffffffffffffffffff", " ", "+", "-", "?", "*", "/", "\n",
         "#", "\0", "é")


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(WORDS), max_size=25).map(lambda words: HEAD + "".join(words)) | nearly(MAP, WORDS))
@example(MAP)
def test_anything_is_a_map_or_a_format_error(text: str) -> None:
    """Arbitrary text is read as a whole map or refused with its place; it ends in no other exception."""
    assert [] == faults(lambda: imported("ddrescue", text, Path("/d"), source=Path("/d/r.img")), valid=text == MAP)
