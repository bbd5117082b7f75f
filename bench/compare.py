"""Two checkouts side by side: what a change costs, as ratios of medians.

    python -m bench.compare BEFORE AFTER [--turns 15] [--seconds 1.0]

Each checkout has its own .venv (scripts/setup). Both mount the same manifest over the same sources; then they take
turns row by row, in random order, so that what the machine does meanwhile meets both. As root, for the kernel's modes.
Figures go to bench/results/compare/DATE.json: medians, the spread (half the distance of the quartiles), the ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import peers, workloads

RESULTS = Path(__file__).resolve().parent / "results" / "compare"
CLIENT = Path(__file__).resolve().parent / "client.c"
FILES = 10_000
SIZE = 256 << 20
REGION = 4 << 20


@dataclass(frozen=True)
class Row:
    """One row: fio on `file`, or with `file` empty every small file opened, read and closed. Higher is better."""

    name: str
    file: str = ""
    rw: str = ""
    block: int = 0
    depth: int = 1
    direct: bool = True


ROWS = (
    Row("read random 4 KiB, O_DIRECT", "ro.img", "randread", 4096),
    Row("read random 4 KiB, O_DIRECT, depth 16", "ro.img", "randread", 4096, 16),
    Row("read sequential 128 KiB, O_DIRECT", "ro.img", "read", 128 << 10),
    Row("write random 4 KiB, O_DIRECT", "rw.img", "randwrite", 4096),
    Row("write random 4 KiB, O_DIRECT, depth 16", "rw.img", "randwrite", 4096, 16),
    Row("write sequential 128 KiB, buffered", "rw.img", "write", 128 << 10, direct=False),
    Row("read sequential 128 KiB, composed, warm", "composed.img", "read", 128 << 10, direct=False),
    Row("open-read-close of 10,000 files"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--only", default="", help="rows whose name has this")
    arguments = parser.parse_args()
    trees = {"before": arguments.before.resolve(), "after": arguments.after.resolve()}
    rows = [row for row in ROWS if arguments.only in row.name]
    with tempfile.TemporaryDirectory(prefix="regionfs-compare-", dir="/var/tmp") as text, ExitStack() as stack:
        place = Path(text)
        paths = make_sources(place, stack)
        points = {name: stack.enter_context(mounted(tree, place, name)) for name, tree in trees.items()}
        figures: dict[str, dict[str, list[float]]] = {row.name: {name: [] for name in trees} for row in rows}
        for _ in range(arguments.turns):
            for row in random.sample(rows, len(rows)):
                for name in random.sample(list(trees), 2):
                    figures[row.name][name].append(measure(row, points[name], paths, arguments.seconds))
    write(trees, figures)


def make_sources(place: Path, stack: ExitStack) -> list[str]:
    """Sources in a tmpfs (large) and on the disk (small, and for the composed file), and the manifest over them."""
    memory = place / "memory"
    memory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2g", "tmpfs", memory], check=True)
    stack.callback(subprocess.run, ["umount", "-l", str(memory)], check=True)
    for name in ("a.img", "b.img"):
        subprocess.run(["head", "-c", str(SIZE), "/dev/urandom"], stdout=(memory / name).open("wb"), check=True)
        for copy in (place / name, memory / f"ro-{name}"):  # sources of their own for what is only read
            shutil.copyfile(memory / name, copy)
    (place / "small").mkdir()
    paths = [f"small/{number % 100}/{number}.txt" for number in range(FILES)]
    for path in paths:
        (place / path).parent.mkdir(exist_ok=True)
        (place / path).write_bytes(os.urandom(2048))
    lines = ["regionfs: 1", "files:"]
    for name, access, where in (("ro", "ro", "memory/ro-"), ("rw", "rw", "memory/"), ("composed", "ro", "")):
        lines += [f"  {name}.img:", "    regions:"]
        lines += [f"      - {{source: {where}{'ba'[start // REGION % 2]}.img, start: {start}, offset: {start}, "
                  f"length: {REGION}, access: {access}}}" for start in range(0, SIZE, REGION)]
    lines += [f"  {path}: {{whole: {path}}}" for path in paths]
    (place / "manifest.yaml").write_text("\n".join(lines) + "\n")
    return paths


@contextmanager
def mounted(tree: Path, place: Path, name: str) -> Iterator[Path]:
    """The manifest, mounted by the checkout `tree`."""
    point = place / f"mount-{name}"
    point.mkdir()
    regionfs = tree / ".venv" / "bin" / "regionfs"
    subprocess.run([regionfs, "mount", place / "manifest.yaml", point], check=True, timeout=120)
    try:
        yield point
    finally:
        subprocess.run([regionfs, "umount", point], check=True, timeout=120)


def measure(row: Row, point: Path, paths: list[str], seconds: float) -> float:
    """Operations a second: requests, or files."""
    return fio(row, point / row.file, seconds) if row.file else opens(point, paths)


def fio(row: Row, path: Path, seconds: float) -> float:
    engine = "psync" if row.depth == 1 else "libaio"
    command = ["fio", "--name=job", f"--filename={path}", f"--rw={row.rw}", f"--bs={row.block}", f"--size={SIZE}",
               f"--iodepth={row.depth}", f"--ioengine={engine}", f"--direct={row.direct:d}", "--time_based",
               f"--runtime={seconds}", "--invalidate=0", "--randrepeat=0", "--norandommap", "--output-format=json",
               *workloads.clock()]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    job = json.loads(done.stdout)["jobs"][0]
    return float(job["write" if "write" in row.rw else "read"]["iops"])


def opens(point: Path, paths: list[str]) -> float:
    target = peers.BUILD / "client"
    if not target.exists() or target.stat().st_mtime < CLIENT.stat().st_mtime:
        peers.BUILD.mkdir(parents=True, exist_ok=True)
        subprocess.run(["cc", "-O2", "-o", target, CLIENT], check=True)
    order = random.sample(paths, len(paths))
    done = subprocess.run([target, "open", point], input="\n".join(order) + "\n", cwd=point, check=True, text=True,
                          capture_output=True, timeout=120)
    return len(paths) / (int(done.stdout.split()[0]) / 1e9)


def write(trees: dict[str, Path], figures: dict[str, dict[str, list[float]]]) -> None:
    """Print the table and keep the medians."""
    result = {"commits": {name: commit(tree) for name, tree in trees.items()}, "rows": {}}
    print(f"{'row':<44}{'before':>10}{'after':>10}{'ratio':>8}{'spread':>8}")
    for name, sides in figures.items():
        before, after = (statistics.median(sides[side]) for side in ("before", "after"))
        spread = max(spread_of(values) for values in sides.values())
        result["rows"][name] = {"before": round(before), "after": round(after), "ratio": round(after / before, 3),  # type: ignore[index]
                                "spread": round(spread, 3), "turns": len(sides["before"])}
        print(f"{name:<44}{before:>10.0f}{after:>10.0f}{after / before:>8.3f}{spread:>8.3f}")
    RESULTS.mkdir(parents=True, exist_ok=True)
    target = RESULTS / time.strftime("%Y%m%d-%H%M%S.json")
    target.write_text(json.dumps(result, indent=1) + "\n")
    print(target.relative_to(Path.cwd()) if target.is_relative_to(Path.cwd()) else target)


def spread_of(values: list[float]) -> float:
    """Half the distance of the quartiles, as a part of the median."""
    if len(values) < 2:
        return 0.0
    low, _, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / statistics.median(values)


def commit(tree: Path) -> str:
    return subprocess.run(["git", "-C", tree, "rev-parse", "--short", "HEAD"], check=True, capture_output=True,
                          text=True).stdout.strip()


if __name__ == "__main__":
    main()
