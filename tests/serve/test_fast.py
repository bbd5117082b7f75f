"""The compiled loop, request by request: what it answers and what it leaves to Python."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from regionfs.regions import Kind, Region, RegionMap
from regionfs.serve.relay import AWAKE, SINCE
from regionfs.tree import Counters
from tests.serve.conftest import DISK_B, DISK_ERROR, DISK_HOLE, DISK_RW, DISK_TAIL, MANY, PAGE, SIZE
from tests.serve.device import (
    KILL_SUIDGID,
    READ,
    REQUEST,
    ROOM,
    WRITE,
    WRITE_CACHE,
    WRITE_LOCKOWNER,
    Handed,
    World,
    drop_pages,
    read_request,
    served,
    write_request,
)

FIXED = RegionMap(PAGE, [Region(0, PAGE, Kind.SOURCE, "memory", writable=True)])


# what it answers

@pytest.mark.parametrize(("offset", "count", "expected"), [
    (PAGE, PAGE, b"r" * PAGE),
    (3 * PAGE - 10, 20, b"r" * 10 + b"a" * 10),
    (3 * PAGE, 4 * PAGE, b"a" * 2 * PAGE + b"b" * 2 * PAGE),
    (DISK_HOLE - 5, 100, b"b" * 5 + bytes(95)),
    (DISK_TAIL, PAGE, bytes(PAGE)),
    (DISK_TAIL + PAGE - 1, PAGE, bytes(1)),
    (DISK_TAIL, 100_000, bytes(PAGE)),
])
def test_known_bytes_are_answered(world: World, offset: int, count: int, expected: bytes) -> None:
    """Sources, holes, the gap at the end, short at end of file only."""
    ino = world.learn("disk.img")
    assert expected == world.device.read(ino, offset, count)


def test_neighbouring_ranges_of_a_source_are_one_piece(world: World) -> None:
    """So that a table of many small regions in order is not handed over."""
    ino = world.learn("piece.bin")
    assert b"s" * MANY == world.device.read(ino, 0, MANY)


def test_as_many_pieces_as_fit(world: World) -> None:
    """512 are answered, one more is not."""
    ino = world.learn("shred.bin")
    assert b"s" * 512 == world.device.read(ino, 0, 512)
    assert Handed(REQUEST.size) == world.device.read(ino, 0, 513)
    assert b"s" * 512 == world.device.read(ino, MANY - 512, 1000)


def test_a_write_goes_where_the_map_says(world: World, sources: Path) -> None:
    """Across a border between two rw regions, and nowhere else."""
    ino = world.learn("disk.img")
    assert 20 == world.device.write(ino, DISK_B - 10, b"x" * 10 + b"y" * 10, WRITE_LOCKOWNER)
    a, b = (sources / "a.img").read_bytes(), (sources / "b.img").read_bytes()
    assert b"a" * (2 * PAGE - 10) + b"x" * 10 + b"a" * (SIZE - 2 * PAGE) == a
    assert b"y" * 10 + b"b" * (SIZE - 10) == b


def test_a_whole_file_follows_its_source(world: World, sources: Path) -> None:
    """Short and empty at its end, longer when it grew by whoever, shorter when it shrank."""
    ino = world.learn("whole.bin")
    read = world.device.read
    assert [b"w" * 10, b"", b""] == [read(ino, SIZE - 10, 100), read(ino, SIZE, 100), read(ino, SIZE + PAGE, 100)]
    assert 4 == world.device.write(ino, SIZE + 2, b"grow")
    assert b"ww\0\0grow" == read(ino, SIZE - 2, 100)
    os.truncate(sources / "w.img", SIZE + 4)
    assert [b"ww\0\0gr", b""] == [read(ino, SIZE - 2, 100), read(ino, SIZE + 4, 1)]
    os.truncate(sources / "w.img", 0)
    assert b"" == read(ino, 0, 100)


def test_sources_in_memory_are_answered(world: World) -> None:
    """A tmpfs knows no RWF_NOWAIT and needs none; here it is a memfd."""
    table, fd = world.device.table, os.memfd_create("source", os.MFD_CLOEXEC)
    os.write(fd, b"m" * PAGE)
    with pytest.raises(OSError, match="not supported"):
        os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
    table.learn(table.epoch, 2, PAGE, FIXED.columns, 1, True, Counters())
    table.use(table.epoch, 2, 0, fd)
    assert b"m" * 10 == world.device.read(2, 5, 10)
    assert 3 == world.device.write(2, 6, b"new")
    assert b"mnewm" == world.device.read(2, 5, 5)
    os.truncate(fd, 100)
    assert Handed(-REQUEST.size) == world.device.read(2, 99, 2)
    os.close(fd)


# what it hands over

def test_nothing_is_answered_unasked(world: World) -> None:
    """Before a file was taught, and of a file whose source was not, all is Python's."""
    ino = world.ino("disk.img")
    assert Handed(REQUEST.size) == world.device.read(ino, PAGE, PAGE)
    world.learn("disk.img", PAGE, 1)
    assert b"r" * PAGE == world.device.read(ino, PAGE, PAGE)
    assert Handed(REQUEST.size) == world.device.read(ino, DISK_RW, PAGE)
    assert Handed(REQUEST.size) == world.device.read(ino ^ 1, PAGE, PAGE)


@pytest.mark.parametrize(("offset", "count"), [
    (0, 1), (PAGE - 1, 2), (DISK_ERROR, 1), (DISK_HOLE, PAGE + 1), (PAGE, 0), (10 * PAGE, 1), (10 * PAGE + 1, PAGE),
    (2**63 - 1, 1), (2**63 - 1, 2), (2**63, 1), (2**64 - 1, 1), (2**63 - PAGE, PAGE), (PAGE, ROOM), (PAGE, 2**32 - 1),
])
def test_reads_for_python(world: World, offset: int, count: int) -> None:
    """Inline data, error regions, nothing, past the end, past every end, more than the reply has room for."""
    ino = world.learn("disk.img")
    assert Handed(REQUEST.size) == world.device.read(ino, offset, count)


@pytest.mark.parametrize(("offset", "count"), [(2**63 - 1, 2), (2**63, 1), (2**64 - 1, 1), (0, 0), (0, ROOM)])
def test_reads_of_a_whole_file_for_python(world: World, offset: int, count: int) -> None:
    """No size bounds them but that of an offset."""
    ino = world.learn("whole.bin")
    assert Handed(REQUEST.size) == world.device.read(ino, offset, count)
    assert b"" == world.device.read(ino, 2**63 - PAGE, PAGE - 1)


@pytest.mark.parametrize(("offset", "count"), [
    (0, 1), (PAGE, 1), (DISK_RW - 1, 1), (DISK_RW - 1, 2), (DISK_RW, 4 * PAGE + 1), (DISK_HOLE, 1), (DISK_HOLE - 1, 2),
    (DISK_ERROR, 1), (DISK_TAIL, 1), (10 * PAGE - 1, 2), (10 * PAGE, 1), (DISK_RW, 0), (2**63, 1), (2**64 - 1, 2),
])
def test_writes_for_python(world: World, sources: Path, offset: int, count: int) -> None:
    """All that is not rw from the first byte to the last; nothing of it is written."""
    ino = world.learn("disk.img")
    assert Handed(REQUEST.size + count) == world.device.write(ino, offset, b"!" * count)
    assert not any(b"!" in source.read_bytes() for source in sources.glob("*.img"))


@pytest.mark.parametrize(("io_flags", "flags"), [(WRITE_CACHE, os.O_RDWR), (KILL_SUIDGID, os.O_RDWR),
                                                 (0, os.O_WRONLY | os.O_APPEND)])
@pytest.mark.parametrize(("path", "offset"), [("disk.img", DISK_RW), ("whole.bin", 0)])
def test_writes_with_rules_of_their_own(world: World, path: str, offset: int, io_flags: int, flags: int) -> None:
    """Pages of a mapping, set-id bits, appending."""
    ino = world.learn(path)
    assert Handed(REQUEST.size + 1) == world.device.write(ino, offset, b"!", io_flags, flags)
    assert 1 == world.device.write(ino, offset, b"!")


@pytest.mark.parametrize("path", ["ro.bin", "twice.bin"])
def test_writers_of_what_is_shown_elsewhere(world: World, path: str) -> None:
    """And files without rw ground: their READs are answered, their WRITEs never."""
    ino = world.learn(path)
    assert isinstance(world.device.read(ino, 0, PAGE), bytes)
    assert Handed(REQUEST.size + 1) == world.device.write(ino, 0, b"!")


def test_a_write_that_nobody_would_watch(world: World) -> None:
    """While the watchman sleeps, or watches somebody else; reads need none."""
    ino, turns = world.learn("disk.img"), world.device.relay.turns
    turns[AWAKE] = 0
    assert Handed(REQUEST.size + 1) == world.device.write(ino, DISK_RW, b"!")
    assert 0 == turns[SINCE]
    assert b"r" == world.device.read(ino, PAGE, 1)
    turns[AWAKE], turns[SINCE] = 1, 12345
    assert Handed(REQUEST.size + 1) == world.device.write(ino, DISK_RW, b"!")
    assert 12345 == turns[SINCE]
    turns[SINCE] = 0
    assert 1 == world.device.write(ino, DISK_RW, b"!")


def test_cold_pages_are_told_apart(world: World, sources: Path) -> None:
    """A READ that would wait for the disk comes back with a negative size; once they are there it is answered."""
    for path, place in (("ro.bin", 0), ("whole.bin", 0), ("disk.img", PAGE)):
        ino = world.learn(path)
        source = sources / ("w.img" if path == "whole.bin" else "r.img")
        drop_pages(source)
        assert Handed(-REQUEST.size) == world.device.read(ino, place, 2 * PAGE)
        source.read_bytes()
        assert 2 * PAGE == len(world.device.read(ino, place, 2 * PAGE))


def check_in_part(name: Path, file: Path) -> None:
    """READs of `name`, the whole of which shows `file`, with half of each in the page cache."""
    size, places = 4 << 20, range(1 << 20, 3 << 20, 1 << 18)
    (file.parent / "part.yaml").write_text(json.dumps({"regionfs": 1, "files": {"d": {"whole": str(name)}}}))
    with served(file.parent / "part.yaml") as world, open(name, "rb", buffering=0) as opened:
        ino, fd = world.learn("d"), opened.fileno()
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        drop_pages(name)
        drop_pages(file)
        for place in places:
            os.pread(fd, 2 * PAGE, place)
        # the read itself may fetch the rest in time, but seldom does
        replies = [world.device.read(ino, place, 4 * PAGE) for place in places]
        assert {Handed(-REQUEST.size)} <= set(replies) <= {Handed(-REQUEST.size), b"d" * 4 * PAGE}
        os.pread(fd, size, 0)
        assert [b"d" * 4 * PAGE] * len(places) == [world.device.read(ino, place, 4 * PAGE) for place in places]


def test_a_whole_file_in_part_in_the_page_cache(sources: Path) -> None:
    """A read that is short for want of pages does not pass for the end of the file."""
    (sources / "d.img").write_bytes(b"d" * (4 << 20))
    check_in_part(sources / "d.img", sources / "d.img")


def test_a_block_device_in_part_in_the_page_cache(
        sources: Path, loop_device: Callable[..., AbstractContextManager[Path]]) -> None:
    """Nor does that of a device, whose size is not in stat, whether its name lies on a disk or in /dev."""
    (sources / "d.img").write_bytes(b"d" * (4 << 20))
    with loop_device(sources / "d.img") as device:
        node = sources / "node"
        os.mknod(node, 0o600 | stat.S_IFBLK, device.stat().st_rdev)
        for name in (node, device):
            check_in_part(name, sources / "d.img")


def test_a_source_that_shrank_is_no_hole(world: World, sources: Path) -> None:
    """Bytes that a map needs and its source has no more are for Python to refuse."""
    ino = world.learn("ro.bin")
    os.truncate(sources / "r.img", PAGE + 10)
    assert b"r" * (PAGE + 10) == world.device.read(ino, 0, PAGE + 10)
    assert Handed(-REQUEST.size) == world.device.read(ino, 0, PAGE + 11)
    assert Handed(-REQUEST.size) == world.device.read(ino, 4 * PAGE, PAGE)


@pytest.mark.parametrize("kind", ["read", "write"])
def test_malformed_messages(world: World, kind: str) -> None:
    """Cut at every byte, with bytes too many, with a length or a count that is not true, of another opcode."""
    ino = world.learn("disk.img")
    good = read_request(ino, PAGE, 8) if kind == "read" else write_request(ino, DISK_RW, b"12345678")
    assert isinstance(world.device.ask(good), bytes)
    bad = [good[:length] for length in range(1, len(good))] + [good + b"x", good * 2]
    for place in (0, 56):  # the header's length, the body's count
        for value in (0, 7, 9, 79, 81, 89, 1 << 31, 2**32 - 1):
            if place == 0 or kind == "write":
                bad.append(good[:place] + value.to_bytes(4, "little") + good[place + 4:])
    others = (0, 1, 14, 17, 271, READ + WRITE - good[4])
    bad += [good[:4] + opcode.to_bytes(4, "little") + good[8:] for opcode in others]
    for message in bad:
        assert Handed(len(message)) == world.device.ask(message), message.hex()
