"""Sources that vanish, shrink, change or fill up, and mounts that end while files are open."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from tests.harness import Mount
from tests.mounted.conftest import PAGE, World, make_sources, opened

MIB = 1 << 20


@contextmanager
def tmpfs(directory: Path, size: int) -> Iterator[Path]:
    """A tmpfs of `size` bytes, gone afterwards."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "regionfs-test", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


def vanish(source: Path) -> None:
    """The name is gone."""
    source.unlink()


def shrink(source: Path) -> None:
    """The map needs bytes that are gone."""
    os.truncate(source, 100)


def replace(source: Path) -> None:
    """Another file of the same size has its name."""
    other = source.with_suffix(".other")
    other.write_bytes(b"?" * source.stat().st_size)
    other.rename(source)


@pytest.mark.parametrize("spoil", [vanish, shrink, replace])
def test_a_spoiled_source_fails_its_file_alone(world: World, spoil: Callable[[Path], None]) -> None:
    """Opening a file over it is EIO; every other file reads and writes on."""
    spoil(world.sources / "b.img")
    with pytest.raises(OSError) as failed:
        world.disk.read_bytes()
    assert errno.EIO == failed.value.errno
    assert (b"r" * 2 * PAGE, b"w" * 1000) == (world.ro.read_bytes(), world.whole.read_bytes())
    with opened(world.whole, os.O_RDWR) as fd:
        assert 3 == os.pwrite(fd, b"yes", 0)
    assert b"yes" == world.source("whole.img")[:3]


def test_a_spoiled_source_that_comes_back_serves_again(world: World) -> None:
    """The very same file under its name again: opens succeed."""
    aside = world.sources / "aside"
    (world.sources / "b.img").rename(aside)
    with pytest.raises(OSError):
        os.open(world.disk, os.O_RDONLY)
    aside.rename(world.sources / "b.img")
    with opened(world.disk) as fd:
        assert b"b" == os.pread(fd, 1, 5 * PAGE)


def test_a_source_that_shrinks_under_an_open_file_is_eio(world: World) -> None:
    """Not zeros, not old bytes of something else: EIO behind the end, the other regions read on."""
    with opened(world.disk) as fd:
        os.truncate(world.sources / "b.img", 0)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        with pytest.raises(OSError) as failed:
            os.pread(fd, PAGE, 5 * PAGE)
        assert (errno.EIO, b"r") == (failed.value.errno, os.pread(fd, 1, PAGE))


def test_the_log_names_the_source_once(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """One line for the trouble however often the file is opened, with the file and the source in it."""
    make_sources(tmp_path)
    log = tmp_path / "log"
    mounted = mount({"x": {"regions": [{"source": "a.img"}]}})
    mounted.path.mkdir()
    with open(log, "wb") as out:
        daemon = subprocess.Popen([*mounted.user.command, "mount", "-f", "--engine", mounted.engine,
                                   mounted.manifest, mounted.path], stderr=out, stdout=out)
    try:
        wait_for_mount(mounted, daemon)
        (tmp_path / "a.img").unlink()
        for _ in range(5):
            with pytest.raises(OSError):
                os.open(mounted.path / "x", os.O_RDONLY)
    finally:
        daemon.terminate()
        daemon.wait(timeout=20)
    lines = [line for line in log.read_text().splitlines() if "a.img" in line]
    assert 1 == len(lines), log.read_text()
    assert "x" in lines[0]
    assert not mounted.mounted


def wait_for_mount(mounted: Mount, daemon: subprocess.Popen[bytes]) -> None:
    """Until the foreground mount shows in the mount table; fails when its process ends."""
    with open("/proc/self/mountinfo", "rb") as table:
        poll = select.poll()
        poll.register(table, select.POLLERR | select.POLLPRI)
        while not mounted.mounted:
            assert daemon.poll() is None
            poll.poll(1000)


def test_a_full_disk_reaches_the_writer(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """ENOSPC once nothing more fits; the bytes before it stay, and are right."""
    with tmpfs(tmp_path / "small", MIB) as small:
        with open(small / "source", "wb") as source:
            source.truncate(4 * MIB)
        with mount({"f": {"regions": [{"source": "small/source", "access": "rw"}]}}) as mounted:
            written = fill(mounted.path / "f", 4 * MIB)
            assert 0 < written <= MIB
            assert bytes(range(256)) * (written // 256) == (mounted.path / "f").read_bytes()[:written]
        with open(small / "source", "rb") as source:
            assert bytes(range(256)) * (written // 256) == source.read(written)


def fill(path: Path, size: int) -> int:
    """Write 64 KiB at a time until ENOSPC; returns how many bytes went in, in whole 256s."""
    with opened(path, os.O_WRONLY) as fd:
        done = 0
        with pytest.raises(OSError) as full:
            while done < size:
                done += os.pwrite(fd, bytes(range(256)) * 256, done)
        assert errno.ENOSPC == full.value.errno
        return done // 256 * 256


def test_a_failed_flush_reaches_fsync(mount: Callable[..., Mount], tmp_path: Path,
                                      loop_device: Callable[..., AbstractContextManager[Path]]) -> None:
    """A source that takes writes but cannot keep them: fsync through the mount fails too."""
    with tmpfs(tmp_path / "small", MIB) as small:
        with open(small / "backing", "wb") as backing:
            backing.truncate(8 * MIB)
        with loop_device(small / "backing") as device, \
                mount({"f": {"regions": [{"source": str(device), "access": "rw"}]}}) as mounted:
            with opened(mounted.path / "f", os.O_RDWR) as fd:
                for start in range(0, 4 * MIB, MIB):
                    os.pwrite(fd, b"x" * MIB, start)
                with pytest.raises(OSError) as failed:
                    os.fsync(fd)
            assert failed.value.errno in (errno.EIO, errno.ENOSPC)


def test_umount_with_an_open_file(world: World) -> None:
    """Refused with the reason while a file is open, and the file goes on; afterwards it succeeds."""
    with opened(world.disk, os.O_RDWR) as fd:
        refused = world.mount.user.regionfs("umount", world.mount.path)
        assert (1, True) == (refused.returncode, "in use" in refused.stderr)
        assert (b"H", 1) == (os.pread(fd, 1, 0), os.pwrite(fd, b"x", 3 * PAGE))
    assert 0 == world.mount.user.regionfs("umount", world.mount.path).returncode


def test_lazy_umount_with_an_open_file(world: World) -> None:
    """The name is gone at once, the handle serves until it is closed, then the daemon ends."""
    with opened(world.disk, os.O_RDWR) as fd:
        done = world.mount.user.regionfs("umount", "--lazy", world.mount.path)
        told = f"detached {world.mount.path}: files still open are served until they are closed\n"
        assert (0, told, False) == (done.returncode, done.stderr, world.mount.mounted)
        assert (b"H", 1) == (os.pread(fd, 1, 0), os.pwrite(fd, b"x", 3 * PAGE))
    assert b"x" == world.source("a.img")[:1]


ASKS = """
import os, sys
for turn in range(10**9):
    os.statvfs(sys.argv[1])
    if turn == 100:
        print("asks", flush=True)
"""


@pytest.mark.timeout(120)
def test_callers_that_are_killed_stop_nobody(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """A request that vanishes before it is read is not waited for."""
    (tmp_path / "s.img").write_bytes(b"s")
    with mount({"f": {"whole": "s.img"}}) as at:
        for _ in range(15):
            callers = [subprocess.Popen([sys.executable, "-c", ASKS, at.path / "f"], stdout=subprocess.PIPE)
                       for _ in range(4)]
            for caller in callers:
                assert caller.stdout
                assert b"asks\n" == caller.stdout.readline()
            for caller in callers:
                with caller:
                    caller.kill()
            begun = time.monotonic()
            assert at.status()
            assert time.monotonic() - begun < 10


def test_the_daemon_killed_leaves_enotconn(world: World) -> None:
    """kill -9 of every process of the mount: ENOTCONN or ECONNABORTED, and umount cleans up."""
    fd = os.open(world.disk, os.O_RDONLY)
    status = world.mount.status()
    for pid in {status["pid"], status.get("holder_pid") or status["pid"]}:
        os.kill(pid, 9)
    with pytest.raises(OSError) as failed:
        os.pread(fd, 1, 9 * PAGE)
    assert failed.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    with suppress(OSError):  # the flush that a close sends fails as well
        os.close(fd)
    assert 0 == world.mount.user.regionfs("umount", world.mount.path).returncode
