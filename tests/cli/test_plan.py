"""`regionfs plan`: the planner's answer, at a terminal and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import MIB, Cli


def test_table_has_a_row_per_mapping(run: Cli, disk: Path) -> None:
    """Inline bytes, the gap and the source after it."""
    result = run("plan", disk, "vm/disk.img", "0", "1.5MiB")
    assert [["offset", "length", "kind", "access", "address", "source"],
            ["0", "4", "data", "ro", "0", "-"],
            ["4", str(MIB - 4), "hole", "ro", "-", "-"],
            [str(MIB), str(MIB // 2), "source", "ro", "0", "esp.img"],
            ] == [line.split() for line in result.stdout.splitlines()]


def test_json_tiles_the_request(run: Cli, disk: Path) -> None:
    """Units are accepted; the error region is one of the mappings."""
    result = run("plan", "--json", disk, "vm/disk.img", "0x1600000", "8s")
    assert [{"offset": 22 * MIB, "length": 4096, "kind": "error", "access": "ro", "address": None,
             "source": None}] == json.loads(result.stdout)["mappings"]


def test_read_past_the_end_is_short_and_says_so(run: Cli, disk: Path) -> None:
    """The message goes to stderr, the mappings to stdout."""
    result = run("plan", disk, "data.bin", "1MiB", "1")
    assert (0, 1) == (result.exit_code, len(result.stdout.splitlines()))
    assert "regionfs: data.bin ends at 1048576: the read is short, 0 of 1 bytes\n" == result.stderr


@pytest.mark.parametrize("offset, length, planned, message", [
    ("5MiB", "4KiB", 4096, ""),
    ("5MiB", "8MiB", MIB, "rw ground ends at 6291456: the write is short, 1048576 of 8388608 bytes"),
    ("0", "1", 0, "byte 0 is in no rw region: the write fails with EROFS"),
])
def test_write(run: Cli, disk: Path, offset: str, length: str, planned: int, message: str) -> None:
    """Only rw ground from the offset on."""
    result = run("plan", "--write", disk, "vm/disk.img", offset, length)
    sizes = [int(line.split()[1]) for line in result.stdout.splitlines()[1:]]
    assert (0, planned) == (result.exit_code, sum(sizes))
    assert (f"regionfs: vm/disk.img: {message}\n" if message else "") == result.stderr


def test_bad_number_is_wrong_usage(run: Cli, disk: Path) -> None:
    """With the units' own hint."""
    result = run("plan", disk, "data.bin", "1mib", "1")
    assert 2 == result.exit_code
    assert "did you mean MiB?" in result.stderr
