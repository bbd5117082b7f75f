"""Shell completion: commands, files inside manifests, and silence whatever is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import Cli, Command


def complete(command: Command, *words: object) -> list[str]:
    """What the Tab key offers in bash after these words; fails when anything is printed to stderr."""
    line = " ".join(map(str, ("regionfs", *words)))
    done = command(env={"_REGIONFS_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words))})
    assert "" == done.stderr
    return [offer.partition(",")[2] for offer in done.stdout.split()]


def test_commands(command: Command) -> None:
    """By their beginning."""
    assert ["cat"] == complete(command, "ca")


def test_files_of_the_manifest_before(command: Command, disk: Path) -> None:
    """Only those that begin as typed."""
    assert ["vm/disk.img"] == complete(command, "cat", disk, "v")


def test_options(command: Command) -> None:
    """Of the command on the line."""
    assert "--write" in complete(command, "plan", "--w")


@pytest.mark.parametrize("text", ["", "- [", "\0", "regionfs: 1\nfiles: {a: {whole: nowhere}}\n"])
def test_a_bad_manifest_offers_nothing(command: Command, tmp_path: Path, text: str) -> None:
    """And prints nothing."""
    manifest = tmp_path / "bad.yaml"
    manifest.write_text(text)
    assert [] == complete(command, "show", manifest, "a")


def test_a_missing_manifest_offers_nothing(command: Command, tmp_path: Path) -> None:
    """And prints nothing."""
    assert [] == complete(command, "show", tmp_path / "missing", "a")


@pytest.mark.parametrize("shell, sign", [("bash", "complete "), ("zsh", "compdef "), ("fish", "complete ")])
def test_script(run: Cli, shell: str, sign: str) -> None:
    """A script for the shell, on stdout."""
    result = run("completion", shell)
    assert 0 == result.exit_code
    assert sign in result.stdout
    assert "_REGIONFS_COMPLETE" in result.stdout
