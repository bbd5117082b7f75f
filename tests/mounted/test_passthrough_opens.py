"""OPEN and RELEASE of passthrough files that nobody writes, in the compiled loop: no id leaks, no byte is stale."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from regionfs.wire import device
from tests.faults.lives import TORTURE, Lives, eventually
from tests.faults.test_sources import slowfs
from tests.harness import FAST, TIMEOUT, Mount
from tests.mounted.kernel import backing_ids, require
from tests.mounted.test_fast_path import calls_of
from tests.worker import Worker

COUNT = 40      # files
CYCLES = 10_000
SIZE = 5000     # bytes of the slow source
KILLS = 200 if TORTURE else 12
FILES: dict[str, Any] = {f"{number}.bin": {"whole": f"{number}.img"} if number % 2 else
                         {"regions": [{"source": f"{number}.img"}]} for number in range(COUNT)}

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(autouse=True)
def _able() -> None:
    require("passthrough")


def contents(number: int) -> bytes:
    """Of a source."""
    return f"source {number};".encode() * 100


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Mount]:
    """FILES, each opened twice: the loop knows them; at the end no backing id is in use."""
    for number in range(COUNT):
        (tmp_path / f"{number}.img").write_bytes(contents(number))
    with Mount(tmp_path, FILES) as mount:
        assert {"passthrough"} == {file["mode"] for file in mount.status()["files"].values()}
        settle(tmp_path)
        for _ in range(2):
            read_all(mount)
        yield mount
        assert 0 == backing_ids(mount, 0)
        assert [] == registered(mount)


def settle(directory: Path) -> None:
    """Wait until the time stamps of all sources would show a change."""
    newest = max(path.stat().st_ctime_ns for path in directory.glob("*.img"))
    eventually(lambda: time.time_ns() - newest > 50_000_000)


def read_all(mount: Mount) -> None:
    """Every file shows what its source is."""
    with Worker() as worker:
        found = worker.run([("pread", mount.path / name, 0, 1 << 20) for name in FILES])
    assert [(mount.path.parent / name.replace("bin", "img")).read_bytes() for name in FILES] == found


def opened(mount: Mount) -> int:
    """OPENs of all files, each in passthrough."""
    counts = [file["opens_by_mode"] for file in mount.status()["files"].values()]
    assert {"passthrough"} >= {mode for each in counts for mode in each}
    return sum(sum(each.values()) for each in counts)


def test_cycles_without_python(mounted: Mount) -> None:
    """10,000 times open, read and close: Python, which answers by writev(2), hardly hears of any; all are counted."""
    before = opened(mounted)
    calls = [("pread", mounted.path / f"{turn % COUNT}.bin", 0, 1 << 20) for turn in range(CYCLES)]
    with Worker() as worker, calls_of(mounted) as answers:
        found = worker.run(calls)
    assert [contents(turn % COUNT) for turn in range(CYCLES)] == found
    assert 0 == backing_ids(mounted, 0)
    assert CYCLES == opened(mounted) - before
    print(f"\n{answers}")
    if FAST:
        assert answers["writev"] < CYCLES // 20
        assert answers["write"] >= 2 * CYCLES - 2 * answers["writev"] - answers["io_uring_enter"] * 16


def test_many_handles_at_once(mounted: Mount) -> None:
    """Of many processes, over forks, with O_DIRECT, mixed with opens that are refused: one id for each open file."""
    text = """
import random
rng, held = random.Random(int(sys.argv[2])), []
for turn in range(600):
    number = rng.randrange(40)
    if rng.random() < 0.1:
        try:
            os.open(f"{sys.argv[1]}/{number}.bin", os.O_RDWR)
        except OSError as error:
            assert error.errno == 30, error
    held.append((number, os.open(f"{sys.argv[1]}/{number}.bin", rng.choice([os.O_RDONLY, os.O_DIRECT, os.O_APPEND]))))
    if rng.random() < 0.02 and os.fork() == 0:
        os._exit(0)
    while len(held) > 20 or held and rng.random() < 0.45:
        number, fd = held.pop(rng.randrange(len(held)))
        assert os.lseek(fd, 0, os.SEEK_END) == len(b"source %d;" % number * 100)
        os.close(fd)
print(len({number for number, _ in held}))
"""
    users = [subprocess.Popen([sys.executable, "-c", "import os, sys\n" + text, mounted.path, str(seed)],
                              stdout=subprocess.PIPE, text=True) for seed in range(6)]
    assert [0] * 6 == [user.wait(TIMEOUT) for user in users]
    with Worker() as worker:
        handles = [worker.open(mounted.path / f"{number}.bin") for number in (*range(10), *range(20))]
        assert 20 == backing_ids(mounted, 20)
        for handle in handles:
            worker.call("close", handle)


def test_sources_that_change_between_opens(mounted: Mount, tmp_path: Path) -> None:
    """What was written to a source before an open is what that open shows; of a whole file its size too."""
    rng = Random(5)
    with Worker() as worker:
        for turn in range(300):
            number = rng.randrange(COUNT)
            path, source = mounted.path / f"{number}.bin", tmp_path / f"{number}.img"
            size = len(source.read_bytes())
            if turn % 3 == 0:
                data = rng.randbytes(size + (rng.randrange(-50, 50) if number % 2 else 0))
                source.write_bytes(data)
            found = worker.run([("pread", path, 0, 1 << 20), ("stat", path)])
            assert (source.read_bytes(), source.stat().st_size) == (found[0], found[1].st_size)


def test_a_source_that_is_replaced_while_it_is_open(mounted: Mount, tmp_path: Path) -> None:
    """EIO, with other handles and without, and again as before when the old file is back; handles go on."""
    path, source = mounted.path / "1.bin", tmp_path / "1.img"
    with Worker() as worker:
        for handles in ([], [worker.open(path), worker.open(path)]):
            source.rename(tmp_path / "away")
            source.write_bytes(b"another file")
            with pytest.raises(OSError, match=os.strerror(errno.EIO)):
                worker.open(path)
            assert [contents(1)] * len(handles) == [worker.pread(handle, 0, 1 << 20) for handle in handles]
            (tmp_path / "away").rename(source)
            assert contents(1) == worker.pread(path, 0, 1 << 20)
            for handle in handles:
                worker.call("close", handle)


def test_a_map_whose_source_grows_while_it_is_open(mounted: Mount, tmp_path: Path) -> None:
    """It keeps its size."""
    path, source = mounted.path / "2.bin", tmp_path / "2.img"
    with Worker() as worker:
        first = worker.open(path)
        with source.open("ab") as file:
            file.write(b"more")
        assert contents(2) == worker.pread(path, 0, 1 << 20)
        os.truncate(source, len(contents(2)))
        assert contents(2) == worker.pread(path, 0, 1 << 20)
        worker.call("close", first)
    settle(tmp_path)
    for _ in range(3):
        read_all(mounted)


def test_a_slow_source_slows_no_other_open(mounted: Mount, tmp_path: Path) -> None:
    """Openers of one wait for it, also where the loop has it to open; opens of other files, and closes, do not."""
    slow = {"slow.bin": {"whole": "slow/one"}}
    with slowfs(tmp_path / "slow", f"one={SIZE}") as fs, Worker() as worker:
        mounted.write_manifest({**FILES, **slow})
        assert "" == mounted.user.regionfs("reload", mounted.path).stderr
        assert "passthrough" == mounted.status()["files"]["slow.bin"]["mode"]
        path = mounted.path / "slow.bin"
        for _ in range(3):
            assert b"o" * SIZE == worker.pread(path, 0, 1 << 20)
            read_all(mounted)
        fs.order("delay 1 open getattr lookup")
        with ExitStack() as stack:
            waiting = [stack.enter_context(Worker()) for _ in range(6)]
            with ThreadPoolExecutor(6) as pool:
                reads = [pool.submit(one.pread, path, 0, 1 << 20) for one in waiting]
                took = []
                while not all(read.done() for read in reads):
                    begun = time.monotonic()
                    read_all(mounted)
                    took.append(time.monotonic() - begun)
            assert [b"o" * SIZE] * 6 == [read.result() for read in reads]
        fs.order("delay 0")
        print(f"\n{len(took)} rounds of {COUNT} files, worst {max(took):.3f} s")
        assert max(took) < 0.8
        mounted.write_manifest(FILES)
        assert "" == mounted.user.regionfs("reload", mounted.path).stderr


STORM = """
import random, signal
signal.signal(signal.SIGTERM, lambda *_: globals().update(going=False))
going, rng, held, count = True, random.Random(int(sys.argv[2])), [], 0
print("ready", flush=True)
while going:
    number = rng.randrange(40)
    fd = os.open(f"{sys.argv[1]}/{number}.bin", os.O_RDONLY)
    assert os.pread(fd, 1 << 20, 0) == b"source %d;" % number * 100
    held.append(fd)
    count += 1
    while len(held) > 5 or held and rng.random() < 0.6:
        os.close(held.pop(rng.randrange(len(held))))
print(count)
"""


@contextmanager
def storm(mount: Mount, users: int) -> Iterator[None]:
    """Processes that open, read and close files, and hold some; none of them sees an error or a wrong byte."""
    running = [subprocess.Popen([sys.executable, "-c", "import os, sys\n" + STORM, mount.path, str(seed)],
                                stdout=subprocess.PIPE, text=True) for seed in range(users)]
    for user in running:
        assert user.stdout is not None
        assert "ready\n" == user.stdout.readline()
    try:
        yield
    finally:
        for user in running:
            user.send_signal(signal.SIGTERM)
        counts = [user.communicate(timeout=60)[0].strip() for user in running]
    print(f"\n{' + '.join(counts)} opens")
    assert [0] * users == [user.returncode for user in running]


def test_kills_in_a_storm_of_opens(mounted: Mount) -> None:
    """The successor goes on with the handles that were counted; at the end no backing id is left in the kernel."""
    lives, rng = Lives(mounted), Random(8)
    with Worker() as worker:
        handles = [worker.open(mounted.path / f"{number}.bin") for number in (1, 2, 2, 3)]
        with storm(mounted, 3):
            for _ in range(KILLS):
                lives.kill()
                assert contents(4) == worker.pread(mounted.path / "4.bin", 0, 1 << 20)
                due = time.monotonic() + rng.uniform(0, 0.6)
                eventually(lambda due=due: time.monotonic() > due)  # type: ignore[misc]
        assert 3 == backing_ids(mounted, 3)
        assert [contents(number) for number in (1, 2, 2, 3)] == [worker.pread(handle, 0, 1 << 20) for handle in handles]
        for handle in handles:
            worker.call("close", handle)
    assert KILLS == mounted.status()["restarts"]


def registered(mount: Mount) -> list[int]:
    """Backing ids that the kernel still has, closed by this."""
    pid = mount.status()["pid"]
    fd = next(int(fd.name) for fd in Path(f"/proc/{pid}/fd").iterdir() if fd.readlink() == Path(device.DEVICE))
    # pidfd_getfd(2)
    ours = ctypes.CDLL(None, use_errno=True).syscall(438, pidfd := os.pidfd_open(pid), fd, 0)
    assert ours >= 0, os.strerror(ctypes.get_errno())
    left = []
    with open("/proc/self/exe", "rb") as file:
        newest = device.backing_open(ours, file.fileno())
    device.backing_close(ours, newest)
    for number in range(1, newest):
        with suppress(OSError):
            device.backing_close(ours, number)
            left.append(number)
    os.close(ours)
    os.close(pidfd)
    print(f"{newest} backing ids, {len(left)} left")
    return left


def test_touched_sources_in_a_storm_of_opens(mounted: Mount, tmp_path: Path) -> None:
    """Python takes inodes back while they are opened and closed, and hands them over again."""
    before, rng = opened(mounted), Random(9)
    end = time.monotonic() + 3
    with storm(mounted, 4):
        while time.monotonic() < end:
            os.utime(tmp_path / f"{rng.randrange(COUNT)}.img")
            time.sleep(0.001)
    settle(tmp_path)
    read_all(mounted)
    assert opened(mounted) > before


def test_reloads_in_a_storm_of_opens(mounted: Mount) -> None:
    """Other files come and go, and with them all that the loop knows."""
    with storm(mounted, 3):
        for turn in range(12):
            mounted.write_manifest({**FILES, f"new-{turn}.bin": {"whole": f"{turn}.img"}})
            done = mounted.user.regionfs("reload", mounted.path)
            assert (0, "") == (done.returncode, done.stderr)
    read_all(mounted)
