"""The benchmark: every workload on every subject that takes part in it, interleaved, the raw figures into a JSON file.

    python -m bench.run [--quick] [--rounds N] [--seconds S] [--minutes M] [--subject NAME]... [--workload TEXT]...
                        [--as-is] [--out FILE]

All subjects stay mounted during the run. A round goes through the workloads, and for each through the
subjects, beginning with another one each time; noise that comes and goes meets all of them alike. Where a disk
decides, those who meet it take turns in one run.
The method is in bench/README.md; bench/table.py reads the result.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from bench import table, turns
from bench.peers import libfuse_version, newer_version
from bench.placement import cores, dirty_limit, free_memory, halt_poll, idling, pinned
from bench.servers import View
from bench.store import COARSE, FINE, PIECES, Store, hold, trim, warm
from bench.subjects import SUBJECTS, Subject
from bench.tools import MissingError
from bench.workloads import FILE_SIZE, LARGE_FILE, QUICK_LARGE_FILE, SAME_CORE, WORKLOADS, Workload, run
from regionfs.cli.wakeups import microseconds
from tests.sweep import session_root, unmount_all

RESULTS = Path(__file__).resolve().parent / "results"
QUICK_RESULT = Path(__file__).resolve().parent.parent / "build" / "bench-quick.json"
QUICK = ("read sequential 128 KiB, first touch", "read random 4 KiB, buffered", "read random 4 KiB, O_DIRECT",
         "write sequential 128 KiB, buffered", "4 clients read random 4 KiB, O_DIRECT",
         "read random 4 KiB, O_DIRECT, two cores")
CACHES = Path("/proc/sys/vm/drop_caches")
Views = dict[str, dict[str, View]]  # subject -> store -> where it shows the bytes


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.run", description="The benchmark of regionfs.")
    parser.add_argument("--quick", action="store_true", help="one short round, for a look; not published")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of each run; eight times as long where several take turns")
    parser.add_argument("--minutes", type=float, default=17, help="no round begins that would not end within")
    parser.add_argument("--subject", action="append", help="only this one (and the file); may be repeated")
    parser.add_argument("--workload", action="append", help="only names that contain this; may be repeated")
    parser.add_argument("--as-is", action="store_true",
                        help="idle cores sleep as soon as this machine has them do, and its host takes free memory")
    parser.add_argument("--out", type=Path)
    parsed = parser.parse_args()
    parsed.rounds = parsed.rounds or (1 if parsed.quick else 5)
    parsed.seconds = parsed.seconds or (0.1 if parsed.quick else 0.25)
    parsed.turns_seconds = 8 * parsed.seconds
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S")
    parsed.out = parsed.out or (QUICK_RESULT if parsed.quick else RESULTS / f"{stamp}.json")
    return parsed


def machine(halt_poll_before: int | None = None, kept_free: int | None = None) -> dict[str, Any]:
    """What the figures depend on, and nothing that names the machine.

    `halt_poll_before`, `kept_free`: as idling() and free_memory() yield it.
    """
    model = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
             if line.startswith("model name")]
    return {
        "cpu": model[0] if model else platform.machine(), "cores": os.cpu_count(), "kernel": platform.release(),
        "wake_up_us": microseconds(), "halt_poll_ns": halt_poll(),
        "halt_poll_ns_before": halt_poll_before, "kept_free": kept_free,
        "memory": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "python": platform.python_version(), "libfuse": libfuse_version(),
        "libfuse_newer": newer_version(), "fio": output("fio", "--version"),
        "read_ahead_kib": read_ahead(session_root()), "commit": output("git", "rev-parse", "--short", "HEAD"),
    }


def output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, check=True, text=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def read_ahead(directory: Path) -> int | None:
    """KiB, of the disk below; None where that is no single disk."""
    number = directory.stat().st_dev
    path = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/bdi/read_ahead_kb")
    return int(path.read_text()) if path.exists() else None


def memory_directory() -> Path | None:
    """A tmpfs with room that takes O_DIRECT (Linux 6.6); None where there is none."""
    shm = Path("/dev/shm")
    if not shm.is_dir() or shutil.disk_usage(shm).free < 4 * FILE_SIZE:
        return None
    with tempfile.NamedTemporaryFile(dir=shm) as probe:
        try:
            os.close(os.open(probe.name, os.O_RDONLY | os.O_DIRECT))
        except OSError:
            return None
    return shm


@contextlib.contextmanager
def stores(workloads: Sequence[Workload], large: int = LARGE_FILE) -> Iterator[dict[str, Store]]:
    """The bytes in each kind of place that is needed for these, warm; unmounted and removed at the end.

    `large` bytes where a disk decides.
    """
    places = {"disk": (session_root(), FILE_SIZE, (COARSE, FINE, PIECES)),
              "memory": (memory_directory() or session_root(), FILE_SIZE, (COARSE, PIECES)),
              "large": (session_root(), large, ())}
    if not any(workload.turn for workload in workloads):
        del places["large"]
    with contextlib.ExitStack() as stack:
        made = {}
        for kind, (place, size, layouts) in places.items():
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="regionfs-bench-", dir=place))
            stack.callback(unmount_all, Path(name))
            made[kind] = Store(Path(name), size)
            made[kind].fill(*layouts)
        os.sync()
        yield made


def start(subject: Subject, store: Store, stack: contextlib.ExitStack) -> View:
    """Start `subject` and compare every byte it shows; MissingError when it cannot run."""
    try:
        view = stack.enter_context(subject.start(store))
    except (OSError, AssertionError, subprocess.SubprocessError) as error:
        raise MissingError(str(error).strip().splitlines()[0]) from error
    if subprocess.run(["cmp", "--silent", store.flat, view.path], check=False).returncode:
        raise SystemExit(f"{subject.name} shows other bytes than the file")
    return view


def start_all(subjects: Sequence[Subject], workloads: Sequence[Workload], made: Mapping[str, Store],
              stack: contextlib.ExitStack, entries: dict[str, Any]) -> Views:
    """Every subject that can run, with a view of each store that its workloads need; `entries` says who cannot."""
    views: Views = {}
    for subject in subjects:
        entry = entries[subject.name] = {"what": subject.what, "baseline": subject.baseline, "family": subject.family,
                                         "missing": None}
        try:
            kinds = {subject.store(workload): None for workload in workloads if subject.does(workload)}
            views[subject.name] = {kind: start(subject, made[kind], stack) for kind in kinds}
        except MissingError as reason:
            entry["missing"] = str(reason).splitlines()[0]
            print(f"bench: {subject.name} is missing: {entry['missing']}", file=sys.stderr)
    return views


def measure(workload: Workload, subject: Subject, view: View, store: Store, seconds: float,
            before: Sequence[str] = ()) -> dict[str, Any]:
    """One run; an operation that the subject refuses is a result too. `before` is put in front of fio's command."""
    try:
        if workload.first_touch and subject.fresh:
            with subject.start(store) as first:
                read_through(first)
            with subject.start(store) as anew:
                return run(workload, anew.path, seconds, drop_cache=False, before=before)
        if workload.first_touch or (workload.warm and subject.keeps_cache):
            read_through(view)
        if workload.direct:
            os.sync()
        if workload.placement:
            return run_placed(workload, view, seconds, before)
        with hold([view.path] if workload.warm and subject.keeps_cache else []):
            return run(workload, view.path, seconds, drop_cache=subject.own_cache, before=before)
    except (RuntimeError, OSError) as error:
        return {"error": str(error).splitlines()[0]}
    finally:
        if workload.writes:
            trim(view.sources, FILE_SIZE)


def measure_turns(workload: Workload, views: Mapping[str, View], seconds: float,
                  before: Sequence[str] = ()) -> dict[str, dict[str, Any]]:
    """Those who meet the disk, in turns: name to figures, or why there are none; `before` as in measure().

    As many passes over the file as take that long, each with empty caches. Through the page cache no more than a
    quarter of a turn may wait to be written, as where the file does not fit into memory.
    """
    limited = dirty_limit(workload.turn // 4) if workload.cold and workload.writes else contextlib.nullcontext()
    paths = {name: view.path for name, view in views.items()}
    taken: dict[str, list[int]] = {name: [] for name in views}
    left = seconds * workload.longer
    try:
        with limited:
            while left > 0:
                forget()
                began = time.monotonic()
                for name, more in turns.run(workload, paths, left, before).items():
                    taken[name] += more
                left -= time.monotonic() - began
    except (RuntimeError, OSError) as error:
        return {name: {"error": str(error).splitlines()[0]} for name in views}
    return {name: turns.figures(workload, times) for name, times in taken.items()}


def read_through(view: View) -> None:
    """Every byte once: the view is in the page cache then.

    A first touch fills the very pages that were filled here and dropped again, rather than such as a host took back:
    see free_memory().
    """
    subprocess.run(["cat", view.path], stdout=subprocess.DEVNULL, check=True)


def run_placed(workload: Workload, view: View, seconds: float, before: Sequence[str]) -> dict[str, Any]:
    """fio on the first core, who serves it on the first or the second. Raises RuntimeError where there is no second."""
    here, *others = cores()
    if workload.placement != SAME_CORE and not others:
        raise RuntimeError("this machine has one core")
    with pinned(view.pids, here if workload.placement == SAME_CORE else others[0]):
        return run(workload, view.path, seconds, drop_cache=False, before=[*before, "taskset", "--cpu-list", str(here)])


def forget() -> None:
    """Drop every cache of the machine that can be dropped. Raises OSError where this is not permitted."""
    os.sync()
    CACHES.write_text("3")


@contextlib.contextmanager
def settled(workload: Workload, before: Workload | None, views: Collection[View]) -> Iterator[None]:
    """Around a row: nothing is left to be written, and its subjects' sources are warm; for writes in single pages.

    Reads that drop no cache of the sources hold them. Nothing is held while caches are dropped here, not by
    subjects either.

    What a write into the page cache costs depends on how large the folio is that it finds there. Reads find what
    read-ahead leaves, in every round alike. How pages lie in memory makes up to half of what is read from them:
    before a row of reads from the page cache nobody has any, and each fills his own in turn.
    """
    os.sync()
    sources = {path for view in views for path in view.sources}
    if before is None or before.writes != workload.writes or workload.warm:
        for view in views:
            view.let_go()
        with contextlib.suppress(OSError):
            forget()
    warm(sources, single_pages=workload.writes)
    with hold(sources if workload.held else []):
        yield


def one_round(workloads: Sequence[Workload], subjects: Sequence[Subject], number: int, views: Views, disk: Store,
              options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every workload once on every subject that does it."""
    before = None
    for index, workload in enumerate(workloads):
        row = [(subject, views[subject.name][subject.store(workload)])
               for subject in in_order(workload, subjects, number + index)]
        if alone := [(subject, view) for subject, view in row if not subject.takes_turns(workload)]:
            with settled(workload, before, [view for _, view in alone]):
                for subject, view in alone:
                    figures = measure(workload, subject, view, disk, options.seconds)
                    yield run_of(workload, subject.name, figures)
            before = workload
        if together := {subject.name: view for subject, view in row if subject.takes_turns(workload)}:
            for name, figures in measure_turns(workload, together, options.turns_seconds).items():
                yield run_of(workload, name, figures)


def run_of(workload: Workload, subject: str, figures: Mapping[str, Any]) -> dict[str, Any]:
    """What the result keeps of a run."""
    return {"workload": workload.name, "subject": subject, "load": os.getloadavg()[0], **figures}


def in_order(workload: Workload, subjects: Sequence[Subject], passes: int) -> list[Subject]:
    """Those that do this workload, as they come in a row.

    In every round another one is first, and once all were, they go the other way round: nobody has a place or
    a predecessor of his own.
    """
    return rotated([subject for subject in subjects if subject.does(workload)], passes)


def rotated(row: Sequence[Subject], passes: int) -> list[Subject]:
    """The order of this pass: forwards from each of them in turn, then backwards."""
    cycles, first = divmod(passes, max(len(row), 1))
    way = list(reversed(row) if cycles % 2 else row)
    return way[first:] + way[:first]


def measure_all(options: argparse.Namespace, result: dict[str, Any], views: Views, disk: Store) -> None:
    """The rounds, as many as fit the time; `result` says how many these were."""
    workloads = chosen_workloads(options)
    subjects = [subject for subject in SUBJECTS if subject.name in views]
    began = time.monotonic()
    with Progress(transient=True) as progress:
        total = options.rounds * sum(subject.does(workload) for workload in workloads for subject in subjects)
        bar = progress.add_task("measuring", total=total)
        for number in range(options.rounds):
            spent = time.monotonic() - began
            if number and spent * (number + 1) / number > 60 * options.minutes:
                print(f"bench: {number} rounds fit into {options.minutes:g} minutes", file=sys.stderr)
                break
            for figures in one_round(workloads, subjects, number, views, disk, options):
                result["runs"].append({"round": number, **figures})
                progress.advance(bar)
            result["rounds"] = number + 1
    result["minutes"] = round((time.monotonic() - began) / 60, 1)


def chosen_workloads(options: argparse.Namespace) -> list[Workload]:
    return [row for row in WORKLOADS
            if (not options.quick or row.name in QUICK)
            and (not options.workload or any(text in row.name for text in options.workload))]


def chosen_subjects(options: argparse.Namespace) -> list[Subject]:
    chosen = [row for row in SUBJECTS if not options.subject or row.name in options.subject]
    baselines = {row.baseline for row in chosen}
    return [row for row in SUBJECTS if row in chosen or row.name in baselines]


def main() -> None:
    options = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was begun is undone
    subjects, workloads = chosen_subjects(options), chosen_workloads(options)
    large = QUICK_LARGE_FILE if options.quick else LARGE_FILE
    result: dict[str, Any] = {
        "started": datetime.datetime.now().isoformat(timespec="seconds"), "machine": {},
        "rounds": 0, "seconds": options.seconds, "turns_seconds": options.turns_seconds,
        "file_size": FILE_SIZE, "large_file": large,
        "memory_store": "tmpfs" if memory_directory() else "disk",
        "workloads": [{"name": row.name, "group": row.group, "unit": "bytes" if row.sequential else "operations",
                       "subjects": [subject.name for subject in subjects if subject.does(row)]} for row in workloads],
        "subjects": {}, "runs": [],
    }
    with contextlib.ExitStack() as stack:
        made = stack.enter_context(stores(workloads, large))
        views = start_all(subjects, workloads, made, stack, result["subjects"])
        halt_poll_before = stack.enter_context(idling(as_is=options.as_is))
        result["machine"] = machine(halt_poll_before, stack.enter_context(free_memory(as_is=options.as_is)))
        measure_all(options, result, views, made["disk"])
    options.out.parent.mkdir(parents=True, exist_ok=True)
    table.keep(result, options.out)
    print(table.markdown(result))
    print(f"raw figures: {options.out}")


if __name__ == "__main__":
    main()
