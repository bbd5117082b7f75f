"""`regionfs cat`: bytes without a mount."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import MIB, Cli


def test_whole_file(run: Cli, disk: Path) -> None:
    """The source's bytes, all of them."""
    result = run("cat", disk, "data.bin")
    assert (0, (disk.parent / "esp.img").read_bytes()) == (result.exit_code, result.stdout_bytes)


def test_range_across_regions(run: Cli, disk: Path) -> None:
    """The end of one source and the beginning of the next, by units."""
    result = run("cat", disk, "vm/disk.img", "--offset", 2 * MIB - 3, "--length", "6")
    assert b"\xfd\xfe\xffRRR" == result.stdout_bytes


def test_more_than_one_step(run: Cli, disk: Path) -> None:
    """A range of several MiB, with a hole in it, is complete."""
    result = run("cat", disk, "vm/disk.img", "--length", "22MiB")
    esp = (disk.parent / "esp.img").read_bytes()
    assert b"boot".ljust(MIB, b"\0") + esp + b"R" * 4 * MIB + bytes(16 * MIB) == result.stdout_bytes


def test_error_region_after_the_good_bytes(run: Cli, disk: Path) -> None:
    """What can be read is written; the message names the place."""
    result = run("cat", disk, "vm/disk.img", "--offset", 22 * MIB - 10)
    assert (1, bytes(10)) == (result.exit_code, result.stdout_bytes)
    assert result.stderr.startswith(f"regionfs: vm/disk.img: cannot read at byte {22 * MIB}: ")


def test_past_the_end_is_nothing(run: Cli, disk: Path) -> None:
    """As with dd and tail, no error."""
    result = run("cat", disk, "data.bin", "--offset", "1TiB")
    assert (0, b"") == (result.exit_code, result.stdout_bytes)
