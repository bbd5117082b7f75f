"""Reading ahead of who reads a composed file in sequence: what is filled, what is left alone, when it ends."""

from __future__ import annotations

import mmap
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from regionfs.manifest.load import load
from regionfs.modes import pages
from regionfs.modes.composed import compose, image_directory
from regionfs.regions import Kind, Region, RegionMap
from regionfs.serve.ahead import AHEAD, MOST, PIECES, SEGMENT, ReadAhead, Reader, all_cached
from regionfs.source import Sources
from tests.faults.lives import eventually
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


class Cold(NamedTuple):
    """A composed file that shows the regions of a source in reverse; nothing of it is cached, the source is.

    Both are mapped: a machine may page out at any time what nobody maps (DAMON's schemes do).
    """

    fd: int
    regions: RegionMap
    sources: Sources
    source: Path
    mapped: mmap.mmap         # of the composed file: what there() saw
    source_mapped: mmap.mmap  # all of it

    def there(self) -> set[int]:
        """The huge pages that are wholly cached; they stay."""
        return there(self.fd, self.mapped)

    def reader(self, ino: int = 7) -> Reader:
        return Reader(ino, self.fd, self.regions, self.sources, HUGE)

    def followed(self, ahead: ReadAhead, ino: int = 7) -> None:
        ahead.follow(ino, self.fd, self.regions, self.sources)


@pytest.fixture
def cold(tmp_path: Path, content: bytes) -> Iterator[Cold]:
    source = tmp_path / "source"
    source.write_bytes(content)
    parts = "".join(f"{{source: source, offset: {region.start + region.shift}, length: {region.end - region.start}}}, "
                    for region in reverse())
    (tmp_path / "one.yaml").write_text(f"regionfs: 1\nfiles: {{f: {{regions: [{parts}]}}}}\n")
    manifest = load(tmp_path / "one.yaml")
    with Sources(manifest) as sources:
        spec, = manifest.files.values()
        key, = spec.sources
        fd = compose(spec.regions, {key: sources.fd(key)}, lambda offset, length: b"", image_directory())
        with mapping(fd) as mapped, mapping(sources.fd(key)) as source_mapped:
            source_mapped.madvise(pages.POPULATE_READ)
            yield Cold(fd, spec.regions, sources, source, mapped, source_mapped)
        os.close(fd)


def mapping(fd: int) -> mmap.mmap:
    """All of a file; what is touched is read by itself."""
    mapped = mmap.mmap(fd, SIZE, prot=mmap.PROT_READ)
    mapped.madvise(mmap.MADV_RANDOM)
    return mapped


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


def there(fd: int, mapped: mmap.mmap) -> set[int]:
    """The huge pages that are wholly cached; they stay."""
    found = {n for n in range(-(-SIZE // HUGE)) if pages.cached(fd, n * HUGE, min(HUGE, SIZE - n * HUGE))}
    for number in found:
        mapped.madvise(pages.POPULATE_READ, number * HUGE, min(HUGE, SIZE - number * HUGE))
    return found


def read_alone(fd: int, number: int) -> None:
    """Have a huge page in the page cache, and nothing beside it."""
    pages.fill(fd, number * HUGE, min(HUGE, SIZE - number * HUGE))


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def filled_by(segments: range) -> set[int]:
    """The huge pages that are not left to the reader."""
    return {n for n in range(segments.start * SEGMENT, segments.stop * SEGMENT) if n % SEGMENT}


def test_one_huge_page_is_filled_and_no_other(cold: Cold) -> None:
    assert set() == cold.there()
    for number in (5, 0, SEGMENTS * SEGMENT - 1):
        read_alone(cold.fd, number)
    assert {0, 5, SEGMENTS * SEGMENT - 1} == cold.there()
    assert not pages.cached(cold.fd, HUGE, 4096)
    assert not pages.cached(cold.fd, 4 * HUGE, 2 * HUGE)


def test_nothing_is_filled_before_a_reader_came(cold: Cold) -> None:
    reader = cold.reader()
    os.pread(cold.fd, 4096, 0)
    os.pread(cold.fd, 4096, 3 * HUGE)
    assert reader.step()
    assert not pages.cached(cold.fd, HUGE, HUGE)
    assert set() == cold.there() & filled_by(range(SEGMENTS))
    reader.close()


def test_segments_are_filled_as_the_reader_gets_to_them(cold: Cold) -> None:
    reader = cold.reader()
    for segment in range(SEGMENTS):
        read_alone(cold.fd, segment * SEGMENT)
        more = reader.step()
        assert more == (segment + 1 < SEGMENTS)
        end = min(segment + min(2**segment, AHEAD), SEGMENTS)
        assert filled_by(range(end)) | {n * SEGMENT for n in range(segment + 1)} == cold.there()
    assert set(range(SEGMENTS * SEGMENT)) == cold.there()
    reader.close()


def test_it_looks_ever_less_often(cold: Cold) -> None:
    reader = cold.reader()
    first = reader.due() - time.monotonic()
    reader._moved -= 10
    assert first < 0.1 < reader.due() - time.monotonic() < 1
    reader.close()


def test_what_is_not_in_memory_is_left_to_the_reader(cold: Cold) -> None:
    """No disk is asked: of the source only what the first segment shows is there."""
    cold.source_mapped.close()
    fd = os.open(cold.source, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    assert all_cached(cold.regions, cold.sources, 3 * HUGE, HUGE) is False
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
    for region in list(reverse())[:SEGMENT * HUGE // PART]:
        os.pread(fd, PART, region.start + region.shift)
    os.close(fd)
    assert all_cached(cold.regions, cold.sources, 3 * HUGE, HUGE) is True
    reader = cold.reader()
    for segment in range(2):
        read_alone(cold.fd, segment * SEGMENT)
        assert reader.step()
    assert {0, SEGMENT, *filled_by(range(1))} == cold.there()
    reader.close()


def test_small_pieces_are_left_to_the_reader(cold: Cold) -> None:
    block = HUGE // (PIECES + 1) // 4096 * 4096
    many = RegionMap(2 * HUGE, [Region(n * block, (n + 1) * block, Kind.SOURCE, source=cold.regions.names[0], shift=0)
                                for n in range(2 * HUGE // block)])
    assert not all_cached(many, cold.sources, 0, HUGE)
    assert all_cached(many, cold.sources, 0, HUGE // 2)


def test_a_thread_follows_and_ends(cold: Cold, content: bytes) -> None:
    ahead, threads, descriptors = ReadAhead(), threading.active_count(), open_descriptors()
    cold.followed(ahead)
    assert threads + 1 == threading.active_count()
    read_alone(cold.fd, 0)
    eventually(lambda: filled_by(range(1)) <= cold.there())
    assert {0, *filled_by(range(1))} == cold.there()
    assert expected(content) == os.pread(cold.fd, SIZE, 0)
    ahead.leave(7)
    eventually(lambda: threading.active_count() == threads)
    assert descriptors == open_descriptors()


def test_it_ends_by_itself_at_the_end_of_the_file(cold: Cold) -> None:
    ahead, threads = ReadAhead(), threading.active_count()
    cold.followed(ahead)
    assert SIZE == len(os.pread(cold.fd, SIZE, 0))
    eventually(lambda: threading.active_count() == threads)


def test_of_many_the_idlest_is_left(cold: Cold) -> None:
    ahead, threads, descriptors = ReadAhead(), threading.active_count(), open_descriptors()
    for number in range(MOST + 5):
        cold.followed(ahead, number)
    eventually(lambda: open_descriptors() == descriptors + MOST)
    ahead.leave(0)  # that one went
    cold.followed(ahead, 100)
    eventually(lambda: open_descriptors() == descriptors + MOST)
    ahead.close()
    eventually(lambda: threading.active_count() == threads)
    assert descriptors == open_descriptors()


def test_a_held_up_thread_gathers_no_descriptors(cold: Cold, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead, threads, descriptors, go_on = ReadAhead(), threading.active_count(), open_descriptors(), threading.Event()
    monkeypatch.setattr(Reader, "step", lambda self: go_on.wait(10))
    for number in range(5 * MOST):
        cold.followed(ahead, number)
    assert open_descriptors() <= descriptors + 2 * MOST
    ahead.close()
    go_on.set()
    eventually(lambda: threading.active_count() == threads)
    assert descriptors == open_descriptors()


def test_without_a_thread_it_reads_alone(cold: Cold, monkeypatch: pytest.MonkeyPatch) -> None:
    ahead, descriptors = ReadAhead(), open_descriptors()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        cold.followed(ahead)
    assert descriptors == open_descriptors()
    threads = threading.active_count()
    cold.followed(ahead)
    assert threads + 1 == threading.active_count()
    ahead.close()
    eventually(lambda: threading.active_count() == threads)


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


def test_small_files_and_single_cores_need_nobody(cold: Cold) -> None:
    threads = threading.active_count()
    small = RegionMap(SEGMENT * HUGE, [Region(0, SEGMENT * HUGE, Kind.SOURCE, source=cold.regions.names[0], shift=0)])
    ReadAhead().follow(7, cold.fd, small, cold.sources)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        cold.followed(ReadAhead())
    finally:
        os.sched_setaffinity(0, cores)
    assert threads == threading.active_count()


def test_what_cannot_be_read_is_the_readers(cold: Cold) -> None:
    """The source was cut off meanwhile: nothing is filled, and the reader is told when it gets there."""
    read_alone(cold.fd, 0)
    os.truncate(cold.source, 0)
    reader = cold.reader()
    assert reader.step()
    assert {0} == cold.there()
    with pytest.raises(OSError):
        os.pread(cold.fd, 4096, HUGE)
    reader.close()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="on one core nobody reads ahead")
def test_mounted(tmp_path: Path, content: bytes) -> None:
    """The reader of a mount stops for a while: not much more than it has read is there; the bytes are right."""
    (tmp_path / "source").write_bytes(content)
    regions = [{"source": "source", "offset": region.start + region.shift, "length": region.end - region.start}
               for region in reverse()]
    with (open(tmp_path / "source", "rb") as source, mapping(source.fileno()) as source_mapped,
          Mount(tmp_path, {"f": {"regions": regions}}) as mount, Worker() as worker):
        source_mapped.madvise(pages.POPULATE_READ)
        pid = mount.status()["pid"]
        # the machine may page out what was filled, before it is mapped
        assert any(first_segment_is_filled(worker, mount.path / "f", pid, content) for _ in range(3))
        handle = worker.open(mount.path / "f")
        seen = b"".join(worker.run([("pread", handle, n, PART) for n in range(0, SIZE, PART)]))
        assert expected(content) == seen
        assert (0, 0) == mount.served("f")
        worker.call("close", handle)


def first_segment_is_filled(worker: Worker, path: Path, pid: int, content: bytes) -> bool:
    """Whether it is, soon after its first huge page was read; and not much more."""
    handle = worker.open(path)
    fd = composed_of(pid)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    try:
        with mapping(fd) as mapped:
            assert expected(content)[:HUGE] == worker.call("pread", handle, 0, HUGE)
            end = time.monotonic() + 5
            while not (filled := filled_by(range(1)) <= there(fd, mapped)) and time.monotonic() < end:
                time.sleep(0.001)
        read_ahead = SEGMENT * HUGE + 2 * HUGE  # the kernel's own may be there too
        assert not any(pages.cached(fd, place, 4096) for place in range(read_ahead, SIZE, 4096))
    finally:
        os.close(fd)
        worker.call("close", handle)
    return filled


def composed_of(pid: int) -> int:
    """The server's composed file: the one in the root of a mount that is nowhere."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        if str(entry.readlink()) == "/f":
            return os.open(entry, os.O_RDONLY)
    raise AssertionError("the server holds no composed file")
