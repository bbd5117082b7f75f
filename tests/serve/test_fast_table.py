"""What the loop knows: learned for one epoch, bounded, forgotten at once, counted throughout."""

from __future__ import annotations

import os
import socket
import sys
import threading
from array import array
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from regionfs.regions import Kind, Region, RegionMap
from regionfs.serve import fast
from regionfs.tree import Counters
from tests.serve.device import (
    READ,
    REPLY,
    REQUEST,
    ROOM,
    UNIQUE,
    WRITE,
    WRITTEN,
    Handed,
    World,
    read_request,
    served_from,
    write_request,
)

if TYPE_CHECKING:
    from regionfs.serve._fast import Table

PAGE = 4096
FILES = 8
CLIENTS, TURNS = 3, 2000  # of the stress test
SIZE = CLIENTS * PAGE
MAP = RegionMap(2 * PAGE, [Region(0, PAGE, Kind.SOURCE, "a", writable=True), Region(PAGE, 2 * PAGE, Kind.SOURCE, "b")])


@pytest.fixture
def brisk() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """FILES files, each over two sources of its own."""
    files = {}
    for number in range(FILES):
        for side in "ab":
            (tmp_path / f"{side}{number}").write_bytes(bytes([number]) * PAGE)
        files[f"f{number}"] = {"regions": [{"source": f"a{number}", "access": "rw"}, {"source": f"b{number}"}]}
    with served_from(tmp_path, files) as made:
        yield made


def make_table(bound: int) -> Table:
    """A table that opens so many descriptors."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "duplicates", lambda: bound)
        made = fast.table()
        assert made is not None
        return made


def descriptors() -> int:
    """Open in this process."""
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208  # one descriptor fewer, and no Path for each


def test_forgetting(world: World) -> None:
    """All files at once; each is learned anew by its next request."""
    inos = [world.learn(f"f{number}") for number in range(FILES)]
    world.device.fast.forget()
    assert [Handed(REQUEST.size)] * FILES == [world.device.read(ino, 0, 1) for ino in inos]
    world.learn("f3")
    assert b"\3" == world.device.read(inos[3], 0, 1)
    assert Handed(REQUEST.size) == world.device.read(inos[4], 0, 1)


def test_a_change_of_the_tree_forgets(world: World) -> None:
    """Whoever changes it says so: a new generation of a file, another tree."""
    ino = world.learn("f0")
    assert b"\0" == world.device.read(ino, 0, 1)
    world.fs.renew(world.fs.tree.files["f0"])
    assert Handed(REQUEST.size) == world.device.read(ino, 0, 1)
    world.device.fast.learn(ino, 0, 1)
    assert b"\0" == world.device.read(ino, 0, 1)
    world.fs.swap(world.fs.tree)
    assert Handed(REQUEST.size) == world.device.read(ino, 0, 1)


def test_what_was_looked_up_before_a_change_is_not_learned(world: World) -> None:
    """An old epoch brings neither a file nor a descriptor."""
    table, ino = world.device.table, world.ino("f0")
    epoch, before = table.epoch, descriptors()
    table.clear()
    with open("/dev/zero", "rb") as file:
        before += 1
        table.learn(epoch, ino, MAP.size, MAP.columns, 2, True, Counters())
        assert not table.knows(ino)
        table.learn(table.epoch, ino, MAP.size, MAP.columns, 2, True, Counters())
        table.use(epoch, ino, 0, file.fileno())
        assert before == descriptors()
    assert Handed(REQUEST.size) == world.device.read(ino, 0, 1)


def test_a_file_is_learned_once(world: World) -> None:
    """A second lesson changes nothing."""
    ino = world.learn("f0")
    before = descriptors()
    world.device.table.learn(world.device.table.epoch, ino, 1, (), 1, True, Counters())
    world.learn("f0")
    assert before == descriptors()
    assert b"\0" == world.device.read(ino, 2 * PAGE - 1, 100)


def test_a_file_that_went_away_is_not_learned(world: World, tmp_path: Path) -> None:
    """Nor one whose source did: nobody asked, so nobody is told."""
    world.device.fast.learn(12345, 0, 1)
    (tmp_path / "a0").unlink()
    ino = world.learn("f0")
    assert Handed(REQUEST.size) == world.device.read(ino, 0, 1)


def test_descriptors_are_bounded(world: World) -> None:
    """For one more than that other files lose theirs; what is there already needs none."""
    table, before = make_table(3), descriptors()
    fds = [world.fs.tree.files[f"f{number}"].sources.fd(f"a{number}") for number in range(4)]
    before += 4
    for ino in (2, 3):
        table.learn(table.epoch, ino, MAP.size, MAP.columns, 2, True, Counters())
    seen = []
    for ino, target, fd in ((2, 0, fds[0]), (2, 1, fds[1]), (3, 0, fds[2]), (3, 1, fds[3])):
        table.use(table.epoch, ino, target, fd)
        seen.append(descriptors() - before)
    assert [1, 2, 3, 2] == seen
    for ino, target in ((3, 1), (2, 2), (2, -1), (4, 0)):  # known; no such target, no such file
        table.use(table.epoch, ino, target, fds[0])
        assert before + 2 == descriptors()
    table.clear()
    assert before == descriptors()


def test_files_share_a_descriptor_of_their_source(world: World, tmp_path: Path) -> None:
    """One that was opened once; whoever shows the source last closes it."""
    table, before = make_table(100), descriptors()
    with open(tmp_path / "a0", "rb") as reader, open(tmp_path / "a0", "r+b") as writer:
        before += 2
        for ino in range(2, 12):
            table.learn(table.epoch, ino, MAP.size, MAP.columns, 2, True, Counters())
            table.use(table.epoch, ino, 0, reader.fileno())
            table.use(table.epoch, ino, 1, writer.fileno())
        assert before + 2 == descriptors()
        table.clear()
        assert before == descriptors()


def test_one_number_is_no_proof(world: World, tmp_path: Path) -> None:
    """Two open files of one inode number, which some file systems give to two files, have a descriptor each."""
    table, before = make_table(100), descriptors()
    with open(tmp_path / "a0", "r+b") as one, open(tmp_path / "a0", "r+b") as two:
        before += 2
        for ino in range(2, 12):
            table.learn(table.epoch, ino, MAP.size, MAP.columns, 2, True, Counters())
            table.use(table.epoch, ino, 0, one.fileno())
            table.use(table.epoch, ino, 1, two.fileno())
        assert before + 2 == descriptors()
        table.clear()
        assert before == descriptors()


def test_a_descriptor_for_writing_takes_the_place_of_one_for_reading(world: World, tmp_path: Path) -> None:
    """And a WRITE is Python's until then."""
    table, ino = world.device.table, world.ino("f0")
    table.learn(table.epoch, ino, MAP.size, MAP.columns, 1, True, Counters())
    with open(tmp_path / "a0", "rb") as reader, open(tmp_path / "a0", "r+b") as writer:
        table.use(table.epoch, ino, 0, reader.fileno())
        assert isinstance(world.device.write(ino, 0, b"one"), Handed)
        table.use(table.epoch, ino, 0, writer.fileno())
        table.use(table.epoch, ino, 0, reader.fileno())
        assert 3 == world.device.write(ino, 0, b"two")
    assert b"two" == (tmp_path / "a0").read_bytes()[:3]


def test_the_bound_makes_room(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two files of three sources' descriptors: the third source closes the first ones, and their file learns anew."""
    monkeypatch.setattr(world.device.fast, "_table", table := make_table(3))
    monkeypatch.setattr(world.device, "table", table)
    one, two = world.learn("f0"), world.learn("f1")
    assert [Handed(REQUEST.size), b"\1"] == [world.device.read(ino, 0, 1) for ino in (one, two)]
    world.learn("f0")
    assert [b"\0", Handed(REQUEST.size)] == [world.device.read(ino, 0, 1) for ino in (one, two)]


def test_nothing_stays_open(world: World) -> None:
    """After forgetting, and after the table itself is gone."""
    table, before = world.device.table, descriptors()
    for _ in range(100):
        for number in range(FILES):
            for side, key in enumerate("ab"):
                fd = world.fs.tree.files[f"f{number}"].sources.fd(f"{key}{number}")
                table.learn(table.epoch, number, MAP.size, MAP.columns, 2, True, Counters())
                table.use(table.epoch, number, side, fd)
        assert before + 4 * FILES == descriptors()
        table.clear()
        assert before + 2 * FILES == descriptors()
    other = make_table(1)
    other.learn(other.epoch, 2, MAP.size, MAP.columns, 2, True, Counters())
    other.use(other.epoch, 2, 0, 0)
    assert before + 2 * FILES + 1 == descriptors()
    del other
    assert before + 2 * FILES == descriptors()


def test_what_a_file_refers_to_is_let_go() -> None:
    """Its columns and its counters, once it was forgotten and harvested, or the table is gone."""
    columns, counters = MAP.columns, Counters()
    before = [sys.getrefcount(each) for each in (*columns, counters)]
    table = make_table(1)
    for _ in range(3):
        for ino in (2, 3, 2):  # a lesson too many as well
            table.learn(table.epoch, ino, MAP.size, columns, 2, True, counters)
        assert [count + 2 for count in before] == [sys.getrefcount(each) for each in (*columns, counters)]
        table.clear()
        assert [] == table.harvest()
        assert before == [sys.getrefcount(each) for each in (*columns, counters)]
    table.learn(table.epoch, 2, MAP.size, columns, 2, True, counters)
    del table
    assert before == [sys.getrefcount(each) for each in (*columns, counters)]


@pytest.mark.parametrize("columns", [(b"",) * 4, (bytes(8), bytes(8), bytes(8), bytes(4), b""),
                                     (bytes(8), bytes(8), bytes(8), bytes(8), bytes(1)), (1, 2, 3, 4, 5)])
def test_columns_that_are_none(columns: tuple[object, ...]) -> None:
    """Are refused, and nothing of them is kept."""
    table = make_table(1)
    with pytest.raises((ValueError, TypeError)):
        table.learn(table.epoch, 2, PAGE, columns, 1, True, Counters())
    assert not table.knows(2)


def test_counters(world: World) -> None:
    """Reads, writes and their bytes go to the file that they were of, once."""
    one, two = world.learn("f1"), world.learn("f2")
    for count in (1, 10, 100):
        assert count == len(world.device.read(one, 0, count))
    assert 5 == world.device.write(two, 0, b"12345")
    assert PAGE == len(world.device.read(two, PAGE, 2 * PAGE))
    assert Handed(REQUEST.size + 1) == world.device.write(two, PAGE, b"!")
    for _ in range(2):
        world.device.fast.count()
        counted = [world.fs.tree.files[path].counters for path in ("f0", "f1", "f2")]
        assert [(0, 0, 0, 0), (3, 111, 0, 0), (1, PAGE, 1, 5)] == [
            (each.reads, each.read_bytes, each.writes, each.write_bytes) for each in counted]
    references = sys.getrefcount(counted[1])
    world.device.read(one, 0, 1)
    world.device.fast.count()
    after = sys.getrefcount(counted[1])
    assert references == after


def test_counters_outlive_what_is_forgotten(world: World) -> None:
    """By a change of the tree, also of a file that left it."""
    node, ino = world.fs.tree.files["f1"], world.learn("f1")
    world.device.read(ino, 0, 7)
    world.fs.renew(node)
    assert (1, 7) == (node.counters.reads, node.counters.read_bytes)
    world.device.fast.learn(ino, 0, 1)
    world.device.read(ino, 0, 7)
    world.fs.forget([ino])
    assert (2, 14) == (node.counters.reads, node.counters.read_bytes)


class Stress:
    """A table that clients use, teach and clear; what was counted of it."""

    def __init__(self, directory: Path) -> None:
        self.table = make_table(FILES - 1)
        self.counters = [Counters() for _ in range(FILES)]
        self.sources = []
        for number in range(FILES):
            (directory / str(number)).write_bytes(bytes([number]) * CLIENTS * PAGE)
            self.sources.append(os.open(directory / str(number), os.O_RDWR))
        self._columns = RegionMap(SIZE, [Region(0, SIZE, Kind.SOURCE, "s", writable=True)]).columns

    def teach(self, ino: int) -> None:
        """Half of the files are whole ones."""
        epoch = self.table.epoch
        self.table.learn(epoch, ino, SIZE, self._columns if ino % 2 else (), 1, True, self.counters[ino])
        self.table.use(epoch, ino, 0, self.sources[ino])

    def forget(self) -> None:
        """As FastPath does."""
        self.table.clear()
        for counters, *counts in self.table.harvest():
            counters.add(*counts)


class Client:
    """A thread in the loop, and one that asks it; what is handed over is answered as Python would."""

    def __init__(self, stress: Stress, number: int) -> None:
        self._stress, self._number, self._rng = stress, number, Random(number)
        self._kernel, self._ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        self.by_python: Counter[int] = Counter()
        self.failed: list[str] = []
        self.threads = [threading.Thread(target=self._serve), threading.Thread(target=self._use)]

    def _serve(self) -> None:
        request, answer, turns = memoryview(bytearray(ROOM)), memoryview(bytearray(ROOM)), array("q", (0, 0, 1))
        while size := self._stress.table.serve(self._ours.fileno(), request, answer, turns, 0):
            _, opcode, _, ino, *_, offset, count, _, _, _ = REQUEST.unpack_from(request)
            self.by_python[opcode] += 1
            if opcode == READ:
                data = os.pread(self._stress.sources[ino], count, offset)
                self._ours.send(REPLY.pack(REPLY.size + count, 0, UNIQUE) + data)
            else:
                os.pwrite(self._stress.sources[ino], request[REQUEST.size:size], offset)
                self._ours.send(WRITTEN.pack(WRITTEN.size, 0, UNIQUE, count))

    def _use(self) -> None:
        """WRITEs to a page of each source that is this client's alone, and READs of it."""
        holds = {ino: bytes([ino]) * PAGE for ino in range(FILES)}
        for turn in range(TURNS):
            ino, place = self._rng.randrange(FILES), self._number * PAGE
            if self._rng.random() < 0.3:
                self._stress.teach(ino)
            if self._rng.random() < 0.05:
                self._stress.forget()
            holds[ino] = turn.to_bytes(4, "little") * (PAGE // 4)
            self._kernel.send(write_request(ino, place, holds[ino]))
            if self._kernel.recv(ROOM) != WRITTEN.pack(WRITTEN.size, 0, UNIQUE, PAGE):
                self.failed.append(f"turn {turn}: short")
            ino = self._rng.randrange(FILES)
            self._kernel.send(read_request(ino, place, PAGE))
            if self._kernel.recv(ROOM)[REPLY.size:] != holds[ino]:
                self.failed.append(f"turn {turn}: wrong bytes of {ino}")
        self._kernel.close()


@pytest.mark.usefixtures("brisk")
def test_forgetting_under_way(tmp_path: Path) -> None:
    """Some are served while others teach and forget: right bytes, exact counts, nothing left open."""
    before, stress = descriptors(), Stress(tmp_path)
    clients = [Client(stress, number) for number in range(CLIENTS)]
    threads = [thread for client in clients for thread in client.threads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    stress.forget()
    by_python = sum((client.by_python for client in clients), Counter[int]())
    assert [] == [failure for client in clients for failure in client.failed]
    answered = [sum(each.reads for each in stress.counters), sum(each.writes for each in stress.counters)]
    assert [CLIENTS * TURNS - by_python[READ], CLIENTS * TURNS - by_python[WRITE]] == answered
    assert min(*answered, by_python[READ], by_python[WRITE]) > 10, "all of it happened"
    del clients, threads
    for fd in stress.sources:
        os.close(fd)
    assert before == descriptors()
