"""Servers die by kill -9, again and again, under verified load in every mode of one mount.

The short form kills a few times, `make torture` a hundred. Figures are printed, errors are counted: the
machine may be slow, but nothing may be lost.
"""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from regionfs.daemon import control, runtime
from tests.faults.lives import MIB, TORTURE, Lives, eventually
from tests.harness import Mount, mounts_below
from tests.mounted.conftest import opened

pytestmark = [pytest.mark.mounted, pytest.mark.timeout(1800)]

KILLS = 100 if TORTURE else 5
FILE = 8 * MIB

FILES: dict[str, Any] = {
    "pass.bin": {"whole": "pass.img", "access": "rw"},
    "comp.bin": {"regions": [{"source": "comp-1.img"}, {"source": "comp-2.img"}]},
    "user.bin": {"regions": [{"source": "user-1.img", "access": "rw"}, {"source": "user-2.img", "access": "rw"}]},
    "other.bin": {"regions": [{"source": "other-1.img", "access": "rw"}, {"source": "other-2.img", "access": "rw"}]},
}
VERIFY = ("--verify=crc32c", "--bs=4k", f"--size={FILE}", "--randrepeat=0", "--verify_fatal=1",
          "--verify_state_save=0")
WRITE = ("--rw=randrw", "--verify_backlog=64", "--fsync=256")
JOBS = (
    ("pass.bin", "--ioengine=psync", *WRITE),
    ("user.bin", "--ioengine=libaio", "--iodepth=4", "--direct=1", *WRITE),
    ("other.bin", "--ioengine=psync", *WRITE),
    ("comp.bin", "--ioengine=psync", "--rw=randread"),
)


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[Mount]:
    """A mount with a file of each mode, filled with blocks that verify."""
    if os.geteuid() != 0:
        pytest.skip("passthrough and composed need root")
    for name in ("pass", "comp", "user", "other"):
        path = tmp_path / f"{name}.img"
        subprocess.run(["fio", "--name=lay", f"--filename={path}", "--rw=write", "--do_verify=0", *VERIFY],
                       check=True, capture_output=True, timeout=60)
        data = path.read_bytes()
        for number in (1, 2):
            (tmp_path / f"{name}-{number}.img").write_bytes(data[(number - 1) * FILE // 2:number * FILE // 2])
    with Mount(tmp_path, FILES) as mount:
        assert ["passthrough", "composed", "userspace", "userspace"] == [
            file["mode"] for file in mount.status()["files"].values()]
        yield mount


class Load:
    """fio on every file until the block ends; then `jobs` has what it found."""

    def __init__(self, directory: Path, scratch: Path) -> None:
        self._output = scratch / "fio.json"
        command = ["fio", "--output-format=json", f"--output={self._output}", "--time_based", "--runtime=3600", *VERIFY]
        for name, *options in JOBS:
            command += [f"--name={name}", f"--filename={directory / name}", *options]
        self._fio = subprocess.Popen(command, cwd=scratch, stderr=subprocess.PIPE, text=True)
        self.jobs: list[dict[str, Any]] = []

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self._fio.send_signal(signal.SIGINT)
        _, said = self._fio.communicate(timeout=120)
        assert "verify" not in said, said
        text = self._output.read_text()
        self.jobs = json.loads(text[text.index("{"):])["jobs"]

    def check(self) -> None:
        """No I/O error, no block that differs; print how long anybody had to wait."""
        assert {name: 0 for name, *_ in JOBS} == {job["jobname"]: job["error"] for job in self.jobs}
        assert all(job["read"]["total_ios"] for job in self.jobs)
        done = sum(job[way]["total_ios"] for job in self.jobs for way in ("read", "write"))
        stalls = (f"{job['jobname']} {max(job[way]['clat_ns']['max'] for way in ('read', 'write')) / 1e6:.0f} ms"
                  for job in self.jobs)
        print(f"{done} operations, worst stall " + ", ".join(stalls))


@contextmanager
def direct_reader(path: Path) -> Iterator[Any]:
    """Calls that read a block of `path` which the server must answer."""
    from mmap import mmap
    with opened(path, os.O_RDONLY | os.O_DIRECT) as fd, mmap(-1, 4096) as buffer:
        yield lambda: os.preadv(fd, [buffer], 0)


def kill(lives: Lives, times: int, path: Path, between: Any) -> list[float]:
    """Kill at random moments; ms from each kill to the first answer. `between(number)` runs after each."""
    took, rng = [], random.Random(6)
    with direct_reader(path) as read:
        for number in range(times):
            killed = lives.kill()
            assert 4096 == read()
            took.append(1000 * (time.monotonic() - killed))
            between(number)
            due = time.monotonic() + rng.uniform(0.02, 1.2)
            eventually(lambda due=due: time.monotonic() > due)  # type: ignore[misc]
    return took


def report(took: list[float]) -> None:
    print(f"\n{len(took)} kills -9, first answer after {statistics.median(took):.0f} ms (median), "
          f"{max(took):.0f} ms (worst)")


def test_kills_under_verified_load(loaded: Mount, tmp_path: Path) -> None:
    """No I/O error and no wrong block in any mode."""
    lives = Lives(loaded)
    with Load(loaded.path, tmp_path) as load:
        took = kill(lives, KILLS, loaded.path / "user.bin", lambda number: None)
    report(took)
    load.check()
    status = loaded.status()
    assert (KILLS, 0) == (status["restarts"], status["backing_ids"])


def test_kills_and_reloads_under_verified_load(loaded: Mount, tmp_path: Path) -> None:
    """Files come, change and go meanwhile, also the ones under load; a reload whose server dies is asked again."""
    lives, socket = Lives(loaded), runtime.socket_of(loaded.path.resolve())
    reloads = 0

    def reload(number: int) -> None:
        nonlocal reloads
        files = dict(FILES)
        if number % 3:
            halves = FILES["comp.bin"]["regions"]
            files["extra/new.bin"] = {"regions": halves[::number % 3 * 2 - 3]}
        if number % 2:
            files["comp.bin"] = {"regions": [*FILES["comp.bin"]["regions"], {"length": 4096, "hole": True}]}
        loaded.write_manifest(files)
        if number % 4 == 0:
            lives.kill()
        while True:
            with suppress(control.Unanswered):
                control.call(socket, "reload")
                reloads += 1
                break
        shown = {str(path.relative_to(loaded.path)) for path in loaded.path.rglob("*.bin")}
        assert set(files) == shown
        for name in set(files) - {"pass.bin", "user.bin", "other.bin"}:
            first = (tmp_path / files[name]["regions"][0]["source"]).read_bytes()
            assert first[:4096] == (loaded.path / name).read_bytes()[:4096]

    with Load(loaded.path, tmp_path) as load:
        took = kill(lives, KILLS, loaded.path / "user.bin", reload)
    print(f"\n{reloads} reloads")
    report(took)
    load.check()
    eventually(lambda: loaded.status()["retired"] == 0)
    assert 0 == loaded.status()["backing_ids"]


WRITER = """
import os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
for number in range(1 << 20):
    try:
        os.pwrite(fd, number.to_bytes(8, "little"), number % 1000 * 4096)
        os.fsync(fd)
    except OSError as error:
        print("errno", error.errno)
        break
    print(number, flush=True)
"""


def test_a_killed_holder_loses_nothing_that_was_confirmed(loaded: Mount, tmp_path: Path) -> None:
    """Writers get ENOTCONN (in flight: ECONNABORTED); every fsync's bytes are there; the next mount cleans up."""
    lives = Lives(loaded)
    writers = {name: subprocess.Popen([sys.executable, "-c", WRITER, loaded.path / name], stdout=subprocess.PIPE,
                                      text=True) for name in ("pass.bin", "user.bin")}
    for writer in writers.values():
        assert writer.stdout is not None
        while writer.stdout.readline() != "20\n":
            pass
    os.kill(lives.holder, signal.SIGKILL)
    for name, writer in writers.items():
        *numbers, failure = writer.communicate(timeout=30)[0].splitlines()
        assert failure in (f"errno {errno.ENOTCONN}", f"errno {errno.ECONNABORTED}"), failure
        last = int(numbers[-1]) if numbers else 20
        print(f"{name}: {last + 1} writes confirmed, then {failure}")
        source = tmp_path / ("pass.img" if name == "pass.bin" else "user-1.img")
        with opened(source) as fd:
            for number in range(max(0, last - 999), last + 1):
                assert number.to_bytes(8, "little") == os.pread(fd, 8, number % 1000 * 4096)
    with pytest.raises(OSError) as failed:
        (loaded.path / "user.bin").stat()
    assert errno.ENOTCONN == failed.value.errno
    done = loaded.user.regionfs("mount", "-q", loaded.manifest, loaded.path)
    assert (0, "") == (done.returncode, done.stderr)
    assert FILE == (loaded.path / "user.bin").stat().st_size
    assert 1 == len(mounts_below(loaded.path))
    loaded.unmount()
    stem = runtime.stem_of(loaded.path.resolve())
    assert set() == {path.suffix for path in stem.parent.glob(f"{stem.name}.*")} - {".log"}
