"""Servers die under writers and appenders, inside and outside the mount: what was acknowledged is there, once.

The short form kills a few times, REGIONFS_TORTURE=1 two hundred times.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.faults import writers
from tests.faults.lives import TORTURE, Lives, eventually
from tests.harness import Mount

pytestmark = [pytest.mark.mounted, pytest.mark.timeout(1800)]

KILLS = 200 if TORTURE else 5
FRONT = writers.FRONT
FILES: dict[str, Any] = {
    "alone.log": {"whole": "alone.img", "access": "rw"},
    "twice.log": {"whole": "twice.img", "access": "rw"},
    "part.img": {"regions": [{"source": "twice.img", "length": FRONT, "access": "rw"}]},
}


class Writer:
    """A process of writers.py; `count` is how many writes it was told are done."""

    def __init__(self, kind: str, *arguments: object) -> None:
        self.name = " ".join(map(str, (kind, *arguments)))
        self._process = subprocess.Popen([sys.executable, writers.__file__, kind, *map(str, arguments)],
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                         text=True)

    def __enter__(self) -> Writer:
        return self

    def wait(self) -> None:
        """Until its first write is done."""
        assert self._process.stdout is not None
        assert "begun\n" == self._process.stdout.readline()

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def end(self) -> int:
        """Let it finish; how many writes were acknowledged."""
        said, wrong = self._process.communicate(timeout=60)
        assert "" == wrong, f"{self.name}: {wrong}"
        return int(said)


def kill(lives: Lives, times: int, directory: Path) -> None:
    """At random moments, after each server has answered and served for a while."""
    rng = random.Random(16)
    for _ in range(times):
        lives.kill()
        os.listxattr(directory)
        due = time.monotonic() + rng.uniform(0.1, 0.3)
        eventually(lambda due=due: time.monotonic() > due)  # type: ignore[misc]


def lines_of(path: Path) -> dict[str, list[int]]:
    """Numbers of the lines behind the blocks, in order, by who appended them; each line is whole."""
    found: dict[str, list[int]] = {}
    for line in path.read_bytes()[FRONT:].decode().splitlines():
        whole = re.fullmatch(r"(inside|outside) (\d+) (x{3}|x{50}|x{6000})", line)
        assert whole, f"torn: {len(line)} characters, {line[:60]} ... {line[-60:]}"
        name, number, _ = whole.groups()
        found.setdefault(name, []).append(int(number))
    return found


@pytest.mark.parametrize("loop", [True, False], ids=["loop", "python"])
def test_writers_and_appenders(tmp_path: Path, loop: bool) -> None:
    """No acknowledged write is lost or undone, no line lost, doubled or torn, whoever wrote it."""
    for name in ("alone", "twice"):
        (tmp_path / f"{name}.img").write_bytes(bytes(FRONT))
    with Mount(tmp_path, FILES, options=("--modes", "userspace"), fast=loop) as mount, ExitStack() as stack:
        at, lives = mount.path, Lives(mount)
        running = [stack.enter_context(Writer(*words)) for words in (
            ("write", at / "alone.log", 0), ("write", tmp_path / "alone.img", writers.BLOCKS),
            ("append", at / "alone.log", "inside"), ("append", tmp_path / "alone.img", "outside"),
            ("write", at / "part.img", 0), ("write", tmp_path / "twice.img", writers.BLOCKS),
            ("append", at / "twice.log", "inside"), ("append", tmp_path / "twice.img", "outside"),
            ("overtake", at / "part.img", at / "twice.log", tmp_path / "twice.img"))]
        for writer in running:
            writer.wait()
        kill(lives, KILLS, at)
        counts = [writer.end() for writer in running]
        assert KILLS <= mount.status()["restarts"], "more where a busy machine kept a server from speaking in time"
    print(f"\n{KILLS} kills -9 under {counts} writes")
    for name, first in (("alone", 2), ("twice", 6)):
        expected = {who: list(range(1, counts[first + place] + 1)) for place, who in enumerate(("inside", "outside"))}
        assert expected == lines_of(tmp_path / f"{name}.img"), name
