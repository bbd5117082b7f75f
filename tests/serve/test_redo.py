"""What is left of a request that was begun: of each kind, by what was overtaken and by what the source is now."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from regionfs.execute import KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE
from regionfs.serve.redo import (
    LOOK,
    PAGE,
    left_of_append,
    left_of_fallocate,
    left_of_setattr,
    left_of_write,
    positions,
    state_of,
)
from regionfs.units import MAX_OFFSET
from regionfs.wire.abi import SetattrValid
from regionfs.wire.requests import FallocateIn, SetattrIn

V = SetattrValid


def setattr_in(valid: int, *, size: int = 0, mode: int = 0, uid: int = 0, mtime: int = 0) -> SetattrIn:
    """A SETATTR."""
    return SetattrIn(valid, 0, size, 0, 0, mtime, 0, 0, 0, 0, mode, uid, 0)


def test_left_of_write() -> None:
    """Every byte but the overtaken ones, byte by byte against a set."""
    rng = Random(3)
    for _ in range(500):
        start = rng.randrange(20)
        end = start + rng.randrange(1, 20)
        overtaken = [(at, at + rng.randrange(1, 9)) for at in (rng.randrange(40) for _ in range(rng.randrange(4)))]
        gone = {at for first, last in overtaken for at in range(first, last)}
        left = [at for first, last in left_of_write(start, end, overtaken) for at in range(first, last)]
        assert [at for at in range(start, end) if at not in gone] == left


@pytest.mark.parametrize(("others", "stored", "left"), [
    (b"", b"", b"LINE\n"), (b"", b"LINE\n", b""),
    (b"other\n", b"", b"LINE\n"), (b"other\n", b"LINE\n", b""),
])
@pytest.mark.parametrize("later", [b"", b"later\n"])
def test_left_of_append(others: bytes, stored: bytes, left: bytes, later: bytes) -> None:
    """It stands anywhere behind what was there, between lines of others, or not at all."""
    shown = b"LINE\nstart\n" + others + stored + later
    assert left == left_of_append(memoryview(b"LINE\n"), 11, len(shown), [], lambda at, length: shown[at:at + length])


def test_an_append_that_lies_across_two_looks() -> None:
    """It is found however much others have added."""
    for shift in range(-6, 2):
        shown = b"." * (LOOK + shift) + b"LINE\n" + b"." * 100
        assert b"" == left_of_append(memoryview(b"LINE\n"), 0, len(shown), [], lambda at, length: shown[at:at + length])  # noqa: B023


def test_an_append_that_a_kill_has_cut() -> None:
    """The rest is left when it ends with a page and nobody came after it."""
    data, start = Random(4).randbytes(3 * PAGE), b"s" * 100
    cut = start + data[:2 * PAGE - 100]
    for shown, left in (cut, data[2 * PAGE - 100:]), (cut + b"other", data), (cut[:-1], data):
        assert left == left_of_append(memoryview(data), 100, len(shown), [], lambda at, length: shown[at:at + length])  # noqa: B023


def test_an_append_that_was_overwritten() -> None:
    """Another write, which was answered, changed a part of it: it is not appended once more."""
    for shown, overtaken, left in (
            (b"startLxxE", [(6, 8)], b""), (b"startxxxx", [(0, MAX_OFFSET)], b""), (b"startLxxE", [], b"LINE"),
            (b"startLxxE", [(0, 3)], b"LINE"), (b"start", [(6, 8)], b"LINE")):
        assert left == left_of_append(memoryview(b"LINE"), 5, len(shown), overtaken,
                                      lambda at, length: shown[at:at + length])  # noqa: B023


@pytest.mark.parametrize(("mode", "overtaken", "left"), [
    (0, [], [(0, 10, 20)]), (KEEP_SIZE, [(10, 30)], [(KEEP_SIZE, 10, 20)]),
    (PUNCH_HOLE | KEEP_SIZE, [], [(PUNCH_HOLE | KEEP_SIZE, 10, 15)]),
    (PUNCH_HOLE | KEEP_SIZE, [(12, 14)], [(PUNCH_HOLE | KEEP_SIZE, 10, 2), (PUNCH_HOLE | KEEP_SIZE, 14, 11)]),
    (ZERO_RANGE, [(0, 99)], [(0, 25, 5)]),
])
def test_left_of_fallocate(mode: int, overtaken: list[tuple[int, int]], left: list[tuple[int, int, int]]) -> None:
    """What others wrote there, or appended since the file had 25 bytes, is not taken away."""
    parts = left_of_fallocate(FallocateIn(0, 10, 20, mode), 25, overtaken)
    assert left == [(part.mode, part.offset, part.length) for part in parts]


def test_a_truncate(tmp_path: Path) -> None:
    """It is left only when what it cuts off is there still: what others add then is not cut."""
    path = tmp_path / "file"
    path.write_bytes(b"a" * 100)
    fd, body = os.open(path, os.O_RDWR), setattr_in(V.SIZE, size=10)
    before = state_of(fd, body)

    def left(*overtaken: tuple[int, int]) -> bool:
        return bool(left_of_setattr(body, before, state_of(fd, body, before.size), overtaken).valid & V.SIZE)

    assert (True, False) == (left(), left((50, 60)))
    os.pwrite(fd, b"appended", 100)
    assert left()
    os.ftruncate(fd, 10)
    assert not left()
    os.pwrite(fd, b"b" * 200, 10)
    assert not left()
    os.close(fd)


def test_a_file_that_grows(tmp_path: Path) -> None:
    """It is not cut when others have made it longer yet."""
    path = tmp_path / "file"
    path.write_bytes(b"a")
    fd, body = os.open(path, os.O_RDWR), setattr_in(V.SIZE, size=10)
    before = state_of(fd, body)
    for size, left in (1, V.SIZE), (9, V.SIZE), (10, 0), (20, 0):
        os.ftruncate(fd, size)
        assert left == left_of_setattr(body, before, state_of(fd, body, before.size), []).valid
    os.close(fd)


def test_attributes(tmp_path: Path) -> None:
    """Each is left as long as it is what it was and no other request has set it."""
    path = tmp_path / "file"
    path.touch(0o600)
    fd, body = os.open(path, os.O_RDWR), setattr_in(V.MODE | V.MTIME | V.MTIME_NOW | V.ATIME, mode=0o644, mtime=7)
    before = state_of(fd, body)
    ranges = positions(body)
    assert 3 == len(ranges)
    assert body.valid == left_of_setattr(body, before, state_of(fd, body, before.size), []).valid
    assert 0 == left_of_setattr(body, before, state_of(fd, body, before.size), ranges).valid
    os.fchmod(fd, 0o640)
    os.utime(fd, ns=(5, before.mtime))
    assert body.valid & ~V.MODE == left_of_setattr(body, before, state_of(fd, body, before.size), []).valid
    os.utime(fd, ns=(5, 5))
    assert V.ATIME == left_of_setattr(body, before, state_of(fd, body, before.size), []).valid
    os.close(fd)
