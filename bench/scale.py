"""Growth: what reads, mounts and memory cost, from 10 to 1,000,000 regions and from 1 to 10,000 files.

    python -m bench.scale [--rounds N] [--out FILE]

All mounts of a series are there at once. A round goes through them, beginning with another one each time, so that
the machine's noise meets all alike; figures are medians of the rounds. Reads are 4 KiB with O_DIRECT at random chunks,
the same offsets for all, in userspace mode: each one is a request that the server answers by its map, on the core
of the reader. Sources are warm. bench/growth.py draws the result and puts it into docs/benchmark.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from bench import growth
from bench.placement import cores, pinned
from bench.run import machine
from tests.scale import CHUNK, SOURCES, write_chunks, write_files

REGIONFS = str(Path(sys.executable).with_name("regionfs"))
REGIONS = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
FILES = (1, 10, 100, 1_000, 10_000)
CHUNKS = max(REGIONS)    # of 4 KiB: the file's size, the same whatever the number of regions
READS = 2_000            # in one measurement
OPENS = 300
RESULTS = Path(__file__).resolve().parent / "results" / "scale"

Point = dict[str, float]


def write_map(directory: Path, count: int) -> Path:
    """A map of `count` regions with as many bytes, over as many sources, as every other of the series."""
    if count == CHUNKS:
        return write_chunks(directory, count, marked=False)
    for number in range(SOURCES):
        with open(directory / f"{number}.img", "wb") as source:
            source.truncate(CHUNKS // SOURCES * CHUNK)
    length = CHUNKS // count * CHUNK
    reach = CHUNKS // SOURCES * CHUNK - length
    rows = (f"{number * length},{length},{number % SOURCES}.img,{(number // SOURCES * length) % (reach + 1)}\n"
            for number in range(count))
    (directory / "chunks.csv").write_text("start,length,source,offset\n" + "".join(rows))
    manifest = directory / "chunks.yaml"
    manifest.write_text("regionfs: 1\nfiles:\n  f: {regions: {table: chunks.csv}}\n")
    return manifest


@contextmanager
def mounted(manifest: Path, *options: str) -> Iterator[Path]:
    """The manifest on a directory beside it."""
    point = manifest.parent / "mnt"
    point.mkdir(exist_ok=True)
    regionfs("mount", manifest, point, *options)
    try:
        yield point
    finally:
        regionfs("umount", point)


def regionfs(*arguments: str | Path) -> str:
    """Run the command; its output."""
    return subprocess.run([REGIONFS, *arguments], check=True, stdout=subprocess.PIPE, text=True, timeout=300).stdout


def seconds(work: Callable[..., object], *arguments: object) -> float:
    """How long a call takes."""
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def check_and_mount(manifest: Path, mounts: ExitStack, *options: str) -> Point:
    """Once each; the mount stays until `mounts` ends. With the memory of its processes."""
    point = {"check_s": seconds(regionfs, "check", manifest),
             "mount_s": seconds(mounts.enter_context, mounted(manifest, *options))}
    return point | resident(manifest.parent / "mnt")


def processes(point: Path) -> tuple[int, int]:
    """Server and holder of a mount."""
    mount, = json.loads(regionfs("status", point, "--json"))["mounts"]
    return mount["pid"], mount["holder_pid"]


def resident(point: Path) -> dict[str, float]:
    """MiB of the server and the holder."""
    server, holder = processes(point)
    lines = {key: Path(f"/proc/{pid}/status").read_text() for key, pid in
             (("server_mib", server), ("holder_mib", holder))}
    return {key: int(text.partition("VmRSS:")[2].split()[0]) / 1024 for key, text in lines.items()}


def read_at_random(point: Path, offsets: list[int]) -> None:
    """Chunks past the page cache of the mount."""
    buffer = mmap.mmap(-1, CHUNK)
    fd = os.open(point / "f", os.O_RDONLY | os.O_DIRECT)
    try:
        for offset in offsets:
            os.preadv(fd, (buffer,), offset)
    finally:
        os.close(fd)


def open_each(point: Path, paths: list[str]) -> None:
    """Open, read and close small files."""
    for path in paths:
        (point / path).read_bytes()


def walk(point: Path) -> None:
    """Every name, and what stat says of it."""
    for directory, _, names in os.walk(point):
        for name in names:
            os.stat(os.path.join(directory, name))  # noqa: PTH118, PTH116  # as find does, without objects


def rotated(rounds: int, counts: tuple[int, ...]) -> Iterator[int]:
    """Every count in every round, another one first each time."""
    for number in range(rounds):
        first = number % len(counts)
        yield from (*counts[first:], *counts[:first])


def measure_regions(directory: Path, rounds: int) -> dict[int, Point]:
    """Check, mount, memory and random reads by the number of regions."""
    offsets = [Random(5).randrange(CHUNKS) * CHUNK for _ in range(READS)]
    points: dict[int, Point] = {}
    runs: dict[int, list[float]] = {count: [] for count in REGIONS}
    with ExitStack() as mounts:
        places = {}
        for count in REGIONS:
            (place := directory / f"r{count}").mkdir()
            manifest = write_map(place, count)
            points[count] = check_and_mount(manifest, mounts, "--modes", "userspace")
            places[count] = manifest.parent / "mnt"
            read_at_random(places[count], offsets)  # its sources are warm now
        pids = {count: processes(place) for count, place in places.items()}
        for count in rotated(rounds, REGIONS):
            # else it is chance whether the two wait for each other's core to wake
            with pinned((*pids[count], os.getpid()), cores()[0]):
                runs[count].append(seconds(read_at_random, places[count], offsets) / READS)
    for count, values in runs.items():
        points[count] |= {"read_us": 1e6 * median(values), "read_us_least": 1e6 * min(values)}
    return points


def measure_files(directory: Path, rounds: int) -> dict[int, Point]:
    """Check, mount, memory, a walk over all names, and open-read-close by the number of files."""
    points: dict[int, Point] = {}
    walks: dict[int, list[float]] = {count: [] for count in FILES}
    opens: dict[int, list[float]] = {count: [] for count in FILES}
    with ExitStack() as mounts:
        places, chosen = {}, {}
        for count in FILES:
            (place := directory / f"f{count}").mkdir()
            manifest = write_files(place, count)
            points[count] = check_and_mount(manifest, mounts)
            places[count] = manifest.parent / "mnt"
            points[count]["status_s"] = seconds(regionfs, "status", places[count], "--json")
            # whole files only: composing one is another matter
            numbers = [number for number in range(count) if number % 10] or [0]
            chosen[count] = [f"d{number // 1000}/{number}" for number in Random(6).choices(numbers, k=OPENS)]
            open_each(places[count], chosen[count])
        for count in rotated(rounds, FILES):
            walks[count].append(seconds(walk, places[count]) / count)
            opens[count].append(seconds(open_each, places[count], chosen[count]) / OPENS)
    for count in FILES:
        points[count] |= {"walk_us": 1e6 * median(walks[count]), "open_us": 1e6 * median(opens[count])}
    return points


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.scale", description="Growth with regions and files.")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    began = datetime.datetime.now()
    out = arguments.out or RESULTS / f"{began:%Y%m%d-%H%M%S}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {"started": began.isoformat(timespec="seconds"), "rounds": arguments.rounds,
                              "machine": machine(), "load_average": [os.getloadavg()]}
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="regionfs-scale-") as directory:
        result["regions"] = measure_regions(Path(directory), arguments.rounds)
        result["load_average"].append(os.getloadavg())
        result["files"] = measure_files(Path(directory), arguments.rounds)
    result["load_average"].append(os.getloadavg())
    out.write_text(json.dumps(result, indent=1) + "\n")
    growth.publish(out)


if __name__ == "__main__":
    main()
