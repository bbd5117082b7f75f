"""The manifest is read again under open files: all or nothing, and what did not change stays what it is."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from regionfs.daemon import control, runtime
from tests.faults.lives import FILES, MODES, SIZE, TORTURE, Lives, eventually, make_sources
from tests.harness import Mount
from tests.mounted.conftest import opened
from tests.mounted.kernel import stopped
from tests.worker import Worker

HALF = SIZE // 2
MAP_LOCKED = 0x2000  # asm-generic/mman.h


class World:
    """FILES mounted by the native engine, and the way to mount something else in their place."""

    def __init__(self, mount: Mount, sources: Path, shown: dict[str, bytes]) -> None:
        self.mount, self.sources, self.shown = mount, sources, shown
        self.lives = Lives(mount)
        self.files: dict[str, Any] = deepcopy(FILES)

    def reload(self, *options: str) -> str:
        """Write the manifest of self.files and read it; what the command said."""
        self.mount.write_manifest(self.files)
        done = self.mount.user.regionfs("reload", *options, self.mount.path)
        assert (0, "") == (done.returncode, done.stderr)
        return done.stdout

    def swap_halves(self, name: str) -> bytes:
        """Change a file's map; what it shows from the next reload on."""
        before = self.shown[name]
        if "whole" in self.files[name]:
            other = self.sources / "other.img"
            other.write_bytes(before[HALF:] + before[:HALF])
            self.files[name]["whole"] = "other.img"
        else:
            self.files[name]["regions"].reverse()
        return before[HALF:] + before[:HALF]

    def path(self, name: str) -> Path:
        return self.mount.path / name


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    shown = make_sources(tmp_path)
    with Mount(tmp_path, FILES) as mount:
        if os.geteuid() == 0:
            assert MODES == {name: file["mode"] for name, file in mount.status()["files"].items()}
        yield World(mount, tmp_path, shown)


def read(fd: int) -> bytes:
    """All of an open file, past the page cache."""
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    return os.pread(fd, SIZE + 1, 0)


def test_an_invalid_manifest_changes_nothing(world: World) -> None:
    """Exit status 3, every problem printed, and the old files go on."""
    world.mount.write_manifest({"user.bin": {"whole": "nowhere.img"}, "new.bin": {"size": "much", "regions": []}})
    done = world.mount.user.regionfs("reload", world.mount.path)
    assert 3 == done.returncode
    assert ["nowhere.img" in done.stderr, "much" in done.stderr] == [True, True]
    assert sorted(FILES) == sorted(entry.name for entry in world.mount.path.iterdir())
    assert world.shown["user.bin"] == world.path("user.bin").read_bytes()


def test_what_did_not_change_keeps_inode_cache_and_counters(world: World) -> None:
    """The page cache answers after the reload, and the daemon remembers what it served."""
    path = world.path("user.bin")
    # locked: a kernel may reclaim pages whenever it likes, but not these, unless it is told to drop them
    with opened(path) as fd, mmap.mmap(fd, SIZE, mmap.MAP_SHARED | MAP_LOCKED, mmap.PROT_READ):
        before, inode = world.mount.status()["files"]["user.bin"], path.stat().st_ino
        world.swap_halves("comp.bin")
        assert "changed comp.bin\n2 files unchanged\n" == world.reload()
        assert world.shown["user.bin"] == path.read_bytes()
        after = world.mount.status()["files"]["user.bin"]
    assert before["reads"]
    assert (inode, before["reads"]) == (path.stat().st_ino, after["reads"])


@pytest.mark.parametrize("name", MODES)
def test_old_handles_show_old_bytes_and_new_ones_new(world: World, name: str) -> None:
    """In every mode; the path's inode is another one, the old handle's the same."""
    with opened(world.path(name)) as old:
        inode, expected = os.fstat(old).st_ino, world.swap_halves(name)
        assert f"changed {name}\n2 files unchanged\n" == world.reload()
        assert world.shown[name] == read(old)
        with opened(world.path(name)) as new:
            assert expected == read(new)
            assert inode == os.fstat(old).st_ino != os.fstat(new).st_ino
    eventually(lambda: world.mount.status()["retired"] == 0)
    assert 0 == world.mount.status()["backing_ids"]


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_old_handles_survive_a_kill_beside_the_reload(world: World, name: str, moment: str) -> None:
    """The next server knows what was open on the old map, whether the last one died before or after."""
    with opened(world.path(name)) as old:
        expected = world.swap_halves(name)
        if moment == "before":
            world.lives.kill()
        world.reload()
        if moment == "after":
            world.lives.kill()
        assert world.shown[name] == read(old)
        assert (SIZE, expected) == (os.fstat(old).st_size, world.path(name).read_bytes())
    eventually(lambda: world.mount.status()["retired"] == 0)
    assert 0 == world.mount.status()["backing_ids"]


@pytest.mark.parametrize("name", MODES)
def test_removed_files_vanish_while_handles_live(world: World, name: str) -> None:
    """The name is gone at once; the handle reads on."""
    with opened(world.path(name)) as old:
        del world.files[name]
        assert f"removed {name}\n2 files unchanged\n" == world.reload()
        with pytest.raises(FileNotFoundError):
            world.path(name).stat()
        assert sorted(world.files) == sorted(entry.name for entry in world.mount.path.iterdir())
        assert world.shown[name] == read(old)


def test_added_files_and_directories_appear(world: World) -> None:
    """Also under names that were looked up in vain before."""
    paths = [world.path("new.bin"), world.path("a/b/c.bin")]
    assert [False, False] == [path.exists() for path in paths]
    world.files.update({"new.bin": FILES["comp.bin"], "a/b/c.bin": FILES["comp.bin"]})
    assert "added new.bin\nadded a/b/c.bin\n3 files unchanged\n" == world.reload()
    assert [world.shown["comp.bin"]] * 2 == [path.read_bytes() for path in paths]


@pytest.mark.timeout(30)
def test_a_name_that_was_missed_is_not_asked_for_again(world: World) -> None:
    """The kernel knows by itself, with every process of the mount stopped; until a reload brings the name."""
    path = world.path("new.bin")
    with Worker() as worker:
        for _ in range(2):
            with pytest.raises(FileNotFoundError):
                worker.stat(path)
        with stopped(world.mount), pytest.raises(FileNotFoundError):
            worker.stat(path)
        world.files["new.bin"] = FILES["user.bin"]
        world.reload()
        assert SIZE == worker.stat(path).st_size


def test_a_removed_directory_goes_and_comes_back(world: World) -> None:
    """Its inode number is the same again, its contents are the new ones."""
    world.files["a/one.bin"] = FILES["comp.bin"]
    world.reload()
    with opened(world.path("a"), os.O_RDONLY | os.O_DIRECTORY) as directory:
        del world.files["a/one.bin"]
        world.reload()
        assert not world.path("a").exists()
        world.files["a/two.bin"] = FILES["comp.bin"]
        world.reload()
        assert ["two.bin"] == [entry.name for entry in world.path("a").iterdir()]
        os.fstat(directory)


def test_a_dry_run_says_what_would_change(world: World) -> None:
    """And changes nothing."""
    del world.files["pass.bin"]
    world.swap_halves("comp.bin")
    world.files["new.bin"] = FILES["user.bin"]
    assert "added new.bin\nremoved pass.bin\nchanged comp.bin\n1 files unchanged\n" == world.reload("--dry-run")
    assert sorted(FILES) == sorted(entry.name for entry in world.mount.path.iterdir())
    assert world.shown["comp.bin"] == world.path("comp.bin").read_bytes()


def test_another_manifest_is_what_the_next_reload_reads(world: World, tmp_path: Path) -> None:
    """`reload DIR MANIFEST` stays with that one, also through a kill."""
    other = tmp_path / "other.yaml"
    other.write_text("regionfs: 1\nfiles: {other.bin: {whole: pass.img}}\n")
    done = world.mount.user.regionfs("reload", world.mount.path, other)
    assert 0 == done.returncode
    world.lives.kill()
    assert ["other.bin"] == [entry.name for entry in world.mount.path.iterdir()]
    assert str(other) == world.mount.status()["manifest"]


def test_writing_goes_where_the_handle_was_opened(world: World) -> None:
    """An old handle writes by the old map, a new one by the new."""
    with opened(world.path("user.bin"), os.O_RDWR) as old:
        world.swap_halves("user.bin")
        world.reload()
        with opened(world.path("user.bin"), os.O_RDWR) as new:
            os.pwrite(old, b"old", 0)
            os.pwrite(new, b"new", 100)
            assert (b"old", b"new") == (os.pread(new, 3, HALF), os.pread(old, 3, HALF + 100))
    assert b"old" == (world.sources / "user-1.img").read_bytes()[:3]
    assert b"new" == (world.sources / "user-2.img").read_bytes()[100:103]


def test_growth_shows_at_once_where_a_reload_allows_writes(tmp_path: Path) -> None:
    """What the kernel has kept of the file, which only others could change until then, is asked for again."""
    (tmp_path / "s.img").write_bytes(b"s")
    with Mount(tmp_path, {"f": {"whole": "s.img"}}) as mount, opened(mount.path / "f") as fd:
        assert 1 == (mount.path / "f").stat().st_size
        mount.write_manifest({"f": {"whole": "s.img"}, "writer": {"whole": "s.img", "access": "rw"}})
        assert 1 == os.fstat(fd).st_size
        assert 0 == mount.user.regionfs("reload", mount.path).returncode
        with opened(mount.path / "writer", os.O_WRONLY | os.O_APPEND) as writer:
            for size in range(2, 10):
                os.write(writer, b"s")
                assert (size, size) == (os.fstat(fd).st_size, (mount.path / "f").stat().st_size)


def test_the_pyfuse3_engine_says_that_it_cannot(tmp_path: Path) -> None:
    """And serves on."""
    make_sources(tmp_path)
    with Mount(tmp_path, FILES, engine="pyfuse3") as mount:
        done = mount.user.regionfs("reload", mount.path)
        assert (1, "") == (done.returncode, done.stdout)
        assert "pyfuse3" in done.stderr
        assert SIZE == (mount.path / "user.bin").stat().st_size


def resident(pid: int) -> int:
    """KiB of memory that are the process's own."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@pytest.mark.timeout(1800)
def test_reloads_under_open_files_leave_nothing_behind(world: World) -> None:
    """Memory, descriptors and runtime files stay what they were after the first few."""
    rounds = 5000 if TORTURE else 200
    socket, stem = (of(world.mount.path.resolve()) for of in (runtime.socket_of, runtime.stem_of))
    server = world.lives.now()
    assert server is not None

    def turn() -> None:
        with opened(world.path("comp.bin")) as comp, opened(world.path("user.bin")) as user:
            for name in ("comp.bin", "user.bin", "pass.bin"):
                world.swap_halves(name)
            world.mount.write_manifest(world.files)
            assert control.call(socket, "reload")["changed"]
            assert (SIZE, SIZE) == (os.fstat(comp).st_size, os.fstat(user).st_size)

    def state() -> list[int]:
        return [descriptors(world.lives.holder), descriptors(server), len(list(stem.parent.glob(f"{stem.name}.*")))]

    for _ in range(rounds // 6):
        turn()
    memory, before = [resident(world.lives.holder), resident(server)], state()
    for _ in range(rounds):
        turn()
    after = [resident(world.lives.holder), resident(server)]
    print(f"\n{rounds} reloads: holder {memory[0]} -> {after[0]} KiB, server {memory[1]} -> {after[1]} KiB, "
          f"descriptors and files {before} -> {state()}")
    eventually(lambda: all(now <= then + 2 for now, then in zip(state(), before, strict=True)))
    assert after[0] - memory[0] < 1024
    assert after[1] - memory[1] < 8192
