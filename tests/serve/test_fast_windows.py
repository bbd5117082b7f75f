"""Large answers that the compiled loop takes out of mapped sources: right bytes, and never ones that are not there."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from regionfs.serve import fast
from tests.faults.lives import MIB, eventually
from tests.serve.device import ROOM, STOP, Handed, World, drop_pages, on_disk, served_from

KIB = 1 << 10
SIZE = 40 * MIB                 # of each but the shards: more than one window
ODD = 1000                      # where in a.img the first region begins
CUT = 10 * MIB + 7              # where b.img begins in the file
MOST = ROOM - 16                # bytes that one READ can bring
LEAST = 64 * KIB                # of a READ that is worth a mapping
SHARDS, WINDOWS = 100, 32       # more sources than windows
WINDOW = 16 * MIB

FILES: dict[str, Any] = {
    "both": {"regions": [{"source": "a.img", "offset": ODD, "length": CUT},
                         {"source": "b.img", "access": "rw"}]},
    "whole": {"whole": "w.img"},
    "far": {"regions": [{"source": "far.img"}]},
    "shards": {"regions": [{"source": f"shard{number}.img"} for number in range(SHARDS)]},
}


def contents(name: str, size: int) -> bytes:
    """Bytes of which no two pages are alike."""
    return Random(name).randbytes(size)


@pytest.fixture
def sources(tmp_path: Path) -> Iterator[Path]:
    """The sources of FILES, in the page cache."""
    with on_disk(tmp_path) as directory:
        for name in "a.img", "b.img", "w.img":
            (directory / name).write_bytes(contents(name, SIZE))
        with (directory / "far.img").open("wb") as far:
            for number in range(SHARDS):
                far.seek(number * WINDOW)
                far.write(contents(f"far{number}", LEAST))
        for number in range(SHARDS):
            (directory / f"shard{number}.img").write_bytes(contents(f"shard{number}", LEAST))
        yield directory


@pytest.fixture
def world(sources: Path) -> Iterator[World]:
    """FILES behind a device; nothing is known yet."""
    with served_from(sources, FILES) as made:
        yield made


@pytest.fixture
def shown(sources: Path) -> bytes:
    """The bytes of the file `both`."""
    return contents("a.img", SIZE)[ODD:ODD + CUT] + contents("b.img", SIZE)


def mappings(name: str) -> int:
    """How often this process has the source mapped."""
    return len(places(name))


def places(name: str) -> set[str]:
    """Where this process has sources of such names mapped, with the name."""
    return {line for line in Path("/proc/self/maps").read_text().splitlines() if f"/{name}" in line}


def twice(world: World, ino: int, offset: int, count: int) -> bytes | Handed:
    """What the second of two READs brings: the first one only makes a window known."""
    world.device.read(ino, offset, count)
    return world.device.read(ino, offset, count)


def test_bytes_out_of_windows(world: World, shown: bytes) -> None:
    """At any place and of any length, across regions and windows, in part or all."""
    ino, random = world.learn("both", 0, CUT + SIZE), Random(11)
    for turn in range(400):
        count = random.randrange(LEAST, MOST)
        offset = random.choice((random.randrange(CUT + SIZE - count), CUT - random.randrange(count),
                                WINDOW - ODD - random.randrange(count), CUT + SIZE - count))
        assert shown[offset:offset + count] == world.device.read(ino, offset, count), f"turn {turn}: {offset} {count}"
    assert mappings("a.img") and mappings("b.img")
    end = CUT + SIZE - LEAST
    assert shown[end:] == world.device.read(ino, end, MOST), "short at the end of the file"


def test_what_is_not_mapped(world: World) -> None:
    """Small READs, the first large one, and what is all of one source: that may end at any time."""
    ino, whole = world.learn("both", 0, CUT + SIZE), world.learn("whole", 0, SIZE)
    for _ in range(3):
        world.device.read(ino, 0, LEAST - 1)
        world.device.read(whole, 0, MOST)
    world.device.read(ino, 0, MOST)
    assert (0, 0) == (mappings("a.img"), mappings("w.img"))
    world.device.read(ino, 0, MOST)
    assert (1, 0) == (mappings("a.img"), mappings("w.img"))


def test_windows_show_what_was_written(world: World, sources: Path) -> None:
    """Through the file, and by another program."""
    ino = world.learn("both", 0, CUT + SIZE)
    assert isinstance(twice(world, ino, CUT, LEAST), bytes)
    with (sources / "b.img").open("r+b", buffering=0) as other:
        for turn in range(20):
            assert 5 == world.device.write(ino, CUT + turn * 100, bytes([turn]) * 5)
            other.seek(turn * 100 + 50)
            other.write(bytes([turn]) * 7)
            found = world.device.read(ino, CUT, LEAST)
            assert isinstance(found, bytes)
            assert (bytes([turn]) * 5, bytes([turn]) * 7) == (found[turn * 100:][:5], found[turn * 100 + 50:][:7])
    assert mappings("b.img")


@pytest.mark.parametrize("size", [0, LEAST - 1, LEAST - 100, 4096])
def test_a_source_that_shrank_is_handed_over(world: World, sources: Path, size: int) -> None:
    """Also when it now ends inside a page, behind which a mapping has zeros."""
    ino = world.learn("both", 0, CUT + SIZE)
    assert isinstance(twice(world, ino, CUT, LEAST), bytes)
    os.truncate(sources / "b.img", size)
    assert isinstance(world.device.read(ino, CUT, LEAST), Handed)


def test_pages_that_are_not_in_memory_are_handed_over(world: World, sources: Path) -> None:
    """Nobody waits for a disk in the loop, although a window is there."""
    ino = world.learn("both", 0, CUT + SIZE)
    assert isinstance(twice(world, ino, CUT, LEAST), bytes)
    drop_pages(sources / "b.img", 4 * MIB, 4 * MIB)
    handed = world.device.read(ino, CUT + 5 * MIB, LEAST)
    assert isinstance(handed, Handed)
    assert 0 > handed.size


def test_a_stranger_maps_nothing(world: World) -> None:
    """mincore(2) tells who neither owns nor may write a file that all of it is in memory."""
    if os.geteuid() != 0:
        pytest.fail("these tests run as root: another user's file is needed")
    world.learn("both", 0, CUT + SIZE)
    world.device.fast.forget()
    os.seteuid(65534)
    try:
        ino = world.learn("both", 0, CUT + SIZE)
    finally:
        os.seteuid(0)
    for _ in range(3):
        assert isinstance(world.device.read(ino, 0, MOST), bytes)
    assert 0 == mappings("a.img")


def test_few_windows_for_a_large_source(world: World) -> None:
    """Each shows its own bytes; as many as there are places."""
    ino = world.learn("far", 0, SHARDS * WINDOW)
    for number in (*range(SHARDS), *range(SHARDS - 1, -1, -1)):
        assert contents(f"far{number}", LEAST) == twice(world, ino, number * WINDOW, LEAST)
        assert contents("far0", LEAST) == world.device.read(ino, 0, LEAST)
    assert WINDOWS == mappings("far.img")


def test_few_windows_for_many_sources(world: World) -> None:
    """The bytes of all; as many windows as there are places, whatever sources they are of."""
    ino = world.learn("shards", 0, SHARDS * LEAST)
    for number in range(SHARDS):
        assert contents(f"shard{number}", LEAST) == twice(world, ino, number * LEAST, LEAST)
    assert WINDOWS == mappings("shard")


def test_windows_that_have_their_places_stay(world: World) -> None:
    """As many as there are places, asked for in turn: none makes room for another, which would cost its page faults."""
    ino = world.learn("shards", 0, WINDOWS * LEAST)
    for number in range(WINDOWS):
        twice(world, ino, number * LEAST, LEAST)
    before = places("shard")
    for number in (*range(WINDOWS), *range(WINDOWS)):
        assert contents(f"shard{number}", LEAST) == world.device.read(ino, number * LEAST, LEAST)
    assert WINDOWS == len(before)
    assert before == places("shard")


def test_what_is_forgotten_is_unmapped(world: World) -> None:
    """With the descriptors; the next one who learns it maps it anew."""
    for _ in range(2):
        assert isinstance(twice(world, world.learn("both", 0, CUT + SIZE), 0, MOST), bytes)
        assert 1 == mappings("a.img")
        world.device.fast.forget()
        assert 0 == mappings("a.img")


def test_an_idle_loop_maps_nothing(sources: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while without requests; then it goes on as before."""
    monkeypatch.setattr(fast, "IDLE", 1)
    with served_from(sources, FILES) as world:
        ino, device = world.learn("both", 0, CUT + SIZE), world.device
        before = twice(world, ino, 0, MOST)
        assert 1 == mappings("a.img")
        thread = threading.Thread(target=device.receive)
        thread.start()
        eventually(lambda: mappings("a.img") == 0)
        device.kernel.send(STOP)
        thread.join()
        assert before == twice(world, ino, 0, MOST)
        assert 1 == mappings("a.img")
