"""Handles from before reloads, renewals and fallbacks, and the servers that come after: each shows what it showed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from regionfs.daemon import runtime
from tests.faults.lives import Lives, eventually
from tests.harness import ROOT_OR_ME, Mount, User
from tests.mounted.conftest import PAGE, opened
from tests.mounted.kernel import require
from tests.mounted.test_fallback import small_disk

SIZE = 16 * PAGE


def of(source: str) -> dict[str, Any]:
    """A file in userspace that shows the second page of a source."""
    return {"regions": [{"source": source, "offset": PAGE, "length": PAGE - 1}]}


def composed(*pages: tuple[str, int]) -> dict[str, Any]:
    """A composed file of such pages of sources."""
    return {"regions": [{"source": source, "offset": page * PAGE, "length": PAGE} for source, page in pages]}


class World:
    """A mount over sources a.img to d.img, each full of its own letter."""

    def __init__(self, directory: Path, files: dict[str, Any], **arguments: Any) -> None:
        self.directory, self.files, self.open = directory, files, ExitStack()
        for letter in "abcd":
            (directory / f"{letter}.img").write_bytes(letter.encode() * SIZE)
        self.mount = Mount(directory, files, **arguments)

    def __enter__(self) -> World:
        self.lives = Lives(self.open.enter_context(self.mount))
        return self

    def __exit__(self, *_: object) -> None:
        self.open.close()

    def handle(self, name: str, flags: int = os.O_RDONLY) -> int:
        """An open file, until the end."""
        return self.open.enter_context(opened(self.mount.path / name, flags))

    def reload(self, **files: Any) -> int:
        """Change files of the manifest (None: remove), read it; the exit status."""
        self.files = {name: file for name, file in {**self.files, **files}.items() if file is not None}
        self.mount.write_manifest(self.files)
        return self.mount.user.regionfs("reload", self.mount.path).returncode

    def next_server(self, how: str) -> None:
        """Another server takes over."""
        if how == "death":
            self.lives.kill()
        else:
            assert 0 == self.mount.user.regionfs("upgrade", self.mount.path).returncode

    def change(self, letter: str, page: int, byte: bytes) -> None:
        """Somebody writes a byte at the start of a source's page; from now on its stamps tell."""
        path, before = self.directory / f"{letter}.img", (self.directory / f"{letter}.img").stat().st_mtime_ns
        with path.open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), byte, page * PAGE)
        os.utime(path, ns=(before, before + 1_000_000))

    def stem(self) -> Path:
        return runtime.stem_of(self.mount.path.resolve())


def fill(disk: Path) -> Path:
    """A file that takes all the room there is."""
    with (disk / "filler").open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(PAGE)):
            os.fsync(file.fileno())
    return disk / "filler"


def first(fd: int, offset: int = 0) -> bytes:
    """A byte of an open file, past its page cache."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    return os.pread(fd, 1, offset)


@pytest.fixture(params=["death", "upgrade"])
def how(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param


def test_generations_never_come_back(tmp_path: Path, how: str) -> None:
    """Renewals, reloads and servers in turn: every inode of the file is another."""
    require("composed")
    with World(tmp_path, {"f": composed(("a.img", 0), ("b.img", 0))}) as world:
        numbers, shown = [], []
        for step in range(3):
            for source in ("b.img", "c.img"):
                fd = world.handle("f")
                numbers.append(os.fstat(fd).st_ino)
                shown.append((fd, first(fd, PAGE)))
                world.change("a", 0, b"%d" % step)          # a renewal at the next open
                fd = world.handle("f")
                numbers.append(os.fstat(fd).st_ino)
                assert (b"%d" % step, shown[-1][1]) == (first(fd), first(fd, PAGE))
                assert 0 == world.reload(f=composed(("a.img", 0), ("d.img" if source == "b.img" else "b.img", 0)))
            world.next_server(how)
        assert len(numbers) == len(set(numbers))
        assert [byte for _, byte in shown] == [first(fd, PAGE) for fd, _ in shown]


def test_an_old_map_is_found_after_reloads_of_other_files(tmp_path: Path, how: str) -> None:
    """It was the first snapshot's; the one that retired it never was."""
    with World(tmp_path, {"x": of("a.img"), "y": of("b.img")}) as world:
        old = world.handle("x")
        assert [0, 0] == [world.reload(y=of("c.img")), world.reload(x=of("d.img"))]
        world.next_server(how)
        assert [b"a", b"d", b"c"] == [first(fd) for fd in (old, world.handle("x"), world.handle("y"))]


def test_a_renewed_file_is_found_after_a_reload(tmp_path: Path, how: str) -> None:
    """One reload, a renewal, another reload, and then the server goes."""
    require("composed")
    with World(tmp_path, {"f": composed(("a.img", 0), ("b.img", 0)), "y": of("b.img")}) as world:
        oldest = world.handle("f")
        assert 0 == world.reload(y=of("c.img"))
        world.change("b", 0, b"2")
        old = world.handle("f")
        assert 0 == world.reload(f=composed(("a.img", 0), ("d.img", 0)))
        world.next_server(how)
        assert [b"2", b"d"] == [first(old, PAGE), first(world.handle("f"), PAGE)]
        assert b"a" == first(oldest)
        assert 2 == len(list(world.stem().parent.glob(f"{world.stem().name}.snapshot-*"))), "one is not needed any more"


def test_a_failed_reload_changes_nothing(tmp_path: Path) -> None:
    """The index cannot be written: the old manifest is served, by this server and the next; and no number is lost."""
    require("composed")
    with World(tmp_path, {"x": of("a.img"), "f": composed(("a.img", 0), ("b.img", 0))}) as world:
        old, blocker = world.handle("x"), world.stem().with_name(world.stem().name + ".index.new")
        blocker.mkdir()
        assert 1 == world.reload(x=of("b.img"))
        assert b"a" == first(world.handle("x"))
        blocker.rmdir()
        world.handle("f")
        world.change("a", 0, b"1")
        assert b"1" == first(world.handle("f"))  # a renewal writes the index
        world.lives.kill()
        assert [b"a", b"a"] == [first(world.handle("x")), first(old)]
        assert 0 == world.reload()
        assert [b"b", b"a"] == [first(world.handle("x")), first(old)]


def test_a_renewal_that_cannot_be_written_down_is_not_seen(tmp_path: Path) -> None:
    """That open fails; nobody is told of a number that the next server would not know."""
    require("composed")
    with World(tmp_path, {"f": composed(("a.img", 0), ("b.img", 0))}) as world:
        old, blocker = world.handle("f"), world.stem().with_name(world.stem().name + ".index.new")
        world.change("a", 0, b"1")
        blocker.mkdir()
        with pytest.raises(OSError, match="Input/output error"):
            world.handle("f")
        assert os.fstat(old).st_ino == (world.mount.path / "f").stat().st_ino
        blocker.rmdir()
        assert b"1" == first(world.handle("f"))


def test_an_old_passthrough_handle_writes_past_the_next_server(tmp_path: Path, how: str) -> None:
    """A file that a reload added over the same bytes agrees with it at once, before and after."""
    require("passthrough")
    with World(tmp_path, {"w": {"whole": "a.img", "access": "rw"}}) as world:
        writer = world.handle("w", os.O_RDWR)
        assert 0 == world.reload(u=of("a.img"))
        for byte in (b"1", b"2"):
            reader = world.handle("u")
            for letter in (byte, b"x"):
                os.pwrite(writer, letter, PAGE)
                assert letter == os.pread(reader, 1, 0)
            world.next_server(how)


def test_a_fallback_outlives_its_server(
    tmp_path: Path, loop_device: Callable[..., AbstractContextManager[Path]], how: str,
) -> None:
    """The next server could compose the file, but the kernel holds it as one in userspace."""
    require("composed")
    inline = Random(0).randbytes(PAGE * 16)
    (tmp_path / "inline").write_bytes(inline)
    files = {"f": {"regions": [{"data": {"file": "inline"}}, {"source": "b.img"}]}, "g": composed(("a.img", 1))}
    with small_disk(tmp_path, loop_device) as small:
        user = User(process={"env": {**os.environ, "TMPDIR": str(small)}})
        with World(tmp_path, files, user=user) as world:
            world.handle("g")  # images lie there from now on
            filler = fill(small)
            old = world.handle("f")
            os.pread(old, SIZE, 0)
            assert "userspace" == world.mount.status()["files"]["f"]["mode"]
            filler.unlink()
            world.next_server(how)
            assert [inline[:1], b"b"] == [first(world.handle("f")), first(old, PAGE * 16)]
            assert "composed failed" in world.mount.status()["files"]["f"]["reason"]


@pytest.mark.parametrize("after", ["nothing", "death"])
def test_a_directory_that_is_gone_is_empty(tmp_path: Path, after: str) -> None:
    """As a removed one is, for whoever stands in it; and a file of its path is another inode."""
    with World(tmp_path, {"d/e/x": of("a.img"), "y": of("b.img")}) as world:
        here = world.handle("d", os.O_RDONLY | os.O_DIRECTORY)
        before = os.fstat(here).st_ino
        assert ["e"] == os.listdir(here)  # noqa: PTH208 - of a descriptor
        assert 0 == world.reload(**{"d/e/x": None, "d": of("c.img")})
        if after == "death":
            world.lives.kill()
        assert [] == os.listdir(here)  # noqa: PTH208 - of a descriptor
        with pytest.raises(FileNotFoundError):
            os.stat("e/x", dir_fd=here)
        assert (b"c", before) == (first(world.handle("d")), os.fstat(here).st_ino)
        assert 0 == world.reload(**{"d": None, "d/e/x": of("b.img")})
        assert b"b" == first(world.handle("d/e/x"))


def test_a_file_whose_path_becomes_a_directory(tmp_path: Path, how: str) -> None:
    """Its handle reads on; the directory is another inode."""
    with World(tmp_path, {"d": of("a.img"), "y": of("b.img")}) as world:
        old = world.handle("d")
        assert 0 == world.reload(**{"d": None, "d/x": of("c.img")})
        world.next_server(how)
        assert [b"a", b"c"] == [first(old), first(world.handle("d/x"))]
        assert ["x"] == [entry.name for entry in (world.mount.path / "d").iterdir()]


def test_recovered_mounts_give_new_numbers_each_time(tmp_path: Path) -> None:
    """What servers left is damaged, twice: a reload begins anew, and no inode number comes back."""
    with World(tmp_path, {"x": of("a.img")}) as world:
        numbers = [os.fstat(world.handle("x")).st_ino]
        for letter in "bc":
            for path in world.stem().parent.glob(f"{world.stem().name}.snapshot-*"):
                path.write_bytes(b"regionfs snapshot 0\n")
            world.lives.kill()
            eventually(lambda: "does not begin with" in world.mount.status()["trouble"])
            assert 0 == world.reload(x=of(f"{letter}.img"))
            new = world.handle("x")
            numbers.append(os.fstat(new).st_ino)
            assert letter.encode() == first(new)
        assert 3 == len(set(numbers))
        assert 0 == ROOT_OR_ME.regionfs("reload", world.mount.path).returncode


def test_names_that_a_dead_server_did_not_tell_are_told_by_the_next(tmp_path: Path) -> None:
    """It had swapped the manifest, and written that down: the kernel still had the old names."""
    with World(tmp_path, {"x": of("a.img"), "d/y": of("b.img")}) as world:
        here = world.mount.path
        assert [b"a", b"b", False] == [first(world.handle("x")), first(world.handle("d/y")), (here / "new").exists()]
        assert 0 == world.reload(**{"x": of("c.img"), "d/y": None, "new": of("d.img")})
        assert [b"c", False, b"d"] == [first(world.handle("x")), (here / "d").exists(), first(world.handle("new"))]
        path = world.stem().with_suffix(".index")
        path.write_bytes(path.read_bytes().replace(b'"told": true', b'"told": false'))
        world.lives.kill()
        eventually(lambda: b'"told": true' in path.read_bytes())
        assert [b"c", b"d"] == [first(world.handle("x")), first(world.handle("new"))]


@pytest.mark.parametrize("writer", ["map", "whole"])
def test_an_old_composed_handle_sees_what_a_later_file_writes(tmp_path: Path, writer: str) -> None:
    """The kernel's pages of it are the daemon's to drop; and the writer is not passed through meanwhile."""
    require("composed")
    with World(tmp_path, {"f": composed(("a.img", 0), ("b.img", 0))}) as world:
        old = world.handle("f")
        os.pread(old, 2 * PAGE, 0)
        file = {"whole": "a.img", "access": "rw"} if writer == "whole" else {
            "regions": [{"source": "a.img", "offset": 7, "length": PAGE, "access": "rw"}]}
        assert 0 == world.reload(f=None, w=file)
        fd = world.handle("w", os.O_RDWR)
        for byte in (b"1", b"2"):
            os.pwrite(fd, byte, 100)
            assert byte == os.pread(old, 1, 100 if writer == "whole" else 107)


def test_a_new_composed_file_sees_what_an_old_handle_writes(tmp_path: Path) -> None:
    """The handle is of a file that is passed through; the manifest of now does not know it."""
    require("composed")
    with World(tmp_path, {"w": {"whole": "a.img", "access": "rw"}}) as world:
        old = world.handle("w", os.O_RDWR)
        assert 0 == world.reload(w=None, f=composed(("a.img", 0), ("b.img", 0)))
        new = world.handle("f")
        for byte in (b"1", b"2"):
            os.pwrite(old, byte, 100)
            assert byte == os.pread(new, 1, 100)


def test_a_handle_beside_one_of_a_dead_server_sees_what_a_later_file_writes(tmp_path: Path, how: str) -> None:
    """Nobody can drop the pages of a composed file whose server is gone: later handles share none."""
    require("composed")
    with World(tmp_path, {"f": composed(("a.img", 0), ("b.img", 0))}) as world:
        before = world.handle("f")
        os.pread(before, 2 * PAGE, 0)
        world.next_server(how)
        after = world.handle("f")
        os.pread(after, 2 * PAGE, 0)
        assert "composed" == os.getxattr(after, "user.regionfs.mode").decode()
        assert 0 == world.reload(f=None, w={"regions": [{"source": "a.img", "length": PAGE, "access": "rw"}]})
        fd = world.handle("w", os.O_RDWR)
        for byte in (b"1", b"2"):
            os.pwrite(fd, byte, 100)
            assert byte == os.pread(after, 1, 100)
