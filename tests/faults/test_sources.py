"""Faults under the sources: full, failing, shrinking and slow ones. Only who uses them notices."""

from __future__ import annotations

import errno
import mmap
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, cast

import pytest

from tests.faults.lives import MIB, eventually
from tests.harness import PROJECT, Mount
from tests.mounted.conftest import opened

pytestmark = pytest.mark.mounted

PAGE = 4096
HALF = 64 * PAGE
FINE = {"fine.bin": {"regions": [{"source": "fine.img", "length": PAGE, "access": "rw"},
                                 {"source": "fine.img", "offset": PAGE, "length": PAGE, "access": "rw"}]}}


def direct_read(path: Path, offset: int = 0) -> bytes:
    """A page past every cache of the mount."""
    with opened(path, os.O_RDONLY | os.O_DIRECT) as fd, mmap.mmap(-1, PAGE) as buffer:
        return buffer[:os.preadv(fd, [buffer], offset)]


def errno_of(call: Callable[[], object]) -> int:
    """0 when it succeeds."""
    try:
        call()
    except OSError as error:
        return error.errno or -1
    return 0


class SlowFS:
    """The tests' own file system, mounted; order() tells it its faults."""

    def __init__(self, directory: Path, *files: str) -> None:
        self._process = subprocess.Popen([sys.executable, "-m", "tests.faults.slowfs", directory, *files], text=True,
                                         cwd=PROJECT, bufsize=1, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert "ready\n" == cast(IO[str], self._process.stdout).readline()

    def order(self, words: str) -> None:
        cast(IO[str], self._process.stdin).write(words + "\n")
        assert "done\n" == cast(IO[str], self._process.stdout).readline()

    def end(self) -> None:
        self._process.communicate(timeout=10)


@contextmanager
def slowfs(directory: Path, *files: str) -> Iterator[SlowFS]:
    directory.mkdir()
    fs = SlowFS(directory, *files)
    try:
        yield fs
    finally:
        fs.end()
        unmount = ["umount", "-l"] if os.geteuid() == 0 else ["fusermount3", "-uz"]
        subprocess.run([*unmount, directory], check=True, timeout=30)


def over(directory: str) -> dict[str, object]:
    """A userspace and a whole file over each of two sources that lie in a directory."""
    return {f"{name}.bin": {"regions": [{"source": f"{directory}/{name}", "length": HALF, "access": "rw"},
                                        {"source": f"{directory}/{name}", "offset": HALF, "length": HALF,
                                         "access": "rw"}]} for name in ("one", "two")}


def test_a_slow_source_slows_nobody_else(tmp_path: Path) -> None:
    """Forty readers wait 2 seconds for one source each time; opens and reads of other files do not."""
    (tmp_path / "fine.img").write_bytes(b"f" * MIB)
    manifest = {**FINE, **over("slow"), "whole.bin": {"whole": "slow/one"}}
    with slowfs(tmp_path / "slow", f"one={2 * HALF}", f"two={2 * HALF}") as fs, Mount(tmp_path, manifest) as mount:
        names = [mount.path / name for name in ("one.bin", "two.bin", "whole.bin")]
        fs.order("delay 2 open read")
        waits: list[float] = []

        def slow(number: int) -> None:
            begun = time.monotonic()
            direct_read(names[number % 3], number % 64 * PAGE)
            waits.append(time.monotonic() - begun)

        threads = [threading.Thread(target=slow, args=(number,)) for number in range(40)]
        worst, rounds, begun = 0.0, 0, time.monotonic()
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            last = time.monotonic()
            assert b"f" * PAGE == direct_read(mount.path / "fine.bin")
            with opened(mount.path / "fine.bin", os.O_RDWR) as fd:
                os.pwrite(fd, b"f", rounds % PAGE)
            worst, rounds = max(worst, time.monotonic() - last), rounds + 1
        fs.order("delay 0")
        print(f"\n40 slow reads in {time.monotonic() - begun:.1f} s ({min(waits):.1f} to {max(waits):.1f} s each); "
              f"meanwhile {rounds} rounds of open, read, write, close of another file: worst {1000 * worst:.0f} ms")
        assert worst < 0.5


def test_a_source_that_stalls_holds_no_mount_up(tmp_path: Path) -> None:
    """The files of a new mount are learned before the first request, but for so long only."""
    (tmp_path / "fine.img").write_bytes(b"f" * MIB)
    part = {"part.bin": {"regions": [{"source": "slow/one", "offset": 7, "length": PAGE}]}}
    with slowfs(tmp_path / "slow", f"one={2 * HALF}") as fs:
        fs.order("delay 8 open")
        begun = time.monotonic()
        with Mount(tmp_path, {**part, **FINE}) as mount:
            assert b"f" * PAGE == direct_read(mount.path / "fine.bin")
            took = time.monotonic() - begun
            fs.order("delay 0")
            assert b"o" * PAGE == (mount.path / "part.bin").read_bytes()
    assert took < 6


def test_a_small_read_that_opens_a_slow_source_slows_nobody_else(tmp_path: Path) -> None:
    """It is watched, like all that may stall."""
    (tmp_path / "fine.img").write_bytes(b"f" * MIB)
    late = {"late.bin": {"whole": "slow/one"}}
    with slowfs(tmp_path / "slow", f"one={2 * HALF}") as fs, (
            Mount(tmp_path, FINE, options=("--modes", "userspace"))) as mount:
        mount.write_manifest({**FINE, **late})
        assert "" == mount.user.regionfs("reload", mount.path).stderr
        fs.order("delay 4 open")
        reader = threading.Thread(target=(mount.path / "late.bin").read_bytes)
        reader.start()
        worst = 0.0
        while reader.is_alive():
            last = time.monotonic()
            assert b"f" * PAGE == direct_read(mount.path / "fine.bin")
            worst = max(worst, time.monotonic() - last)
        fs.order("delay 0")
    assert worst < 2


def test_an_error_of_one_source_is_its_callers(tmp_path: Path) -> None:
    """The errno is the source's; the other file's reads and writes go on; when it is over all is well."""
    with slowfs(tmp_path / "bad", f"one={2 * HALF}", f"two={2 * HALF}") as fs, Mount(tmp_path, over("bad")) as mount:
        one, two = mount.path / "one.bin", mount.path / "two.bin"
        with opened(one, os.O_RDWR) as fd, opened(two, os.O_RDWR) as other:
            fs.order(f"fail read {errno.EIO}")
            assert errno.EIO == errno_of(lambda: os.pread(fd, PAGE, 0))
            fs.order("fail read 0")
            assert b"o" * PAGE == os.pread(fd, PAGE, 0)
            fs.order(f"fail write {errno.ENOSPC}")
            found = {errno_of(lambda: os.pwrite(fd, b"x" * PAGE, 0)), errno_of(lambda: os.fsync(fd))}
            assert errno.ENOSPC in found
            fs.order("fail write 0")
            assert PAGE == os.pwrite(other, b"y" * PAGE, 0)
            os.fsync(other)


def test_fsync_reports_an_error_once(tmp_path: Path) -> None:
    """Then the next one succeeds, as on a local file; the other file's never fails."""
    with (slowfs(tmp_path / "bad", f"one={2 * HALF}", f"two={2 * HALF}") as fs, Mount(tmp_path, over("bad")) as mount,
          opened(mount.path / "one.bin", os.O_RDWR) as fd, opened(mount.path / "two.bin", os.O_RDWR) as other):
        os.pwrite(fd, b"x", 0)
        os.fsync(other)
        fs.order(f"failing fsync {errno.EIO}")
        found = [errno_of(lambda: os.fsync(fd)), errno_of(lambda: os.fsync(fd)), errno_of(lambda: os.fsync(other))]
    assert [errno.EIO, 0, 0] == found


@contextmanager
def small_fs(directory: Path, size: int) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "regionfs-test", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def over_device(device: Path) -> dict[str, object]:
    """A disk with the device behind a header."""
    return {**FINE, "disk.bin": {"regions": [{"length": PAGE, "hole": True}, {"source": str(device), "access": "rw"}]}}


LoopDevice = Callable[..., AbstractContextManager[Path]]


def test_a_device_that_runs_full(tmp_path: Path, loop_device: LoopDevice) -> None:
    """A thin device whose backing is full: fsync says so once, and what fitted is there."""
    (tmp_path / "fine.img").write_bytes(b"f" * MIB)
    with small_fs(tmp_path / "small", MIB) as small:
        (small / "disk").touch()
        os.truncate(small / "disk", 8 * MIB)
        with (loop_device(small / "disk") as device, Mount(tmp_path, over_device(device)) as mount,
              opened(mount.path / "disk.bin", os.O_RDWR) as fd, opened(mount.path / "fine.bin", os.O_RDWR) as other):
            os.pwrite(fd, b"a" * PAGE, PAGE)
            os.fsync(fd)
            for at in range(PAGE, 4 * MIB, MIB):
                os.pwrite(fd, b"b" * MIB, at)
            found = [errno_of(lambda: os.fsync(fd)) for _ in range(2)]
            assert found[0] in (errno.ENOSPC, errno.EIO)
            assert 0 == found[1]
            os.pwrite(other, b"g", 0)
            os.fsync(other)


def test_a_device_whose_backing_is_gone(tmp_path: Path, loop_device: LoopDevice) -> None:
    """Reads of what is missing are EIO; what is there reads on."""
    (tmp_path / "fine.img").write_bytes(b"f" * MIB)
    backing = tmp_path / "backing.img"
    backing.write_bytes(b"d" * 4 * MIB)
    with loop_device(backing) as device, Mount(tmp_path, over_device(device)) as mount:
        os.truncate(backing, MIB)
        assert b"d" * PAGE == direct_read(mount.path / "disk.bin", PAGE)
        assert errno.EIO == errno_of(lambda: direct_read(mount.path / "disk.bin", 3 * MIB))
        assert b"f" * PAGE == direct_read(mount.path / "fine.bin")


def test_a_device_that_changes_its_size(tmp_path: Path, loop_device: LoopDevice) -> None:
    """Too small for the map: opens are EIO until it has its size again; larger is no matter."""
    (tmp_path / "fine.img").write_bytes(b"f" * MIB)
    backing = tmp_path / "backing.img"
    backing.write_bytes(b"d" * 4 * MIB)
    with loop_device(backing) as device, Mount(tmp_path, over_device(device)) as mount:
        found = []
        for size in (2 * MIB, 4 * MIB, 8 * MIB):
            os.truncate(backing, size)
            subprocess.run(["losetup", "--set-capacity", device], check=True, timeout=30)
            found.append(errno_of(lambda: direct_read(mount.path / "disk.bin", PAGE)))
        assert [errno.EIO, 0, 0] == found
        assert b"f" * PAGE == direct_read(mount.path / "fine.bin")
    eventually(lambda: not mount.mounted)
