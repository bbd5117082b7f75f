"""Mounting in tests, as a user does it: the real command, another process, everything gone afterwards.

    with Mount(tmp_path, {"a": {"regions": [...]}}, engine="native") as mount:
        (mount.path / "a").read_bytes()
        mount.status()["files"]["a"]["mode"]

Also ordinary users, loop devices, and the record of what a run exercised. Knows the command line and
nothing of the package behind it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.sweep import VARIABLE, mounts_below, session_root, unmount_all

PROJECT = Path(__file__).resolve().parent.parent
REGIONFS = str(Path(sys.executable).with_name("regionfs"))
ENGINES = ("native", "pyfuse3")
FAST = os.environ.get("REGIONFS_FAST") != "0"  # the fast path of the native engine, wherever nobody turned it off
TIMEOUT = 30  # seconds for a command that should take less than one
NOBODY = 65534

exercised: Counter[str] = Counter()  # "engine native", "mode composed", "loop device", ... -> how often


@dataclass(frozen=True)
class User:
    """Who runs a command: the command itself, and how subprocess starts it."""

    command: Sequence[str] = (REGIONFS,)     # "regionfs"
    python: Sequence[str] = (sys.executable,)
    process: Mapping[str, Any] = field(default_factory=dict)  # for subprocess: user, group, env, ...
    directory: Path | None = None            # an ordinary user's own directory

    def regionfs(self, *arguments: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
        """Run `regionfs ARGUMENTS` to its end; its status is the caller's to check."""
        return self.run(*self.command, *arguments)

    def run(self, *command: str | os.PathLike[str]) -> subprocess.CompletedProcess[str]:
        """Run any command; output goes through files, which a daemon may keep open without harm."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, check=False,
                                  timeout=TIMEOUT, **{"cwd": "/", **self.process})
            return subprocess.CompletedProcess(done.args, done.returncode, _text(out), _text(err))

    def with_environment(self, **variables: str) -> User:
        """The same user with more in the environment."""
        environment = {**(self.process.get("env") or os.environ), **variables}
        return replace(self, process={**self.process, "env": environment})

    def new_directory(self) -> Path:
        """An empty directory that this user owns and every user can enter; gone after the run."""
        assert self.directory is not None
        directory = Path(tempfile.mkdtemp(dir=self.directory))
        directory.chmod(0o755)
        self.own(directory)
        return directory

    def write(self, path: Path, data: bytes) -> Path:
        """A file of this user's."""
        path.write_bytes(data)
        self.own(path)
        return path

    def own(self, path: Path) -> None:
        """Make `path` this user's."""
        if "user" in self.process:
            os.chown(path, self.process["user"], self.process["user"])


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read(), errors="replace")


ROOT_OR_ME = User()


class Mount:
    """A mount of `manifest` (its text, or the value that JSON can write) below `directory`.

    Relative sources are looked for in `directory`. `options` are more arguments of `regionfs mount`; without `fast`
    the native engine serves without its compiled loop.
    Leaving the `with` block unmounts and checks that every process of the mount has ended.
    """

    def __init__(self, directory: Path, manifest: str | Mapping[str, Any], *, engine: str = "native",
                 options: Sequence[str] = (), user: User = ROOT_OR_ME, name: str = "mnt", fast: bool = True) -> None:
        self.path = directory / name
        self.manifest = directory / f"{name}.yaml"
        self.engine, self.options, self.user, self.fast = engine, tuple(options), user, fast
        self._processes: dict[int, int] = {}  # pid -> pidfd
        self.write_manifest(manifest)

    def write_manifest(self, manifest: str | Mapping[str, Any]) -> None:
        """Replace the manifest's text; a mapping of files becomes a whole manifest."""
        if not isinstance(manifest, str):
            whole = manifest if "regionfs" in manifest else {"regionfs": 1, "files": manifest}
            manifest = json.dumps(whole, indent=1)
        self.manifest.write_text(manifest)

    def mount(self) -> Self:
        """Run `regionfs mount` and return once it says the mount answers."""
        if not self.mounted:  # a dead mount there answers no call
            self.path.mkdir(exist_ok=True)
            self.user.own(self.path)
        user = self.user if self.fast and FAST else self.user.with_environment(REGIONFS_FAST="0")
        done = user.regionfs("mount", self.manifest, self.path, "--engine", self.engine, *self.options)
        assert done.returncode == 0, f"regionfs mount: status {done.returncode}\n{done.stdout}{done.stderr}"
        try:
            status = self.status()
        except BaseException:
            unmount_all(self.path)
            raise
        for pid in {status["pid"], status.get("holder_pid") or status["pid"]}:
            self._processes[pid] = os.pidfd_open(pid)
        self._record(status)
        return self

    def status(self) -> dict[str, Any]:
        """This mount's entry of `regionfs status DIR --json`; its exit status is 1 where there is trouble."""
        done = self.user.regionfs("status", self.path, "--json")
        assert done.returncode in (0, 1) and done.stdout, f"regionfs status: {done.returncode} {done.stderr}"
        entry, = json.loads(done.stdout)["mounts"]
        fails = entry["trouble"] or any(file["trouble"] for file in entry["files"].values())
        assert int(bool(fails)) == done.returncode
        return dict(entry)

    def served(self, file: str) -> tuple[int, int]:
        """(reads, writes) of `file` that the daemon answered."""
        counters = self.status()["files"][file]
        return counters["reads"], counters["writes"]

    def unmount(self) -> None:
        """`regionfs umount`, then wait until the daemon is gone and the mount with it."""
        done = self.user.regionfs("umount", self.path)
        assert done.returncode == 0, f"regionfs umount: {done.stderr}"
        self.ended()

    def ended(self) -> None:
        """Wait for the end of every process of this mount; fail when one or the mount itself stays."""
        for pid, descriptor in self._processes.items():
            assert wait_readable(descriptor), f"process {pid} of {self.path} still runs"
            os.close(descriptor)
        self._processes.clear()
        assert [] == mounts_below(self.path)

    def kill(self) -> None:
        """SIGKILL every process of this mount and wait for their end; the mount itself stays, dead."""
        for descriptor in self._processes.values():
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        for descriptor in self._processes.values():
            assert wait_readable(descriptor)

    @property
    def mounted(self) -> bool:
        return bool(mounts_below(self.path))

    def _record(self, status: Mapping[str, Any]) -> None:
        exercised[f"engine {status['engine']}"] += 1
        exercised["mounts by " + ("root" if self.user.process.get("user", os.geteuid()) == 0
                                  else "an ordinary user")] += 1
        if status["engine"] == "native":
            loaded = "regionfs/serve/_fast" in Path(f"/proc/{status['pid']}/maps").read_text()
            assert loaded == (self.fast and FAST), "the fast path is built, and used unless it is turned off"
            exercised["fast path" if loaded else "native engine without fast path"] += 1
        for file in status["files"].values():
            exercised[f"mode {file['mode']}"] += 1

    def __enter__(self) -> Self:
        return self.mount()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        if self.mounted:
            self.unmount()
        else:
            self.ended()


def wait_readable(descriptor: int, seconds: float = 10) -> bool:
    """True once `descriptor` is readable (a pidfd: once the process has ended)."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


@contextlib.contextmanager
def loop_device(path: Path, *options: str) -> Iterator[Path]:
    """A loop device over `path` (`--sector-size`, `4096`, `--read-only`, ...), detached afterwards."""
    device = subprocess.run(["losetup", "--find", "--show", *options, path], check=True, text=True,
                            stdout=subprocess.PIPE, timeout=TIMEOUT).stdout.strip()
    exercised["loop devices"] += 1
    try:
        yield Path(device)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True, timeout=TIMEOUT)


@contextlib.contextmanager
def fuse_for_all() -> Iterator[None]:
    """/dev/fuse open to every user, as distributions have it; then put back. One session at a time.

    The lock file holds the mode meanwhile: whoever comes after a session that was killed puts that one back.
    """
    device = Path("/dev/fuse")
    with (session_root() / "regionfs-tests.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.seek(0)
        before = int(lock.read() or oct(stat.S_IMODE(device.stat().st_mode)), 8)
        lock.truncate(0)
        lock.write(oct(before))
        lock.flush()
        device.chmod(0o666)
        try:
            yield
        finally:
            device.chmod(before)
            lock.truncate(0)


def make_user(session: Path, uid: int = NOBODY) -> User:
    """An ordinary user who can run this checkout, wherever it and its interpreter lie."""
    directory = session / f"user-{uid}"
    directory.mkdir(exist_ok=True)
    os.chown(directory, uid, uid)
    environment = {"PATH": os.environ["PATH"], "HOME": str(directory), "LANG": "C.UTF-8",
                   VARIABLE: str(session), "XDG_RUNTIME_DIR": str(directory)}
    process = {"user": uid, "group": uid, "extra_groups": [], "env": environment}
    if _runs((REGIONFS, "--version"), process):
        return User(process=process, directory=directory)
    packages = _reachable_copy(session)
    environment["PYTHONPATH"] = str(packages)
    version = f"python{sysconfig.get_python_version()}"
    for python in (str(Path(sys.executable).resolve()), f"/usr/bin/{version}"):
        command = packages / "bin" / "regionfs"
        command.write_text(f"#!{python}\nfrom regionfs.cli.main import main\nraise SystemExit(main())\n")
        command.chmod(0o755)
        if _runs((str(command), "--version"), process):
            return User((str(command),), (python,), {**process, "cwd": packages}, directory)
    raise RuntimeError(f"user {uid} can run neither {sys.executable} nor /usr/bin/{version}")


def _runs(command: Sequence[str], process: Mapping[str, Any]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=TIMEOUT, cwd="/",
                              **process).returncode == 0
    except PermissionError:
        return False


def _reachable_copy(session: Path) -> Path:
    """The package, its dependencies and these tests, where every user can read them."""
    target = session / "packages"
    if not target.exists():
        rest = shutil.ignore_patterns("mypy*", "ruff*", "pip*", "hypothesis*", "__pycache__", "*editable*")
        shutil.copytree(sysconfig.get_path("purelib"), target, ignore=rest)
        (target / "bin").mkdir()
        for package in ("regionfs", "tests"):
            shutil.copytree(PROJECT / package, target / package, ignore=rest)
    return target


def why_no_mounts(directory: Path) -> str:
    """What keeps this process from mounting FUSE file systems; empty when nothing does."""
    if not Path("/dev/fuse").exists():
        return "no /dev/fuse"
    if os.geteuid() != 0:
        return "" if os.access("/dev/fuse", os.R_OK | os.W_OK) else "/dev/fuse is not open to this user"
    point = directory / "may-mount"
    point.mkdir()
    probe = subprocess.run(["mount", "-t", "tmpfs", "none", point], stderr=subprocess.PIPE, check=False,
                           text=True)
    if probe.returncode:
        return f"root, but mount(2) is refused: {probe.stderr.strip()}"
    subprocess.run(["umount", point], check=True)
    return ""
