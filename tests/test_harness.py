"""The frame of the tests keeps its promises: a session is swept, a hang ends, users are ordinary."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from tests import harness, sweep


@pytest.fixture
def inner(tmp_path: Path) -> Path:
    """A session of its own inside of this one."""
    directory = tmp_path / "regionfs-tests-inner"
    directory.mkdir()
    return directory


@pytest.fixture
def sleeper(inner: Path) -> Iterator["subprocess.Popen[bytes]"]:
    """A process of the inner session that ends only when it is ended."""
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE,
                               env={**os.environ, sweep.VARIABLE: str(inner)})
    yield process
    process.kill()
    process.communicate()


def watchdog(inner: Path, lines: str = "") -> "subprocess.Popen[str]":
    process = subprocess.Popen([sys.executable, "-m", "tests.sweep", inner], stdin=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, cwd=harness.PROJECT)
    assert process.stdin
    process.stdin.write(lines)
    process.stdin.flush()
    return process


def test_the_end_of_the_tests_ends_their_processes(inner: Path, sleeper: "subprocess.Popen[bytes]") -> None:
    """When the tests' side of the pipe closes, the session's processes and directory go."""
    watchdog(inner).communicate(timeout=20)
    assert -9 == sleeper.wait(timeout=10)
    assert not inner.exists()


def test_a_hanging_test_loses_its_daemons(inner: Path, sleeper: "subprocess.Popen[bytes]") -> None:
    """A test over its time has the session's processes ended under it, by name of the test."""
    dog = watchdog(inner, "arm 0.1 tests/test_x.py::test_y\n")
    assert -9 == sleeper.wait(timeout=10)
    assert "tests/test_x.py::test_y hangs" in dog.communicate(timeout=20)[1]


def test_a_finished_test_is_left_alone(inner: Path, sleeper: "subprocess.Popen[bytes]") -> None:
    """Disarming stops the clock: nothing is reported."""
    dog = watchdog(inner, "arm 0.1 a\ndisarm\n")
    assert "" == dog.communicate(timeout=20)[1]


@pytest.mark.mounted
def test_mounts_and_loop_devices_are_swept(
    inner: Path, loop_device: Callable[..., AbstractContextManager[Path]],
) -> None:
    """A loop device over a file below the session and a mount of it, left behind, both go."""
    image, point = inner / "image", inner / "point"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(1 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    device = subprocess.check_output(["losetup", "--find", "--show", image], text=True).strip()
    subprocess.run(["mount", device, point], check=True)
    assert [device] == list(sweep.loops_below(inner))
    watchdog(inner).communicate(timeout=20)
    assert ([], []) == (sweep.mounts_below(inner), list(sweep.loops_below(inner)))
    assert not inner.exists()


@pytest.mark.mounted
def test_loop_devices_have_the_sector_size_asked_for(
    tmp_path: Path, loop_device: Callable[..., AbstractContextManager[Path]],
) -> None:
    """Options go to losetup, and the device is detached afterwards."""
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(1 << 20)
    with loop_device(image, "--sector-size", "4096") as device:
        size = subprocess.run(["blockdev", "--getss", device], check=True, capture_output=True, text=True)
        assert "4096" == size.stdout.strip()
    assert [] == list(sweep.loops_below(tmp_path))


def test_an_ordinary_user_has_no_privileges(ordinary_user: harness.User) -> None:
    """Neither uid 0 nor a capability, but the command and /dev/fuse."""
    status = ordinary_user.run("cat", "/proc/self/status").stdout
    assert "CapEff:\t0000000000000000" in status
    assert 0 == ordinary_user.regionfs("--version").returncode
    assert 0 == ordinary_user.run("test", "-w", "/dev/fuse").returncode
