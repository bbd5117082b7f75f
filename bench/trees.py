"""Many small files: a walk, stat and open-read-close of 10,000, and a source tree that is read and compiled.

    python -m bench.trees [--rounds N] [--minutes M] [--quick] [--out FILE]

Every measurement begins with a mount made for it, so that the kernel knows no name of it: that is `first`; the same
once more, on what the kernel then knows, is `again`. What lies below is warm for all. A round goes through the
workloads, and each through the subjects, beginning with another one every time. The method is in bench/README.md;
bench/trees_table.py puts the result into docs/benchmark.md.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import itertools
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from bench import peers, table, trees_table
from bench.packages import source_tree
from bench.placement import free_memory, idling
from bench.run import machine
from bench.servers import daemon, tool
from bench.tools import MissingError
from tests.harness import Mount
from tests.sweep import mounts_below, session_root, unmount_all

DIRECTORIES, FILES = 100, 100          # files in each directory
QUICK_DIRECTORIES = 10                 # for a look
LEAST, MOST = 2 << 10, 8 << 10         # bytes of a small file
PACKS = 8                              # files that hold the small ones' bytes, for region maps
PACKAGE = "musl"                       # a C library: many small C files, each with a dozen headers of its own
COMPILED = "src/string"                # the part of it that is built: 74 objects
QUICK_RESULT = Path(__file__).resolve().parent.parent / "build" / "trees-quick.json"
CLIENT = Path(__file__).resolve().parent / "client.c"
LONGEST = 120                          # seconds that a job may take
NUMBERS = itertools.count()

Manifest = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True)
class Store:
    """A tree of files in `plain` below a directory, and what manifests say of it."""

    directory: Path
    paths: tuple[str, ...]              # relative to `plain`, sorted
    regions: Manifest | None = None     # the same bytes cut out of other files; None: not to be had

    @property
    def plain(self) -> Path:
        return self.directory / "plain"

    @property
    def whole(self) -> Manifest:
        """Each file as `whole`."""
        return {path: {"whole": str(self.plain / path)} for path in self.paths}

    @property
    def size(self) -> int:
        """Bytes in all files."""
        return sum((self.plain / path).stat().st_size for path in self.paths)


Start = Callable[[Store], AbstractContextManager[Path]]


@dataclass(frozen=True)
class Subject:
    """One column of the table: a way to see the tree, started anew for each measurement."""

    name: str
    what: str
    start: Start
    compiles: bool = False  # measured with the source tree too


@dataclass(frozen=True)
class Workload:
    """One thing done to a tree: `run` gives seconds."""

    name: str
    what: str
    run: Callable[[Path, Store, Path], float]  # of the tree shown at a path; and a directory to write to
    source: bool = False                       # on the source tree, else on the small files
    repeats: int = 2                           # measurements of "again" in one round


def small_files(directory: Path, directories: int = DIRECTORIES) -> Store:
    """Files of random bytes; each one's first and second half also lie in two of the packs."""
    random, regions = Random(8), {}
    packs = [(directory / f"pack{number}.img").open("wb") for number in range(PACKS)]
    for number in range(directories * FILES):
        path = f"d{number // FILES:02}/f{number % FILES:02}"
        data = random.randbytes(random.randrange(LEAST, MOST))
        (target := directory / "plain" / path).parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
        halves = (data[:len(data) // 2], number % PACKS), (data[len(data) // 2:], (number + 1) % PACKS)
        regions[path] = {"regions": [{"source": f"pack{pack}.img", "offset": packs[pack].tell(), "length": len(half)}
                                     for half, pack in halves]}
        for half, pack in halves:
            packs[pack].write(half)
    for opened in packs:
        opened.close()
    return Store(directory, tuple(sorted(regions)), regions)


def source_files(directory: Path) -> Store:
    """The source tree of a C package."""
    plain = directory / "plain"
    shutil.copytree(source_tree(PACKAGE), plain, ignore=shutil.ignore_patterns("debian", ".pc"))
    return Store(directory, tuple(sorted(str(path.relative_to(plain)) for path in plain.rglob("*") if path.is_file())))


@contextlib.contextmanager
def plain(store: Store) -> Iterator[Path]:
    """The tree itself."""
    yield store.plain


@contextlib.contextmanager
def bind(store: Store) -> Iterator[Path]:
    """The tree, once more in the name space."""
    with _point(store, "bind") as point:
        subprocess.run(["mount", "--bind", store.plain, point], check=True)
        yield point


def regionfs(manifest: Callable[[Store], Manifest | None], mode: str) -> Start:
    """A read-only regionfs mount of all files, each in `mode`."""
    @contextlib.contextmanager
    def start(store: Store) -> Iterator[Path]:
        files = manifest(store)
        assert files is not None
        mount = Mount(store.directory, files, options=("--modes", mode, "-o", "ro"), name=f"{mode}-{next(NUMBERS)}")
        try:
            mount.mount()
        except AssertionError as error:
            raise MissingError(str(error).splitlines()[-1]) from error
        try:
            yield mount.path
            served = mount.status()["files"].values()
            if any(file["mode"] != mode or (mode == "passthrough" and file["reads"]) for file in served):
                raise MissingError(f"not every file was served in mode {mode}")
        finally:
            mount.unmount()
            mount.path.rmdir()
    return start


def peer(command: Callable[[Path, Path], Sequence[str | Path]]) -> Start:
    """Another FUSE file system over the tree, in the foreground, in its default settings."""
    @contextlib.contextmanager
    def start(store: Store) -> Iterator[Path]:
        with _point(store, "peer") as point, daemon(command(store.plain, point), point):
            yield point
    return start


@contextlib.contextmanager
def _point(store: Store, name: str) -> Iterator[Path]:
    """A new directory, unmounted and removed afterwards."""
    point = store.directory / f"{name}-{next(NUMBERS)}"
    point.mkdir()
    try:
        yield point
    finally:
        if mounts_below(point):
            subprocess.run(["umount", "-l", point], check=True)
        point.rmdir()


SUBJECTS = (
    Subject("plain", "the tree itself", plain, compiles=True),
    Subject("bind mount", "the same, by mount --bind", bind, compiles=True),
    Subject("regionfs passthrough", "each file as `whole`, mounted `-o ro`",
            regionfs(lambda store: store.whole, "passthrough"), compiles=True),
    Subject("regionfs userspace", f"each file as two regions out of {PACKS} other files, mounted `-o ro`",
            regionfs(lambda store: store.regions, "userspace")),
    Subject("passthrough_ll", "libfuse's C example",
            peer(lambda source, point: [peers.passthrough_ll(), "-f", "-o", f"source={source}", point])),
    Subject("passthrough_hp", "libfuse's C++ example",
            peer(lambda source, point: [peers.passthrough_hp(), "--foreground", source, point]), compiles=True),
    Subject("passthrough_hp with passthrough", "the same of a newer libfuse, which lets the kernel read and write",
            peer(lambda source, point: [peers.passthrough_hp_newer(), "--foreground", source, point]), compiles=True),
    Subject("mergerfs", "of Debian, over this one branch", peer(tool("mergerfs", "-f"))),
    Subject("bindfs", "of Debian", peer(tool("bindfs", "-f"))),
)


def find(tree: Path, store: Store, scratch: Path) -> float:
    """Names and types."""
    return _timed(["find", tree, "-type", "f"])


def client(job: str) -> Callable[[Path, Store, Path], float]:
    """A job of client.c on every file, in an order that no directory has."""
    def run(tree: Path, store: Store, scratch: Path) -> float:
        nanoseconds, size = _ask_client(job, tree, Random(9).sample(store.paths, len(store.paths)))
        if size != store.size:
            raise SystemExit(f"{job}: {size} bytes came, the files have {store.size}")
        return nanoseconds / 1e9
    return run


def tar(tree: Path, store: Store, scratch: Path) -> float:
    """Every byte of the tree; through a pipe, since tar reads no file when it writes to /dev/null."""
    return _timed(["sh", "-c", 'tar -C "$1" -cf - . | cat > /dev/null', "sh", tree])


def build(tree: Path, store: Store, scratch: Path) -> float:
    """A directory of the package, objects elsewhere; configured before, unmeasured."""
    configured, out = scratch / "configured", scratch / "build"
    if not configured.exists():
        configured.mkdir()
        subprocess.run(["sh", store.plain / "configure", "--disable-shared"], cwd=configured, check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(configured, out, symlinks=True)
    config = out / "config.mak"
    config.write_text(config.read_text().replace(str(store.plain), str(tree)))
    (out / "Makefile").unlink()
    (out / "Makefile").symlink_to(tree / "Makefile")
    objects = [f"obj/{path[:-2]}.o" for path in store.paths
               if path.endswith(".c") and path.rpartition("/")[0] == COMPILED]
    return _timed(["make", "-s", "-j2", *objects], cwd=out)


def _timed(command: Sequence[str | Path], cwd: Path | None = None) -> float:
    """Seconds that a command takes; a wait with a timeout of `subprocess` would look every 50 ms."""
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL) as process:
        ended = os.pidfd_open(process.pid)
        try:
            if not select.select([ended], [], [], LONGEST)[0]:
                process.kill()
        finally:
            os.close(ended)
        status = process.wait()
    seconds = time.perf_counter() - began
    if status:
        raise subprocess.CalledProcessError(status, command)
    return seconds


WORKLOADS = (
    Workload("find", "find -type f", find),
    Workload("stat", "stat(2) of each file", client("stat")),
    Workload("open-read-close", "each file opened, read to its end and closed", client("open")),
    Workload("tar", f"tar of the source tree of {PACKAGE} into a pipe", tar, source=True),
    Workload("build", f"make -j2 of {COMPILED} in it", build, source=True, repeats=1),
)


def _ask_client(job: str, tree: Path, paths: Sequence[str]) -> tuple[int, int]:
    """What client.c prints: nanoseconds and bytes, or a checksum; it is compiled when that is needed."""
    target = peers.BUILD / "client"
    if not target.exists() or target.stat().st_mtime < CLIENT.stat().st_mtime:
        target.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run(["gcc", "-O2", CLIENT, "-o", target], check=True)
    done = subprocess.run([target, job, tree], input="\n".join(paths) + "\n", check=True, text=True,
                          stdout=subprocess.PIPE, timeout=LONGEST)
    nanoseconds, answer = map(int, done.stdout.split())
    return nanoseconds, answer


@contextlib.contextmanager
def stores(directories: int) -> Iterator[tuple[dict[bool, Store], Path]]:
    """The small files, the source tree (True) and a directory for objects; unmounted and removed at the end."""
    with tempfile.TemporaryDirectory(prefix="regionfs-bench-", dir=session_root()) as name, \
            contextlib.ExitStack() as stack:
        stack.callback(unmount_all, Path(name))
        directory = Path(name)
        for part in ("small", "source", "scratch"):
            (directory / part).mkdir()
        made = {False: small_files(directory / "small", directories), True: source_files(directory / "source")}
        os.sync()
        yield made, directory / "scratch"


def compare(subject: Subject, store: Store) -> None:
    """Every byte that a subject shows, against the tree; MissingError when it cannot run."""
    try:
        with subject.start(store) as tree:
            if sum_of(tree, store) != sum_of(store.plain, store):
                raise SystemExit(f"{subject.name} shows other bytes than the tree")
    except (OSError, subprocess.SubprocessError) as error:
        raise MissingError(str(error).strip().splitlines()[0]) from error


def sum_of(tree: Path, store: Store) -> int:
    """A checksum of all files' bytes."""
    return _ask_client("sum", tree, store.paths)[1]


def check_all(made: Mapping[bool, Store], entries: dict[str, Any]) -> list[Subject]:
    """The subjects that can run and show the right bytes; `entries` says who is missing."""
    present = []
    for subject in SUBJECTS:
        entry = entries[subject.name] = {"what": subject.what, "missing": None}
        try:
            compare(subject, made[False])
            if subject.compiles:
                compare(subject, made[True])
            present.append(subject)
        except MissingError as reason:
            entry["missing"] = str(reason)
            print(f"bench: {subject.name} is missing: {reason}", file=sys.stderr)
    return present


def measure(number: int, subjects: Sequence[Subject], made: Mapping[bool, Store],
            scratch: Path) -> Iterator[dict[str, Any]]:
    """One round."""
    for position, workload in enumerate(WORKLOADS):
        store = made[workload.source]
        chosen = [subject for subject in subjects if subject.compiles or not workload.source]
        first = (number + position) % len(chosen)
        for subject in chosen[first:] + chosen[:first]:
            with subject.start(store) as tree:
                for touch in ("first", *["again"] * workload.repeats):
                    load = os.getloadavg()[0]
                    yield {"round": number, "workload": workload.name, "touch": touch, "subject": subject.name,
                           "load": load, "seconds": workload.run(tree, store, scratch)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.trees", description="Many small files.")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--minutes", type=float, default=3, help="no round begins that would end later")
    parser.add_argument("--quick", action="store_true", help="one round of fewer files, for a look; not published")
    parser.add_argument("--as-is", action="store_true",
                        help="idle cores sleep as soon as this machine has them do, and its host takes free memory")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was begun is undone
    began, first = datetime.datetime.now(), time.monotonic()
    out = options.out or (QUICK_RESULT if options.quick else trees_table.RESULTS / f"{began:%Y%m%d-%H%M%S}.json")
    rounds = options.rounds or (1 if options.quick else 5)
    result: dict[str, Any] = {
        "started": began.isoformat(timespec="seconds"), "rounds": 0, "machine": {}, "subjects": {}, "runs": [],
        "workloads": [{"name": row.name, "what": row.what} for row in WORKLOADS],
    }
    with stores(QUICK_DIRECTORIES if options.quick else DIRECTORIES) as (made, scratch), (
            idling(as_is=options.as_is)) as before, free_memory(as_is=options.as_is) as kept:
        result["machine"] = machine(before, kept)
        for row, workload in zip(result["workloads"], WORKLOADS, strict=True):
            row["files"] = len(made[workload.source].paths)
        subjects = check_all(made, result["subjects"])
        while result["rounds"] < rounds:
            start = time.monotonic()
            result["runs"].extend(measure(result["rounds"], subjects, made, scratch))
            result["rounds"] += 1
            now = time.monotonic()
            if now - first + now - start > 60 * options.minutes:
                break
    out.parent.mkdir(parents=True, exist_ok=True)
    table.keep(result, out)
    print(trees_table.markdown(result))
    trees_table.publish(out)


if __name__ == "__main__":
    main()
