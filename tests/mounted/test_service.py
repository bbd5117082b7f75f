"""A mount as a service: systemd's side is played by real sockets and descriptors, mount(8) is the real one."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness import PROJECT, REGIONFS, TIMEOUT, Mount, wait_readable
from tests.sweep import session_root, unmount_all

UNIT = PROJECT / "systemd" / "regionfs@.service"
HELPER = Path(sys.executable).with_name("mount.regionfs")
# the shell that becomes the service: descriptor 3 is the stored one
START = 'export LISTEN_PID=$$; exec "$@" 3<&"$STORED"'

MakeMount = Callable[..., Mount]


class Manager:
    """What systemd does for a service of Type=notify with a descriptor store."""

    def __init__(self, directory: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(TIMEOUT)
        self._socket.bind(str(directory / "notify"))
        self._environment = {**os.environ, "NOTIFY_SOCKET": str(directory / "notify")}
        self.stored: dict[str, int] = {}
        self.log = directory / "service.log"

    def start(self, *command: str | Path, **environment: str) -> subprocess.Popen[bytes]:
        """Run the service, with the stored descriptor if there is one, until it says READY=1."""
        extra: dict[str, str] = dict(environment)
        words: list[str | Path] = list(command)
        if self.stored:
            (name, fd), = self.stored.items()
            extra |= {"LISTEN_FDS": "1", "LISTEN_FDNAMES": name, "STORED": str(fd)}
            words = ["bash", "-c", START, "service", *command]
        with self.log.open("ab") as log:
            service = subprocess.Popen(words, env=self._environment | extra, pass_fds=list(self.stored.values()),
                                       stdin=subprocess.DEVNULL, stderr=log, cwd="/")
        self.hear("READY=1")
        return service

    def hear(self, wanted: str) -> None:
        """Obey datagrams until one has the line `wanted`."""
        while True:
            data, fds, _, _ = socket.recv_fds(self._socket, 4096, 4)
            lines = dict(line.split("=", 1) for line in data.decode().splitlines())
            if "FDSTORE" in lines:
                self._drop(lines["FDNAME"])  # systemd knows the same file again
                self.stored[lines["FDNAME"]], = fds
            elif "FDSTOREREMOVE" in lines:
                self._drop(lines["FDNAME"])
            if wanted in data.decode().splitlines():
                return

    def close(self) -> None:
        for name in list(self.stored):
            self._drop(name)
        self._socket.close()

    def _drop(self, name: str) -> None:
        if name in self.stored:
            os.close(self.stored.pop(name))


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    playing = Manager(tmp_path)
    yield playing
    playing.close()
    unmount_all(tmp_path)


@pytest.fixture
def command(tmp_path: Path) -> list[str | Path]:
    """`regionfs mount -f` of a file in every mode that this machine has; its mount point is tmp_path/mnt."""
    (tmp_path / "mnt").mkdir()
    (tmp_path / "a.img").write_bytes(b"a" * 65536)
    files = {"whole": {"whole": "a.img", "access": "rw"}, "user": {"size": 70000, "regions": [
        {"source": "a.img", "start": 100, "length": 100}]},
        "composed": {"regions": [{"source": "a.img", "offset": 4096, "length": 8192}, {"source": "a.img"}]}}
    (tmp_path / "m.yaml").write_text(json.dumps({"regionfs": 1, "files": files}))
    return [REGIONFS, "mount", "-f", tmp_path / "m.yaml", tmp_path / "mnt"]


def status(point: Path) -> dict[str, Any]:
    done = subprocess.run([REGIONFS, "status", point, "--json"], capture_output=True, check=True, timeout=TIMEOUT)
    entry, = json.loads(done.stdout)["mounts"]
    return dict(entry)


def test_ready_means_answering(manager: Manager, command: list[str | Path], tmp_path: Path) -> None:
    """READY=1 comes when the mount answers, STOPPING=1 on SIGTERM, and what was stored is discarded."""
    service = manager.start(*command)
    assert b"a" * 10 == (tmp_path / "mnt" / "whole").read_bytes()[:10]
    assert ["regionfs"] == list(manager.stored)
    service.terminate()
    manager.hear("STOPPING=1")
    manager.hear("FDSTOREREMOVE=1")
    assert ({}, 0) == (manager.stored, service.wait(TIMEOUT))


def crash(service: subprocess.Popen[bytes], server: int) -> None:
    """Kill the holder; wait, as systemd does, until nothing of the service runs."""
    with os.fdopen(os.pidfd_open(server), "rb", buffering=0) as end:
        service.kill()
        service.wait(TIMEOUT)
        assert wait_readable(end.fileno())


def test_the_mount_outlives_its_holder(manager: Manager, command: list[str | Path], tmp_path: Path) -> None:
    """kill -9 of the holder: open files, backing files included, go on with the next one; calls wait for it."""
    point = tmp_path / "mnt"
    service = manager.start(*command)
    before = status(point)
    handles = {name: os.open(point / name, os.O_RDONLY) for name in ("whole", "user", "composed")}
    answers: list[bytes] = []
    for _ in range(3):
        crash(service, status(point)["pid"])
        waiting = threading.Thread(target=lambda: answers.append((point / "user").read_bytes()))
        waiting.start()
        service = manager.start(*command)
        waiting.join(TIMEOUT)
        after = status(point)
        for name, handle in handles.items():
            assert b"a" * 50 == os.pread(handle, 50, 120), name
            assert (before["files"][name]["mode"], name) == (after["files"][name]["mode"], name)
    assert [b"\0" * 100 + b"a" * 100 + b"\0" * 69800] * 3 == answers
    for handle in handles.values():
        os.close(handle)
    assert before["holder_pid"] != after["holder_pid"]
    assert 0 == subprocess.run([REGIONFS, "umount", point], check=False, timeout=TIMEOUT).returncode
    manager.hear("FDSTOREREMOVE=1")
    assert 0 == service.wait(TIMEOUT)


def test_a_stored_descriptor_of_another_mount_is_refused(manager: Manager, command: list[str | Path],
                                                         tmp_path: Path) -> None:
    """The mount was ended while no holder ran: the next one mounts anew."""
    service = manager.start(*command)
    crash(service, status(tmp_path / "mnt")["pid"])
    unmount_all(tmp_path)
    service = manager.start(*command)
    assert b"a" * 10 == (tmp_path / "mnt" / "whole").read_bytes()[:10]
    service.terminate()
    manager.hear("STOPPING=1")
    assert 0 == service.wait(TIMEOUT)


def test_a_background_mount_says_nothing_to_the_manager(manager: Manager, command: list[str | Path],
                                                        tmp_path: Path) -> None:
    """It is not the service that was started."""
    words = [word for word in command if word != "-f"]
    subprocess.run(words, env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")}, check=True, timeout=TIMEOUT)
    subprocess.run([REGIONFS, "umount", tmp_path / "mnt"], check=True, timeout=TIMEOUT)
    manager._socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager._socket.recv(100)


# the unit


def settings() -> dict[str, str]:
    """The unit's settings; those of one name are joined."""
    found: dict[str, str] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", UNIT.read_text(), re.MULTILINE):
        found[name] = f"{found[name]} {value}" if name in found else value
    return found


def test_the_unit_is_valid(tmp_path: Path) -> None:
    """systemd-analyze verify has nothing to say."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze")
    text = UNIT.read_text().replace("/usr/local/bin/regionfs", REGIONFS)
    (tmp_path / "regionfs@.service").write_text(text)
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", tmp_path / "regionfs@srv-vm.service"],
                          capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert (0, "") == (done.returncode, done.stderr)


def test_the_unit_makes_no_mount_namespace() -> None:
    """With any of these the mount would be seen by the service alone."""
    forbidden = re.compile("Private|Protect|ReadOnlyPaths|ReadWritePaths|InaccessiblePaths|BindPaths|RootDirectory|"
                           "TemporaryFileSystem|DynamicUser|RuntimeDirectory|StateDirectory|MountFlags")
    assert [] == [name for name in settings() if forbidden.match(name)]


def allowed_calls() -> set[str]:
    """System calls that SystemCallFilter= lets through, groups resolved by systemd itself."""
    done = subprocess.run(["systemd-analyze", "syscall-filter"], capture_output=True, text=True, check=True)
    groups = {block.split("\n")[0]: re.findall(r"^    (@?\S+)", block, re.MULTILINE)
              for block in re.split(r"\n(?=@)", done.stdout)}
    found, waiting = set(), settings()["SystemCallFilter"].split()
    while waiting:
        word = waiting.pop()
        if word.startswith("@"):
            waiting += groups[word]
        else:
            found.add(word)
    return found


@pytest.mark.timeout(120)
def test_the_units_filter_lets_every_system_call_through(manager: Manager, command: list[str | Path],
                                                         tmp_path: Path) -> None:
    """Traced: mount in all modes, read, write, reload, kill the server, umount. And no memory is made executable."""
    for tool in ("systemd-analyze", "strace"):
        if shutil.which(tool) is None or os.geteuid() != 0:
            pytest.skip(f"this needs root and {tool}")
    trace, point = tmp_path / "trace", tmp_path / "mnt"
    service = manager.start("strace", "-f", "-qq", "-e", "signal=none", "-o", trace, *command, "--confine", tmp_path)
    for name in ("whole", "user", "composed"):
        assert b"a" * 9 == (point / name).read_bytes()[150:159]
    with (point / "whole").open("r+b") as file:
        file.write(b"b")
        os.fsync(file.fileno())
    subprocess.run([REGIONFS, "reload", point], check=True, stdout=subprocess.DEVNULL, timeout=TIMEOUT)
    os.kill(status(point)["pid"], signal.SIGKILL)
    (point / "user").read_bytes()
    subprocess.run([REGIONFS, "umount", point], check=True, timeout=TIMEOUT)
    service.wait(TIMEOUT)
    text = trace.read_text(errors="replace")
    used = set(re.findall(r"^\d+ +([a-z]\w*)\(", text, re.MULTILINE))
    assert {"openat2", "capset", "ioctl", "mount"} <= used
    assert set() == used - allowed_calls()
    assert [] == re.findall(r"mmap\(.*PROT_WRITE\|PROT_EXEC.*|mprotect\(.*PROT_EXEC.*", text)


# mount(8)


@contextmanager
def installed_helper() -> Iterator[None]:
    """mount.regionfs where mount(8) looks for it; one session at a time."""
    link = Path("/sbin/mount.regionfs")
    with (session_root() / "regionfs-tests-helper.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if link.is_symlink():
            link.unlink()  # of a session that was killed
        link.symlink_to(HELPER)
        try:
            yield
        finally:
            link.unlink()


@pytest.fixture
def mount8() -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """mount(8), which finds the helper."""
    if os.geteuid() != 0:
        pytest.skip("mount(8) needs root")

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["mount", *words], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
                              timeout=TIMEOUT)
    with installed_helper():
        yield run


def test_mount_by_type(mount8: Callable[..., subprocess.CompletedProcess[str]], command: list[str | Path],
                       tmp_path: Path) -> None:
    """`mount -t regionfs disk.yaml DIR -o OPTS` mounts, umount(8) ends it."""
    point = tmp_path / "mnt"
    options = f"ro,engine=native,modes=passthrough:userspace,confine={tmp_path},log_level=warning,poll=0"
    done = mount8("-t", "regionfs", tmp_path / "m.yaml", point, "-o", options)
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    said = status(point)
    assert {"passthrough", "userspace"} >= {file["mode"] for file in said["files"].values()}
    with pytest.raises(OSError, match="Read-only"):
        (point / "whole").open("r+b")
    with os.fdopen(os.pidfd_open(said["holder_pid"]), "rb", buffering=0) as end:
        subprocess.run(["umount", point], check=True, timeout=TIMEOUT)
        assert wait_readable(end.fileno())


def test_an_fstab_line(mount8: Callable[..., subprocess.CompletedProcess[str]], command: list[str | Path],
                       tmp_path: Path) -> None:
    """With what systemd and mount(8) read for themselves among the options."""
    point = tmp_path / "mnt"
    line = (f"{tmp_path}/m.yaml {point} regionfs defaults,nofail,_netdev,noauto,user,x-systemd.automount,"
            "x-systemd.idle-timeout=60,allow_other 0 0\n")
    (tmp_path / "fstab").write_text(line)
    done = mount8("--fstab", tmp_path / "fstab", point)
    assert (0, "") == (done.returncode, done.stderr)
    mountinfo = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {point} " in line)
    assert ["fuse.regionfs", f"{tmp_path}/m.yaml"] == mountinfo.split(" - ")[1].split()[:2]
    assert {"nosuid", "nodev", "noexec"} <= set(mountinfo.split()[5].split(","))
    assert "allow_other" in mountinfo
    subprocess.run(["umount", point], check=True, timeout=TIMEOUT)


@pytest.mark.parametrize(("options", "message"), [
    ("enginee=native", "did you mean engine"),
    ("engine=fast", "engine=fast: known are auto, native, pyfuse3"),
    ("modes=iomap:iomap", "stands twice"),
    ("poll=", "poll=: give microseconds, up to 1000"),
    ("poll=abc", "poll=abc: give microseconds, up to 1000"),
    ("poll=1001", "poll=1001: give microseconds, up to 1000"),
    ("confine=/nonexistent", "give the directory that sources must lie in"),
])
def test_wrong_options_fail(mount8: Callable[..., subprocess.CompletedProcess[str]], command: list[str | Path],
                            tmp_path: Path, options: str, message: str) -> None:
    """With a message, and nothing is mounted; -f checks them alone."""
    for words in ((), ("-f",)):
        done = mount8(*words, "-t", "regionfs", tmp_path / "m.yaml", tmp_path / "mnt", "-o", options)
        assert (2, True) == (done.returncode, message in done.stderr), done.stderr
