"""What a test session leaves on the machine, and its removal: mounts, loop devices, processes, files.

A session is a directory, regionfs-tests-*, which its processes name in the environment variable
REGIONFS_TEST_SESSION. Whatever is mounted below it, attached to a file below it or started with
that variable belongs to the session; nothing else is ever touched.

Run as a program it is the session's watchdog, outside of the tests' process so that nothing that hangs
there can stop it. It reads lines: `arm SECONDS NAME` starts the clock of a test, `disarm` stops it. When
the time is up it ends the session's daemons and mounts, which gives whoever waits for them an error; a
test that still goes on is aborted with a traceback. At end of file, however the tests ended, it sweeps.
"""

from __future__ import annotations

import fcntl
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "REGIONFS_TEST_SESSION"
PREFIX = "regionfs-tests-"
GRACE = 20  # seconds a test has to fail by itself once its mounts are gone


def session_root() -> Path:
    """Where sessions lie: on a disk, since a tmpfs cannot back every mode."""
    return Path(os.environ.get("TMPDIR", "/var/tmp"))


def new_session() -> tuple[Path, int]:
    """A session directory that all users can enter, and the descriptor that keeps it from being swept."""
    session = Path(tempfile.mkdtemp(prefix=PREFIX, dir=session_root()))
    session.chmod(0o755)
    lock = os.open(session, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_SH)
    return session, lock


def sweep_dead_sessions() -> None:
    """Remove what sessions of this user left that no process holds any more."""
    for session in session_root().glob(PREFIX + "*"):
        try:
            lock = os.open(session, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            if os.fstat(lock).st_uid == os.geteuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                sweep(session)
        except BlockingIOError:
            pass  # a live session
        finally:
            os.close(lock)


def sweep(session: Path) -> None:
    """End everything that belongs to `session`, then delete it, unless something is still mounted there."""
    end_processes(session)
    detach_loops(session)
    unmount_all(session)
    detach_loops(session)
    if left := mounts_below(session):
        print(f"cannot unmount {left}; {session} stays", file=sys.stderr)
    else:
        shutil.rmtree(session, ignore_errors=True)


def mounts_below(directory: Path) -> list[tuple[str, str]]:
    """(mount point, "major:minor") of every mount at or below `directory`, innermost first."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split(" ")
        point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
        if Path(point).is_relative_to(directory):
            found.append((point, fields[2]))
    return found[::-1]


def processes_of(session: Path) -> Iterator[int]:
    """Processes whose environment names `session`, but for this one."""
    wanted = f"{VARIABLE}={session}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if wanted in environment and int(entry.name) != os.getpid():
            yield int(entry.name)


def loops_below(directory: Path) -> Iterator[str]:
    """Loop devices attached to files below `directory`, deleted ones included."""
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            path = backing.read_text().rstrip("\n").removesuffix(" (deleted)")
        except OSError:
            continue
        if Path(path).is_relative_to(directory):
            yield f"/dev/{backing.parts[-3]}"


def end_processes(session: Path) -> None:
    for pid in processes_of(session):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def unmount_all(directory: Path) -> None:
    """Abort the FUSE connections below `directory` and detach every mount there."""
    for point, device in mounts_below(directory):
        abort = Path("/sys/fs/fuse/connections") / device.partition(":")[2] / "abort"
        try:
            abort.write_text("1")
        except OSError:
            pass  # not FUSE, or not ours to abort
        command = ["umount", "-l", point] if os.geteuid() == 0 else ["fusermount3", "-uz", point]
        subprocess.run(command, check=False, capture_output=True, timeout=GRACE)


def detach_loops(directory: Path) -> None:
    for device in loops_below(directory):
        subprocess.run(["losetup", "-d", device], check=False, capture_output=True, timeout=GRACE)


def _expired(session: Path, tests: int, name: str, again: bool) -> None:
    print(f"\nwatchdog: {name} hangs: " + ("abort" if again else "its daemons and mounts end"),
          file=sys.stderr, flush=True)
    end_processes(session)
    unmount_all(session)
    if again:
        os.kill(tests, signal.SIGABRT)  # faulthandler prints where


def watch(session: Path, tests: int) -> None:
    """Obey the lines on standard input until it ends; `tests` is the process to abort."""
    timeout: float | None = None
    name, late = "", False
    waiting = selectors.DefaultSelector()
    waiting.register(0, selectors.EVENT_READ)
    while True:
        if not waiting.select(timeout):
            _expired(session, tests, name, late)
            timeout, late = (None if late else GRACE), True
            continue
        line = os.read(0, 65536).decode()
        if not line:
            return
        command, *rest = line.splitlines()[-1].split(" ", 2)
        timeout = float(rest[0]) if command == "arm" else None
        name, late = " ".join(rest[1:]), False


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    watched = Path(sys.argv[1])
    watch(watched, os.getppid())
    sweep(watched)
