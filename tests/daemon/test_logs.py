"""What a daemon logs, where, and what it never logs."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from regionfs.daemon import runtime
from tests.harness import Mount

EMIT = """
import logging
from regionfs.daemon import logs
logs.begin(LEVEL, logs.TTY_FORMAT)
for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
    logging.getLogger("regionfs").log(level, "level %d\\nand \\x1b more", level)
"""
RAISE = """
import logging
from regionfs.daemon import logs
logs.begin("info", logs.FILE_FORMAT)
try:
    raise ValueError("\\x1b[2J\\nregionfs[1] ERROR: forged")
except ValueError:
    logging.getLogger("regionfs").exception("failed")
"""


def emitted(script: str, journal: bool, tmp_path: Path) -> list[str]:
    """The lines that a process logs to a file, which may pass for the journal."""
    with (tmp_path / "log").open("w+") as log:
        found = os.fstat(log.fileno())
        stream = f"{found.st_dev}:{found.st_ino}" if journal else "1:1"
        subprocess.run([sys.executable, "-c", script], stderr=log, check=True,
                       env={**os.environ, "JOURNAL_STREAM": stream})
        log.seek(0)
        return log.read().splitlines()


@pytest.mark.parametrize(("level", "count"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_levels(level: str, count: int, tmp_path: Path) -> None:
    """Lines from the level on, each a message that only shows."""
    expected = [f"regionfs: level {number}\\nand \\x1b more" for number in (10, 20, 30, 40)[-count:]]
    assert expected == emitted(EMIT.replace("LEVEL", repr(level)), False, tmp_path)


def test_the_journal_gets_priorities(tmp_path: Path) -> None:
    """Each line begins with its own, sd-daemon(3)."""
    expected = [f"<{prefix}>level {number}\\nand \\x1b more" for prefix, number in ((6, 20), (4, 30), (3, 40))]
    assert expected == emitted(EMIT.replace("LEVEL", "'info'"), True, tmp_path)


@pytest.mark.parametrize("journal", [False, True])
def test_no_exception_forges_a_line(journal: bool, tmp_path: Path) -> None:
    """Its text is shown as text, and none of its lines looks like a message."""
    first, *rest = emitted(RAISE, journal, tmp_path)
    assert (True, r"ValueError: \x1b[2J") == ("failed" in first, rest[-2].removeprefix("<3>").strip())
    assert all(line.startswith("<3>  " if journal else "  ") for line in rest)


@pytest.fixture(params=["info", "debug"])
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Mount]:
    """A mount whose manifest and source hold secrets."""
    (tmp_path / "a.img").write_bytes(b"s3cret" * 1000)
    files = {"x": {"regions": [{"data": {"text": "pa55word"}}, {"source": "a.img", "access": "rw"}]}}
    with Mount(tmp_path, files, options=["--log-level", request.param, "--modes", "userspace"]) as mount:
        yield mount


@pytest.mark.mounted
def test_no_secrets_no_line_per_read(mounted: Mount) -> None:
    """Reads, writes, a failed reload by signal and by command, a server killed: no content of manifest or source."""
    for _ in range(100):
        (mounted.path / "x").read_bytes()
    with (mounted.path / "x").open("r+b") as file:
        file.seek(10)
        file.write(b"t0ken")
    mounted.write_manifest('regionfs: 1\nfiles: {x: {size: "pa55word", regions: [{data: {pa55word: s3cret}}]}}')
    assert 3 == mounted.user.regionfs("reload", mounted.path).returncode
    log = runtime.log_of(mounted.path)
    os.kill(mounted.status()["holder_pid"], signal.SIGHUP)
    mounted.status()
    before = mounted.status()
    os.kill(before["pid"], signal.SIGKILL)
    (mounted.path / "x").read_bytes()
    assert before["pid"] != mounted.status()["pid"]
    text = log.read_text()
    debug = "debug" in mounted.options
    assert [] == re.findall("pa55word|s3cret|t0ken", text) or debug
    assert re.search(r"ERROR: .*: 2 problems, the first in line 2; see regionfs check", text), text
    assert 0o600 == log.stat().st_mode & 0o777
    assert len(text.splitlines()) < (100 if debug else 10), text


@pytest.mark.mounted
def test_a_server_that_cannot_start_names_no_contents(tmp_path: Path) -> None:
    """The caller is told everything, the log which manifest."""
    secret = Mount(tmp_path, 'regionfs: 1\nfiles: {x: {pa55word: 1}}')
    secret.path.mkdir()
    done = secret.user.regionfs("mount", secret.manifest, secret.path)
    assert (3, True) == (done.returncode, "pa55word" in done.stderr)
    log = runtime.log_of(secret.path)
    assert not log.exists() or "pa55word" not in log.read_text()


def test_levels_are_those_of_logging() -> None:
    """Every name is one."""
    from regionfs.daemon.logs import LEVELS
    assert [10, 20, 30, 40] == [logging.getLevelNamesMapping()[level.upper()] for level in LEVELS]


REPEAT = """
import logging, os
from regionfs.daemon import logs
logs.begin("info", logs.TTY_FORMAT)
for number in range(COUNT):
    logging.getLogger("regionfs").error("request %d", number)
"""


def test_what_is_said_again_and_again_is_counted(tmp_path: Path) -> None:
    """Of a thousand lines of one place the first."""
    with (tmp_path / "log").open("w+") as log:
        subprocess.run([sys.executable, "-c", REPEAT.replace("COUNT", "1000")], stderr=log, check=True)
    assert [f"regionfs: request {number}" for number in range(10)] == (tmp_path / "log").read_text().splitlines()


def test_how_often_it_was_said_is_told_later() -> None:
    """With the first line after the period."""
    from regionfs.daemon import logs
    seldom = logs.Seldom()

    def record() -> logging.LogRecord:
        return logging.LogRecord("regionfs", logging.ERROR, "a.py", 7, "it %s", ("fails",), None)

    assert [True] * logs.OFTEN + [False] * 5 == [seldom.filter(record()) for _ in range(logs.OFTEN + 5)]
    seldom._seen = {place: (begun - logs.PERIOD - 1, lines) for place, (begun, lines) in seldom._seen.items()}
    last = record()
    assert (True, "it fails (and 5 like it before)") == (seldom.filter(last), last.getMessage())


def test_a_log_file_is_bounded(tmp_path: Path) -> None:
    """Its older half goes, by whole lines."""
    from regionfs.daemon.logs import LARGEST
    path = tmp_path / "log"
    path.write_text("old\n" * (LARGEST // 4) + "new\n" * (LARGEST // 8) + "new\n")
    with path.open("a") as log:
        subprocess.run([sys.executable, "-c", REPEAT.replace("COUNT", "1")], stderr=log, check=True)
    text = path.read_text()
    assert ("new\nnew\n", "new\nregionfs: request 0\n") == (text[:8], text[-24:])
    assert LARGEST / 2 - 100 < len(text) < LARGEST / 2 + 100


@pytest.mark.parametrize("stalls", [False, True])
def test_a_log_that_takes_nothing_keeps_nobody_waiting(stalls: bool) -> None:
    """A full disk, a reader that does not read: the process goes on to its end, and succeeds."""
    reading, writing = os.pipe()
    if stalls:
        os.set_blocking(writing, False)
        with pytest.raises(BlockingIOError):
            while True:
                os.write(writing, b"x" * 4096)
        os.set_blocking(writing, True)
    log = writing if stalls else os.open("/dev/full", os.O_WRONLY)
    try:
        done = subprocess.run([sys.executable, "-c", REPEAT.replace("COUNT", "5")], stderr=log, check=False, timeout=30)
    finally:
        for fd in {reading, writing, log}:
            os.close(fd)
    assert 0 == done.returncode
