"""Bytes that two composite files show, or that change beside the mount: nobody sees a stale one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.harness import Mount
from tests.mounted.conftest import PAGE, opened
from tests.worker import Worker

pytestmark = pytest.mark.both_paths

FILES = {
    "writer": {"regions": [{"source": "s.img", "access": "rw"}, {"source": "s.img", "access": "rw"}]},
    "shifted": {"regions": [{"data": {"text": "head"}}, {"source": "s.img", "offset": 100}]},
    "reader": {"regions": [{"source": "s.img"}]},
    "mixed": {"regions": [{"source": "s.img", "length": 100}, {"source": "s.img", "offset": 100, "access": "rw"}]},
    "whole": {"whole": "s.img", "access": "rw"},
    "whole-ro": {"whole": "s.img"},
}
# where byte 0 of s.img is shown, or would be
PLACES = {"writer": 0, "shifted": 4 - 100, "reader": 0, "mixed": 0, "whole": 0, "whole-ro": 0}


@pytest.fixture
def files(mount: Callable[..., Mount], tmp_path: Path) -> Iterator[Path]:
    """FILES over a source of four pages, mounted."""
    (tmp_path / "s.img").write_bytes(b"s" * 4 * PAGE)
    with mount(FILES) as mounted:
        yield mounted.path


@pytest.mark.parametrize("writer", ["writer", "whole"])
def test_a_write_shows_in_every_file_at_once(files: Path, worker: Worker, writer: str) -> None:
    """In handles that were open and had the bytes cached, through another offset, and in the source."""
    handles = {name: worker.open(files / name) for name in FILES}
    for name, handle in handles.items():
        assert b"s" * 50 == worker.pread(handle, PLACES[name] + PAGE, 50)
    for turn in range(20):
        data = bytes([turn]) * 30
        assert 30 == worker.pwrite(files / writer, PAGE + 10, data)
        shown = [worker.pread(handle, PLACES[name] + PAGE + 10, 30) for name, handle in handles.items()]
        assert [data] * len(FILES) == shown
    assert 4 * PAGE == (files.parent / "s.img").stat().st_size


def test_a_file_that_shows_bytes_twice_agrees_with_itself(files: Path, worker: Worker) -> None:
    """A write to the first place shows in the second, and the other way round."""
    handle = worker.open(files / "writer", os.O_RDWR)
    assert b"s" == worker.pread(handle, 4 * PAGE, 1)
    worker.pwrite(handle, 0, b"first")
    assert b"first" == worker.pread(handle, 4 * PAGE, 5)
    worker.pwrite(handle, 4 * PAGE, b"again")
    assert b"again" == worker.pread(handle, 0, 5)


@pytest.mark.parametrize("writer", ["writer", "whole"])
@pytest.mark.parametrize("shared", [True, False])
def test_a_mapping_sees_writes_through_another_file(files: Path, worker: Worker, writer: str, shared: bool) -> None:
    """A mapping that was read before shows the new bytes after the write returned."""
    view = worker.map(files / "reader", False, shared)
    assert b"s" * 5 == worker.view_read(view, PAGE, 5)
    for data in (b"write", b"again"):
        worker.pwrite(files / writer, PAGE, data)
        assert data == worker.view_read(view, PAGE, 5)


def test_a_store_through_a_mapping_shows_in_other_files(files: Path, worker: Worker, engine: str) -> None:
    """After msync; pyfuse3 cannot map shared what it must not cache."""
    if engine == "pyfuse3":
        with pytest.raises(OSError):
            worker.mmap_write(files / "writer", 0, b"never")
        return
    handle = worker.open(files / "reader")
    assert b"s" == worker.pread(handle, PAGE, 1)
    worker.mmap_write(files / "writer", PAGE, b"store")
    assert b"store" == worker.pread(handle, PAGE, 5)


@pytest.mark.parametrize("engine", ["native"])
def test_a_page_that_mixes_grounds_shows_its_rw_bytes_everywhere(files: Path, worker: Worker) -> None:
    """A store on ro bytes is lost and msync says so; the rw bytes of the page arrive and show."""
    handle = worker.open(files / "reader")
    assert b"s" * 110 == worker.pread(handle, 0, 110)
    view = worker.map(files / "mixed", True)
    worker.view_write(view, 105, b"right")
    assert b"right" == worker.pread(handle, 105, 5)
    with pytest.raises(OSError):
        worker.view_write(view, 95, b"wrong=good!")
    expected = b"s" * 100 + b"=good!" + b"ight"
    assert expected == (files.parent / "s.img").read_bytes()[:110]
    assert expected == worker.pread(handle, 0, 110)


def test_an_open_sees_what_was_written_beside_the_mount(files: Path, worker: Worker) -> None:
    """Close to open: the source changed by another program shows in every file that is opened after."""
    for name in FILES:
        assert b"s" == worker.pread(files / name, PLACES[name] + PAGE, 1)
    for turn in range(10):
        data = bytes([turn]) * 5
        with open(files.parent / "s.img", "r+b") as source:
            source.seek(PAGE)
            source.write(data)
        assert [data] * len(FILES) == [worker.pread(files / name, PLACES[name] + PAGE, 5) for name in FILES]


def test_an_open_sees_what_another_file_wrote_and_closed(files: Path) -> None:
    """Written through one file in this process, opened through the others."""
    with opened(files / "whole", os.O_RDWR) as fd:
        os.pwrite(fd, b"whole", 2 * PAGE)
    assert [b"whole"] * len(FILES) == [
        (files / name).read_bytes()[PLACES[name] + 2 * PAGE:][:5] for name in FILES]


def test_growth_of_a_whole_file_shows_in_stat(files: Path, worker: Worker) -> None:
    """Both whole files have the new size at once, and the bytes behind the old end."""
    handle = worker.open(files / "whole-ro")
    assert 4 * PAGE == worker.stat(handle).st_size
    worker.pwrite(files / "whole", 4 * PAGE, b"grown")
    assert (4 * PAGE + 5, b"grown") == (worker.stat(handle).st_size, worker.pread(handle, 4 * PAGE, 10))
    assert 4 * PAGE == worker.stat(files / "reader").st_size


@pytest.mark.parametrize("modes", ["passthrough,userspace", "userspace"])
def test_growth_beside_the_mount_shows_in_stat_at_the_next_open(
        mount: Callable[..., Mount], tmp_path: Path, worker: Worker, engine: str, modes: str) -> None:
    """Attributes of a file that the mount never writes may be kept, until an open finds that they are wrong."""
    source = tmp_path / "s.img"
    source.write_bytes(b"s" * PAGE)
    with mount({"log": {"whole": "s.img"}}, options=("--modes", modes if engine == "native" else "userspace")) as at:
        path = at.path / "log"
        for turn in range(1, 20):
            assert PAGE + turn - 1 == worker.stat(path).st_size
            with source.open("ab") as file:
                file.write(b"x")
            with opened(path) as fd:
                assert (PAGE + turn, b"sx") == (os.fstat(fd).st_size, worker.pread(path, PAGE - 1, 2))
            assert PAGE + turn == worker.stat(path).st_size
        os.truncate(source, 10)
        with opened(path) as fd:
            assert (10, 10) == (os.fstat(fd).st_size, path.stat().st_size)


MANY = 1000  # files: more than one answer to a listing holds
ASKS = """
import ctypes, os, sys
path, found = os.fsencode(sys.argv[1]), ctypes.create_string_buffer(256)
while True:
    ctypes.CDLL(None).statx(-100, path, 0x2000, 0x7ff, found)  # AT_FDCWD, AT_STATX_FORCE_SYNC, STATX_BASIC_STATS
"""


def test_a_listing_does_not_hide_growth_from_an_open(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """Also of the file that a listing looked up and had no room for."""
    for number in range(MANY):
        (tmp_path / f"s{number}").write_bytes(b"s")
    with mount({f"f{number:03}": {"whole": f"s{number}"} for number in range(MANY)}) as at:
        paths = [at.path / f"f{number:03}" for number in range(MANY)]
        assert {1} == {path.stat().st_size for path in paths}
        for number in range(MANY):
            (tmp_path / f"s{number}").write_bytes(b"ss")
        assert MANY == len([*at.path.iterdir()])
        for path in paths:
            with opened(path) as fd:
                assert 2 == os.fstat(fd).st_size, path


def test_growth_beside_many_who_ask_shows_at_the_next_open(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """Answers that overtake each other: which one the kernel has kept is not known."""
    (tmp_path / "s.img").write_bytes(b"s")
    with mount({"log": {"whole": "s.img"}}) as at:
        others = [subprocess.Popen([sys.executable, "-c", ASKS, at.path / "log"]) for _ in range(3)]
        try:
            for size in range(2, 1500):
                with (tmp_path / "s.img").open("ab") as source:
                    source.write(b"s")
                with opened(at.path / "log") as fd:
                    assert size == os.fstat(fd).st_size
        finally:
            for other in others:
                other.kill()
                other.wait()
