"""What is measured: one row per workload, as fio options. Knows nothing of who serves the file."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MIB = 1 << 20
FILE_SIZE = 256 * MIB


@dataclass(frozen=True)
class Workload:
    """One fio job on one file of FILE_SIZE bytes."""

    name: str
    rw: str            # fio's words: read, randread, write, randwrite
    block: int         # bytes
    depth: int
    direct: bool       # O_DIRECT
    first_touch: bool = False  # the mount's own page cache is dropped first; the sources stay warm

    @property
    def sequential(self) -> bool:
        """Reported in bytes a second; the others in operations a second."""
        return not self.rw.startswith("rand")

    @property
    def warm(self) -> bool:
        """Read once, unmeasured, before it is measured."""
        return self.rw.endswith("read") and not self.direct and not self.first_touch

    @property
    def engine(self) -> str:
        """libaio keeps O_DIRECT requests in flight; buffered ones need io_uring for that."""
        if self.depth == 1:
            return "psync"
        return "libaio" if self.direct else "io_uring"


def _table() -> tuple[Workload, ...]:
    shapes = (("sequential 1 MiB", "", MIB, 1), ("sequential 128 KiB", "", 128 << 10, 1),
              ("random 4 KiB", "rand", 4096, 1), ("random 4 KiB, depth 16", "rand", 4096, 16))
    rows = []
    for verb in ("read", "write"):
        for shape, prefix, block, depth in shapes:
            if verb == "read":
                rows.append(Workload(f"{verb} {shape}, first touch", prefix + verb, block, depth, False, True))
            rows.append(Workload(f"{verb} {shape}, buffered", prefix + verb, block, depth, False))
            rows.append(Workload(f"{verb} {shape}, O_DIRECT", prefix + verb, block, depth, True))
    return tuple(rows)


WORKLOADS = _table()


def command(workload: Workload, path: Path, seconds: float, *, drop_cache: bool) -> list[str]:
    """The fio command line. First touch reads each byte at most once; the others go round for `seconds`."""
    return [
        "fio", "--name=job", f"--filename={path}", f"--rw={workload.rw}", f"--bs={workload.block}",
        f"--size={FILE_SIZE}", f"--iodepth={workload.depth}", f"--ioengine={workload.engine}",
        f"--direct={workload.direct:d}", f"--invalidate={drop_cache and workload.first_touch:d}",
        f"--time_based={not workload.first_touch:d}", f"--runtime={round(seconds * 1000)}ms", "--randrepeat=0",
        "--allow_file_create=0", "--fallocate=none", "--thread", "--output-format=json",
    ]


def run(workload: Workload, path: Path, seconds: float, *, drop_cache: bool) -> dict[str, Any]:
    """One measurement: bytes and operations a second, and the latency of the median and the 99th percentile."""
    done = subprocess.run(command(workload, path, seconds, drop_cache=drop_cache), check=False, text=True,
                          capture_output=True, timeout=60 + 10 * seconds)
    if done.returncode:
        raise RuntimeError(f"fio, {workload.name} on {path}: {done.stderr.strip() or done.stdout.strip()}")
    job = json.loads(done.stdout[done.stdout.index("{"):])["jobs"][0]
    side = job["write" if "write" in workload.rw else "read"]
    times = side["clat_ns"].get("percentile", {})
    return {"bytes_per_second": side["bw_bytes"], "operations_per_second": side["iops"],
            "latency_ns": {"median": times.get("50.000000"), "p99": times.get("99.000000")}}
