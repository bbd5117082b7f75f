"""What tests of the kernel modes share: is the mode to be had, stacked directories, a daemon that stands still.

Knows the command line and the daemon's log; not how a mode is done.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regionfs.daemon import runtime
from tests.harness import ROOT_OR_ME, TIMEOUT, Mount


def require(mode: str) -> None:
    """Skip the test, with the reason that `regionfs doctor` gives, on a machine without `mode`."""
    ability = json.loads(ROOT_OR_ME.regionfs("doctor", "--json").stdout)["modes"][mode]
    if not ability["available"]:
        pytest.skip(f"{mode}: {ability['reason']}; {ability['remedy']}")


def backing_ids(mount: Mount, expected: int) -> int:
    """Backing ids in use; RELEASE comes after the close that caused it, so ask until it came."""
    found = -1
    for _ in range(20):
        found = mount.status()["backing_ids"]
        if found == expected:
            break
    return found


def log_lines(mount: Mount, words: str) -> list[str]:
    """Lines of the daemon's log that contain `words`."""
    return [line for line in runtime.log_of(mount.path).read_text().splitlines() if words in line]


def opens(mount: Mount, file: str) -> dict[str, int]:
    """How often `file` was opened in which mode."""
    return dict(mount.status()["files"][file]["opens_by_mode"])


def script(text: str, *arguments: str | os.PathLike[str]) -> str:
    """What a Python program in a process of its own prints, given `arguments`."""
    done = subprocess.run([sys.executable, "-c", "import os, sys\n" + text, *arguments], check=False, text=True,
                          capture_output=True, timeout=TIMEOUT)
    assert 0 == done.returncode, done.stderr
    return done.stdout.strip()


def compare(one: Path, other: Path) -> str:
    """What `qemu-img compare` says of two raw disks."""
    done = subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "raw", one, other], check=False,
                          capture_output=True, text=True, timeout=TIMEOUT)
    return done.stdout.strip() + done.stderr.strip()


@contextmanager
def stopped(mount: Mount) -> Iterator[None]:
    """Every process of the mount stands still; the test's mark `timeout` bounds who waits for them."""
    status = mount.status()
    pids = {status["pid"], status["holder_pid"]}
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        for pid in pids:
            _await_stop(pid)
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _await_stop(pid: int) -> None:
    """Stopping is asynchronous: every thread must have come to rest."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        while "\nState:\tT" not in (task / "status").read_text():
            pass


@contextmanager
def overlay(below: Path, name: str) -> Iterator[Path]:
    """An overlayfs over the directory `below`."""
    upper, work, point = (below.parent / f"{name}-{part}" for part in ("upper", "work", "merged"))
    for directory in (upper, work, point):
        directory.mkdir()
    with mounted("overlay", point, f"lowerdir={below},upperdir={upper},workdir={work}"):
        yield point


@contextmanager
def mounted(kind: str, point: Path, options: str) -> Iterator[Path]:
    """Any file system on `point`."""
    subprocess.run(["mount", "-t", kind, "-o", options, kind, point], check=True, timeout=TIMEOUT)
    try:
        yield point
    finally:
        subprocess.run(["umount", point], check=True, timeout=TIMEOUT)
