"""Servers die by kill -9 and applications do not notice; what cannot be mended says why."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from regionfs.daemon import control, runtime
from regionfs.errors import RegionfsError
from tests.faults.lives import FILES, MIB, MODES, SIZE, Lives, eventually, make_sources, pattern
from tests.harness import REGIONFS, TIMEOUT, Mount
from tests.mounted.conftest import opened

BLOCK = 4096


class World:
    """FILES mounted by the native engine."""

    def __init__(self, mount: Mount, sources: Path, shown: dict[str, bytes]) -> None:
        self.mount, self.sources, self.shown = mount, sources, shown
        self.lives = Lives(mount)

    def call(self, command: str, **arguments: object) -> dict[str, object]:
        """What a program may say to the control socket."""
        return control.call(runtime.socket_of(self.mount.path.resolve()), command, **arguments)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    shown = make_sources(tmp_path)
    with Mount(tmp_path, FILES) as mount:
        yield World(mount, tmp_path, shown)


@pytest.fixture
def every_mode(world: World) -> World:
    """FILES, each in its own mode."""
    if os.geteuid() != 0:
        pytest.skip("passthrough and composed need root")
    assert MODES == {name: file["mode"] for name, file in world.mount.status()["files"].items()}
    return world


class Load(threading.Thread):
    """Calls `work(round)` until the block ends, which then fails if any call did."""

    def __init__(self, work: Callable[[int], None]) -> None:
        super().__init__()
        self._work, self._end = work, threading.Event()
        self._failed: BaseException | None = None
        self.rounds = 0

    def run(self) -> None:
        try:
            while not self._end.is_set():
                self._work(self.rounds)
                self.rounds += 1
        except BaseException as error:
            self._failed = error

    def __enter__(self) -> Load:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self.join()
        if self._failed is not None:
            raise self._failed


def kill_under(lives: Lives, loads: list[Load], times: int) -> None:
    """Each time when all have gone on, and the server has served long enough to be replaced at once."""
    for _ in range(times):
        before, due = [load.rounds for load in loads], lives.kill() + 0.4
        eventually(lambda then=before, due=due: time.monotonic() > due and all(  # type: ignore[misc]
            load.rounds > old + 1 for load, old in zip(loads, then, strict=True)))


def readers(world: World, name: str, fd: int) -> Iterator[Load]:
    """One of an open handle, past the page cache; one that opens anew."""
    shown, path = world.shown[name], world.mount.path / name

    def old_handle(number: int) -> None:
        at = number * 37 % (SIZE // BLOCK) * BLOCK
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert shown[at:at + BLOCK] == os.pread(fd, BLOCK, at)

    def new_handle(number: int) -> None:
        at = number * 41 % (SIZE // BLOCK) * BLOCK
        with opened(path) as new:
            assert shown[at:at + BLOCK] == os.pread(new, BLOCK, at)

    yield Load(old_handle)
    yield Load(new_handle)


@pytest.mark.parametrize("name", MODES)
def test_readers_notice_no_death(every_mode: World, name: str) -> None:
    """Old handles and new opens read the right bytes while five servers die."""
    with opened(every_mode.mount.path / name) as fd, ExitStack() as loads:
        kill_under(every_mode.lives, [loads.enter_context(load) for load in readers(every_mode, name, fd)], 5)
    status = every_mode.mount.status()
    assert (5, 0) == (status["restarts"], status["backing_ids"])


@pytest.mark.parametrize("name", ["pass.bin", "user.bin"])
def test_writers_notice_no_death(every_mode: World, name: str) -> None:
    """Every write that returned is there, written once and in place, and fsync succeeds."""
    path, expected = every_mode.mount.path / name, bytearray(every_mode.shown[name])
    with opened(path, os.O_RDWR) as fd:
        def write(number: int) -> None:
            at = number * 43 % (SIZE // BLOCK) * BLOCK
            data = pattern(BLOCK, (number + 7) % 256)
            assert BLOCK == os.pwrite(fd, data, at)
            expected[at:at + BLOCK] = data
            if number % 16 == 0:
                os.fsync(fd)

        with Load(write) as load:
            kill_under(every_mode.lives, [load], 5)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert bytes(expected) == os.pread(fd, SIZE, 0)
    assert 0 == every_mode.mount.status()["backing_ids"]


def test_growth_during_a_restart_shows_at_the_next_open(tmp_path: Path) -> None:
    """The new server does not know what stat has shown before it came."""
    (tmp_path / "s.img").write_bytes(b"s")
    with Mount(tmp_path, {"log": {"whole": "s.img"}}) as mount:
        lives = Lives(mount)
        for size in range(1, 6):
            assert size == (mount.path / "log").stat().st_size
            lives.kill()
            with (tmp_path / "s.img").open("ab") as file:
                file.write(b"s")
            with opened(mount.path / "log") as fd:
                assert size + 1 == os.fstat(fd).st_size


def test_a_server_that_dies_while_it_starts_is_no_error(every_mode: World) -> None:
    """Two more die at once, before they serve: the waiting read is answered by the third."""
    path = every_mode.mount.path / "user.bin"
    with opened(path, os.O_RDONLY | os.O_DIRECT) as fd:
        for _ in range(3):
            every_mode.lives.kill()
        reader = subprocess.run(["dd", f"if={path}", f"bs={BLOCK}", "count=1", "iflag=direct"], check=True,
                                capture_output=True, timeout=TIMEOUT)
        assert every_mode.shown["user.bin"][:BLOCK] == reader.stdout
        os.fstat(fd)
    # where the second came to serve, the third may be the spare one, killed before its turn: that is no restart
    assert every_mode.mount.status()["restarts"] in (2, 3)


def test_servers_that_die_at_once_come_ever_slower(world: World) -> None:
    """After five that did not come to serve requests get EIO, no hang; the next one that serves mends it."""
    with opened(world.mount.path / "user.bin") as fd:
        for _ in range(7):
            world.lives.kill()
        status = world.mount.status()
        assert "status -9" in str(status["trouble"])
        with pytest.raises(OSError) as failed:
            (world.mount.path / "comp.bin").stat()
        assert errno.EIO == failed.value.errno
        eventually(lambda: not world.mount.status()["trouble"])
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        assert world.shown["user.bin"] == os.pread(fd, SIZE, 0)


def test_no_backing_file_outlives_its_last_handle(tmp_path: Path) -> None:
    """Servers die amid opens and closes: afterwards nothing holds the sources' file system busy."""
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    sources = tmp_path / "sources"
    sources.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "regionfs-test", sources], check=True)
    try:
        files = {f"{number}.bin": {"whole": f"sources/{number}.img"} for number in range(4)}
        for name in files:
            (sources / name).with_suffix(".img").write_bytes(name.encode() * BLOCK)
        with Mount(tmp_path, files) as mount:
            lives = Lives(mount)

            def open_and_close(number: int) -> None:
                name = f"{number % 4}.bin"
                with opened(mount.path / name) as fd:
                    assert name.encode() == os.pread(fd, 5, 0)

            with ExitStack() as loads:
                running = [loads.enter_context(Load(open_and_close)) for _ in range(3)]
                kill_under(lives, running, 12)
            assert 0 == mount.status()["backing_ids"]
            lives.kill()  # its own descriptors of the sources go with it
            assert [] == os.listxattr(mount.path)  # the next one answers, and needs no source for that
            eventually(lambda: subprocess.run(["umount", sources], check=False, capture_output=True).returncode == 0)
    finally:
        subprocess.run(["umount", "-q", sources], check=False)


def test_a_dead_holder_is_enotconn(world: World) -> None:
    """Not a hang and not an old answer; status says what to do, and the next mount clears it away."""
    path = world.mount.path / "user.bin"
    os.kill(world.lives.holder, signal.SIGKILL)

    def disconnected() -> bool:
        try:
            path.stat()
        except OSError as error:
            return error.errno == errno.ENOTCONN
        return False

    eventually(disconnected)
    assert "umount" in world.mount.status()["trouble"]
    done = world.mount.user.regionfs("mount", "-q", world.mount.manifest, world.mount.path)
    assert (0, "") == (done.returncode, done.stderr)
    assert world.shown["user.bin"] == path.read_bytes()


def test_what_fsync_confirmed_outlives_the_holder(world: World) -> None:
    """The bytes are in the sources."""
    with opened(world.mount.path / "user.bin", os.O_RDWR) as fd:
        os.pwrite(fd, b"confirmed", MIB - 4)
        os.fsync(fd)
        os.kill(world.lives.holder, signal.SIGKILL)
    assert b"conf" == (world.sources / "user-1.img").read_bytes()[-4:]
    assert b"irmed" == (world.sources / "user-2.img").read_bytes()[:5]


def listing(world: World) -> list[str]:
    """Names in the mount's root."""
    return sorted(entry.name for entry in world.mount.path.iterdir())


def damage(world: World) -> None:
    """What a server left for the next one cannot be read; no server runs."""
    stem = runtime.stem_of(world.mount.path.resolve())
    for snapshot in stem.parent.glob(f"{stem.name}.snapshot-*"):
        snapshot.write_bytes(b"damaged")
    world.lives.kill()
    eventually(lambda: bool(world.mount.status()["trouble"]))


def test_without_a_server_that_can_start_requests_get_eio(world: World) -> None:
    """Nobody hangs, and status has the reason."""
    damage(world)
    for ask in (os.stat, os.statvfs, os.listxattr):
        with pytest.raises(OSError) as failed:
            ask(world.mount.path / "comp.bin")
        assert errno.EIO == failed.value.errno
    status = world.mount.status()
    assert "cannot be read" in status["trouble"]
    assert status["pid"] is None or status["restarts"]


def test_reload_recovers_a_mount_without_a_server(world: World) -> None:
    """With a manifest that is right; one that is not changes nothing and says what is wrong."""
    damage(world)
    world.mount.write_manifest({"new.bin": {"regions": [{"source": "nowhere.img"}]}})
    refused = world.mount.user.regionfs("reload", world.mount.path)
    assert 3 == refused.returncode
    assert "nowhere.img" in refused.stderr
    with pytest.raises(OSError):
        listing(world)
    world.mount.write_manifest({"new.bin": {"regions": [{"source": "user-2.img"}]}, "user.bin": FILES["comp.bin"]})
    done = world.mount.user.regionfs("reload", world.mount.path)
    assert (0, "") == (done.returncode, done.stderr)
    assert ["new.bin", "user.bin"] == listing(world)
    assert world.shown["comp.bin"] == (world.mount.path / "user.bin").read_bytes()
    assert "" == world.mount.status()["trouble"]


def test_upgrade_replaces_the_server(world: World) -> None:
    """Another process answers; open handles go on. It is no death, and not counted as one."""
    before = world.mount.status()["pid"]
    with opened(world.mount.path / "user.bin", os.O_RDONLY | os.O_DIRECT) as fd:
        done = world.mount.user.regionfs("upgrade", "-q", world.mount.path)
        assert (0, "") == (done.returncode, done.stderr)
        assert os.fstat(fd).st_size == SIZE
    after = world.mount.status()
    assert before != after["pid"]
    assert 0 == after["restarts"]


def test_an_upgrade_that_cannot_serve_is_undone(world: World) -> None:
    """The old version serves on, and who asked learns why."""
    with pytest.raises(RegionfsError, match="/nowhere/python"):
        world.call("upgrade", python="/nowhere/python")
    assert world.shown["user.bin"] == (world.mount.path / "user.bin").read_bytes()


def test_sighup_reads_the_manifest_again(world: World) -> None:
    """As reload does; a manifest with problems changes nothing and is logged."""
    world.mount.write_manifest({**FILES, "new.bin": FILES["comp.bin"]})
    os.kill(world.lives.holder, signal.SIGHUP)
    eventually((world.mount.path / "new.bin").exists)
    world.mount.write_manifest("regionfs: 1\nfiles: {bad: {whole: nowhere.img}}\n")
    os.kill(world.lives.holder, signal.SIGHUP)
    log = runtime.log_of(world.mount.path.resolve())
    eventually(lambda: "a problem in line 2" in log.read_text())
    assert sorted([*FILES, "new.bin"]) == listing(world)


def test_sighup_leaks_no_descriptor(world: World) -> None:
    """A hundred of them."""
    directory = Path(f"/proc/{world.lives.holder}/fd")
    before = len(list(directory.iterdir()))
    for _ in range(100):
        os.kill(world.lives.holder, signal.SIGHUP)
    eventually(lambda: len(list(directory.iterdir())) <= before)


def test_the_holder_survives_its_terminal_and_parent(tmp_path: Path) -> None:
    """Mounted from a shell whose terminal hangs up: it answers on, and its server is replaced still."""
    make_sources(tmp_path)
    mount = Mount(tmp_path, FILES)
    mount.path.mkdir()
    terminal = ("import pty, sys; status = pty.spawn(sys.argv[1:], lambda fd: __import__('os').read(fd, 1024)); "
                "raise SystemExit(status)")
    subprocess.run([sys.executable, "-c", terminal, REGIONFS, "mount", mount.manifest, mount.path], check=True,
                   stdin=subprocess.DEVNULL, timeout=TIMEOUT)
    try:
        lives = Lives(mount)
        ids = {line.split(":")[0]: line for line in Path(f"/proc/{lives.holder}/status").read_text().splitlines()}
        fields = Path(f"/proc/{lives.holder}/stat").read_text().rpartition(")")[2].split()
        assert "0" == fields[4], "it has a terminal"
        assert ids["PPid"].split()[1] != str(os.getpid())
        lives.kill()
        assert SIZE == (mount.path / "user.bin").stat().st_size
    finally:
        mount.user.regionfs("umount", mount.path)
        eventually(lambda: not mount.mounted)


def test_status_during_a_restart_has_everything(world: World) -> None:
    """It waits for the server instead of saying that there is none."""
    for _ in range(3):
        world.lives.kill()
        done = world.mount.user.regionfs("status", world.mount.path, "--json")
        assert 0 == done.returncode
        assert set(FILES) == set(json.loads(done.stdout)["mounts"][0]["files"])
