"""The passthrough beside the file itself, in turns of a few milliseconds: for what a disk decides.

    python -m bench.pairs [--rounds N] [--seconds S] [--out FILE]

Runs of a quarter of a second on a shared disk differ by 20 to 30 %, and so does a bind mount from the file. Here one
process (pairs.c) has all of them open and takes turns, each on a part of the file that nobody touched before, so that
who is measured beside whom meets the same disk. A ratio is of the medians of all turns.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench import peers, table
from bench.placement import free_memory, idling
from bench.run import forget, machine, stores
from bench.subjects import SUBJECTS
from bench.targets import FILE, PASSTHROUGH
from bench.workloads import WORKLOADS, Workload

RESULTS = table.BENCH / "results" / "pairs"
SOURCE = table.BENCH / "pairs.c"
BIND = "bind mount"
NAMES = (FILE, PASSTHROUGH, BIND)
ROWS = tuple(row for row in WORKLOADS if row.disk_decides)

Turns = dict[str, list[float]]  # subject -> nanoseconds of an operation, by turn


def client() -> Path:
    """pairs.c, compiled when that is needed."""
    target = peers.BUILD / "pairs"
    if not target.exists() or target.stat().st_mtime < SOURCE.stat().st_mtime:
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["gcc", "-O2", "-Wall", SOURCE, "-o", target], check=True)
    return target


def measure(row: Workload, paths: Mapping[str, Path], seconds: float) -> Turns:
    """One run of the client. Raises CalledProcessError."""
    names = list(paths)
    command = [str(client()), row.rw, str(row.block), str(int(row.direct)), str(seconds), *map(str, paths.values())]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60 + 10 * seconds)
    turns: Turns = {name: [] for name in names}
    for line in done.stdout.splitlines():
        number, operations, nanoseconds = map(int, line.split())
        turns[names[number]].append(nanoseconds / operations)
    return turns


def ratio(turns: Turns, name: str) -> float:
    """How fast `name` is beside the file: of the medians."""
    return median(turns[FILE]) / median(turns[name])


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line for each workload."""
    lines = ["|workload|turns each|the file|passthrough / the file|bind mount / the file|", "|---|---:|---:|---:|---:|"]
    for row in rows:
        ratios = "|".join(f"**{row['ratios'][name]:.3f}**" for name in (PASSTHROUGH, BIND))
        lines.append(f"|{row['workload']}|{row['turns']}|{row['median_us'][FILE]:.1f} us|{ratios}|")
    return "\n".join(lines)


def row_of(workload: Workload, turns: Turns) -> dict[str, Any]:
    """What the result keeps of one workload."""
    return {"workload": workload.name, "turns": len(turns[FILE]),
            "ratios": {name: ratio(turns, name) for name in NAMES[1:]},
            "median_us": {name: median(turns[name]) / 1000 for name in NAMES},
            "ns": {name: [round(turn) for turn in turns[name]] for name in NAMES}}


def measure_all(rounds: int, seconds: float) -> dict[str, Any]:
    """Every row, `rounds` times."""
    gathered: dict[str, Turns] = {row.name: {name: [] for name in NAMES} for row in ROWS}
    with contextlib.ExitStack() as stack:
        disk = stack.enter_context(stores(()))["disk"]
        starts = {subject.name: subject.start for subject in SUBJECTS}
        paths = {name: stack.enter_context(starts[name](disk)).path for name in NAMES}
        halt_poll = stack.enter_context(idling(as_is=False))
        here = machine(halt_poll, stack.enter_context(free_memory(as_is=False)))
        for _ in range(rounds):
            for row in ROWS:
                forget()
                for name, turns in measure(row, paths, seconds).items():
                    gathered[row.name][name] += turns
    return {"machine": here, "rounds": rounds, "seconds": seconds,
            "rows": [row_of(row, gathered[row.name]) for row in ROWS]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.pairs", description="The passthrough beside the file, in short turns.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="of each run, unless the file is used up before")
    parser.add_argument("--out", type=Path, default=RESULTS / f"{datetime.datetime.now():%Y%m%d-%H%M%S}.json")
    options = parser.parse_args()
    result = measure_all(options.rounds, options.seconds)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result) + "\n")
    print(markdown(result["rows"]))
    print(f"raw figures: {options.out}")


if __name__ == "__main__":
    main()
