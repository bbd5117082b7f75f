"""The front door: commands that load, streams and exit statuses that scripts rely on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from regionfs import __version__
from regionfs.cli.main import COMMANDS, cli
from tests.cli.conftest import Cli, Command
from tests.harness import REGIONFS


@pytest.mark.parametrize("name", COMMANDS)
def test_every_row_of_the_table_is_a_command_with_an_example(name: str, run: Cli) -> None:
    """Its help page ends in a line that can be typed."""
    result = run(name, "--help")
    assert 0 == result.exit_code, result.output
    assert re.search(rf"^ +.*\bregionfs {name}\b", result.stdout.partition("Example")[2], re.MULTILINE)


def test_help_imports_no_command() -> None:
    """Start-up pays for the command that runs, and for no other."""
    code = ("import sys; from regionfs.cli.main import cli\n"
            "cli.main(['--help'], standalone_mode=False)\n"
            "print([name for name in sys.modules if name.startswith(('regionfs.cli.', 'rich', 'yaml'))],"
            " file=sys.stderr)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "['regionfs.cli.names', 'regionfs.cli.main']\n" == done.stderr


@pytest.mark.parametrize(("words", "usage"), [
    ("help", "regionfs [OPTIONS] COMMAND"), ("help show", "regionfs show [OPTIONS]"),
    ("help map add", "regionfs map add [OPTIONS]"), ("map help", "regionfs map [OPTIONS]"),
    ("map help split", "regionfs map split [OPTIONS]"),
])
def test_help_is_a_word_too(run: Cli, words: str, usage: str) -> None:
    """As people type it."""
    result = run(*words.split())
    assert (0, True) == (result.exit_code, result.stdout.startswith(f"Usage: {usage}"))


@pytest.mark.parametrize(("words", "message"), [
    ("shwo", "there is no command 'shwo'; did you mean 'show'?"),
    ("unmount", "there is no command 'unmount'; did you mean 'umount'?"),
    ("map spilt", "there is no command 'spilt'; did you mean 'split'?"),
    ("stitch o.yaml --disk a --disk b --part x", "--disk is given twice; it takes one value"),
    ("flatten m f o --errors zero --errors refuse", "--errors is given twice; it takes one value"),
    ("import auto x -o a --output b", "-o/--output is given twice; it takes one value"),
])
def test_words_that_mean_nothing(run: Cli, words: str, message: str) -> None:
    """Near names are offered; the first of two values is not lost without a word."""
    result = run(*words.split())
    assert (2, f"Error: {message}") == (result.exit_code, result.stderr.splitlines()[-1])


def test_help_lists_every_command(run: Cli) -> None:
    """In the table's order, with the table's line."""
    listed = re.findall(r"^  ([a-z]+)  ", run("--help").stdout.partition("Commands:")[2], re.MULTILINE)
    assert list(COMMANDS) == listed


def test_version(command: Command) -> None:
    """On stdout, alone."""
    done = command("--version")
    assert (0, f"regionfs {__version__}\n", "") == (done.returncode, done.stdout, done.stderr)


def test_unknown_command_names_the_nearest(run: Cli) -> None:
    """Wrong usage is exit status 2."""
    result = run("chekc")
    assert 2 == result.exit_code
    assert "there is no command 'chekc'; did you mean 'check'?" in result.stderr


def test_unknown_option_before_the_command(run: Cli) -> None:
    """It is not taken for a command's name."""
    result = run("--frobnicate", "check")
    assert 2 == result.exit_code
    assert "--frobnicate" in result.stderr


def test_invalid_manifest_prints_its_problems_and_nothing_else(command: Command, tmp_path: Path) -> None:
    """Exit status 3; every line has file, line, column, path and message."""
    manifest = tmp_path / "bad.yaml"
    manifest.write_text("regionfs: 1\nfiles:\n  a: {whole: nowhere}\n  b: {whole: neither}\n")
    done = command("show", manifest)
    assert (3, "") == (done.returncode, done.stdout)
    places = [re.match(rf"{re.escape(str(manifest))}:(\d+):\d+: files\.([ab])\.whole: ", line)
              for line in done.stderr.splitlines()]
    assert [("3", "a"), ("4", "b")] == [place.groups() for place in places if place is not None]
    assert 2 == len(places)


def test_failure_is_one_line_without_traceback(command: Command, disk: Path) -> None:
    """A file that the manifest does not have is wrong usage, with a hint."""
    done = command("plan", disk, "vm/disk.im", "0", "1")
    assert (2, "") == (done.returncode, done.stdout)
    assert f"regionfs: {disk} has no file 'vm/disk.im'; did you mean 'vm/disk.img'?\n" == done.stderr


def test_a_full_disk_is_reported_once(disk: Path) -> None:
    """Exit status 1 and one line, also when stdout fails again at exit."""
    with open("/dev/full", "wb") as full:
        done = subprocess.run([REGIONFS, "show", str(disk)], stdout=full, stderr=subprocess.PIPE, text=True,
                              check=False, timeout=30)
    assert (1, "regionfs: No space left on device\n") == (done.returncode, done.stderr)


@pytest.mark.parametrize("arguments", [("cat", "data.bin"), ("show",)])
def test_a_reader_that_leaves_ends_the_command_quietly(disk: Path, arguments: tuple[str, ...]) -> None:
    """As in `regionfs cat ... | head -c 1`."""
    name, *rest = arguments
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run([REGIONFS, name, str(disk), *rest], stdout=write_end, stderr=subprocess.PIPE,
                              check=False, timeout=30)
    finally:
        os.close(write_end)
    assert (1, b"") == (done.returncode, done.stderr)


def test_interrupt_is_130(tmp_path: Path) -> None:
    """SIGINT in the middle of a long output ends it without a traceback."""
    with (tmp_path / "huge").open("wb") as huge:
        huge.truncate(1 << 40)
    manifest = tmp_path / "huge.yaml"
    manifest.write_text("regionfs: 1\nfiles:\n  huge: {whole: huge}\n")
    with subprocess.Popen([REGIONFS, "cat", str(manifest), "huge"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)  # it is at work now
        process.send_signal(signal.SIGINT)
        messages = process.stderr.read()
        assert 130 == process.wait(30)
    assert b"" == messages


def test_the_group_is_named_regionfs() -> None:
    """Usage lines of a console script and of `python -c` read the same."""
    assert "Usage: regionfs " in cli.get_usage(click.Context(cli, info_name="regionfs"))
