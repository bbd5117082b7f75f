"""The holder outlives its clients and its servers: those that come, stall, go, stop, or cannot end."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from regionfs.daemon import control, runtime
from regionfs.daemon.door import CLIENTS
from regionfs.daemon.logs import LARGEST
from tests.faults.lives import FILES, TORTURE, Lives, eventually, make_sources
from tests.faults.test_sources import FINE, PAGE, direct_read, slowfs
from tests.harness import TIMEOUT, Mount, User, wait_readable

pytestmark = pytest.mark.mounted

MESSAGES = 100_000 if TORTURE else 2_000
FUZZERS = 40
STALL = 12.0  # seconds that a source stalls: far longer than a takeover may take


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Mount]:
    make_sources(tmp_path)
    with Mount(tmp_path, FILES) as mounted:
        yield mounted


def log_of(mount: Mount) -> str:
    return runtime.log_of(mount.path.resolve()).read_text()


def connected(mount: Mount) -> socket.socket:
    """A client of the control socket that waits for nothing."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(os.fspath(runtime.socket_of(mount.path.resolve())))
    client.setblocking(False)
    return client


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """SIGSTOP, and SIGCONT afterwards where it still is."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def other_children(lives: Lives, *known: int) -> list[int]:
    """Processes of the holder that are not `known`."""
    text = Path(f"/proc/{lives.holder}/task/{lives.holder}/children").read_text()
    return [pid for pid in map(int, text.split()) if pid not in known]


# clients

def test_a_client_that_is_evicted_when_it_speaks(mount: Mount) -> None:
    """One more than there is room for comes while every other sends, all heard in the same round."""
    holder = Lives(mount).holder
    slow = [connected(mount) for _ in range(CLIENTS)]
    for client in slow:
        client.send(b"{")
    assert holder == control.call(runtime.socket_of(mount.path.resolve()), "status")["holder_pid"]  # all are heard
    with stopped(holder):
        slow += [connected(mount) for _ in range(3)]
        for client in slow[:CLIENTS]:
            with suppress(BrokenPipeError):
                client.send(b" ")
    assert holder == mount.status()["holder_pid"]
    for client in slow:
        client.close()
    assert "Traceback" not in log_of(mount)


class Fuzzer:
    """One client that does something of what clients do, and begins anew when it is through."""

    def __init__(self, mount: Mount, rng: random.Random) -> None:
        self._mount, self._rng = mount, rng
        self._socket: socket.socket | None = None
        self.answers = self.messages = 0

    def step(self) -> None:
        """One message, or less."""
        if self._socket is None:
            with suppress(BlockingIOError):
                self._socket = connected(self._mount)
            return
        with suppress(OSError):
            self._rng.choice(self._habits)(self, self._socket)

    def _send(self, client: socket.socket, data: bytes) -> None:
        client.send(data)
        self.messages += 1

    def _ask(self, client: socket.socket) -> None:
        self._send(client, b'{"command": "status"}\n')

    def _begin(self, client: socket.socket) -> None:
        self._send(client, self._rng.choice((b"{", b'{"command": "sta', b" ", b"\x00\x1b[2J", b"[" * 500)))

    def _babble(self, client: socket.socket) -> None:
        self._send(client, self._rng.randbytes(self._rng.choice((1, 100, 70_000))))

    def _order(self, client: socket.socket) -> None:
        self._send(client, self._rng.choice((
            b'{"command": "reload", "dry_run": true}\n', b'{"command": "\xff"}\n', b'{"command": "none\\u001b"}\n',
            b'{"command": "reload", "dry_run": true, "manifest": "' + b"x" * 4000 + b'"}\n',
            b'{"command": "upgrade", "python": 1}\n', b"1\n", b"null\n", b"\n")))

    def _half_close(self, client: socket.socket) -> None:
        client.shutdown(self._rng.choice((socket.SHUT_WR, socket.SHUT_RD)))

    def _stall(self, client: socket.socket) -> None:
        pass

    def _listen(self, client: socket.socket) -> None:
        said = client.recv(1 << 20)
        self.answers += said.endswith(b"}\n")
        if not said:
            self.go(client)

    def go(self, client: socket.socket | None = None) -> None:
        """Away, whatever it has asked."""
        if self._socket is not None:
            self._socket.close()
        self._socket = None

    _habits: tuple[Callable[[Fuzzer, socket.socket], None], ...] = (
        _ask, _ask, _ask, _begin, _begin, _babble, _order, _half_close, _stall, _listen, _listen, _listen, go)


@pytest.mark.timeout(1800)
def test_clients_that_come_stall_and_go(mount: Mount) -> None:
    """40 of them, while servers die and are replaced on demand: the mount lives, and answers when they are gone."""
    rng, lives = random.Random(5), Lives(mount)
    fuzzers, begun = [Fuzzer(mount, rng) for _ in range(FUZZERS)], time.monotonic()
    deaths = [MESSAGES * number // 8 for number in range(1, 8)]
    while (sent := sum(fuzzer.messages for fuzzer in fuzzers)) < MESSAGES:
        rng.choice(fuzzers).step()
        if deaths and sent >= deaths[0]:
            deaths.pop(0)
            lives.kill()
    for fuzzer in fuzzers:
        fuzzer.go()
    answers, seconds = sum(fuzzer.answers for fuzzer in fuzzers), time.monotonic() - begun
    print(f"\n{sent} control messages, {answers} answers, {sent / seconds:.0f} per second")
    eventually(lambda: not mount.status()["trouble"])  # of servers that were killed before they came to serve
    assert lives.holder == mount.status()["holder_pid"]
    assert set(FILES) == {entry.name for entry in mount.path.iterdir()}
    assert "Traceback" not in log_of(mount)
    descriptors = Path(f"/proc/{lives.holder}/fd")
    eventually(lambda: len(list(descriptors.iterdir())) < CLIENTS)
    assert runtime.log_of(mount.path.resolve()).stat().st_size < LARGEST


def test_no_descriptor_for_a_client(mount: Mount) -> None:
    """Whoever comes waits, nothing turns in circles, and he is answered when there is one again."""
    holder = Lives(mount).holder
    soft = int(subprocess.run(["prlimit", "--pid", str(holder), "--nofile", "-o", "SOFT", "--noheadings", "--raw"],
                              check=True, capture_output=True, text=True).stdout)
    limit_descriptors(holder, 4)
    client = connected(mount)
    client.send(b'{"command": "status"}\n')
    before = ticks(holder)
    assert not wait_readable(client.fileno(), 0.5)
    assert ticks(holder) - before < 20
    limit_descriptors(holder, soft)
    assert wait_readable(client.fileno(), TIMEOUT)
    client.close()


def limit_descriptors(pid: int, soft: int) -> None:
    subprocess.run(["prlimit", "--pid", str(pid), f"--nofile={soft}:"], check=True)


def ticks(pid: int) -> int:
    """Of a processor, a hundredth of a second each, that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


# servers

def test_a_stopped_spare_is_passed_over(mount: Mount) -> None:
    """Another server takes over, and nobody sees an error."""
    lives, pid = Lives(mount), mount.status()["pid"]
    eventually(lambda: bool(other_children(lives, pid)))
    spare, = other_children(lives, pid)
    with stopped(spare):
        os.kill(pid, signal.SIGKILL)
        direct_read(mount.path / "user.bin")
    assert mount.status()["pid"] not in (pid, spare)


def test_a_stopped_server_is_replaced(mount: Mount) -> None:
    """After a while in which somebody might look at it."""
    pid = mount.status()["pid"]
    with stopped(pid):
        direct_read(mount.path / "user.bin")
        assert mount.status()["pid"] != pid
    assert "is stopped" in log_of(mount)


def test_a_server_that_is_killed_while_it_waits_for_a_source(tmp_path: Path) -> None:
    """Its thread cannot end before the source answers; files of other sources do not wait for that."""
    (tmp_path / "fine.img").write_bytes(b"f" * 2 * PAGE)
    files = {**FINE, "slow.bin": {"regions": [{"source": "slow/one", "length": 60001}]}}
    with slowfs(tmp_path / "slow", f"one={1 << 16}") as fs, ExitStack() as stack:
        fs.order(f"delay {STALL} open")
        mount = stack.enter_context(Mount(tmp_path, files, options=["--modes", "userspace"]))
        lives = Lives(mount)
        waiting = subprocess.Popen(["head", "-c4", mount.path / "slow.bin"], stdout=subprocess.PIPE)
        pid = mount.status()["pid"]
        eventually(lambda: "request_wait_answer" in waits(pid))
        begun = time.monotonic()
        lives.kill()
        assert b"f" * PAGE == direct_read(mount.path / "fine.bin")
        assert time.monotonic() - begun < STALL / 2
        assert mount.status()["pid"] != pid
        assert b"oooo" == waiting.communicate(timeout=2 * STALL)[0]


def test_a_server_that_is_killed_in_the_middle_of_an_append(tmp_path: Path) -> None:
    """What its thread has begun lands later; it is not done twice, and files of other sources do not wait for it."""
    (tmp_path / "fine.img").write_bytes(b"f" * 2 * PAGE)
    files = {**FINE, "log": {"whole": "slow/one", "access": "rw"}}
    with slowfs(tmp_path / "slow", f"one={PAGE}") as fs, (
            Mount(tmp_path, files, options=["--modes", "userspace"])) as mount:
        lives, pid = Lives(mount), mount.status()["pid"]
        fs.order("keep")
        fs.order(f"delay {STALL} write")
        line = "import os, sys; print(os.write(os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND), b'LINE'))"
        appender = subprocess.Popen([sys.executable, "-c", line, mount.path / "log"], stdout=subprocess.PIPE)
        seen: list[set[str]] = [set(), set()]

        def lasts() -> bool:  # shorter calls come before it
            seen.append(stuck(pid))
            return bool(seen[-2] & seen[-1])
        eventually(lasts)
        begun = time.monotonic()
        lives.kill()
        assert b"f" * PAGE == direct_read(mount.path / "fine.bin")
        assert time.monotonic() - begun < STALL / 2
        fs.order("delay 0")
        assert b"4\n" == appender.communicate(timeout=2 * STALL)[0]
        assert b"o" * PAGE + b"LINE" == (tmp_path / "slow" / "one").read_bytes()


def stuck(pid: int) -> set[str]:
    """What threads of a process just now ask another file system for: the call and all of its arguments."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {(task / "syscall").read_text() for task in tasks if (task / "wchan").read_text() == "request_wait_answer"}


def waits(pid: int) -> list[str]:
    """What the threads of a process wait for in the kernel."""
    return [(task / "wchan").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]


def test_a_frozen_holder_keeps_nobody_waiting(mount: Mount, tmp_path: Path) -> None:
    """status of all mounts has the others and says which one it is; umount ends it, and keeps what was written."""
    other = tmp_path / "other"
    other.mkdir()
    make_sources(other)
    with Mount(other, FILES) as lively:
        with (mount.path / "user.bin").open("r+b") as file:
            file.write(b"kept")
        with stopped(Lives(mount).holder):
            done = mount.user.regionfs("status", "--json")
            mounts: list[dict[str, Any]] = json.loads(done.stdout)["mounts"]
            said = {entry["mountpoint"]: entry["trouble"] for entry in mounts}
            assert (1, "") == (done.returncode, said[str(lively.path)])
            assert "does not answer" in said[str(mount.path)]
            assert 0 == mount.user.regionfs("umount", mount.path).returncode
            mount.ended()
    assert b"kept" == (tmp_path / "user-1.img").read_bytes()[:4]
    assert 0 == mount.user.regionfs("mount", mount.manifest, mount.path).returncode
    assert 0 == mount.user.regionfs("umount", mount.path).returncode


def test_status_fails_where_the_holder_is_dead(mount: Mount) -> None:
    """It says where the log is, dead or alive."""
    log = str(runtime.log_of(mount.path.resolve()))
    done = mount.user.regionfs("status", mount.path)
    assert (0, True) == (done.returncode, f"log: {log}" in done.stdout)
    assert log == mount.status()["log"]
    mount.kill()
    done = mount.user.regionfs("status", mount.path)
    assert (1, True) == (done.returncode, f"log: {log}" in done.stdout or not Path(log).exists())
    assert 0 == mount.user.regionfs("umount", mount.path).returncode


# a cleaner

def empty(place: Path) -> None:
    """All files, as tmpreaper does."""
    for path in place.iterdir():
        path.unlink()


def remove(place: Path) -> None:
    """The directory, too."""
    shutil.rmtree(place)


@pytest.mark.parametrize("clean", [empty, remove])
def test_a_cleaned_runtime_directory(ordinary_user: User, clean: Callable[[Path], None]) -> None:
    """The next server shows what the last one did, not what the manifest says by now; all commands go on."""
    directory = ordinary_user.new_directory()
    ordinary_user.write(directory / "a.img", b"a" * PAGE)
    ordinary_user.write(directory / "b.img", b"b" * PAGE)
    own = ordinary_user.new_directory()
    own.chmod(0o700)
    place, ordinary_user = own / "regionfs", ordinary_user.with_environment(XDG_RUNTIME_DIR=str(own))
    with Mount(directory, {"x": {"regions": [{"source": "a.img"}]}}, user=ordinary_user) as mount:
        before = mount.status()
        mount.write_manifest({"x": {"regions": [{"source": "b.img"}]}})
        clean(place)
        os.kill(before["pid"], signal.SIGKILL)
        ordinary_user.run("cat", mount.path / "x")
        eventually(lambda: mount.user.regionfs("status", mount.path).returncode == 0)
        after = mount.status()
        assert (before["holder_pid"], 1) == (after["holder_pid"], after["restarts"])
        assert "a" * PAGE == ordinary_user.run("cat", mount.path / "x").stdout
        assert 0 == mount.user.regionfs("reload", mount.path).returncode
        assert "b" * PAGE == ordinary_user.run("cat", mount.path / "x").stdout
        clean(place)
        eventually(lambda: mount.user.regionfs("status", mount.path).returncode == 0)
        assert 1 == ordinary_user.regionfs("mount", mount.manifest, mount.path).returncode, "its lock is there again"
        assert 0 == ordinary_user.regionfs("upgrade", mount.path).returncode
        assert "b" * PAGE == ordinary_user.run("cat", mount.path / "x").stdout
