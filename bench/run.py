"""The benchmark: every workload on every subject, interleaved, the raw figures into a JSON file.

    python -m bench.run [--quick] [--rounds N] [--seconds S] [--subject NAME]... [--workload TEXT]... [--out FILE]

All subjects stay mounted during the run. A round goes through the workloads, and for each through the
subjects, beginning with another one each time; noise that comes and goes meets all of them alike.
The method is in bench/README.md; bench/table.py reads the result.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from bench import table
from bench.peers import MissingError, libfuse_version
from bench.subjects import SUBJECTS, Store, Subject
from bench.workloads import FILE_SIZE, WORKLOADS, Workload, run
from tests.sweep import session_root, unmount_all

RESULTS = Path(__file__).resolve().parent / "results"
Paths = dict[str, dict[bool, Path]]  # subject -> O_DIRECT? -> where it shows the bytes

QUICK_RESULT = Path(__file__).resolve().parent.parent / "build" / "bench-quick.json"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.run", description="The benchmark of regionfs.")
    parser.add_argument("--quick", action="store_true", help="one short round, for a look; not for the README")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of each measurement")
    parser.add_argument("--subject", action="append", help="only this one (and the file); may be repeated")
    parser.add_argument("--workload", action="append", help="only names that contain this; may be repeated")
    parser.add_argument("--out", type=Path)
    parsed = parser.parse_args()
    parsed.rounds = parsed.rounds or (1 if parsed.quick else 5)
    parsed.seconds = parsed.seconds or (0.25 if parsed.quick else 0.8)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    parsed.out = parsed.out or (QUICK_RESULT if parsed.quick else RESULTS / f"{stamp}.json")
    return parsed


def machine() -> dict[str, Any]:
    """What the figures depend on, and nothing that names the machine."""
    model = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]
    return {
        "cpu": model[0] if model else platform.machine(), "cores": os.cpu_count(), "kernel": platform.release(),
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(), "libfuse": libfuse_version(), "fio": output("fio", "--version"),
        "commit": output("git", "rev-parse", "--short", "HEAD"),
    }


def output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def memory_directory() -> Path | None:
    """A tmpfs with room that takes O_DIRECT (Linux 6.6); None where there is none."""
    shm = Path("/dev/shm")
    if not shm.is_dir() or shutil.disk_usage(shm).free < 3 * FILE_SIZE:
        return None
    with tempfile.NamedTemporaryFile(dir=shm) as probe:
        try:
            os.close(os.open(probe.name, os.O_RDONLY | os.O_DIRECT))
        except OSError:
            return None
    return shm


@contextlib.contextmanager
def stores() -> Iterator[dict[str, Store]]:
    """The bytes in each kind of place, warm; unmounted and removed at the end."""
    places = {"disk": session_root(), "memory": memory_directory() or session_root()}
    with contextlib.ExitStack() as stack:
        made = {}
        for kind, place in places.items():
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="regionfs-bench-", dir=place))
            stack.callback(unmount_all, Path(name))
            made[kind] = Store(Path(name))
            made[kind].fill()
        os.sync()
        yield made


def start(subject: Subject, store: Store, stack: contextlib.ExitStack) -> Path:
    """Start `subject` and compare every byte it shows; MissingError when it cannot run."""
    try:
        path = stack.enter_context(subject.start(store))
    except (OSError, AssertionError, subprocess.SubprocessError) as error:
        raise MissingError(str(error).strip().splitlines()[0]) from error
    if subprocess.run(["cmp", "--silent", store.flat, path], check=False).returncode:
        raise SystemExit(f"{subject.name} shows other bytes than the file")
    return path


def start_all(subjects: Sequence[Subject], made: Mapping[str, Store], stack: contextlib.ExitStack,
              entries: dict[str, Any]) -> Paths:
    """Every subject that can run, with its path for cached and for O_DIRECT workloads; `entries` says who cannot."""
    paths: Paths = {}
    for subject in subjects:
        entry = entries[subject.name] = {"what": subject.what, "baseline": subject.baseline, "missing": None}
        try:
            cached = start(subject, made["disk"], stack)
            direct = cached if subject.direct_store == "disk" else start(subject, made["memory"], stack)
            paths[subject.name] = {False: cached, True: direct}
        except MissingError as reason:
            entry["missing"] = str(reason)
            print(f"bench: {subject.name} is missing: {reason}", file=sys.stderr)
    return paths


def measure(workload: Workload, subject: Subject, path: Path, store: Store, seconds: float) -> dict[str, Any]:
    """One run; an operation that the subject refuses is a result too."""
    mounted = subject.name != subject.baseline
    try:
        if workload.first_touch and subject.fresh:
            with subject.start(store) as anew:
                return run(workload, anew, seconds, drop_cache=False)
        if workload.warm:
            subprocess.run(["cat", path], stdout=subprocess.DEVNULL, check=True)
        return run(workload, path, seconds, drop_cache=mounted)
    except RuntimeError as error:
        return {"error": str(error).splitlines()[0]}


def rounds(options: argparse.Namespace, paths: Paths, disk: Store) -> Iterator[dict[str, Any]]:
    """Every measurement, in the order of the run."""
    subjects = [subject for subject in SUBJECTS if subject.name in paths]
    shift = itertools.count()
    for number in range(options.rounds):
        for workload in chosen_workloads(options):
            first = next(shift) % len(subjects)
            for subject in subjects[first:] + subjects[:first]:
                if workload.rw.endswith("write") and not subject.writes:
                    continue
                figures = measure(workload, subject, paths[subject.name][workload.direct], disk, options.seconds)
                yield {"round": number, "workload": workload.name, "subject": subject.name,
                       "load": os.getloadavg()[0], **figures}


def chosen_workloads(options: argparse.Namespace) -> list[Workload]:
    return [row for row in WORKLOADS
            if not options.workload or any(text in row.name for text in options.workload)]


def chosen_subjects(options: argparse.Namespace) -> list[Subject]:
    chosen = [row for row in SUBJECTS if not options.subject or row.name in options.subject]
    baselines = {row.baseline for row in chosen}
    return [row for row in SUBJECTS if row in chosen or row.name in baselines]


def main() -> None:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was begun is undone
    subjects, workloads = chosen_subjects(options), chosen_workloads(options)
    result: dict[str, Any] = {
        "started": datetime.datetime.now().isoformat(timespec="seconds"), "machine": machine(),
        "rounds": options.rounds, "seconds": options.seconds, "file_size": FILE_SIZE,
        "memory_store": "tmpfs" if memory_directory() else "disk",
        "workloads": [{"name": row.name, "unit": "bytes" if row.sequential else "operations"} for row in workloads],
        "subjects": {}, "runs": [],
    }
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(stores())
        paths = start_all(subjects, made, stack, result["subjects"])
        progress = stack.enter_context(Progress(transient=True))
        for figures in progress.track(rounds(options, paths, made["disk"]), description="measuring",
                                      total=options.rounds * len(workloads) * len(paths)):
            result["runs"].append(figures)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(table.markdown(result))
    print(f"raw figures: {options.out}")


if __name__ == "__main__":
    main()
