"""The compiled loop under a real mount: it answers, it counts, and it forgets what a reload changes."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.faults.lives import MIB, eventually
from tests.harness import Mount
from tests.mounted.conftest import PAGE, opened
from tests.mounted.kernel import stopped
from tests.worker import Worker

COUNT = 50  # requests of a kind
PAGES = 16  # of a source
FILES: dict[str, Any] = {"disk.img": {"regions": [
    {"source": "a.img", "length": PAGES * PAGE, "access": "rw"},
    {"source": "b.img", "length": PAGES * PAGE},
    {"length": PAGE, "hole": True},
]}}
USERSPACE = ("--modes", "userspace")
RW, RO = 0, PAGES * PAGE  # offsets in disk.img


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """Each full of its own letter."""
    for name in "abc":
        (tmp_path / f"{name}.img").write_bytes(name.encode() * PAGES * PAGE)
    return tmp_path


@contextmanager
def calls_of(mount: Mount) -> Iterator[Counter[str]]:
    """Counts the system calls by which the server answers; complete after the `with` block."""
    server, found = mount.status()["pid"], Counter[str]()
    trace = mount.path.parent / "trace"
    tracer = subprocess.Popen(["strace", "-f", "-qq", "-e", "trace=write,writev,io_uring_enter", "-e", "signal=none",
                               "-o", trace, "-p", str(server)])
    try:
        eventually(lambda: all(f"TracerPid:\t{tracer.pid}\n" in task.read_text()
                               for task in Path(f"/proc/{server}/task").glob("*/status")))
        yield found
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(10)
    found.update(line.split()[1].partition("(")[0] for line in trace.read_text().splitlines())


@pytest.mark.both_paths
@pytest.mark.parametrize("engine", ["native"], indirect=True)
def test_requests_are_answered_without_python(mount: Callable[..., Mount], sources: Path, fast: bool) -> None:
    """Python answers by writev(2), once for each; the loop by write(2) or io_uring. Bytes and counters are the same."""
    with mount(FILES) as mounted, Worker() as worker:
        path = mounted.path / "disk.img"
        handle = worker.open(path, os.O_RDWR | os.O_DIRECT)
        for place in (RO, RW):  # what it learns from
            worker.pwrite_direct(handle, RW, b"A" * PAGE)
            worker.pread_direct(handle, place, PAGE)
        before = mounted.status()["files"]["disk.img"]
        with calls_of(mounted) as calls:
            reads = worker.run([("pread_direct", handle, RO - PAGE, 2 * PAGE)] * COUNT)
            writes = worker.run([("pwrite_direct", handle, RW, bytes([turn]) * PAGE) for turn in range(COUNT)])
        after = mounted.status()["files"]["disk.img"]
    assert [b"a" * PAGE + b"b" * PAGE] * COUNT == reads
    assert [PAGE] * COUNT == writes
    assert bytes([COUNT - 1]) * PAGE + b"a" * (PAGES - 1) * PAGE == (sources / "a.img").read_bytes()
    assert [COUNT, COUNT * 2 * PAGE, COUNT, COUNT * PAGE] == [
        after[key] - before[key] for key in ("reads", "read_bytes", "writes", "write_bytes")]
    if fast:  # the first write after a pause is Python's: it wakes the watchman
        assert calls["writev"] < COUNT // 2
        assert calls["write"] + calls["io_uring_enter"] >= 2 * COUNT - calls["writev"]
    else:
        assert calls["writev"] >= 2 * COUNT


@pytest.mark.parametrize("engine", ["native"], indirect=True)
def test_bytes_in_flight_to_many(mount: Callable[..., Mount], sources: Path) -> None:
    """Eight processes read and write places of their own at once; each sees its own bytes, all are counted."""
    with mount(FILES) as mounted:
        path = mounted.path / "disk.img"
        users = [subprocess.Popen([sys.executable, "-c", USER, path, str(number), str(COUNT)]) for number in range(8)]
        assert [0] * 8 == [user.wait(30) for user in users]
        counted = mounted.status()["files"]["disk.img"]
        assert (8 * COUNT, 8 * COUNT * PAGE) == (counted["writes"], counted["write_bytes"])
        assert (8 * COUNT, 8 * COUNT * PAGE) == (counted["reads"], counted["read_bytes"])
    last = b"".join((f"{number} {COUNT - 1};".encode() * PAGE)[:PAGE] for number in range(8))
    assert last + b"a" * (PAGES - 8) * PAGE == (sources / "a.img").read_bytes()


# writes a page and reads it again, past the page cache
USER = """
import mmap, os, sys
fd, page, count = os.open(sys.argv[1], os.O_RDWR | os.O_DIRECT), int(sys.argv[2]) * 4096, int(sys.argv[3])
buffer = mmap.mmap(-1, 4096)
for turn in range(count):
    data = (f"{sys.argv[2]} {turn};".encode() * 4096)[:4096]
    buffer[:] = data
    assert 4096 == os.pwritev(fd, [buffer], page)
    buffer[:] = bytes(4096)
    assert 4096 == os.preadv(fd, [buffer], page)
    assert data == buffer[:]
"""


@pytest.mark.parametrize("engine", ["native"], indirect=True)
def test_a_reload_under_readers(mount: Callable[..., Mount], sources: Path) -> None:
    """Old handles keep the old bytes, new opens have the new ones, each at once; counters go on."""
    other = {"kept.bin": {"regions": [{"source": "c.img", "length": PAGE}, {"length": PAGE, "hole": True}]}}
    shown = [{**other, "f.bin": {"regions": [{"source": f"{name}.img"}, {"length": PAGE, "hole": True}]}}
             for name in "ab"]
    with mount(shown[0], options=USERSPACE) as mounted, Worker() as worker:
        path, kept = mounted.path / "f.bin", mounted.path / "kept.bin"
        old, steady = (worker.open(each, os.O_RDONLY | os.O_DIRECT) for each in (path, kept))
        for turn in range(1, 7):
            for _ in range(3):
                assert b"a" * PAGE == worker.pread_direct(old, 0, PAGE)
                assert b"c" * PAGE == worker.pread_direct(steady, 0, PAGE)
                assert b"ab"[(turn - 1) % 2:][:1] * PAGE == worker.pread_direct(path, 0, PAGE)
            mounted.write_manifest(shown[turn % 2])
            done = mounted.user.regionfs("reload", mounted.path)
            assert (0, "changed f.bin\n1 files unchanged\n") == (done.returncode, done.stdout)
            assert 3 * turn == mounted.status()["files"]["kept.bin"]["reads"]


@pytest.mark.parametrize("engine", ["native"], indirect=True)
def test_readers_while_the_manifest_is_read_again(mount: Callable[..., Mount], sources: Path, worker: Worker) -> None:
    """Readers of a file that stays go on through reloads of others; every read of theirs is counted."""
    files = {"kept.bin": {"regions": [{"source": "c.img"}, {"length": PAGE, "hole": True}]}}
    with mount({**files, "f0.bin": {"whole": "a.img"}}, options=USERSPACE) as mounted:
        readers = [subprocess.Popen([sys.executable, "-c", READER, mounted.path / "kept.bin"], stdin=subprocess.PIPE,
                                    stdout=subprocess.PIPE) for _ in range(3)]
        for reader in readers:
            assert reader.stdout
            assert b"!" == reader.stdout.read(1)
        for turn in range(1, 7):
            mounted.write_manifest({**files, f"f{turn}.bin": {"whole": "b.img"}})
            assert 0 == mounted.user.regionfs("reload", mounted.path).returncode
            assert b"b" * 10 == worker.pread(mounted.path / f"f{turn}.bin", 0, 10)
        reads = [int(reader.communicate(b"\n", timeout=10)[0]) for reader in readers]
        assert sum(reads) == mounted.status()["files"]["kept.bin"]["reads"]
        assert [0] * 3 == [reader.returncode for reader in readers]


# reads a page past the page cache until it is told to stop; says how often it did
READER = """
import mmap, os, select, sys
fd, buffer, count = os.open(sys.argv[1], os.O_RDONLY | os.O_DIRECT), mmap.mmap(-1, 4096), 0
while not select.select([0], [], [], 0)[0]:
    for _ in range(50):
        assert 4096 == os.preadv(fd, [buffer], 4096)
        assert buffer[:] == b"c" * 4096
    if count == 0:
        os.write(1, b"!")
    count += 50
print(count)
"""


OPENED = {name: {"regions": [{"source": f"{source}.img"}, {"length": PAGE, "hole": True}]}
          for name, source in (("f.bin", "a"), ("g.bin", "c"))}


@pytest.mark.both_paths
@pytest.mark.parametrize("engine", ["native"], indirect=True)
def test_opens_are_answered_without_python(mount: Callable[..., Mount], sources: Path, fast: bool) -> None:
    """With their RELEASEs, and they are counted, once the page cache was kept; the bytes are the same."""
    with mount(OPENED, options=USERSPACE) as mounted, Worker() as worker:
        path = mounted.path / "f.bin"

        def kept() -> bool:
            reads = mounted.served("f.bin")[0]
            worker.pread(path, 0, PAGE)
            return reads == mounted.served("f.bin")[0]
        eventually(kept)
        worker.pread(path, 0, PAGE)  # what the loop learns from, if it has not yet
        before = mounted.status()["files"]["f.bin"]
        with calls_of(mounted) as calls:
            assert [b"a" * PAGE] * COUNT == worker.run([("pread", path, 0, PAGE)] * COUNT)
            os.statvfs(mounted.path)  # Python's, and after the last RELEASE, for which nobody waits
        after = mounted.status()["files"]["f.bin"]
    opens = [state["opens_by_mode"]["userspace"] for state in (before, after)]
    assert (COUNT, before["reads"]) == (opens[1] - opens[0], after["reads"])
    if fast:  # the first one after a pause is Python's: it wakes the watchman
        assert calls["writev"] < COUNT // 2
        assert calls["write"] + calls["io_uring_enter"] >= 2 * COUNT + 1 - calls["writev"]
    else:
        assert calls["writev"] >= 2 * COUNT + 1


@pytest.mark.both_paths
@pytest.mark.parametrize("engine", ["native"], indirect=True)
def test_what_was_closed_is_seen_by_the_next_open(mount: Callable[..., Mount], sources: Path, fast: bool) -> None:
    """However often the source changes beside the mount, at once after an open or after many."""
    opened = 0
    with mount(OPENED, options=USERSPACE) as mounted, Worker() as worker:
        path = mounted.path / "f.bin"
        for turn in range(60):
            data = bytes([turn]) * PAGE
            with open(sources / "a.img", "r+b") as source:
                source.write(data)
            for _ in range(turn % 4 * 30 + 1):  # up to what settles the time stamps
                assert data == worker.pread(path, 0, PAGE)
                opened += 1
        assert b"c" * PAGE == worker.pread(mounted.path / "g.bin", 0, PAGE)
        files = mounted.status()["files"]
    assert [opened, 1] == [files[name]["opens_by_mode"]["userspace"] for name in OPENED]


@pytest.mark.parametrize("engine", ["native"], indirect=True)
def test_opens_around_a_reload(mount: Callable[..., Mount], sources: Path) -> None:
    """The next open shows the new map; what stayed is counted on, what is open stays as it was."""
    with mount(OPENED, options=USERSPACE) as mounted, Worker() as worker:
        path, kept = mounted.path / "f.bin", mounted.path / "g.bin"
        old = worker.open(path)
        for turn in range(1, 5):
            letter = b"ab"[turn % 2:][:1]
            calls = [("pread", path, 0, PAGE), ("pread", kept, 0, PAGE)] * 100
            worker.run(calls)
            mounted.write_manifest({**OPENED, "f.bin": {"regions": [
                {"source": f"{letter.decode()}.img", "offset": turn * PAGE}, {"length": PAGE, "hole": True}]}})
            assert 0 == mounted.user.regionfs("reload", mounted.path).returncode
            assert [letter * PAGE, b"c" * PAGE] * 100 == worker.run(calls)
            assert b"a" * PAGE == worker.pread(old, 0, PAGE)
            files = mounted.status()["files"]
            assert [100, 200 * turn] == [files[name]["opens_by_mode"]["userspace"] for name in OPENED]


@pytest.mark.parametrize("poll", ["0", "1000"])
@pytest.mark.parametrize("engine", ["native"], indirect=True)
def test_poll(mount: Callable[..., Mount], sources: Path, poll: str) -> None:
    """Reads, writes and opens are what they are, whether the loop sleeps at once or late."""
    with mount(FILES, options=("--poll", poll)) as mounted, Worker() as worker:
        path = mounted.path / "disk.img"
        handle = worker.open(path, os.O_RDWR | os.O_DIRECT)
        for turn in range(COUNT):
            assert PAGE == worker.pwrite_direct(handle, RW, bytes([turn]) * PAGE)
            assert bytes([turn]) * PAGE + b"a" * PAGE == worker.pread_direct(handle, RW, 2 * PAGE)
        assert bytes([COUNT - 1]) * PAGE == worker.pread(path, RW, PAGE)


def ends_of_pipes(mount: Mount) -> int:
    """How many the server has."""
    server = mount.status()["pid"]
    return sum(str(entry.readlink()).startswith("pipe:") for entry in Path(f"/proc/{server}/fd").iterdir())


@pytest.mark.parametrize(("options", "ends"), [
    ((), 4), (("-o", "max_read=65536"), 4), (("-o", "max_read=16384"), 0),
    (("-o", "max_read=1048576"), None),  # which the pipes of some users hold
])
@pytest.mark.parametrize("engine", ["native"], indirect=True)
def test_large_writes(mount: Callable[..., Mount], tmp_path: Path, options: tuple[str, ...],
                      ends: int | None) -> None:
    """Their bytes are in the sources, through the page cache and past it; through pipes where they are worth it."""
    rng, model = Random(13), bytearray(6 * MIB)
    for name in "ab":
        (tmp_path / f"{name}.img").write_bytes(bytes(3 * MIB))
    regions = [{"source": f"{name}.img", "offset": place * MIB, "length": MIB, "access": "rw"}
               for place in range(3) for name in "ab"]
    with mount({"f": {"regions": regions}}, options=(*USERSPACE, *options)) as mounted, Worker() as worker:
        before = ends_of_pipes(mounted)
        handle, direct = (worker.open(mounted.path / "f", os.O_RDWR | flag) for flag in (0, os.O_DIRECT))
        for turn in range(200):
            count = rng.choice((1, PAGE, 64 * PAGE, rng.randrange(2 * MIB)))
            offset = rng.randrange(6 * MIB - count)
            if turn % 5 == 4:
                offset, count = offset // PAGE * PAGE, (count // PAGE or 1) * PAGE
            data = rng.randbytes(count)
            done = worker.pwrite_direct(direct, offset, data) if turn % 5 == 4 else worker.pwrite(handle, offset, data)
            assert count == done
            model[offset:offset + count] = data
            assert data == worker.pread(handle, offset, count)
        a, b = ((tmp_path / f"{name}.img").read_bytes() for name in "ab")
        assert model == b"".join(part[place * MIB:][:MIB] for place in range(3) for part in (a, b))
        assert ends is None or before + ends == ends_of_pipes(mounted)
        assert 0 == mounted.status()["restarts"]


SHRINKS = """
import random, sys, time
rng, path = random.Random(5), sys.argv[1]
good = open(path, "rb").read()
print("begun", flush=True)
while True:
    with open(path, "r+b", buffering=0) as source:
        size = rng.choice((0, 4096, 1 << 20, 3 << 20))
        source.truncate(size)
        time.sleep(rng.choice((0, 0.0005)))
        source.seek(size)
        source.write(good[size:])
    time.sleep(0.001)
"""


def wrong(found: bytes, true: bytes, still: int) -> list[int]:
    """Where bytes are neither true nor, from `still` on, zero: read(2) shows zeros of a file that grows just then."""
    if found == true:
        return []
    return [place for place, (one, other) in enumerate(zip(found, true, strict=True))
            if one != other and (one or place < still)]


@pytest.mark.both_paths
@pytest.mark.parametrize("engine", ["native"], indirect=True)
def test_a_source_that_shrinks_and_grows_under_large_reads(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """Each brings bytes of the source, all or those before what is gone, or EIO; the server lives."""
    rng = Random(9)
    good = rng.randbytes(8 * MIB)
    (tmp_path / "a.img").write_bytes(good[:4 * MIB])
    (tmp_path / "b.img").write_bytes(good[4 * MIB:])
    outcomes = Counter[str]()
    with mount({"f": {"regions": [{"source": "a.img"}, {"source": "b.img"}]}}, options=USERSPACE) as at, \
            opened(at.path / "f", os.O_RDONLY | os.O_DIRECT) as fd, mmap.mmap(-1, MIB) as buffer, \
            subprocess.Popen([sys.executable, "-c", SHRINKS, tmp_path / "b.img"], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout
            assert b"begun\n" == other.stdout.readline()
            end = time.monotonic() + 2
            while time.monotonic() < end:
                offset, count = rng.randrange(7 * MIB // PAGE) * PAGE, rng.choice((32, 64, 256)) * PAGE
                buffer[:] = b"\xaa" * MIB  # so that what was not filled shows
                try:
                    with memoryview(buffer)[:count] as part:
                        done = os.preadv(fd, [part], offset)
                except OSError as error:
                    assert errno.EIO == error.errno
                    outcomes["EIO"] += 1
                    continue
                assert [] == wrong(buffer[:done], good[offset:offset + done], 4 * MIB - offset), offset
                outcomes["right" if done == count else "short"] += 1
        finally:
            other.kill()
        assert outcomes["right"] and outcomes["EIO"], outcomes
        assert 0 == at.status()["restarts"]


@pytest.mark.timeout(30)
def test_a_file_server_that_hangs_stops_nobody_else(tmp_path: Path) -> None:
    """What its pages show is learned without asking it; other sources are served meanwhile."""
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.img").write_bytes(name.encode() * MIB)
    with Mount(tmp_path / "a", {"there": {"regions": [{"source": "a.img"}]}}) as there:
        files = {"f": {"regions": [{"source": "b.img"}, {"source": str(there.path / "there")}]}}
        with Mount(tmp_path / "b", files, options=USERSPACE) as here, Worker() as one, Worker() as other:
            assert b"a" * MIB == (there.path / "there").read_bytes()
            handles = [worker.open(here.path / "f", os.O_RDONLY | os.O_DIRECT) for worker in (one, other)]
            assert b"b" * PAGE == one.pread(handles[0], 0, PAGE)
            with stopped(there):
                assert b"a" * PAGE == one.pread(handles[0], MIB + 16 * PAGE, PAGE)
                for turn in range(20):
                    assert b"b" * PAGE == other.pread(handles[1], turn * PAGE, PAGE)
