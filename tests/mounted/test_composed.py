"""Composed files, mounted: the kernel reads a map of many regions, the daemon's counters stay at zero."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.cases import manifest_text, random_case
from tests.harness import Mount
from tests.mounted.kernel import backing_ids, compare, log_lines, mounted, opens, require, stopped
from tests.oracle import Declared, Model, Source
from tests.worker import Worker

MAPS = 200  # random eligible maps of each block size
BATCH = 50  # seeds to a mount
HALF = 64 * 1024


@pytest.fixture(autouse=True)
def _able() -> None:
    require("composed")


@pytest.fixture
def sources(tmp_path: Path) -> tuple[Path, Path]:
    """Two files of random bytes."""
    paths = tmp_path / "a", tmp_path / "b"
    for seed, path in enumerate(paths):
        path.write_bytes(Random(seed).randbytes(HALF))
    return paths


def swapped(sources: tuple[Path, Path]) -> dict[str, Any]:
    """A manifest's files: one that is the second source, then a hole, then the first."""
    first, second = sources
    return {"f": {"regions": [{"source": str(second)}, {"length": HALF, "hole": True}, {"source": str(first)}]}}


def contents(sources: tuple[Path, Path]) -> bytes:
    """What `swapped` shows now."""
    first, second = sources
    return second.read_bytes() + bytes(HALF) + first.read_bytes()


@pytest.fixture
def mount(tmp_path: Path, sources: tuple[Path, Path]) -> Iterator[Mount]:
    """`f` is `swapped`; at the end the kernel holds no backing file."""
    with Mount(tmp_path, swapped(sources)) as mount:
        assert "composed" == mount.status()["files"]["f"]["mode"]
        yield mount
        assert 0 == backing_ids(mount, 0)


def many_regions(directory: Path) -> tuple[Model, dict[str, Any]]:
    """1,000 regions over 50 sources, with holes between them: the model and a manifest."""
    rng = Random(3)
    sources = [Source(f"s{n}", directory / f"s{n}", bytearray(rng.randbytes(40_000))) for n in range(50)]
    declared: list[Declared] = []
    end = 0
    for number in range(1000):
        start, source = end + 512 * rng.randint(0, 2), sources[number % 50]
        offset, length = 512 * rng.randrange(60), 512 * rng.randint(1, 16)
        declared.append(Declared(start, length, "source", source, offset))
        end = start + length
    for source in sources:
        source.put()
    regions = [{"start": region.start, "length": region.length, "source": str(region.source.path),
                "offset": region.offset} for region in declared if region.source]
    return Model(end, declared), {"f": {"regions": regions}}


def test_a_thousand_regions_over_fifty_sources(tmp_path: Path) -> None:
    """Read in every way, in sequence and at random, the bytes are the oracle's without one READ."""
    model, manifest = many_regions(tmp_path)
    size, rng = model.size, Random(4)
    expected = model.read(0, size)
    with Mount(tmp_path, manifest) as mount, Worker() as worker:
        path = mount.path / "f"
        handle = worker.open(path)
        assert expected == b"".join(worker.run([("pread", handle, n, 65536) for n in range(0, size, 65536)]))
        assert expected == b"".join(worker.run([("sendfile", path, n, 65536) for n in range(0, size, 65536)]))
        assert expected == worker.mmap_read(path, 0, size, True) == worker.mmap_read(path, 0, size, False)
        places = [(rng.randrange(size), rng.randint(1, 9000)) for _ in range(2000)]
        found = worker.run([("pread", handle, offset, length) for offset, length in places])
        assert [expected[offset:offset + length] for offset, length in places] == found
        worker.call("close", handle)
        assert (0, 0) == mount.served("f")
        assert ["composed"] == list(opens(mount, "f"))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("flavour", ["aligned512", "aligned4096"])
def test_random_maps(tmp_path: Path, flavour: str) -> None:
    """200 random eligible maps, inline data, holes and tails included, are the oracle's without one READ."""
    done, first = 0, 0
    while done < MAPS:
        directory = tmp_path / str(first)
        directory.mkdir()
        done += read_maps(directory, flavour, range(first, first + BATCH))
        first += BATCH


def read_maps(directory: Path, flavour: str, seeds: range) -> int:
    """Mount the maps of these seeds, read those that are composed; how many there were."""
    cases = [random_case(seed, directory, flavour) for seed in seeds]
    for case in cases:
        case.put()
    models = {file.path: file.model for case in cases for file in case.files}
    rng = Random(seeds.start)
    with Mount(directory, manifest_text(cases)) as mount, Worker() as worker:
        eligible = [path for path, file in mount.status()["files"].items() if file["mode"] == "composed"]
        for name in eligible:
            path, model = mount.path / name, models[name]
            offset, length = rng.randrange(model.size), rng.randint(1, 20_000)
            whole, part, mapped, sent = worker.run([
                ("pread", path, 0, model.size + 1), ("pread", path, offset, length),
                ("mmap_read", path, offset, length), ("sendfile", path, offset, length)])
            assert model.read(0, model.size) == whole, name
            assert [model.read(offset, length)] * 3 == [part, mapped, sent], name
        files = mount.status()["files"]
    assert [("composed", 0, {"composed": 4})] * len(eligible) == [
        (files[name]["mode"], files[name]["reads"], files[name]["opens_by_mode"]) for name in eligible]
    return len(eligible)


def test_direct_io_of_a_closed_file(mount: Mount, sources: tuple[Path, Path], worker: Worker) -> None:
    """An O_DIRECT open of a file that nobody has open is served in userspace, and so are opens beside it."""
    path = mount.path / "f"
    direct = worker.open(path, os.O_RDONLY | os.O_DIRECT)
    beside = worker.open(path)
    assert contents(sources) == worker.pread_direct(direct, 0, 3 * HALF) == worker.pread(beside, 0, 3 * HALF)
    assert contents(sources) == worker.mmap_read(beside, 0, 3 * HALF)
    assert {"userspace": 2} == opens(mount, "f")
    assert 0 == mount.status()["backing_ids"]


def test_direct_io_of_an_open_file(mount: Mount, sources: tuple[Path, Path], worker: Worker) -> None:
    """O_DIRECT is EINVAL while the file is open in composed mode; afterwards it works."""
    path = mount.path / "f"
    handle = worker.open(path)
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        worker.open(path, os.O_RDONLY | os.O_DIRECT)
    assert contents(sources) == worker.pread(handle, 0, 3 * HALF)
    worker.call("close", handle)
    assert 0 == backing_ids(mount, 0)
    assert contents(sources) == worker.pread_direct(path, 0, 3 * HALF)


def test_composed_again_after_direct_io(mount: Mount, sources: tuple[Path, Path], worker: Worker) -> None:
    """Once the O_DIRECT handle is closed the kernel reads alone again."""
    worker.pread_direct(mount.path / "f", 0, 4096)
    reads = mount.served("f")
    assert contents(sources) == worker.pread(mount.path / "f", 0, 3 * HALF)
    assert reads == mount.served("f")
    assert {"userspace": 1, "composed": 1} == opens(mount, "f")


def test_a_source_changed_between_opens(mount: Mount, sources: tuple[Path, Path], worker: Worker) -> None:
    """Each open sees what was closed before it, however often, while older handles live; 0 READs."""
    path, first = mount.path / "f", sources[0]
    handles = []
    for turn in range(10):
        with first.open("r+b") as file:
            file.seek(4096 * turn)
            file.write(b"turn %d" % turn)
        handles.append(worker.open(path))
        assert contents(sources) == worker.pread(handles[-1], 0, 3 * HALF) == worker.mmap_read(path, 0, 3 * HALF)
    assert [3 * HALF] * 10 == [worker.stat(handle).st_size for handle in handles]
    assert 10 == mount.status()["backing_ids"]
    for handle in handles:
        worker.call("close", handle)
    assert (0, 0) == mount.served("f")


def test_a_source_changed_after_the_last_close(mount: Mount, sources: tuple[Path, Path], worker: Worker) -> None:
    """The pages of an earlier open are not shown to a later one, again and again, at any speed of change."""
    path, first = mount.path / "f", sources[0]
    for turn in range(50):
        with first.open("r+b") as file:
            file.write(b"turn %2d" % turn)
        assert b"turn %2d" % turn == worker.pread(path, 2 * HALF, 7)
    assert (0, 0) == mount.served("f")


def test_opens_beside_a_source_that_changes_all_the_time(mount: Mount, sources: tuple[Path, Path]) -> None:
    """4,000 opens by four processes while the source is written: none fails, none sees a step back, 0 READs."""
    ended = threading.Event()
    calls = [("pread", mount.path / "f", 2 * HALF, 8)] * 1000

    def change() -> None:
        with sources[0].open("r+b", buffering=0) as file:
            for turn in itertools.count():
                os.pwrite(file.fileno(), b"%08d" % turn, 0)
                if ended.wait(0.002):
                    return

    def read(_: int) -> list[Any]:
        with Worker() as process:
            return process.run(calls)

    with ThreadPoolExecutor(5) as pool:
        changing = pool.submit(change)
        try:
            seen = list(pool.map(read, range(4)))
        finally:
            ended.set()
        changing.result()
    assert [] == [result for results in seen for result in results if isinstance(result, OSError)]
    assert [sorted(results[1:]) for results in seen] == [results[1:] for results in seen]
    assert (0, 0) == mount.served("f")


def test_an_unchanged_source_is_composed_once(mount: Mount, sources: tuple[Path, Path], worker: Worker) -> None:
    """Reopening keeps the kernel's pages: the inode stays the same over a thousand opens."""
    worker.run([("pread", mount.path / "f", 0, 100)] * 1000)
    assert {"composed": 1000} == opens(mount, "f")
    assert 0 == backing_ids(mount, 0)


def test_a_replaced_source(mount: Mount, sources: tuple[Path, Path], worker: Worker) -> None:
    """After another file took a source's path new opens get EIO; a handle from before goes on."""
    path, before = mount.path / "f", contents(sources)
    handle = worker.open(path)
    other = sources[0].with_name("other")
    other.write_bytes(bytes(HALF))
    other.rename(sources[0])
    results = worker.run([("open", path)] * 3)
    assert [errno.EIO] * 3 == [error.errno for error in results]
    assert before == worker.pread(handle, 0, 3 * HALF)
    assert 1 == len(log_lines(mount, "cannot be opened"))
    worker.call("close", handle)


def test_writing_is_refused(mount: Mount, worker: Worker) -> None:
    """A composed file is read-only: EROFS, and no backing id is left."""
    results = worker.run([("open", mount.path / "f", os.O_RDWR), ("truncate", mount.path / "f", 0)])
    assert [errno.EROFS, errno.EPERM] == [error.errno for error in results]


def test_a_source_on_tmpfs(tmp_path: Path, sources: tuple[Path, Path]) -> None:
    """Sources on tmpfs, which kernels differ about: the bytes are right, and status tells who serves them."""
    point = tmp_path / "tmpfs"
    point.mkdir()
    with mounted("tmpfs", point, "size=1M"):
        moved = point / "a", sources[1]
        moved[0].write_bytes(sources[0].read_bytes())
        with Mount(tmp_path, swapped(moved)) as mount, Worker() as worker:
            path = mount.path / "f"
            for turn in range(3):
                with moved[0].open("r+b") as file:
                    file.write(b"turn %d" % turn)
                assert contents(moved) == worker.pread(path, 0, 3 * HALF) == worker.mmap_read(path, 0, 3 * HALF)
            entry = mount.status()["files"]["f"]
            fell_back = entry["mode"] == "userspace"
            assert {entry["mode"]: 6} == entry["opens_by_mode"]
            assert (fell_back, int(fell_back)) == (entry["reads"] > 0, len(log_lines(mount, "composed failed")))


@pytest.mark.timeout(30)
def test_reading_while_the_daemon_stands_still(tmp_path: Path) -> None:
    """With every process of the mount stopped an open file of 1,000 regions is read and mapped to its end."""
    model, manifest = many_regions(tmp_path)
    size = model.size
    with Mount(tmp_path, manifest) as mount, Worker() as worker:
        handle = worker.open(mount.path / "f")
        view = worker.map(handle)
        with stopped(mount):
            *pieces, mapping = worker.run([*(("pread", handle, n, 65536) for n in range(0, size, 65536)),
                                           ("view_read", view, 0, size)])
        assert model.read(0, size) == b"".join(pieces) == mapping
        worker.close()


def test_a_loop_device(mount: Mount, sources: tuple[Path, Path],
                       loop_device: Callable[..., AbstractContextManager[Path]]) -> None:
    """A read-only loop device over a composed file shows its bytes."""
    with loop_device(mount.path / "f", "--read-only") as device:
        assert contents(sources) == device.read_bytes()
    assert (0, 0) == mount.served("f")


def test_a_disk_for_qemu(mount: Mount, sources: tuple[Path, Path], tmp_path: Path) -> None:
    """QEMU finds the raw disk equal to a plain file with the same bytes."""
    plain = tmp_path / "plain"
    plain.write_bytes(contents(sources))
    assert "Images are identical." == compare(mount.path / "f", plain)
    assert (0, 0) == mount.served("f")


def test_nothing_is_left_to_see(mount: Mount, worker: Worker) -> None:
    """An open composed file adds no mount that anybody can see."""
    worker.open(mount.path / "f")
    assert 1 == mount.status()["backing_ids"]
    assert "erofs" not in Path("/proc/self/mounts").read_text()
