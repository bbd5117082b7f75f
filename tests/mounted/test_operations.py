"""Reading and writing through a mount, row by row of docs/contract.md section 4, on both engines."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import resource
import signal
import subprocess

import pytest

from tests.mounted.conftest import PAGE, World, opened, syncfs
from tests.worker import Worker, WorkerError

NATIVE = pytest.mark.parametrize("engine", ["native"])  # what pyfuse3 lacks, it refuses in a test of its own
PYFUSE3 = pytest.mark.parametrize("engine", ["pyfuse3"])
KEEP_SIZE, PUNCH_HOLE, COLLAPSE_RANGE, ZERO_RANGE = 1, 2, 8, 16  # linux/falloc.h


def test_read_every_kind_of_region(world: World) -> None:
    """Inline, ro, rw, rw, and the hole: the bytes before the bad page."""
    expected = b"H" * PAGE + b"r" * 2 * PAGE + b"a" * 2 * PAGE + b"b" * 2 * PAGE + bytes(PAGE)
    with opened(world.disk) as fd:
        assert expected == os.pread(fd, 8 * PAGE, 0)


def test_read_is_short_only_at_end_of_file(world: World, worker: Worker) -> None:
    """The rest before the end, nothing at it and after it."""
    results = [worker.pread(world.ro, offset, 100) for offset in (2 * PAGE - 10, 2 * PAGE, 5 * PAGE)]
    assert [b"r" * 10, b"", b""] == results


def test_read_gives_the_good_bytes_before_an_error_region(world: World, worker: Worker) -> None:
    """On a page border: good bytes, then EIO for each page, then the bytes behind it."""
    good, *bad, after = worker.run([
        ("pread", world.disk, 7 * PAGE + 100, 2 * PAGE), ("pread", world.disk, 8 * PAGE, 10),
        ("pread", world.disk, 9 * PAGE - 1, 10), ("pread", world.disk, 9 * PAGE, 2 * PAGE)])
    assert (bytes(PAGE - 100), [errno.EIO] * 2, bytes(PAGE)) == (good, [error.errno for error in bad], after)


def test_error_region_inside_a_page(world: World, worker: Worker) -> None:
    """The same to the byte where good and bad ones share a page."""
    before, first, last, after = worker.run([
        ("pread", world.bad, 90, 200), ("pread", world.bad, 100, 20), ("pread", world.bad, 149, 20),
        ("pread", world.bad, 150, 300)])
    assert (b"r" * 10, errno.EIO, errno.EIO, b"r" * 100) == (before, first.errno, last.errno, after)


def test_a_mapped_bad_page_is_a_bus_error(world: World) -> None:
    """As on a disk with a bad block; the pages before it read well through the same mapping."""
    with Worker() as worker:
        assert b"b" * 10 == worker.mmap_read(world.disk, 5 * PAGE, 10)
        with pytest.raises(WorkerError) as ended:
            worker.mmap_read(world.disk, 8 * PAGE, 10)
        assert -signal.SIGBUS == ended.value.returncode


def test_write_crosses_rw_regions_and_is_short_at_the_border(world: World, worker: Worker) -> None:
    """Neighbouring rw regions are one ground; the hole behind them takes nothing."""
    assert 2 * PAGE + 100 == worker.pwrite(world.disk, 5 * PAGE - 100, b"w" * 5 * PAGE)
    assert (b"a" * (2 * PAGE - 100) + b"w" * 100, b"w" * 2 * PAGE) == (world.source("a.img"), world.source("b.img"))
    assert bytes(PAGE) == worker.pread(world.disk, 7 * PAGE, PAGE)


def test_write_outside_rw_regions_is_erofs(world: World, worker: Worker) -> None:
    """Beginning in inline data, a ro region, a hole, an error region, at the end or after it."""
    before = [world.source(f"{name}.img") for name in ("ro", "a", "b")]
    offsets = [0, PAGE - 1, 3 * PAGE - 1, 7 * PAGE, 8 * PAGE + 5, 9 * PAGE, 10 * PAGE, 99 * PAGE]
    refused = worker.run([("pwrite", world.disk, offset, b"w" * 2 * PAGE) for offset in offsets])
    assert [errno.EROFS] * len(offsets) == [error.errno for error in refused]
    assert before == [world.source(f"{name}.img") for name in ("ro", "a", "b")]
    assert 10 * PAGE == world.disk.stat().st_size


def test_open_for_writing_without_a_rw_region_is_erofs(world: World, worker: Worker) -> None:
    """Whatever the way of opening, and nothing is truncated."""
    ways = [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC, os.O_RDWR | os.O_APPEND]
    refused = worker.run([("open", path, flags) for path in (world.ro, world.whole_ro) for flags in ways])
    assert [errno.EROFS] * 8 == [error.errno for error in refused]
    assert (2 * PAGE, 1000) == (len(world.source("ro.img")), len(world.source("whole.img")))


def test_truncate_of_a_fixed_size(world: World) -> None:
    """To its own size succeeds, to any other is EPERM, by O_TRUNC too; no source changes."""
    os.truncate(world.disk, 10 * PAGE)
    for size in (0, 10 * PAGE - 1, 10 * PAGE + 1):
        with pytest.raises(PermissionError) as refused:
            os.truncate(world.disk, size)
        assert errno.EPERM == refused.value.errno
    with pytest.raises(PermissionError), opened(world.disk, os.O_RDWR | os.O_TRUNC):
        pass
    assert (b"a" * 2 * PAGE, b"b" * 2 * PAGE) == (world.source("a.img"), world.source("b.img"))


def test_truncate_of_a_whole_file_is_forwarded(world: World) -> None:
    """Longer, shorter, and to nothing by O_TRUNC: the source and both files over it follow."""
    def sizes() -> tuple[int, int, int]:
        return world.whole.stat().st_size, world.whole_ro.stat().st_size, len(world.source("whole.img"))
    for size in (5000, 10):
        os.truncate(world.whole, size)
        assert (size,) * 3 == sizes()
    with opened(world.whole, os.O_WRONLY | os.O_TRUNC):
        assert (0,) * 3 == sizes()


def test_a_whole_file_grows_by_writing(world: World, worker: Worker) -> None:
    """Past its end like the source itself: stat, the other file and the source agree at once."""
    assert 10 == worker.pwrite(world.whole, 2000, b"x" * 10)
    assert b"w" * 1000 + bytes(1000) + b"x" * 10 == world.source("whole.img")
    assert (2010, world.source("whole.img")) == (world.whole.stat().st_size, world.whole_ro.read_bytes())


def test_append(world: World) -> None:
    """O_APPEND writes at the end of a whole file; at the end of a fixed size there is no room: EROFS."""
    with opened(world.whole, os.O_WRONLY | os.O_APPEND) as fd:
        assert (3, 3) == (os.write(fd, b"one"), os.write(fd, b"two"))
    assert b"w" * 1000 + b"onetwo" == world.source("whole.img")
    with opened(world.disk, os.O_WRONLY | os.O_APPEND) as fd, pytest.raises(OSError) as refused:
        os.write(fd, b"more")
    assert errno.EROFS == refused.value.errno


@PYFUSE3
def test_fallocate_is_refused_cleanly(world: World, worker: Worker) -> None:
    """pyfuse3 has no fallocate: EOPNOTSUPP, and nothing changes."""
    for mode in (0, PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE):
        with pytest.raises(OSError) as refused:
            worker.fallocate(world.disk, mode, 3 * PAGE, PAGE)
        assert errno.EOPNOTSUPP == refused.value.errno
    assert b"a" * 2 * PAGE == world.source("a.img")


@NATIVE
@pytest.mark.parametrize("mode", [PUNCH_HOLE | KEEP_SIZE, ZERO_RANGE])
def test_fallocate_zeroes_inside_a_rw_region(world: World, worker: Worker, mode: int) -> None:
    """Punching and zeroing reach the source, and only the range."""
    assert b"a" * 100 == worker.pread(world.disk, 3 * PAGE, 100)  # so that the page cache holds it
    worker.fallocate(world.disk, mode, 3 * PAGE + 100, PAGE)
    assert b"a" * 100 + bytes(PAGE) + b"a" * (PAGE - 100) == world.source("a.img")
    assert world.source("a.img") == worker.pread(world.disk, 3 * PAGE, 2 * PAGE)


REFUSED = [  # mode, offset, length, errno
    (PUNCH_HOLE | KEEP_SIZE, 0, PAGE, errno.EROFS),
    (PUNCH_HOLE | KEEP_SIZE, 6 * PAGE, 2 * PAGE, errno.EROFS),
    (ZERO_RANGE, PAGE, PAGE, errno.EROFS),
    (0, 9 * PAGE, 2 * PAGE, errno.EPERM),
    (COLLAPSE_RANGE, 0, PAGE, errno.EOPNOTSUPP),
]


@NATIVE
def test_fallocate_refuses_the_rest(world: World, worker: Worker) -> None:
    """Outside rw regions, across their border, past the end: the error, and no byte changes."""
    refused = worker.run([("fallocate", world.disk, *arguments) for *arguments, _ in REFUSED])
    assert [code for *_, code in REFUSED] == [error.errno for error in refused]
    assert (b"a" * 2 * PAGE, b"b" * 2 * PAGE) == (world.source("a.img"), world.source("b.img"))


@NATIVE
def test_plain_fallocate(world: World, worker: Worker) -> None:
    """Inside a fixed size it succeeds without change; a whole file grows."""
    worker.fallocate(world.disk, 0, 0, 10 * PAGE)
    worker.fallocate(world.whole, 0, 0, 3000)
    assert (b"a" * 2 * PAGE, 3000, 3000) == (
        world.source("a.img"), len(world.source("whole.img")), world.whole.stat().st_size)


def test_seek_finds_holes_of_map_and_source(world: World, worker: Worker, engine: str) -> None:
    """native: the source's one data block inside the map's holes. pyfuse3: the kernel calls all of it data."""
    start, end, size = 64 * 1024 + PAGE, 64 * 1024 + 2 * PAGE, 1 << 20
    results = worker.run([("lseek_data", world.sparse, 0), ("lseek_data", world.sparse, start + 5),
                          ("lseek_hole", world.sparse, 0), ("lseek_hole", world.sparse, start),
                          ("lseek_data", world.sparse, end), ("lseek_hole", world.sparse, size)])
    found = [errno.errorcode[r.errno or 0] if isinstance(r, OSError) else r for r in results]
    expected = {"native": [start, start + 5, 0, end, "ENXIO", "ENXIO"],
                "pyfuse3": [0, start + 5, size, size, end, "ENXIO"]}
    assert expected[engine] == found


def test_copies_keep_holes(world: World, engine: str) -> None:
    """cp finds the holes where the engine tells them, and copies the same bytes everywhere."""
    copy = world.sources / "copy"
    subprocess.run(["cp", world.sparse, copy], check=True, timeout=20)
    assert world.sparse.read_bytes() == copy.read_bytes()
    if engine == "native":
        assert copy.stat().st_blocks * 512 <= 2 * PAGE


def test_sync_in_every_form(world: World) -> None:
    """fsync, fdatasync and syncfs succeed on rw and on ro files after writes."""
    with opened(world.disk, os.O_RDWR) as rw, opened(world.ro) as ro:
        os.pwrite(rw, b"x", 3 * PAGE)
        for call in (os.fsync, os.fdatasync, syncfs):
            call(rw)
            call(ro)
    assert b"x" == world.source("a.img")[:1]


def test_private_and_shared_mappings_read(world: World, worker: Worker) -> None:
    """Both see the bytes of every region before the bad page."""
    expected = b"H" * 10 + b"r" * 10
    assert [expected] * 2 == [worker.mmap_read(world.disk, PAGE - 10, 20, shared) for shared in (True, False)]


def test_shared_mapping_writes(world: World, worker: Worker) -> None:
    """A store on a rw page reaches its source by msync, and nothing else changes."""
    worker.mmap_write(world.disk, 4 * PAGE - 50, b"m" * 100)
    assert b"a" * (PAGE - 50) + b"m" * 100 + b"a" * (PAGE - 50) == world.source("a.img")
    assert b"r" * 2 * PAGE + b"b" * 2 * PAGE == world.source("ro.img") + world.source("b.img")


def test_a_store_outside_rw_regions_never_arrives(world: World) -> None:
    """Into a ro page of a shared mapping: msync or close tells nothing worse, the source keeps its bytes."""
    with opened(world.disk, os.O_RDWR) as fd, mmap.mmap(fd, 0) as view:
        view[PAGE:PAGE + 5] = b"wrong"
        with pytest.raises(OSError):
            view.flush(PAGE, PAGE)
    assert b"r" * 2 * PAGE == world.source("ro.img")


def test_direct_io(world: World, worker: Worker) -> None:
    """O_DIRECT reads and writes whole blocks, of fixed and whole files."""
    assert PAGE == worker.pwrite_direct(world.disk, 3 * PAGE, b"d" * PAGE)
    assert b"r" * PAGE + b"d" * PAGE + b"a" * PAGE == worker.pread_direct(world.disk, 2 * PAGE, 3 * PAGE)
    assert b"w" * 1000 == worker.pread_direct(world.whole, 0, PAGE)
    assert b"d" * PAGE + b"a" * PAGE == world.source("a.img")


def test_asynchronous_io(world: World) -> None:
    """fio's libaio writes and verifies a rw range at depth 8, buffered and direct."""
    for direct in ("0", "1"):
        done = subprocess.run(
            ["fio", "--name=aio", f"--filename={world.disk}", "--ioengine=libaio", "--iodepth=8", "--rw=randwrite",
             "--bs=4k", f"--offset={3 * PAGE}", f"--size={4 * PAGE}", f"--direct={direct}", "--verify=crc32c",
             "--allow_file_create=0", "--verify_fatal=1", "--verify_state_save=0"],
            capture_output=True, text=True, check=False, timeout=30)
        assert 0 == done.returncode, done.stdout + done.stderr


def test_locks_exclude_other_processes(world: World, worker: Worker) -> None:
    """flock and POSIX locks of one process keep the other out, and end with the descriptor."""
    handle = worker.open(world.disk, os.O_RDWR)
    with opened(world.disk, os.O_RDWR) as fd:
        fcntl.flock(fd, fcntl.LOCK_EX)
        with pytest.raises(BlockingIOError):
            worker.lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    worker.lock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    with opened(world.disk, os.O_RDWR) as fd, pytest.raises(BlockingIOError):
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_posix_locks_are_per_range(world: World) -> None:
    """A locked range is seen by another process; the next byte is free."""
    script = ("import fcntl,sys,os\nfd=os.open(sys.argv[1],os.O_RDWR)\n"
              "def free(at):\n"
              "    try: fcntl.lockf(fd,fcntl.LOCK_EX|fcntl.LOCK_NB,1,at)\n"
              "    except OSError: return 0\n"
              "    return 1\n"
              "print(free(100),free(110))")
    with opened(world.disk, os.O_RDWR) as fd:
        fcntl.lockf(fd, fcntl.LOCK_EX, 10, 100)
        other = subprocess.run(["python3", "-c", script, world.disk], capture_output=True, text=True, check=True,
                               timeout=20)
    assert "0 1\n" == other.stdout


def test_sendfile_and_splice(world: World, worker: Worker) -> None:
    """Bytes move out to a pipe, and from a pipe into a rw region."""
    assert b"H" * 5 + b"r" * 5 == worker.sendfile(world.disk, PAGE - 5, 10)
    read_end, write_end = os.pipe()
    try:
        with opened(world.disk, os.O_RDWR) as fd:
            os.write(write_end, b"spliced")
            assert 7 == os.splice(read_end, fd, 7, offset_dst=3 * PAGE)
            assert 7 == os.splice(fd, write_end, 7, offset_src=3 * PAGE)
            assert b"spliced" == os.read(read_end, 100)
    finally:
        os.close(read_end)
        os.close(write_end)
    assert b"spliced" == world.source("a.img")[:7]


def test_a_thousand_open_handles(world: World) -> None:
    """All of them read, the last as well as the first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
    handles: list[int] = []
    try:
        while len(handles) < 1000:
            handles.append(os.open(world.disk, os.O_RDONLY))
        assert [b"r"] * 1000 == [os.pread(fd, 1, PAGE) for fd in handles]
    finally:
        for fd in handles:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
