"""Where the time goes: workloads on subjects under perf(1), as a table of functions, into results/profiles.txt.

    python -m bench.profile --workload TEXT... --subject NAME... [--runs N] [--seconds S]

The whole machine is sampled while fio or turns.c runs, idle cores left out: a share is one of the time that some core
was busy. What is measured is prepared as in bench.run. Needs perf (Debian: linux-perf).
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from bench.placement import free_memory, idling
from bench.run import RESULTS, measure, measure_turns, settled, start_all, stores
from bench.subjects import SUBJECTS, Subject
from bench.table import amount
from bench.tools import MissingError, need
from bench.workloads import WORKLOADS, Workload

FREQUENCY = 5000  # samples a second and core
SHOWN = 16        # functions
GAP = "\n\n\n"     # between the profiles of the file
IDLE = "swapper"  # perf's name for a core without work
LINE = re.compile(r"\s*(\d+)\s+(.{15})\s+\[(.)\]\s+(\S+)")

Samples = collections.Counter[tuple[str, str]]  # (thread's name, function) -> how often it was seen


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.profile", description="Where the time of a workload goes.")
    parser.add_argument("--workload", action="append", required=True, help="names that begin so; may be repeated")
    parser.add_argument("--subject", action="append", required=True, help="may be repeated")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.25, help="of each run")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was begun is undone
    workloads = [row for row in WORKLOADS if row.name.startswith(tuple(options.workload))]
    subjects = [row for row in SUBJECTS if row.name in options.subject]
    try:
        need("perf")
    except MissingError as error:
        sys.exit(f"bench.profile: {error}")
    for workload, subject, text in profiles(workloads, subjects, options.runs, options.seconds):
        keep(RESULTS / "profiles.txt", f"{workload.name}; {subject.name}:", text)
        print(text)


def keep(path: Path, title: str, text: str) -> None:
    """Put a profile, which begins with `title`, among those of the file, in place of an older one."""
    kept = path.read_text().strip().split(GAP) if path.exists() else []
    path.write_text(GAP.join(sorted([*(other for other in kept if not other.startswith(title)), text.strip()])) + "\n")


def profiles(workloads: Sequence[Workload], subjects: Sequence[Subject], runs: int, seconds: float,
             ) -> Iterator[tuple[Workload, Subject, str]]:
    """A table for each workload on each subject that does it."""
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(stores(workloads))
        views = start_all(subjects, workloads, made, stack, {})
        stack.enter_context(idling(as_is=False))
        stack.enter_context(free_memory(as_is=False))
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="regionfs-bench-"))) / "perf.data"
        perf = ["perf", "record", "--quiet", "--all-cpus", "--event", "cpu-clock", "--freq", str(FREQUENCY),
                "--output", str(data), "--"]
        for workload in workloads:
            for subject in (row for row in subjects if row.name in views and row.does(workload)):
                view = views[subject.name][subject.store(workload)]
                unit = "bytes" if workload.sequential else "operations"
                seen, speeds = Samples(), []
                turns = subject.takes_turns(workload)
                with settled(workload, None, [] if turns else [view]):
                    for _ in range(runs):
                        figures = (measure_turns(workload, {subject.name: view}, seconds, perf)[subject.name] if turns
                                   else measure(workload, subject, view, made["disk"], seconds, perf))
                        if "error" in figures:  # refused
                            print(f"bench.profile: {workload.name}, {subject.name}: {figures['error']}",
                                  file=sys.stderr)
                            break
                        seen.update(samples(report(data)))
                        speeds.append(figures[f"{unit}_per_second"])
                    else:
                        yield workload, subject, table(workload, subject, seen, median(speeds))


def report(data: Path) -> str:
    """perf's table of how often each function of each thread was seen."""
    return subprocess.run(["perf", "report", "--input", str(data), "--no-children", "--stdio", "--call-graph", "none",
                           "--sort", "comm,symbol", "--fields", "sample,comm,symbol"],
                          check=True, capture_output=True, text=True).stdout


def samples(text: str) -> Samples:
    """What such a table says, idle cores left out; functions of programs, which have no symbols, as one of each."""
    found = Samples()
    for line in text.splitlines():
        if (match := LINE.match(line)) and (comm := match[2].strip()) != IDLE:
            found[comm, "(user space)" if match[3] == "." else match[4]] += int(match[1])
    return found


def table(workload: Workload, subject: Subject, seen: Samples, speed: float) -> str:
    """The threads and the functions that were seen most, in per cent of all samples."""
    total = sum(seen.values())
    threads = collections.Counter[str]()
    for (comm, _), count in seen.items():
        threads[comm] += count
    lines = [f"{workload.name}; {subject.name}: {amount(speed, 'bytes' if workload.sequential else 'operations')} "
             "while it was sampled", "",
             *(f"{100 * count / total:5.1f} %  {comm}" for comm, count in threads.most_common(4)), "",
             *(f"{100 * count / total:5.1f} %  {comm:15}  {function}"
               for (comm, function), count in seen.most_common(SHOWN))]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
