"""Passthrough files, mounted: the kernel reads and writes the source, the daemon's counters stay at zero."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.harness import TIMEOUT, Mount
from tests.mounted.kernel import backing_ids, compare, log_lines, opens, overlay, require, script, stopped
from tests.worker import Worker

SIZE = 1 << 20
CONTENTS = Random(3).randbytes(SIZE)
CYCLES = 10_000

Make = Callable[..., Mount]


@pytest.fixture(autouse=True)
def _able() -> None:
    require("passthrough")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(CONTENTS)
    return path


def whole(source: Path, access: str = "rw") -> dict[str, Any]:
    """A manifest's files: one that is all of `source`."""
    return {"f": {"whole": str(source), "access": access}}


@pytest.fixture
def mounted(tmp_path: Path, source: Path) -> Iterator[Mount]:
    """`f` is the whole of `source`, rw; at the end the kernel holds no backing file, and served was nothing."""
    with Mount(tmp_path, whole(source)) as mount:
        assert "passthrough" == mount.status()["files"]["f"]["mode"]
        yield mount
        assert (0, 0) == mount.served("f")
        assert 0 == backing_ids(mount, 0)


def attributes(path: Path) -> tuple[object, ...]:
    """What stat says and a passthrough file shares with its source."""
    found = path.stat()
    return (found.st_size, found.st_blocks, found.st_mtime_ns, found.st_ctime_ns, stat.S_IMODE(found.st_mode),
            found.st_uid, found.st_gid)


READS: dict[str, Callable[[Worker, Path], bytes]] = {
    "pread": lambda worker, path: worker.pread(path, 0, SIZE + 1),
    "pread in the middle": lambda worker, path: CONTENTS[:777] + worker.pread(path, 777, SIZE),
    "shared mapping": lambda worker, path: worker.mmap_read(path, 0, SIZE, True),
    "private mapping": lambda worker, path: worker.mmap_read(path, 0, SIZE, False),
    "sendfile": lambda worker, path: b"".join(worker.sendfile(path, n, 65536) for n in range(0, SIZE, 65536)),
    "O_DIRECT": lambda worker, path: worker.pread_direct(path, 0, SIZE),
}


@pytest.mark.parametrize("how", READS)
@pytest.mark.parametrize("access", ["ro", "rw"])
def test_reads(tmp_path: Path, source: Path, access: str, how: str) -> None:
    """Every way to read gives the source's bytes, without one READ."""
    with Mount(tmp_path, whole(source, access)) as mount, Worker() as worker:
        assert READS[how](worker, mount.path / "f") == CONTENTS
        assert (0, 0) == mount.served("f")
        assert ["passthrough"] == list(opens(mount, "f"))


def test_a_map_of_exactly_one_file(tmp_path: Path, source: Path) -> None:
    """A read-only map that is one whole file is passed through as well."""
    with Mount(tmp_path, {"f": {"regions": [{"source": str(source)}]}}) as mount, Worker() as worker:
        assert "passthrough" == mount.status()["files"]["f"]["mode"]
        assert CONTENTS == worker.pread(mount.path / "f", 0, SIZE + 1)
        assert (0, 0) == mount.served("f")


DATA = Random(4).randbytes(8192)

WRITES: dict[str, Callable[[Worker, Path], object]] = {
    "pwrite": lambda worker, path: worker.pwrite(path, 4096, DATA),
    "shared mapping": lambda worker, path: worker.mmap_write(path, 4096, DATA),
    "O_DIRECT": lambda worker, path: worker.pwrite_direct(path, 4096, DATA),
    "O_SYNC": lambda worker, path: worker.pwrite(worker.open(path, os.O_WRONLY | os.O_SYNC), 4096, DATA),
}


@pytest.mark.parametrize("how", WRITES)
def test_writes(mounted: Mount, source: Path, worker: Worker, how: str) -> None:
    """Every way to write changes these bytes of the source, and no other one, without one WRITE."""
    WRITES[how](worker, mounted.path / "f")
    assert source.read_bytes() == CONTENTS[:4096] + DATA + CONTENTS[4096 + len(DATA):]


def test_splice_in_and_out(mounted: Mount, source: Path) -> None:
    """splice(2) moves a page out of the file into a pipe and from there back to its end."""
    moved = script(
        "file, (read, write) = os.open(sys.argv[1], os.O_RDWR), os.pipe()\n"
        "print(os.splice(file, write, 4096, 0), os.splice(read, file, 4096, None, int(sys.argv[2])))",
        mounted.path / "f", str(SIZE))
    assert "4096 4096" == moved
    assert CONTENTS + CONTENTS[:4096] == source.read_bytes()


def test_copy_file_range(mounted: Mount, source: Path) -> None:
    """copy_file_range(2) within the file."""
    assert "5000" == script("file = os.open(sys.argv[1], os.O_RDWR)\n"
                            "print(os.copy_file_range(file, file, 5000, 0, 100_000))", mounted.path / "f")
    assert CONTENTS[:100_000] + CONTENTS[:5000] + CONTENTS[105_000:] == source.read_bytes()


@pytest.mark.parametrize("direct", [0, 1])
@pytest.mark.parametrize("engine", ["libaio", "io_uring"])
def test_asynchronous_io(mounted: Mount, engine: str, direct: int) -> None:
    """fio writes with 16 requests in flight and verifies what it reads back."""
    done = subprocess.run(
        ["fio", "--name=aio", f"--filename={mounted.path / 'f'}", f"--ioengine={engine}", f"--direct={direct}",
         "--rw=randrw", "--bs=4k", "--size=1M", "--iodepth=16", "--verify=crc32c", "--verify_state_save=0"],
        check=False, capture_output=True, text=True, timeout=TIMEOUT, cwd=mounted.manifest.parent)
    assert (0, True) == (done.returncode, "err= 0" in done.stdout), done.stdout + done.stderr


def test_append(mounted: Mount, source: Path, worker: Worker) -> None:
    """O_APPEND lands at the source's end, also when that has moved since the open."""
    handle = worker.open(mounted.path / "f", os.O_WRONLY | os.O_APPEND)
    assert 3 == worker.pwrite(handle, 0, b"one")
    with source.open("ab") as file:
        file.write(b"two")
    assert 5 == worker.pwrite(handle, 0, b"three")
    assert CONTENTS + b"onetwothree" == source.read_bytes()
    worker.call("close", handle)


def test_attributes_after_every_change(mounted: Mount, source: Path, worker: Worker) -> None:
    """stat, in this process and in the writing one, is right after each write, truncate and append."""
    path = mounted.path / "f"
    handle = worker.open(path, os.O_RDWR)
    mapping = worker.map(handle, True)
    changes: list[tuple[Any, ...]] = [
        ("pwrite", handle, 10, b"inside"), ("pwrite", handle, SIZE - 3, b"across the end"),
        ("pwrite", handle, 3 * SIZE, b"far behind it"), ("truncate", path, SIZE), ("truncate", handle, 100),
        ("pwrite", path, 100, b"at its end"), ("truncate", path, 0), ("pwrite_direct", path, 0, DATA),
        ("truncate", path, 2 * SIZE), ("fallocate", handle, 0, 0, 3 * SIZE), ("fallocate", handle, 3, 0, 8192),
        ("view_write", mapping, 5000, b"through a mapping"), ("mmap_write", path, SIZE, DATA),
    ]
    for change in changes:
        worker.call(*change)
        expected = attributes(source)
        theirs = worker.run([("stat", path), ("stat", handle)])
        assert expected == attributes(path), change
        assert [expected[:1]] * 2 == [(found.st_size,) for found in theirs], change
    assert source.read_bytes() == worker.pread(handle, 0, 4 * SIZE)
    worker.call("close", handle)


def test_a_change_of_the_source_shows_at_once(mounted: Mount, source: Path, worker: Worker) -> None:
    """What others write to the source, and its new size, an open handle sees, as through a bind mount."""
    handle = worker.open(mounted.path / "f")
    with source.open("r+b") as file:
        file.write(b"changed")
        file.truncate(5000)
    assert b"changed" + CONTENTS[7:5000] == worker.pread(handle, 0, SIZE)
    assert 5000 == worker.stat(handle).st_size
    worker.call("close", handle)


def test_truncated_by_an_open(mounted: Mount, source: Path) -> None:
    """O_TRUNC empties the source."""
    (mounted.path / "f").write_bytes(b"new")
    assert b"new" == source.read_bytes()


def test_no_backing_id_leaks(mounted: Mount) -> None:
    """10,000 cycles of open, read and close by four processes at once leave none in use."""
    calls = [("pread", mounted.path / "f", n % SIZE, 1) for n in range(CYCLES // 4)]

    def cycle(_: int) -> list[Any]:
        with Worker() as process:
            return process.run(calls)

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(cycle, range(4)))
    assert [[CONTENTS[n:n + 1] for n in range(CYCLES // 4)]] * 4 == results
    assert 0 == backing_ids(mounted, 0)
    assert {"passthrough": CYCLES} == opens(mounted, "f")


def test_mixed_opens_share_one_backing_id(mounted: Mount, worker: Worker) -> None:
    """Handles of every kind live side by side on one backing id, which lives as long as any of them."""
    path = mounted.path / "f"
    kinds = [os.O_RDONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND, os.O_RDONLY | os.O_DIRECT, os.O_WRONLY]
    handles = [worker.open(path, flags) for flags in kinds]
    assert 1 == mounted.status()["backing_ids"]
    worker.pwrite(handles[1], 0, b"seen by all")
    assert b"seen by all" == worker.pread(handles[0], 0, 11)
    assert b"seen by all" == worker.pread_direct(handles[3], 0, 4096)[:11]
    for handle in handles[:-1]:
        worker.call("close", handle)
    assert 1 == mounted.status()["backing_ids"]
    assert b"seen by all" == worker.pread(path, 0, 11)
    worker.call("close", handles[-1])


def test_a_mapping_outlives_its_handle(mounted: Mount, source: Path) -> None:
    """A mapping that is left after the last close goes on showing, and writing, what new opens see."""
    seen = script(
        "import ctypes, mmap\n"
        "libc = ctypes.CDLL(None)\n"
        "libc.mmap.restype = ctypes.c_void_p\n"
        "file = os.open(sys.argv[1], os.O_RDWR)\n"
        "view = libc.mmap(None, ctypes.c_size_t(8192), mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, file,\n"
        "                 ctypes.c_long(0))\n"
        "os.close(file)\n"
        "os.pwrite(file := os.open(sys.argv[1], os.O_RDWR), b'written', 0)\n"
        "ctypes.memmove(view + 4096, b'mapped', 6)\n"
        "print(ctypes.string_at(view, 7), os.pread(file, 6, 4096))", mounted.path / "f")
    assert "b'written' b'mapped'" == seen
    assert b"mapped" == source.read_bytes()[4096:4102]


def test_a_replaced_source(mounted: Mount, source: Path, worker: Worker) -> None:
    """After another file took the source's path new opens get EIO; a handle from before goes on."""
    path = mounted.path / "f"
    handle = worker.open(path, os.O_RDWR)
    other = source.with_name("other")
    other.write_bytes(b"not the same file")
    old = os.open(source, os.O_RDONLY)
    other.rename(source)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        worker.open(path)
    assert 4 == worker.pwrite(handle, 0, b"same")
    assert b"same" + CONTENTS[4:100] == worker.pread(handle, 0, 100) == os.pread(old, 100, 0)
    assert b"not the same file" == source.read_bytes()
    os.close(old)


def test_refused_opens_leave_nothing(tmp_path: Path, source: Path) -> None:
    """EROFS of a read-only file, again and again, holds no backing id, and the next open works."""
    with Mount(tmp_path, whole(source, "ro")) as mount, Worker() as worker:
        results = worker.run([("open", mount.path / "f", os.O_RDWR)] * 100)
        assert [errno.EROFS] * 100 == [error.errno for error in results]
        assert 0 == mount.status()["backing_ids"]
        assert CONTENTS[:10] == worker.pread(mount.path / "f", 0, 10)
        assert 0 == backing_ids(mount, 0)


def test_opens_that_the_kernel_fails_leave_nothing(mounted: Mount, source: Path, worker: Worker) -> None:
    """Where the kernel cannot open the backing file after our answer, its RELEASE frees the backing id."""
    subprocess.run(["chattr", "+i", source], check=True)
    try:
        results = worker.run([("open", mounted.path / "f", os.O_RDWR)] * 100)
    finally:
        subprocess.run(["chattr", "-i", source], check=True)
    assert [True] * 100 == [isinstance(result, OSError) for result in results]
    assert 0 == backing_ids(mounted, 0)
    assert 3 == worker.pwrite(mounted.path / "f", 0, b"now")


def test_a_source_that_grew(tmp_path: Path, source: Path) -> None:
    """A map of fixed size over a file that has grown keeps its size, whatever is open already."""
    with Mount(tmp_path, {"f": {"regions": [{"source": str(source)}]}}) as mount, Worker() as worker:
        first = worker.open(mount.path / "f")
        assert CONTENTS == worker.pread(first, 0, 2 * SIZE)
        with source.open("ab") as file:
            file.write(b"more")
        second = worker.open(mount.path / "f")
        assert CONTENTS[-10:] == worker.pread(second, SIZE - 10, 100)
        assert SIZE == worker.stat(second).st_size
        assert CONTENTS == worker.mmap_read(mount.path / "f", 0, 2 * SIZE)


def test_a_source_on_overlayfs(tmp_path: Path) -> None:
    """One level of stacking below the mount works: read, write and grow, as containers need it."""
    lower = tmp_path / "lower"
    lower.mkdir()
    with overlay(lower, "one") as merged:
        (merged / "source").write_bytes(CONTENTS)
        with Mount(tmp_path, whole(merged / "source")) as mount, Worker() as worker:
            assert SIZE == worker.pwrite(mount.path / "f", SIZE, CONTENTS)
            assert 2 * CONTENTS == worker.mmap_read(mount.path / "f", 0, 2 * SIZE)
            assert (0, 0) == mount.served("f")


def test_a_source_stacked_too_deep(tmp_path: Path) -> None:
    """The kernel's ELOOP becomes userspace: all works, one log line tells, and status shows it."""
    lower = tmp_path / "lower"
    lower.mkdir()
    (lower / "source").write_bytes(CONTENTS)
    with overlay(lower, "one") as once, overlay(once, "two") as twice, \
            Mount(tmp_path, whole(twice / "source")) as mount, Worker() as worker:
        path = mount.path / "f"
        handles = [worker.open(path, os.O_RDWR) for _ in range(3)]
        assert 5 == worker.pwrite(handles[0], SIZE, b"grown")
        assert CONTENTS + b"grown" == worker.pread(handles[1], 0, 2 * SIZE) == (twice / "source").read_bytes()
        assert CONTENTS + b"grown" == worker.mmap_read(path, 0, 2 * SIZE)
        entry = mount.status()["files"]["f"]
        assert ("userspace", {"userspace": entry["opens"]}) == (entry["mode"], entry["opens_by_mode"])
        assert os.strerror(errno.ELOOP) in entry["reason"]
        assert 1 == len(log_lines(mount, os.strerror(errno.ELOOP)))


def test_too_deep_and_nothing_else_allowed(tmp_path: Path) -> None:
    """With userspace forbidden the open fails with EIO and the log says why; the file keeps its mode."""
    lower = tmp_path / "lower"
    lower.mkdir()
    (lower / "source").write_bytes(CONTENTS)
    options = ("--modes", "passthrough")
    with overlay(lower, "one") as once, overlay(once, "two") as twice, \
            Mount(tmp_path, whole(twice / "source"), options=options) as mount, Worker() as worker:
        with pytest.raises(OSError) as caught:
            worker.pread(mount.path / "f", 0, 1)
        assert errno.EIO == caught.value.errno
        assert "passthrough" == mount.status()["files"]["f"]["mode"]
        assert 1 == len(log_lines(mount, "no other mode is allowed"))


@pytest.mark.timeout(30)
def test_reading_while_the_daemon_stands_still(mounted: Mount, worker: Worker) -> None:
    """With every process of the mount stopped an open file is read, written and mapped to its end."""
    handle = worker.open(mounted.path / "f", os.O_RDWR)
    mapping = worker.map(handle)
    worker.pwrite(handle, 0, CONTENTS[:1])
    calls: list[Sequence[Any]] = [("pread", handle, n, 65536) for n in range(0, SIZE, 65536)]
    calls += [("view_read", mapping, 0, SIZE), ("pwrite", handle, 0, DATA), ("pread", handle, 0, len(DATA))]
    with stopped(mounted):
        *pieces, mapped, written, again = worker.run([tuple(call) for call in calls])
    assert CONTENTS == b"".join(pieces) == mapped
    assert (len(DATA), DATA) == (written, again)
    worker.call("close", handle)


def test_a_loop_device(mounted: Mount, source: Path,
                       loop_device: Callable[..., AbstractContextManager[Path]]) -> None:
    """A loop device over a passthrough file reads and writes the source."""
    with loop_device(mounted.path / "f") as device:
        assert CONTENTS == device.read_bytes()
        with device.open("r+b") as disk:
            disk.write(DATA)
            disk.flush()
            os.fsync(disk.fileno())
    assert DATA + CONTENTS[len(DATA):] == source.read_bytes()


def test_a_disk_for_qemu(mounted: Mount, source: Path) -> None:
    """QEMU finds the raw disk equal to its source."""
    assert "Images are identical." == compare(mounted.path / "f", source)
