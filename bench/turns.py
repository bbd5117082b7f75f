"""Several ways to one file, measured in turns: for what a disk decides.

fio's runs on a shared disk differ by 15 to 40 %, and so does a bind mount from the file. Here one process (turns.c) has
all of them open and takes turns of milliseconds, each on a place that nobody touched before, so that who is measured
beside whom meets the same disk.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median, quantiles
from typing import Any

from bench import peers
from bench.workloads import Workload

SOURCE = Path(__file__).resolve().parent / "turns.c"


def client() -> Path:
    """turns.c, compiled when that is needed."""
    target = peers.BUILD / "turns"
    if not target.exists() or target.stat().st_mtime < SOURCE.stat().st_mtime:
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["gcc", "-O2", "-Wall", SOURCE, "-o", target], check=True)
    return target


def run(workload: Workload, paths: Mapping[str, Path], seconds: float, before: Sequence[str] = (),
        ) -> dict[str, list[int]]:
    """One pass over the file: what the turns of each took, in ns. All have as many.

    `before` is put in front of the command. Raises RuntimeError with the client's words, and where the file is too
    small for a turn each.
    """
    command = [*before, str(client()), workload.rw, str(workload.block), str(workload.turn), str(int(workload.direct)),
               str(seconds), *map(str, paths.values())]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60 + 10 * seconds)
    if done.returncode or not done.stdout:
        raise RuntimeError(f"{workload.name}: {done.stderr.strip() or 'no room for a turn each'}")
    turns: dict[str, list[int]] = {name: [] for name in paths}
    for line in done.stdout.splitlines():
        number, nanoseconds = map(int, line.split())
        turns[list(paths)[number]].append(nanoseconds)
    return turns


def figures(workload: Workload, turns: Sequence[int]) -> dict[str, Any]:
    """What the result keeps of turns: the speed of the median one, how many there were, the middle half in ns."""
    speed = workload.turn * 1e9 / median(turns)
    middle = quantiles(turns, n=4) if len(turns) > 1 else list(turns) * 3
    return {"bytes_per_second": speed, "operations_per_second": speed / workload.block,
            "turns": len(turns), "turn_ns": [round(middle[0]), round(middle[2])]}
