"""Many sources within few descriptors, and memory that stays what it was."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import REGIONFS, Mount, User
from tests.worker import Worker

SOURCES, SIZE = 10_000, 100   # bytes of each
DESCRIPTORS = 512
LIMITED = User(command=("prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}", REGIONFS))

MakeMount = Callable[..., Mount]


def content(number: int) -> bytes:
    """What source `number` holds."""
    return f"{number:06}".encode() * (SIZE // 6) + b"." * (SIZE % 6)


@pytest.fixture
def manifest(tmp_path: Path) -> dict[str, object]:
    """All of 10,000 sources in a row, and each tenth as a file of its own."""
    (tmp_path / "s").mkdir()
    for number in range(SOURCES):
        (tmp_path / "s" / str(number)).write_bytes(content(number))
    row = {"regions": [{"source": f"s/{number}"} for number in range(SOURCES)]}
    return {"all": row, **{f"one/{number}": {"whole": f"s/{number}"} for number in range(0, SOURCES, 10)}}


def open_descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - the descriptors, not paths


@pytest.mark.timeout(240)
def test_ten_thousand_sources_within_512_descriptors(mount: MakeMount, manifest: dict[str, object]) -> None:
    """Read in order and at random, by four processes, and opened one by one: always the right bytes."""
    with mount(manifest, user=LIMITED, options=["--modes", "passthrough,userspace"]) as mounted:
        pid, path = mounted.status()["pid"], mounted.path / "all"
        assert b"".join(map(content, range(SOURCES))) == path.read_bytes()
        assert open_descriptors(pid) < DESCRIPTORS
        workers = [Worker() for _ in range(4)]
        for seed, worker in enumerate(workers):
            handle = worker.open(path, os.O_RDONLY)
            numbers = random.Random(seed).choices(range(SOURCES), k=2000)
            calls = [("pread_direct" if seed % 2 else "pread", handle, number * SIZE, SIZE) for number in numbers]
            assert [content(number) for number in numbers] == worker.run(calls)
            ones = [number for number in numbers if number % 10 == 0]
            opened = worker.run([("open", mounted.path / f"one/{number}") for number in ones])
            assert [content(number) for number in ones] == worker.run(
                [("pread", handle, 0, SIZE) for handle in opened])
        assert open_descriptors(pid) < DESCRIPTORS
        for worker in workers:
            worker.close()


def resident(pid: int) -> int:
    """KiB of memory that only this process has, and that are in RAM."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Private_Dirty:"):
            return int(line.split()[1])
    raise LookupError(pid)


@pytest.mark.timeout(240)
def test_memory_stays_flat(tmp_path: Path, worker: Worker) -> None:
    """Opens, reads and closes in every mode, with reloads in between: the second half needs no more than the first."""
    for name in ("a.img", "b.img", "c.img"):
        (tmp_path / name).write_bytes(name.encode() * 4096)
    files = {"whole": {"whole": "a.img"}, "user": {"regions": [{"start": 3, "source": "b.img"}]},
             "composed": {"regions": [{"source": "c.img", "offset": 4096, "length": 8192}, {"source": "c.img"}]}}
    with Mount(tmp_path, files) as mounted:
        pids = [mounted.status()[name] for name in ("pid", "holder_pid")]

        def round_of(number: int) -> None:
            mounted.write_manifest({**files, "other": {"size": 4096 * (1 + number % 2), "regions": []}})
            assert 0 == mounted.user.regionfs("reload", mounted.path).returncode
            names = [*files, "other"]
            results = worker.run([("pread", mounted.path / name, 5, 100) for name in names] * 500)
            assert [] == [result for result in results if isinstance(result, OSError)]

        for number in range(10):
            round_of(number)
        before = [resident(pid) for pid in pids]
        for number in range(30):
            round_of(number)
        grown = [after - first for after, first in zip(map(resident, pids), before, strict=True)]
        assert pids == [mounted.status()[name] for name in ("pid", "holder_pid")]
        assert max(grown) < 2048, f"KiB that server and holder grew by: {grown}"
