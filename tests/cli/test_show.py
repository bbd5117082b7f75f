"""`regionfs show`: table, picture, mode and reason; JSON for programs."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from pathlib import Path

from tests.cli.conftest import MIB, Cli
from tests.harness import REGIONFS

PLAIN = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}


def on_a_terminal(*arguments: object, **env: str) -> str:
    """What the command writes to a terminal of 80 columns."""
    main, side = pty.openpty()
    with subprocess.Popen([REGIONFS, *map(str, arguments)], stdin=subprocess.DEVNULL, stdout=side,
                          env={**PLAIN, "TERM": "xterm-256color", "COLUMNS": "80", **env}) as process:
        os.close(side)
        output = b""
        try:
            while piece := os.read(main, 65536):
                output += piece
        except OSError:  # EIO: the command has closed the terminal
            pass
        os.close(main)
        assert 0 == process.wait(30)
    return output.decode().replace("\r\n", "\n")


def test_every_region_has_a_row(run: Cli, disk: Path) -> None:
    """Numbered from 0, as in a mode's reason and as regions[0] in messages."""
    result = run("show", disk, "vm/disk.img")
    lines = [line.split() for line in result.stdout.splitlines()]
    table = lines[lines.index(["#", "start", "length", "kind", "access", "source", "offset"]) + 1:]
    assert [["0", "0", "4", "data", "ro", "-", "-"],
            ["1", "1MiB", "1MiB", "source", "ro", "esp.img", "0"],
            ["2", "2MiB", "4MiB", "source", "rw", "root", "0"],
            ["3", "6MiB", "16MiB", "hole", "ro", "-", "-"],
            ["4", "22MiB", "4KiB", "error", "ro", "-", "-"]] == table


def test_mode_and_reason_stand_above_the_map(run: Cli, disk: Path) -> None:
    """The same sentence as in the JSON."""
    shown = json.loads(run("show", "--json", disk).stdout)["files"]["vm/disk.img"]
    lines = run("show", disk, "vm/disk.img").stdout.splitlines()
    assert "userspace" == shown["mode"]
    assert f"{shown['mode']}: {shown['reason']}" == lines[1]


def test_json(run: Cli, disk: Path) -> None:
    """docs/contract.md section 8; a `whole` file is one region of its source."""
    files = json.loads(run("show", "--json", disk).stdout)["files"]
    assert ["vm/disk.img", "data.bin"] == list(files)
    assert {"size", "mode", "reason", "regions"} == files["data.bin"].keys()
    assert [{"start": 0, "length": MIB, "kind": "source", "access": "rw", "source": "esp.img", "offset": 0}
            ] == files["data.bin"]["regions"]
    assert (64 * MIB, [None, "esp.img", "root", None, None]) == (
        files["vm/disk.img"]["size"], [region["source"] for region in files["vm/disk.img"]["regions"]])


def test_without_a_terminal_it_is_plain_text_of_80_columns(run: Cli, disk: Path) -> None:
    """No escape sequence; the bars take the width and no more."""
    result = run("show", disk)
    assert "\x1b" not in result.stdout
    assert [80, 80] == [len(line) for line in result.stdout.splitlines() if line.endswith("|")]


def test_colours_on_a_terminal(disk: Path) -> None:
    """The text without them is the same."""
    coloured = on_a_terminal("show", disk, "vm/disk.img")
    assert "\x1b[" in coloured
    assert "41m" in coloured  # the error region's red ground


def test_no_color(disk: Path) -> None:
    """With NO_COLOR nothing sets a colour, and letters and signs still tell the kinds apart."""
    output = on_a_terminal("show", disk, "vm/disk.img", NO_COLOR="1")
    bar = next(line for line in output.splitlines() if "|" in line)
    for colour in range(30, 50):
        assert f"[{colour}m" not in output
        assert f";{colour}" not in output
    assert set("#aB.!") <= set(bar)


def test_a_big_map_is_shortened(run: Cli, many: Path) -> None:
    """It says how many regions are left out, and --all brings them."""
    lines = run("show", many).stdout.splitlines()
    assert "... 99920 regions left out; --all shows them" in lines
    assert len(lines) < 120
    assert any("shows what fills most of it" in line for line in lines)
    rows = run("show", many, "--all").stdout.splitlines()[-100_000:]
    assert (["0", "0"], ["99999", "51199488"]) == (rows[0].split()[:2], rows[-1].split()[:2])


def test_many_files_are_listed_in_short(run: Cli, tmp_path: Path) -> None:
    """A line each, until one is named."""
    (tmp_path / "s").write_bytes(bytes(512))
    manifest = tmp_path / "files.yaml"
    manifest.write_text("regionfs: 1\nfiles:\n" + "".join(f"  f{number}: {{whole: s}}\n" for number in range(50)))
    lines = run("show", manifest).stdout.splitlines()
    assert (52, ["f0", "512", "1"]) == (len(lines), lines[1].split()[:3])
    assert "50 files; name one to see its regions, or say --all" == lines[-1]
