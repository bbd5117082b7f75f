"""The executor: short answers, their errnos, page write-back, punching and sparse sources."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest

from regionfs import execute
from regionfs.manifest.body import Mapped
from regionfs.manifest.load import loads
from regionfs.regions import RegionMap
from regionfs.source import Sources
from tests.test_random_maps import attempt

BLOCK = 4096
TEXT = """
regionfs: 1
files:
  disk:
    size: 100
    regions:
      - {start: 10, source: ro.img, length: 10}
      - {source: a.img, access: rw, length: 10}
      - {source: b.img, access: rw, length: 10}
      - {source: ro.img, length: 10}
      - {start: 60, error: true, length: 10}
      - {data: {text: inline}}
  sparse:
    size: 40KiB
    regions:
      - {start: 4KiB, source: sparse.img, length: 16KiB, access: rw}
      - {start: 24KiB, source: sparse.img, length: 8KiB}
"""


class Files:
    """The files of TEXT, executed on real sources in `directory`."""

    def __init__(self, directory: Path, sources: Sources, maps: dict[str, RegionMap]) -> None:
        self.directory, self.sources, self.maps = directory, sources, maps

    def read(self, offset: int, length: int, name: str = "disk") -> bytes | str:
        """Bytes, or the name of the errno. The buffer is dirty before."""
        buffer = bytearray(b"\xff" * length)
        count = attempt(execute.read_into, self.maps[name], self.sources, offset, memoryview(buffer))
        return bytes(buffer[:count]) if isinstance(count, int) else str(count)

    def write(self, offset: int, data: bytes, name: str = "disk") -> int | str:
        """How many bytes went in, or the name of the errno."""
        done: int | str = attempt(execute.write_from, self.maps[name], self.sources, offset, memoryview(data))
        return done

    def write_pages(self, offset: int, data: bytes) -> str | None:
        """None, or the name of the errno."""
        done: str | None = attempt(execute.write_pages, self.maps["disk"], self.sources, offset, memoryview(data))
        return done

    def source(self, name: str) -> bytes:
        """What a source holds."""
        return (self.directory / name).read_bytes()


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    """Sources ro, a and b of 20 bytes of their letter; sparse: data in the second and fourth of five blocks."""
    for name in ("ro", "a", "b"):
        (tmp_path / f"{name}.img").write_bytes(name[0].encode() * 20)
    with open(tmp_path / "sparse.img", "wb") as sparse:
        for block in (1, 3):
            os.pwrite(sparse.fileno(), b"s" * BLOCK, block * BLOCK)
        sparse.truncate(5 * BLOCK)
    manifest = loads(TEXT, tmp_path / "m.yaml")
    maps = {path: file.regions for path, file in manifest.files.items() if isinstance(file.body, Mapped)}
    with Sources(manifest) as sources:
        yield Files(tmp_path, sources, maps)


def test_read_crosses_regions_and_holes(files: Files) -> None:
    """One buffer over a hole and three sources."""
    assert bytes(5) + b"r" * 10 + b"a" * 10 + b"b" * 5 == files.read(5, 30)


def test_read_is_short_at_end_of_file(files: Files) -> None:
    """Fewer bytes before the end, none at and after it."""
    assert (bytes(2), b"", b"") == (files.read(98, 10), files.read(100, 10), files.read(200, 10))


def test_read_stops_before_an_error_region(files: Files) -> None:
    """Good bytes first, then EIO, then the inline bytes behind it."""
    assert (bytes(5), "EIO", "EIO", b"inline") == (
        files.read(55, 20), files.read(60, 20), files.read(69, 1), files.read(70, 6))


def test_write_crosses_neighbouring_rw_regions_and_is_short_at_the_border(files: Files) -> None:
    """Both sources get their part, the ro region behind them nothing."""
    assert 15 == files.write(25, b"w" * 30)
    assert (b"a" * 5 + b"w" * 5 + b"a" * 10, b"w" * 10 + b"b" * 10, b"r" * 20) == (
        files.source("a.img"), files.source("b.img"), files.source("ro.img"))


@pytest.mark.parametrize("offset", [0, 15, 40, 55, 65, 70, 99, 100, 1000])
def test_write_outside_rw_ground_fails(files: Files, offset: int) -> None:
    """In a hole, a ro region, an error, inline data, at and past the end: EROFS, and nothing changes."""
    assert "EROFS" == files.write(offset, b"w")
    assert b"r" * 20 + b"a" * 20 + b"b" * 20 == files.source("ro.img") + files.source("a.img") + files.source("b.img")


def test_write_of_nothing_is_nothing(files: Files) -> None:
    """Zero bytes go in everywhere without an error."""
    assert (0, 0) == (files.write(25, b""), files.write(0, b""))


def test_full_source_takes_what_fits(files: Files) -> None:
    """The bytes before the source's limit stay, the next write gets the source's own errno."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, before[1]))
    try:
        done = files.write(20, b"w" * 20), files.write(25, b"w" * 20)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (5, "EFBIG") == done
    assert b"w" * 5 + b"a" * 15 == files.source("a.img")


def test_shrunk_source_reads_as_eio(files: Files) -> None:
    """Never zeros or bytes of something else; what lies before the end still reads."""
    os.truncate(files.directory / "ro.img", 5)
    assert (bytes(10) + b"r" * 5, "EIO") == ((files.read(0, 10) or b"") + files.read(10, 5), files.read(15, 5))


def test_nowait_answers_from_the_cache_or_not_at_all(files: Files) -> None:
    """With NOWAIT the same bytes come, or BlockingIOError; holes and inline data always come."""
    buffer = bytearray(b"\xff" * 40)
    try:
        count = execute.read_into(files.maps["disk"], files.sources, 5, memoryview(buffer), execute.NOWAIT)
    except BlockingIOError:
        pass
    else:
        assert files.read(5, 40) == bytes(buffer[:count])
    assert 4 == execute.read_into(files.maps["disk"], files.sources, 70, memoryview(buffer)[:4], execute.NOWAIT)
    assert b"inli" == buffer[:4]


def test_pages_write_back_their_rw_bytes(files: Files) -> None:
    """A page of a shared mapping that mixes grounds: rw bytes go in, unchanged others are no error."""
    page = bytes(10) + b"r" * 10 + b"w" * 20 + b"r" * 10 + bytes(10)
    assert files.write_pages(0, page) is None
    assert (b"w" * 10 + b"a" * 10, b"w" * 10 + b"b" * 10, b"r" * 20) == (
        files.source("a.img"), files.source("b.img"), files.source("ro.img"))


def test_pages_with_a_changed_ro_byte_fail_after_the_rw_bytes(files: Files) -> None:
    """EROFS tells that a store outside rw ground is lost; the rw bytes of the page are not."""
    assert "EROFS" == files.write_pages(0, b"!" + bytes(9) + b"r" * 10 + b"w" * 20)
    assert (b"w" * 10 + b"a" * 10, b"r" * 20) == (files.source("a.img"), files.source("ro.img"))


def test_punch_zeroes_rw_ground(files: Files) -> None:
    """A punched range across two rw regions reads as zeros, and only that."""
    execute.punch(files.maps["disk"], files.sources, execute.PUNCH_HOLE, 25, 10)
    assert b"a" * 5 + bytes(10) + b"b" * 5 == files.read(20, 20)
    assert (20, 20) == (len(files.source("a.img")), len(files.source("b.img")))


def test_punch_outside_rw_ground_changes_nothing(files: Files) -> None:
    """A range that leaves rw ground is refused as a whole."""
    assert "EROFS" == attempt(execute.punch, files.maps["disk"], files.sources, execute.PUNCH_HOLE, 35, 10)
    assert b"b" * 20 == files.source("b.img")
