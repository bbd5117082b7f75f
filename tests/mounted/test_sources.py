"""Sources that change unseen by their stamps, that get shorter, longer or unwritable: each file has its own need."""

from __future__ import annotations

import errno
import mmap
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from regionfs.stamps import GRAIN_NS
from tests.faults.lives import eventually
from tests.harness import Mount
from tests.mounted.conftest import PAGE, opened
from tests.mounted.test_trouble import tmpfs

JOINED = {  # in userspace, and composed where that can be
    "joined.img": {"regions": [{"source": "src/s.img", "length": PAGE - 1}, {"source": "src/t.img", "length": 1000}]},
    "pages.img": {"regions": [{"source": "src/s.img", "length": PAGE}, {"source": "src/t.img", "length": PAGE}]},
}


@pytest.fixture(params=["disk", "memory"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """src/s.img of four pages, and src/t.img beside it."""
    if request.param == "disk":
        (tmp_path / "src").mkdir()
        yield make_sources(tmp_path / "src")
        return
    with tmpfs(tmp_path / "src", 1 << 20) as directory:
        yield make_sources(directory)


def make_sources(directory: Path) -> Path:
    for name in "st":
        (directory / f"{name}.img").write_bytes(name.encode() * 4 * PAGE)
    return directory / "s.img"


def begin(mounted: Mount) -> list[bytes]:
    """The first bytes of each file, by an open of its own."""
    return [(mounted.path / name).read_bytes()[:1] for name in JOINED]


def settle(source: Path) -> None:
    """Wait until its stamps are older than their grain."""
    eventually(lambda: source.stat().st_ctime_ns + GRAIN_NS < time.time_ns())


@pytest.mark.both_paths
def test_stores_through_a_mapping_are_seen_by_the_next_open(mount: Callable[..., Mount], source: Path) -> None:
    """Though they move no time stamp: while it is mapped, after that, and of a mapping that came and went unseen."""
    with mount(JOINED) as mounted:
        with opened(source, os.O_RDWR) as fd, mmap.mmap(fd, 4 * PAGE) as mapped:
            for letter in b"123":
                mapped[0] = letter
                assert [bytes([letter])] * 2 == begin(mounted)
                settle(source)
                assert [bytes([letter])] * 2 == begin(mounted)
            mapped[0] = ord("4")
        assert [b"4"] * 2 == begin(mounted)


@pytest.mark.both_paths
def test_a_mapping_that_came_and_went(mount: Callable[..., Mount], source: Path) -> None:
    """It was read before it was stored to, which moves no stamp in memory; opens before and after see what there is."""
    with mount(JOINED) as mounted:
        for letter in b"12":
            settle(source)
            begin(mounted), begin(mounted)
            with opened(source, os.O_RDWR) as fd, mmap.mmap(fd, 4 * PAGE) as mapped:
                assert mapped[0]
                mapped[0] = letter
            assert [bytes([letter])] * 2 == begin(mounted)


@pytest.mark.both_paths
def test_two_changes_within_a_second_of_coarse_stamps(
        mount: Callable[..., Mount], tmp_path: Path, loop_device: Callable[..., AbstractContextManager[Path]]) -> None:
    """On ext4 with small inodes both have the same stamps; an open between them does not hide the second."""
    with open(tmp_path / "disk", "wb") as disk:
        disk.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-I", "128", tmp_path / "disk"], check=True, stderr=subprocess.DEVNULL)
    (tmp_path / "src").mkdir()
    with loop_device(tmp_path / "disk") as device:
        subprocess.run(["mount", device, tmp_path / "src"], check=True)
        try:
            source = make_sources(tmp_path / "src")
            with mount(JOINED) as mounted:
                eventually(lambda: changes_within_a_second(mounted, source))
        finally:
            subprocess.run(["umount", tmp_path / "src"], check=True)


def changes_within_a_second(mounted: Mount, source: Path) -> bool:
    """Write, open, write; False when the clock was between two seconds, or the first stamp looked young."""
    stamps = []
    for letter in b"12":
        with opened(source, os.O_WRONLY) as fd:
            os.pwrite(fd, bytes([letter]), 0)
            stamps.append(os.fstat(fd).st_ctime_ns)
        late = time.time_ns() - stamps[0] > 2 * GRAIN_NS
        assert [bytes([letter])] * 2 == begin(mounted)
    return late and stamps[0] == stamps[1]


def test_a_source_that_shrinks_fails_those_who_need_what_is_gone(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """A `whole` file of it follows, who shows its beginning goes on; by the mount or from outside."""
    (tmp_path / "s.img").write_bytes(b"s" * 100)
    with mount({"whole": {"whole": "s.img", "access": "rw"}, "large": {"regions": [{"source": "s.img", "length": 100}]},
                "small": {"regions": [{"source": "s.img", "length": 2}, {"data": {"text": "end"}}]},
                "exact": {"regions": [{"source": "s.img", "length": 50}]}}) as mounted:
        (mounted.path / "whole").write_bytes(b"shorter")
        for length in 7, 4:
            os.truncate(tmp_path / "s.img", length)
            assert b"shorter"[:length] == (mounted.path / "whole").read_bytes()
            assert b"shend" == (mounted.path / "small").read_bytes()
            for name in "large", "exact":
                with pytest.raises(OSError, match="Input/output") as failed:
                    (mounted.path / name).read_bytes()
                assert errno.EIO == failed.value.errno
        with open(mounted.path / "whole", "ab") as appended:
            appended.write(b"!" * 96)
        assert b"shor" + b"!" * 96 == (mounted.path / "large").read_bytes()


@pytest.mark.both_paths
def test_a_copy_of_what_a_source_has_lost_fails(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """Also one that asks where the holes are first: the end that is gone is none."""
    with open(tmp_path / "s.img", "wb") as sparse:
        sparse.write(b"s" * PAGE)
        sparse.seek(8 * PAGE)
        sparse.write(b"s" * PAGE)
    regions = [{"data": {"text": "x"}}, {"source": "s.img"}]
    with mount({"joined.img": {"regions": regions}}) as mounted, opened(mounted.path / "joined.img", os.O_RDONLY) as fd:
        os.truncate(tmp_path / "s.img", 4 * PAGE)
        copy = ["cp", "--sparse=auto", f"/proc/self/fd/{fd}", tmp_path / "copy"]
        copied = subprocess.run(copy, pass_fds=[fd], capture_output=True, text=True, check=False)
    assert (1, True) == (copied.returncode, "Input/output error" in copied.stderr)


@contextmanager
def immutable(path: Path) -> Iterator[None]:
    subprocess.run(["chattr", "+i", path], check=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", path], check=True)


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    subprocess.run(["mount", "-o", "remount,ro", directory], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", directory], check=True)


@pytest.mark.parametrize("how", ["file system", "attribute"])
def test_what_cannot_be_written_any_more_can_be_read(mount: Callable[..., Mount], tmp_path: Path, how: str) -> None:
    """Only opens for writing fail, with the errno that the source's own would; until it is writable again."""
    if os.geteuid() != 0:
        pytest.skip("making a source unwritable needs root")
    where = tmpfs(tmp_path / "src", 1 << 20) if how == "file system" else at(tmp_path / "src")
    with where as directory:
        source = make_sources(directory)
        with mount({"whole": {"whole": "src/s.img", "access": "rw"}, "part": {"regions": [
                {"source": "src/t.img"}, {"source": "src/s.img", "access": "rw"}]}}) as mounted:
            whole, part = mounted.path / "whole", mounted.path / "part"
            with read_only(directory) if how == "file system" else immutable(source):
                assert b"s" * 4 * PAGE == whole.read_bytes()
                assert b"t" * 4 * PAGE + b"s" * 4 * PAGE == part.read_bytes()
                for path in whole, part, source:
                    with pytest.raises(OSError, match=re.escape(str(path))) as refused:
                        os.open(path, os.O_RDWR)
                    assert (errno.EROFS if how == "file system" else errno.EPERM) == refused.value.errno
            for number, path in enumerate((whole, part)):
                with opened(path, os.O_RDWR) as fd:
                    os.pwrite(fd, b"%d" % number, 4 * PAGE * number + number)
            assert b"01ss" == source.read_bytes()[:4]
        for name in "st":
            (directory / f"{name}.img").unlink()


@contextmanager
def at(directory: Path) -> Iterator[Path]:
    """A new directory."""
    directory.mkdir()
    yield directory


def test_a_device_that_is_resized(mount: Callable[..., Mount], tmp_path: Path, engine: str,
                                  loop_device: Callable[..., AbstractContextManager[Path]]) -> None:
    """`whole` of it has its size in stat, at its end and to readers from the next open on; so it is after a reload."""
    (tmp_path / "disk").write_bytes(b"d" * 4 * PAGE)
    with loop_device(tmp_path / "disk") as device, mount({
            "whole": {"whole": str(device)},
            "fixed": {"regions": [{"source": str(device), "length": 4 * PAGE}]}}) as m:
        for pages in 8, 6:
            os.truncate(tmp_path / "disk", pages * PAGE)
            subprocess.run(["losetup", "-c", device], check=True)
            for reloaded in (False, True)[:1 + (engine == "native")]:
                if reloaded:
                    assert 0 == subprocess.run([*m.user.command, "reload", m.path], check=False).returncode
                with opened(m.path / "whole") as fd:
                    assert pages * PAGE == os.lseek(fd, 0, os.SEEK_END) == os.fstat(fd).st_size
                    assert pages * PAGE == len(os.pread(fd, 16 * PAGE, 0))
                assert 4 * PAGE == len((m.path / "fixed").read_bytes())


@contextmanager
def bound(file: Path, place: Path) -> Iterator[Path]:
    """The file as a bind mount."""
    place.touch()
    subprocess.run(["mount", "--bind", file, place], check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


def test_who_comes_by_no_name_sees_a_change_too(mount: Callable[..., Mount], tmp_path: Path, engine: str) -> None:
    """By a bind mount of the file or /proc/self/fd, while a composed file is open; nobody sees ESTALE."""
    if os.geteuid() != 0:
        pytest.skip("a bind mount needs root")
    (tmp_path / "src").mkdir()
    source = make_sources(tmp_path / "src")
    with mount(JOINED) as mounted, bound(mounted.path / "pages.img", tmp_path / "bound") as alias, opened(alias) as fd:
        assert ("composed" if engine == "native" else "userspace") == mounted.status()["files"]["pages.img"]["mode"]
        assert b"s" == os.pread(fd, 1, 0)
        for letter in "1234":
            source.write_bytes(letter.encode() * 4 * PAGE)
            for path in alias, Path(f"/proc/self/fd/{fd}"), mounted.path / "pages.img":
                assert letter.encode() * PAGE + b"t" * PAGE == path.read_bytes(), path
                with opened(path) as again, mmap.mmap(again, 2 * PAGE, mmap.MAP_PRIVATE, mmap.PROT_READ) as mapped:
                    assert letter.encode() == mapped[:1], path


def test_a_source_that_grew_is_cut_for_who_comes_by_no_name(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """A map of all of it, in passthrough, keeps its size in handles that no name leads to."""
    (tmp_path / "s.img").write_bytes(b"s" * 100)
    with mount({"f": {"regions": [{"source": "s.img", "length": 100}]}}) as mounted, opened(mounted.path / "f") as fd:
        assert b"s" * 100 == os.pread(fd, 200, 0)
        (tmp_path / "s.img").write_bytes(b"t" * 200)
        for path in Path(f"/proc/self/fd/{fd}"), mounted.path / "f":
            assert b"t" * 100 == path.read_bytes()
