"""Large WRITEs that come through pipes: their bytes go where the map says; what Python must do again is all there."""

from __future__ import annotations

import fcntl
import gc
import os
import threading
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from regionfs.regions import Kind, Region, RegionMap
from regionfs.serve import fast
from regionfs.serve.relay import AWAKE, SINCE
from regionfs.tree import Counters
from tests.faults.lives import MIB, eventually
from tests.faults.test_sources import slowfs
from tests.serve.device import (
    REQUEST,
    ROOM,
    STOP,
    UNIQUE,
    WRITE_CACHE,
    WRITTEN,
    World,
    on_disk,
    open_request,
    read_request,
    served_from,
    write_request,
)
from tests.serve.test_fast_names import lookup_request

KIB = 1 << 10
LEAST = 32 * KIB           # of a WRITE after which the next message comes through a pipe
MOST = ROOM - REQUEST.size  # bytes of a WRITE
SIZE = MIB                 # of each source
CUT = SIZE - 1001          # where b.img begins in the file
NAME = "n" * 60            # longer than what is looked at in the pipe
FILES: dict[str, Any] = {NAME: {"regions": [{"source": "c.img"}]},
                         "both": {"regions": [{"source": "a.img", "length": CUT, "access": "rw"},
                                  {"source": "b.img", "access": "rw"}]}}
SPLICED = RegionMap(2 * LEAST, [Region(0, LEAST, Kind.SOURCE, "one", writable=True),
                                Region(LEAST, 2 * LEAST, Kind.SOURCE, "two", writable=True)])


@pytest.fixture
def sources(tmp_path: Path) -> Iterator[Path]:
    """The sources of FILES, on a disk."""
    with on_disk(tmp_path) as directory:
        for name in "a.img", "b.img", "c.img":
            (directory / name).write_bytes(bytes(SIZE))
        yield directory


@pytest.fixture
def world(sources: Path) -> Iterator[World]:
    """FILES behind a device; nothing is known yet."""
    with served_from(sources, FILES) as made:
        yield made


def ends(name: str) -> set[int]:
    """This process's descriptors of that name, but for what only waits to be collected."""
    gc.collect()
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        try:
            if str(entry.readlink()).startswith(name):
                found.add(int(entry.name))
        except FileNotFoundError:  # the directory's own
            continue
    return found


def pipes() -> int:
    """How many ends of pipes this process has."""
    return len(ends("pipe:"))


def all_at_once(world: World, messages: Sequence[bytes]) -> int | None:
    """What one call of the loop hands over of these; the rest has its answers waiting."""
    for message in messages:
        world.device.kernel.send(message)
    return world.device.receive()


def written(world: World, *counts: int) -> None:
    """These are the answers that wait, all to WRITEs."""
    for count in counts:
        assert WRITTEN.pack(WRITTEN.size, 0, UNIQUE, count) == world.device.kernel.recv(ROOM)


def shown(sources: Path) -> bytes:
    """The bytes of the file `both`."""
    return (sources / "a.img").read_bytes()[:CUT] + (sources / "b.img").read_bytes()


def test_bytes_through_pipes(world: World, sources: Path) -> None:
    """At any place and of any length, into one source or two, one after another as they came."""
    ino, random, before = world.learn("both", 0, CUT + SIZE), Random(31), pipes()
    model = bytearray(CUT + SIZE)
    for turn in range(60):
        messages, counts = [], []
        for _ in range(3):
            count = random.choice((LEAST, MOST, random.randrange(LEAST, MOST)))
            offset = random.choice((random.randrange(CUT + SIZE - count), CUT - random.randrange(1, count)))
            data = random.randbytes(count)
            messages.append(write_request(ino, offset, data))
            counts.append(count)
            model[offset:offset + count] = data
        assert len(STOP) == all_at_once(world, [*messages, STOP])
        written(world, *counts)
        assert bytes(world.device.request[:len(STOP)]) == STOP
        assert model == shown(sources), f"turn {turn}"
    assert before + 4 == pipes(), "they came through pipes"
    assert 0 == world.device.relay.turns[SINCE]
    world.device.fast.count()
    assert 180 == world.fs.tree.files["both"].counters.writes


def other_messages(ino: int) -> Iterator[bytes]:
    """What may come after a large WRITE and is not the loop's, or not for pipes."""
    data = Random(7).randbytes(MOST)
    yield STOP
    yield open_request(ino, os.O_RDWR)
    yield REQUEST.pack(REQUEST.size + 200, 1, UNIQUE, 1, *(0,) * 9) + b"n" * 199 + b"\0"  # LOOKUP
    yield write_request(ino, 0, data, WRITE_CACHE)
    yield write_request(ino, 0, data, flags=os.O_RDWR | os.O_APPEND)
    yield write_request(ino, CUT + SIZE - MOST + 1, data)
    yield write_request(ino ^ 1, 0, data)
    yield write_request(ino, 0, data)[:-1]
    yield write_request(ino, 0, data)[:REQUEST.size]
    yield write_request(ino, 0, data)[:60]
    yield b"x"


@pytest.mark.parametrize("number", range(11))
def test_what_is_handed_over_is_whole(world: World, sources: Path, number: int) -> None:
    """After a WRITE through a pipe comes something for Python: not a byte is missing, and nothing of it was done."""
    ino = world.learn("both", 0, CUT + SIZE)
    message, data = list(other_messages(ino))[number], b"w" * LEAST
    for _ in range(2):  # the pipes are as good as new
        messages = [write_request(ino, 0, data), write_request(ino, LEAST, data), message]
        assert len(message) == all_at_once(world, messages)
        written(world, LEAST, LEAST)
        assert message == world.device.request[:len(message)]
        assert data * 2 + bytes(CUT + SIZE - 2 * LEAST) == shown(sources)


def test_messages_of_all_kinds(world: World, sources: Path) -> None:
    """READs see the WRITEs before them; small and O_DIRECT ones are no worse off."""
    ino, random = world.learn("both", 0, CUT + SIZE), Random(3)
    model, messages, answers = bytearray(CUT + SIZE), [], []
    for _ in range(24):
        offset, count = random.randrange(CUT + SIZE - MOST), random.choice((1, 4096, LEAST, LEAST + 1))
        if random.random() < 0.3:
            messages.append(read_request(ino, offset, count))
            answers.append(bytes(model[offset:offset + count]))
        else:
            data, flags = random.randbytes(count), random.choice((os.O_RDWR, os.O_RDWR | os.O_DIRECT))
            messages.append(write_request(ino, offset, data, flags=flags))
            answers.append(WRITTEN.pack(WRITTEN.size, 0, UNIQUE, count)[16:])
            model[offset:offset + count] = data
    assert len(STOP) == all_at_once(world, [*messages, STOP])
    assert answers == [world.device.kernel.recv(ROOM)[16:] for _ in messages]
    assert model == shown(sources)


def test_a_name_through_a_pipe(world: World) -> None:
    """All of it is looked at: one that ends otherwise is not known."""
    ino = world.learn("both", 0, CUT + SIZE)
    world.learn_open(NAME)
    bulk = [write_request(ino, 0, b"w" * LEAST)] * 2
    known, other = (lookup_request(1, NAME[:-1].encode() + end) for end in (b"n\0", b"m\0"))
    assert len(other) == all_at_once(world, [*bulk, known, *bulk, other])
    written(world, LEAST, LEAST)
    assert 16 + 128 == len(world.device.kernel.recv(ROOM)), "fuse_out_header, fuse_entry_out"
    written(world, LEAST, LEAST)
    assert other == world.device.request[:len(other)]


def test_a_write_that_fails_in_its_middle(world: World, sources: Path) -> None:
    """The first source has its bytes, the second takes none: all of it is handed over, for Python begins anew."""
    table = world.device.table
    first, second = os.open(sources / "a.img", os.O_RDWR), os.memfd_create("b", os.MFD_ALLOW_SEALING)
    os.truncate(second, SIZE)
    fcntl.fcntl(second, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    table.learn(table.epoch, 2, SPLICED.size, SPLICED.columns, 2, True, Counters())
    for target, fd in enumerate((first, second)):
        table.use(table.epoch, 2, target, fd)
    message = write_request(2, 0, Random(5).randbytes(2 * LEAST))
    for place in range(2):
        begin = write_request(2, place, b"b" * (LEAST - place))
        assert len(message) == all_at_once(world, [begin, message])
        written(world, LEAST - place)
        assert message == world.device.request[:len(message)]
    assert message[REQUEST.size:][:LEAST] + bytes(SIZE - LEAST) == (sources / "a.img").read_bytes()
    assert bytes(SIZE) == os.pread(second, SIZE, 0)
    os.close(first)
    os.close(second)


def test_a_map_that_is_forgotten_under_a_write(tmp_path: Path) -> None:
    """Python does the WRITE again, for pages may have to go elsewhere; who leads meanwhile does without the pipes."""
    with slowfs(tmp_path / "slow", f"b.img={SIZE}") as slow, on_disk(tmp_path) as directory:
        (directory / "a.img").write_bytes(bytes(SIZE))
        files = {"a": {"regions": [{"source": "a.img", "access": "rw"}]},
                 "b": {"regions": [{"source": str(tmp_path / "slow" / "b.img"), "access": "rw"}]}}
        with served_from(directory, files) as world:
            device, ino, other = world.device, world.learn("b", 0, SIZE), world.learn("a", 0, SIZE)
            message, begun, handed = write_request(ino, 0, Random(8).randbytes(MOST)), pipes(), []
            thread = threading.Thread(target=lambda: handed.append(all_at_once(world, [
                write_request(other, 0, b"w" * LEAST), message])))
            slow.order("delay 1 write")
            thread.start()
            written(world, LEAST)
            eventually(lambda: device.relay.turns[SINCE])
            world.device.fast.forget()
            device.relay.turns[SINCE] = 0  # as if another one led now, who has buffers of his own
            world.learn("a", 0, SIZE)
            for place in (0, LEAST):
                device.kernel.send(write_request(other, place, b"o" * LEAST))
            device.kernel.send(STOP)
            buffer, turns = memoryview(bytearray(ROOM)), array("q", (0, 0, 1))
            assert len(STOP) == device.table.serve(device._ours.fileno(), buffer, memoryview(bytearray(ROOM)), turns, 0)
            written(world, LEAST, LEAST)
            assert handed == []
            thread.join()
            assert [len(message)] == handed
            assert message == device.request[:len(message)]
            assert begun + 4 == pipes()
            assert b"o" * 2 * LEAST + bytes(SIZE - 2 * LEAST) == (directory / "a.img").read_bytes()


def test_nobody_watches(world: World, sources: Path) -> None:
    """A WRITE may stall: without the watchman it is Python's, whole."""
    ino, relay = world.learn("both", 0, CUT + SIZE), world.device.relay
    message = write_request(ino, LEAST, b"m" * LEAST)
    assert len(STOP) == all_at_once(world, [write_request(ino, 0, b"w" * LEAST), STOP])
    written(world, LEAST)
    relay.turns[AWAKE] = 0
    assert len(message) == all_at_once(world, [message])
    assert message == world.device.request[:len(message)]
    assert b"w" * LEAST + bytes(CUT + SIZE - LEAST) == shown(sources)


def test_pipes_go_with_the_loop(sources: Path) -> None:
    """Two of them at most, and none is left."""
    before = pipes()
    with served_from(sources, FILES) as world:
        ino = world.learn("both", 0, CUT + SIZE)
        for place in range(4):
            assert len(STOP) == all_at_once(world, [write_request(ino, place, b"w" * LEAST)] * 2 + [STOP])
            assert before + 4 == pipes()
    del world
    assert before == pipes()


def test_pipes_that_cannot_be_emptied(world: World, sources: Path) -> None:
    """What is left in them is never taken for a later message's: from then on it is read as ever."""
    ino, before = world.learn("both", 0, CUT + SIZE), ends(os.devnull)
    bulk, small = write_request(ino, 0, b"w" * LEAST), write_request(ino, 0, b"s" * 4096)
    for _ in range(2):
        assert len(STOP) == all_at_once(world, [bulk, STOP])
        written(world, LEAST)
        for nowhere in ends(os.devnull) - before:
            with open(os.devnull, "rb") as nothing:
                os.dup2(nothing.fileno(), nowhere, inheritable=False)  # splice(2) into it: EBADF
        assert len(STOP) == all_at_once(world, [bulk, bulk, small, STOP])
        written(world, LEAST, LEAST, 4096)
        assert b"s" * 4096 + b"w" * (LEAST - 4096) == shown(sources)[:LEAST]
    assert before == ends(os.devnull)


def test_what_was_not_kept(world: World, sources: Path) -> None:
    """Where no second reference is to be had nothing is stored, and all of it is handed over."""
    ino, before = world.learn("both", 0, CUT + SIZE), ends("pipe:")
    data, message = b"w" * LEAST, write_request(ino, LEAST, Random(4).randbytes(MOST))
    assert len(STOP) == all_at_once(world, [write_request(ino, 0, data), STOP])
    written(world, LEAST)
    fcntl.fcntl(max(ends("pipe:") - before), fcntl.F_SETPIPE_SZ, 4096)
    for _ in range(2):
        assert len(message) == all_at_once(world, [write_request(ino, 0, data), message])
        written(world, LEAST)
        assert message == world.device.request[:len(message)]
        assert data + bytes(CUT + SIZE - LEAST) == shown(sources)


def test_a_source_that_does_not_splice(sources: Path) -> None:
    """Python does one WRITE; the loop does the next ones as ever, and tries again when it was idle."""
    with served_from(sources, FILES) as world:
        table, first = world.device.table, os.open(sources / "a.img", os.O_RDWR | os.O_APPEND)  # EINVAL
        table.learn(table.epoch, 2, SPLICED.size, SPLICED.columns, 2, True, Counters())
        table.use(table.epoch, 2, 0, first)
        before, message = pipes(), write_request(2, 0, b"m" * LEAST)
        assert len(message) == all_at_once(world, [message, message])
        written(world, LEAST)
        assert message == world.device.request[:len(message)]
        assert before == pipes()
        assert len(STOP) == all_at_once(world, [message] * 3 + [STOP])
        written(world, *[LEAST] * 3)
        os.close(first)


def test_an_idle_loop_has_no_pipes(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while without requests; then it goes on as before."""
    monkeypatch.setattr(fast, "IDLE", 1)
    with served_from(sources, FILES) as world:
        ino, device, before = world.learn("both", 0, CUT + SIZE), world.device, pipes()
        bulk = [write_request(ino, place * LEAST, bytes([place + 1]) * LEAST) for place in range(3)]
        for turn in range(2):
            thread = threading.Thread(target=all_at_once, args=(world, bulk))
            thread.start()
            written(world, *[LEAST] * 3)
            eventually(lambda: pipes() == before)
            device.kernel.send(bulk[turn])
            written(world, LEAST)
            device.kernel.send(STOP)
            thread.join()
            assert before + 4 == pipes()
        assert b"".join(bytes([place + 1]) * LEAST for place in range(3)) == shown(sources)[:3 * LEAST]


def test_messages_that_no_pipe_holds(world: World, sources: Path) -> None:
    """An ordinary user's pipes end at 1 MiB: then WRITEs are done as ever."""
    limit = int(Path("/proc/sys/fs/pipe-max-size").read_text())
    ino, table, before = world.learn("both", 0, CUT + SIZE), world.device.table, pipes()
    for turn in range(2):
        for _ in range(2):
            world.device.kernel.send(write_request(ino, turn, bytes([turn + 1]) * LEAST))
        world.device.kernel.send(STOP)
        buffer, turns = memoryview(bytearray(limit * 64)), array("q", (0, 0, 1))
        assert len(STOP) == table.serve(world.device._ours.fileno(), buffer, world.device._answer, turns, 0)
        written(world, LEAST, LEAST)
    assert b"\1" + b"\2" * LEAST == shown(sources)[:LEAST + 1]
    assert before == pipes()
