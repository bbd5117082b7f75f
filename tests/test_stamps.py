"""What time stamps prove, and what the kernel tells of those who may write."""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from regionfs.manifest.inspect import inspect_source
from regionfs.stamps import COARSE_GRAIN_NS, GRAIN_NS, nobody_writes, old_enough
from tests.serve.device import on_disk

SECOND = 10**9


@dataclass(frozen=True)
class Stamped:
    """What a test says of a source's times, in ns."""

    mtime: int
    ctime: int


@pytest.mark.parametrize(("stamped", "age", "expected"), [
    (Stamped(5 * SECOND + 1, 5 * SECOND + 1), GRAIN_NS, False),
    (Stamped(5 * SECOND + 1, 5 * SECOND + 1), GRAIN_NS + 2, True),
    (Stamped(5 * SECOND, 5 * SECOND + 1), GRAIN_NS + 2, True),  # what touch -d set
    (Stamped(5 * SECOND, 5 * SECOND), GRAIN_NS + 2, False),
    (Stamped(4 * SECOND, 5 * SECOND), COARSE_GRAIN_NS, False),
    (Stamped(4 * SECOND, 5 * SECOND), COARSE_GRAIN_NS + 2, True),
    (Stamped(9 * SECOND + 1, 5 * SECOND + 1), GRAIN_NS + 2, False),
])
def test_a_stamp_is_as_old_as_its_grain(tmp_path: Path, stamped: Stamped, age: int, expected: bool) -> None:
    """20 ms, or two seconds where none has a fraction; `age` is that of a stamp of second 5."""
    (tmp_path / "a").write_bytes(b"a")
    facts = inspect_source(tmp_path / "a")._replace(mtime_ns=stamped.mtime, ctime_ns=stamped.ctime)
    assert expected == old_enough(facts, 5 * SECOND + age)
    assert not old_enough(facts._replace(kind="block"), 10**18)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Path]:
    """A file of a page, on a disk."""
    with on_disk(tmp_path) as directory:
        (directory / "a.img").write_bytes(b"a" * mmap.PAGESIZE)
        yield directory / "a.img"


def test_writers_are_seen(source: Path) -> None:
    """Whoever has it open or mapped for writing, as long as he has; not who reads."""
    with source.open("rb") as reader, source.open("rb"):
        assert nobody_writes(reader.fileno())
        with source.open("r+b") as writer:
            assert not nobody_writes(reader.fileno())
            mapped = mmap.mmap(writer.fileno(), mmap.PAGESIZE)
        assert not nobody_writes(reader.fileno())
        mapped.close()
        assert nobody_writes(reader.fileno())


def test_where_nobody_can_tell(source: Path) -> None:
    """Stores in memory move no stamps."""
    fd = os.memfd_create("source")
    assert not nobody_writes(fd)
    os.close(fd)


def test_who_opens_it_for_writing_meanwhile(source: Path) -> None:
    """Waits for an instant at most, and his waiting kills nobody."""
    stop = threading.Event()

    def ask() -> None:
        with source.open("rb") as reader:
            while not stop.is_set():
                nobody_writes(reader.fileno())
    asking = threading.Thread(target=ask)
    asking.start()
    try:
        for _ in range(2000):
            source.open("r+b").close()
    finally:
        stop.set()
        asking.join()
