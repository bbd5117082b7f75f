"""Reading ahead of who reads a composed file in sequence: what is filled, what is left alone, when it ends."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from regionfs.modes import pages
from regionfs.modes.composed import compose, image_directory
from regionfs.regions import Kind, Region, RegionMap
from regionfs.serve.ahead import AHEAD, SEGMENT, ReadAhead, Reader
from tests.harness import Mount
from tests.mounted.kernel import require
from tests.worker import Worker

HUGE = 2 << 20
SEGMENTS = 8
SIZE = SEGMENTS * SEGMENT * HUGE - 4096  # so that the last huge page is a short one
PART = 1 << 20                           # bytes of a region


@pytest.fixture(autouse=True)
def _able() -> None:
    require("composed")
    assert pages.huge() == HUGE, "these tests know huge pages of 2 MiB only"


@pytest.fixture(scope="module")
def content() -> bytes:
    return Random(1).randbytes(SIZE)


@pytest.fixture
def cold(tmp_path: Path, content: bytes) -> Iterator[int]:
    """A descriptor of a composed file that shows the regions of a source in reverse; nothing of it is cached."""
    source = tmp_path / "source"
    source.write_bytes(content)
    with source.open("rb") as file:
        fd = compose(reverse(), {"s": file.fileno()}, lambda offset, length: b"", image_directory())
    yield fd
    os.close(fd)


def reverse() -> RegionMap:
    """The parts of the source from the last whole one to the first, then the short one at its end."""
    whole = SIZE // PART
    parts = [Region(n * PART, (n + 1) * PART, Kind.SOURCE, source="s", shift=(whole - 1 - 2 * n) * PART)
             for n in range(whole)]
    return RegionMap(SIZE, [*parts, Region(whole * PART, SIZE, Kind.SOURCE, source="s", shift=0)])


def expected(content: bytes) -> bytes:
    """What that shows."""
    whole = SIZE // PART * PART
    return b"".join(content[n:n + PART] for n in range(whole - PART, -1, -PART)) + content[whole:]


def there(fd: int) -> list[int]:
    """The huge pages that are wholly cached."""
    return [n for n in range(-(-SIZE // HUGE)) if pages.cached(fd, n * HUGE, min(HUGE, SIZE - n * HUGE))]


def read_alone(fd: int, number: int) -> None:
    """Have a huge page in the page cache, and nothing beside it."""
    pages.fill(fd, number * HUGE, min(HUGE, SIZE - number * HUGE))


def await_that(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def filled_by(segments: range) -> set[int]:
    """The huge pages that are not left to the reader."""
    return {n for n in range(segments.start * SEGMENT, segments.stop * SEGMENT) if n % SEGMENT}


def test_one_huge_page_is_filled_and_no_other(cold: int) -> None:
    assert [] == there(cold)
    for number in (5, 0, SEGMENTS * SEGMENT - 1):
        read_alone(cold, number)
    assert [0, 5, SEGMENTS * SEGMENT - 1] == there(cold)
    assert not pages.cached(cold, HUGE, 4096)
    assert not pages.cached(cold, 4 * HUGE, 2 * HUGE)


def test_nothing_is_filled_before_a_reader_came(cold: int) -> None:
    reader = Reader(cold, HUGE)
    os.pread(cold, 4096, 0)
    os.pread(cold, 4096, 3 * HUGE)
    assert reader.step()
    assert not pages.cached(cold, HUGE, HUGE)
    assert set() == set(there(cold)) & filled_by(range(SEGMENTS))
    reader.close()


def test_segments_are_filled_as_the_reader_gets_to_them(cold: int) -> None:
    reader = Reader(cold, HUGE)
    for segment in range(SEGMENTS):
        read_alone(cold, segment * SEGMENT)
        more = reader.step()
        assert more == (segment + 1 < SEGMENTS)
        end = min(segment + min(2**segment, AHEAD), SEGMENTS)
        assert filled_by(range(end)) | {n * SEGMENT for n in range(segment + 1)} == set(there(cold))
    assert list(range(SEGMENTS * SEGMENT)) == there(cold)
    reader.close()


def test_it_looks_ever_less_often(cold: int) -> None:
    reader = Reader(cold, HUGE)
    first = reader.pause()
    time.sleep(0.1)
    assert first < 0.001 < 0.1 / 50 <= reader.pause() < 0.1
    reader.close()


def test_a_thread_follows_and_ends(cold: int, content: bytes) -> None:
    ahead, threads, descriptors = ReadAhead(), threading.active_count(), open_descriptors()
    ahead.follow(7, cold)
    assert threads + 1 == threading.active_count()
    read_alone(cold, 0)
    await_that(lambda: filled_by(range(1)) <= set(there(cold)))
    assert {0, *filled_by(range(1))} == set(there(cold))
    assert expected(content) == os.pread(cold, SIZE, 0)
    ahead.leave(7)
    await_that(lambda: threading.active_count() == threads)
    assert descriptors == open_descriptors()


def test_it_ends_by_itself_at_the_end_of_the_file(cold: int) -> None:
    ahead, threads = ReadAhead(), threading.active_count()
    ahead.follow(7, cold)
    os.pread(cold, SIZE, 0)
    await_that(lambda: threading.active_count() == threads)


def test_all_are_left_at_once(cold: int) -> None:
    ahead, threads = ReadAhead(), threading.active_count()
    for number in range(5):
        ahead.follow(number, cold)
    ahead.close()
    await_that(lambda: threading.active_count() == threads)


def test_small_files_and_single_cores_need_nobody(cold: int, tmp_path: Path) -> None:
    threads = threading.active_count()
    small = tmp_path / "small"
    small.write_bytes(bytes(SEGMENT * HUGE))
    with small.open("rb") as file:
        ReadAhead().follow(7, file.fileno())
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        ReadAhead().follow(7, cold)
    finally:
        os.sched_setaffinity(0, cores)
    assert threads == threading.active_count()


def test_what_cannot_be_read_ends_it(tmp_path: Path, content: bytes) -> None:
    """The source was cut off meanwhile: nothing is said, for the reader is told when it gets there."""
    source = tmp_path / "source"
    source.write_bytes(content)
    with source.open("rb") as file:
        fd = compose(reverse(), {"s": file.fileno()}, lambda offset, length: b"", image_directory())
    ahead, threads = ReadAhead(), threading.active_count()
    read_alone(fd, 0)
    os.truncate(source, 0)
    ahead.follow(7, fd)
    await_that(lambda: threading.active_count() == threads)
    assert set(there(fd)) <= {0, 1}
    with pytest.raises(OSError):
        os.pread(fd, 4096, HUGE)
    os.close(fd)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="on one core nobody reads ahead")
def test_mounted(tmp_path: Path, content: bytes) -> None:
    """The reader of a mount stops for a while: not much more than it has read is there; the bytes are right."""
    (tmp_path / "source").write_bytes(content)
    regions = [{"source": "source", "offset": region.start + region.shift, "length": region.end - region.start}
               for region in reverse()]
    with Mount(tmp_path, {"f": {"regions": regions}}) as mount, Worker() as worker:
        handle = worker.open(mount.path / "f")
        assert expected(content)[:HUGE] == worker.call("pread", handle, 0, HUGE)
        fd = composed_of(mount.status()["pid"])
        try:
            await_that(lambda: filled_by(range(1)) <= set(there(fd)))
            end = SEGMENT * HUGE + 2 * HUGE  # what the kernel may have read ahead by itself
            assert not any(pages.cached(fd, place, 4096) for place in range(end, SIZE, 4096))
            seen = b"".join(worker.run([("pread", handle, n, PART) for n in range(0, SIZE, PART)]))
            assert expected(content) == seen
            assert (0, 0) == mount.served("f")
            worker.call("close", handle)
        finally:
            os.close(fd)


def composed_of(pid: int) -> int:
    """The server's composed file: the one in the root of a mount that is nowhere."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        if str(entry.readlink()) == "/f":
            return os.open(entry, os.O_RDONLY)
    raise AssertionError("the server holds no composed file")
