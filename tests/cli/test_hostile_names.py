"""Names and texts that a terminal would obey, through every command, the log and the metrics."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from regionfs.printable import printable
from tests.cli.conftest import Cli
from tests.harness import REGIONFS, Mount

HOSTILE = ("a\x1b]0;owned\x07.img", "b\nregionfs[1] ERROR: FAKE.img", "c\x9b2J\x7f", "d\u202egnp.exe", "e\r\u2028f",
           "g\th")


def raw(output: bytes) -> list[bytes]:
    """What a terminal would obey, or takes for a line of ours."""
    text = output.decode()
    return [line.encode() for line in text.split("\n") if line != printable(line) or line.startswith("regionfs[1]")]


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A manifest whose files, sources and inline data have names and texts that a terminal obeys."""
    for name in HOSTILE:
        (tmp_path / f"s{name}").write_bytes(b"x" * 4096)
    files = {name: {"regions": [{"source": f"s{name}"}, {"data": {"text": name}}]} for name in HOSTILE}
    manifest = tmp_path / "m\x1b[31m.yaml"
    manifest.write_text(json.dumps({"regionfs": 1, "files": files}))
    return manifest


COMMANDS = (
    ["check", "{m}"], ["show", "{m}"], ["show", "{m}", "{f}"], ["show", "{m}", "--all"], ["show", "{m}", "no\x1b[2J"],
    ["show", "{m}", "--json"], ["plan", "{m}", "{f}", "0", "9999"], ["plan", "{m}", "{f}", "0", "9", "--write"],
    ["flatten", "{m}", "{f}", "out\x1b[2J"], ["flatten", "{m}", "{f}", "out\x1b[2J"], ["cat", "{m}", "no\x1b[2J"],
    ["export", "dmsetup", "{m}", "{f}", "-o", "t\x1b"], ["map", "split", "{m}", "{f}", "1KiB"],
    ["map", "set", "{m}", "{f}", "0", "source=no\x1b[2J"], ["map", "rm", "{m}", "{f}", "\x1b[2J"],
    ["map", "add", "{m}", "{f}", "k\x1b=1"], ["map", "insert", "--dry-run", "{m}", "{f}", "0", "length=512"],
    ["stitch", "o\x1b.yaml", "--file", "f\x1b", "--concat", "s{f}"], ["stitch", "o\x1b.yaml", "--disk", "d"],
    ["import", "auto", "s{f}", "-o", "i.yaml"], ["import", "split", "s{f}", "-o", "i.yaml"], ["stat\x1b[2Jus"],
    ["mount", "{m}", "no\x1b[2J"], ["status", "no\x1b[2J"], ["umount", "no\x1b[2J"], ["check", "--\x1b[2J"],
    ["check", "no\x1b[2J"], ["reload", "no\x1b[2J"],
)


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words).encode("unicode_escape").decode())
def test_commands(run: Cli, hostile: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    """Whatever a command writes about such names is text, also what it complains about."""
    monkeypatch.chdir(hostile.parent)
    for name in HOSTILE:
        said = [word.replace("{m}", hostile.name).replace("{f}", name) for word in words]
        done = run(*said)
        assert ([], []) == (raw(done.stdout_bytes), raw(done.stderr_bytes)), done.output
        assert done.exception is None or isinstance(done.exception, SystemExit)


def test_check_of_missing_sources(hostile: Path) -> None:
    """A problem is one line."""
    for name in HOSTILE:
        (hostile.parent / f"s{name}").unlink()
    done = subprocess.run([REGIONFS, "check", hostile.name], cwd=hostile.parent, capture_output=True, check=False)
    assert (3, len(HOSTILE), []) == (done.returncode, len(done.stderr.splitlines()), raw(done.stderr))


def test_names_that_no_terminal_can_write(hostile: Path) -> None:
    """A locale without their letters is no error."""
    done = subprocess.run([REGIONFS, "check", "--", "\u65e5\u672c.yaml"], cwd=hostile.parent, capture_output=True,
                          check=False, env={"PYTHONIOENCODING": "latin-1", "PATH": "/usr/bin:/bin"})
    assert (3, True) == (done.returncode, rb"\u65e5\u672c.yaml" in done.stderr)


@pytest.mark.mounted
def test_the_log_and_status_of_a_mount(tmp_path: Path) -> None:
    """Sources that go away are named in lines of the log that nobody can forge; status and metrics likewise."""
    from regionfs.daemon import runtime
    for name in HOSTILE:
        (tmp_path / f"s{name}").write_bytes(b"x" * 4096)
    files = {name: {"regions": [{"source": f"s{name}"}]} for name in HOSTILE}
    with Mount(tmp_path, files, options=["--modes", "userspace"]) as mount:
        for name in HOSTILE:
            (tmp_path / f"s{name}").unlink()
            assert 0 != subprocess.run(["cat", mount.path / name], capture_output=True, check=False).returncode
        for words in ([], ["--prometheus"]):
            done = subprocess.run([REGIONFS, "status", mount.path, *words], capture_output=True, check=False)
            assert [] == raw(done.stdout + done.stderr)
        log = runtime.log_of(mount.path).read_bytes()
    assert [] == raw(log)
    assert len(HOSTILE) == log.count(b"ERROR: ") - log.count(b"ERROR: FAKE")
