"""What is measured: one row per workload, as fio options. Knows nothing of who serves the file."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 1 << 20
FILE_SIZE = 256 * MIB
LARGE_FILE, QUICK_LARGE_FILE = 2048 * MIB, 512 * MIB  # for what a disk decides
AT_RANDOM = 32  # blocks of a turn
SAME_CORE, TWO_CORES = "same core", "two cores"


@dataclass(frozen=True)
class Workload:
    """One fio job on one file, or turns on it; `jobs` of them at once are clients with a thread each."""

    name: str
    group: str         # subjects name the groups that they take part in
    rw: str            # fio's words: read, randread, write, randwrite
    block: int         # bytes
    depth: int = 1
    direct: bool = False       # O_DIRECT
    mmap: bool = False
    jobs: int = 1
    first_touch: bool = False  # the mount's own page cache is dropped first; the sources stay warm
    turn: int = 0              # bytes, where a disk decides; with all caches dropped first: see turns.py
    longer: int = 1            # so many times as long as other turns
    placement: str = ""        # SAME_CORE, TWO_CORES; else the scheduler's

    @property
    def sequential(self) -> bool:
        """Reported in bytes a second; the others in operations a second."""
        return not self.rw.startswith("rand")

    @property
    def writes(self) -> bool:
        return self.rw.endswith("write")

    @property
    def cold(self) -> bool:
        """Through the page cache, which is empty at first."""
        return self.turn > 0 and not self.direct

    @property
    def warm(self) -> bool:
        """Read once, unmeasured, before it is measured."""
        return not (self.writes or self.direct or self.first_touch or self.cold)

    @property
    def held(self) -> bool:
        """Its sources are mapped while it is measured, so that they stay warm: see store.hold()."""
        return not (self.writes or self.direct or self.cold)

    @property
    def engine(self) -> str:
        """libaio keeps O_DIRECT requests in flight; buffered ones need io_uring for that."""
        if self.mmap:
            return "mmap"
        if self.depth == 1:
            return "psync"
        return "libaio" if self.direct else "io_uring"


def _shapes(verb: str) -> Iterator[Workload]:
    """Buffered and O_DIRECT, one client."""
    shapes = (("sequential 1 MiB", "1 MiB", "", MIB, 1), ("sequential 128 KiB", "short", "", 128 << 10, 1),
              ("random 4 KiB", "short", "rand", 4096, 1), ("random 4 KiB, depth 16", "depth 16", "rand", 4096, 16))
    for shape, group, prefix, block, depth in shapes:
        if verb == "read":
            yield Workload(f"{verb} {shape}, first touch", group, prefix + verb, block, depth, first_touch=True)
        yield Workload(f"{verb} {shape}, buffered", group, prefix + verb, block, depth)
        turn = 0 if group != "short" else AT_RANDOM * block if prefix else 8 * MIB
        yield Workload(f"{verb} {shape}, O_DIRECT", group, prefix + verb, block, depth, direct=True, turn=turn)


WORKLOADS = (
    *_shapes("read"),
    Workload("read sequential 128 KiB, mmap, first touch", "mmap", "read", 128 << 10, mmap=True, first_touch=True),
    Workload("read sequential 128 KiB, mmap", "mmap", "read", 128 << 10, mmap=True),
    Workload("read random 4 KiB, mmap, first touch", "mmap", "randread", 4096, mmap=True, first_touch=True),
    Workload("read random 4 KiB, mmap", "mmap", "randread", 4096, mmap=True),
    Workload("4 clients read sequential 128 KiB, first touch", "clients", "read", 128 << 10, jobs=4, first_touch=True),
    Workload("4 clients read random 4 KiB, buffered", "clients", "randread", 4096, jobs=4),
    Workload("4 clients read random 4 KiB, O_DIRECT", "clients", "randread", 4096, jobs=4, direct=True),
    Workload("read random 4 KiB, O_DIRECT, same core", "placement", "randread", 4096, direct=True,
             placement=SAME_CORE),
    Workload("read random 4 KiB, O_DIRECT, two cores", "placement", "randread", 4096, direct=True,
             placement=TWO_CORES),
    # all writes together: they find the sources in single pages
    *_shapes("write"),
    Workload("write random 4 KiB, mmap", "mmap", "randwrite", 4096, mmap=True),
    *(Workload(f"patch author's {rw}", "author", rw, 4096, turn=turn, longer=longer)
      for rw, turn, longer in (("read", 64 * MIB, 1), ("randread", AT_RANDOM * 4096, 1),
                               # whoever writes is made to wait in steps, by estimates of the disk
                               ("write", 128 * MIB, 8), ("randwrite", 64 * MIB, 4))),
)


@functools.cache
def clock() -> tuple[str, ...]:
    """The clock that fio takes by itself where the CPU's is reliable; unless named, each run tests that for 65 ms."""
    test = subprocess.run(["fio", "--cpuclock-test"], check=False, capture_output=True, text=True, timeout=60)
    return ("--clocksource=cpu",) if test.returncode == 0 and "reliable_tsc: yes" in test.stdout + test.stderr else ()


def command(workload: Workload, path: Path, seconds: float, *, drop_cache: bool) -> list[str]:
    """The fio command line. Clients read sequentially each from a place of its own, at random all from everywhere."""
    part = FILE_SIZE // workload.jobs if workload.sequential else FILE_SIZE
    return [
        "fio", "--name=job", f"--filename={path}", f"--rw={workload.rw}", f"--bs={workload.block}", f"--size={part}",
        f"--offset_increment={part % FILE_SIZE}", f"--numjobs={workload.jobs}", "--group_reporting",
        f"--iodepth={workload.depth}", f"--ioengine={workload.engine}", f"--direct={workload.direct:d}",
        f"--invalidate={drop_cache and workload.first_touch:d}", f"--time_based={not workload.first_touch:d}",
        f"--runtime={round(seconds * 1000)}ms",
        "--randrepeat=0", "--allow_file_create=0", "--fallocate=none", "--thread", "--disk_util=0",
        "--output-format=json", *clock(),
    ]


def run(workload: Workload, path: Path, seconds: float, *, drop_cache: bool,
        before: Sequence[str] = ()) -> dict[str, Any]:
    """One measurement: bytes and operations a second, and the latency of the median and the 99th percentile.

    `before` is put in front of the command. Raises RuntimeError with fio's words when it fails.
    """
    done = subprocess.run([*before, *command(workload, path, seconds, drop_cache=drop_cache)], check=False, text=True,
                          capture_output=True, timeout=60 + 10 * seconds)
    if done.returncode:
        raise RuntimeError(f"fio, {workload.name} on {path}: {done.stderr.strip() or done.stdout.strip()}")
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    side = job["write" if workload.writes else "read"]
    times = side["clat_ns"].get("percentile", {})
    return {"bytes_per_second": side["bw_bytes"], "operations_per_second": side["iops"],
            "latency_ns": {"median": times.get("50.000000"), "p99": times.get("99.000000")}}
