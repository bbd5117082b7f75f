"""Shell completion: commands, files inside manifests, and silence whatever is wrong."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, Command
from tests.harness import REGIONFS, wait_readable

INTERACTIVE = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], 'eval "$(regionfs completion bash)"'),
    "zsh": (["zsh", "-f", "-i"], 'autoload -U compinit; compinit -D; eval "$(regionfs completion zsh)"'),
    "fish": (["fish", "--no-config", "-i"], "regionfs completion fish | source"),
}


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


class Shell:
    """An interactive shell on a terminal."""

    def __init__(self, terminal: int) -> None:
        self._terminal = terminal
        self.seen = ""

    def type(self, keys: str) -> None:
        """Type, and forget what was seen before."""
        self.seen = ""
        os.write(self._terminal, keys.encode())

    def wait_for(self, text: str) -> None:
        """Read until the screen shows `text`."""
        while text not in self.seen:
            assert wait_readable(self._terminal, 20), f"no {text!r} in {self.seen!r}"
            self.seen += os.read(self._terminal, 65536).decode(errors="replace")


@contextmanager
def interactive(shell: str, directory: Path) -> Iterator[Shell]:
    """`shell` with completion set up, in `directory`; skips where it is not installed."""
    command, setup = INTERACTIVE[shell]
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell}")
    main, side = pty.openpty()
    environment = {"PATH": f"{Path(REGIONFS).parent}:{os.environ['PATH']}", "HOME": str(directory), "TERM": "vt100",
                   "LC_ALL": "C.UTF-8", "PS1": "$ "}
    with subprocess.Popen(["setsid", "--ctty", *command], stdin=side, stdout=side, stderr=side, cwd=directory,
                          env=environment) as process:
        os.close(side)
        try:
            seen = Shell(main)
            seen.type(f"{setup}; echo set''up\n")
            seen.wait_for("setup")
            yield seen
        finally:
            process.kill()
            os.close(main)


@pytest.mark.parametrize("shell", INTERACTIVE)
def test_the_tab_key_in_a_real_shell(disk: Path, shell: str) -> None:
    """A command, a manifest, a file in it, one after the other; then the command does what the line says."""
    with interactive(shell, disk.parent) as seen:
        seen.type("regionfs fla\t")
        seen.wait_for("ten")
        seen.type("disk\t")
        seen.wait_for(".yaml")
        seen.type("v\t")
        seen.wait_for("m/disk.img")
        seen.type("out.raw --errors zero; echo do''ne\n")
        seen.wait_for("done")
    assert (disk.parent / "out.raw").exists()


@pytest.mark.parametrize("shell", INTERACTIVE)
def test_names_that_a_shell_would_take_apart(tmp_path: Path, shell: str) -> None:
    """Spaces, commas, quotes and stars arrive as one word."""
    (tmp_path / "source").write_bytes(b"x" * 777)
    (tmp_path / "odd.yaml").write_text("""regionfs: 1\nfiles: {"my disk, 'old' *.img": {whole: source}}\n""")
    with interactive(shell, tmp_path) as seen:
        seen.type("regionfs cat odd.yaml m\t")
        seen.wait_for(".img")
        seen.type("| wc -c; echo do''ne\n")
        seen.wait_for("done")
        assert "777" in seen.seen
