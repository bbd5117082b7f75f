"""The command line's side of a daemon: check the mount point, start a holder, find the daemons that run."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from regionfs.daemon import adopt, control, failure, frozen, logs, runtime, sd_notify
from regionfs.daemon.config import MountConfig
from regionfs.errors import MountError, RegionfsError
from regionfs.wire import device, mounts

T = TypeVar("T")

PATIENCE = 20.0    # seconds for the status of a mount; a new server may have to begin first
MOST_AT_ONCE = 32  # mounts asked at once


def check_mountpoint(point: Path, nonempty: bool) -> None:
    """Raise MountError, with what to do, when `point` (absolute) cannot be mounted on."""
    if mounts.find(point):
        if is_alive(point):
            raise MountError(f"{point} is mounted already; see regionfs status, end it with regionfs umount {point}")
        if adopt.is_kept():  # it waits for us: nobody else would answer a call on it
            return
        device.unmount(str(point), lazy=True)  # a dead daemon's
    try:
        if not point.is_dir():
            raise MountError(f"{point} is not a directory" if point.exists() else
                             f"{point} does not exist; create it: mkdir -p {point}")
        if not nonempty and any(point.iterdir()):
            raise MountError(f"{point} is not empty; choose another directory or say -o nonempty")
    except OSError as error:
        raise MountError(f"{point}: {error.strerror}") from error


def serve_in_foreground(config: MountConfig) -> NoReturn:
    """Become the holder; the log goes to stderr. Raises the mount's error when it cannot be made."""
    from regionfs.daemon.holder import hold
    failed: list[RegionfsError] = []

    def tell(answer: dict[str, Any]) -> None:
        if answer:
            failed.append(failure.revive(answer))
        else:
            sd_notify.notify("READY=1", f"STATUS=serving {config.mountpoint}")

    status = hold(config, tell, logs.TTY_FORMAT)
    if failed:
        raise failed[0]
    raise SystemExit(status)


def serve_in_background(config: MountConfig) -> None:
    """Start a holder and return when the mount answers. Raises its error when it cannot be made."""
    log = runtime.log_of(config.mountpoint)
    receive, send = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _become_holder(config, log, send)
    os.close(send)
    with os.fdopen(receive, "rb") as answers:
        answer = answers.readline()
    if answer != b"{}\n":
        os.waitpid(pid, 0)
        raise failure.revive(json.loads(answer)) if answer else MountError(
            f"the daemon ended before the mount answered; see {log}")
    try:
        os.statvfs(config.mountpoint)  # ready means answering
    except OSError as error:
        raise MountError(f"the mount does not answer ({error.strerror}); see {log}") from error


def _become_holder(config: MountConfig, log: Path, send: int) -> NoReturn:
    """In a new child: leave the terminal, hold the mount, end."""
    from regionfs.daemon.holder import hold

    def tell(answer: dict[str, Any]) -> None:
        with suppress(OSError):
            os.write(send, json.dumps(answer).encode() + b"\n")
            os.close(send)

    status = 1
    try:
        sd_notify.silence()
        os.setsid()
        os.chdir("/")
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        for descriptor, stream in ((null, 0), (output, 1), (output, 2)):
            os.dup2(descriptor, stream)
        status = hold(config, tell, logs.FILE_FORMAT)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def statuses(mountpoint: Path | None) -> Iterator[dict[str, Any]]:
    """The status of one mount, or of all of this user; what a dead holder left has no pid."""
    if mountpoint is not None:
        found = [mount for mount in runtime.known() if mount.mountpoint == mountpoint]
        if not found:
            raise MountError(f"no regionfs mount of this user on {mountpoint}")
    else:
        found = list(runtime.known())
    yield from (status for status in _each(_look, found) if status is not None)


def _each(work: Callable[[runtime.Known], T], mounts: list[runtime.Known]) -> Iterator[T]:
    """Side by side: the one whose holder is frozen keeps nobody waiting but for himself."""
    if not mounts[1:]:
        return map(work, mounts)
    from concurrent.futures import ThreadPoolExecutor
    with ThreadPoolExecutor(min(MOST_AT_ONCE, len(mounts))) as pool:
        return iter(list(pool.map(work, mounts)))


def _look(mount: runtime.Known) -> dict[str, Any] | None:
    """One mount's status, with the trouble if there is some; None while it starts or ends."""
    point = mount.mountpoint
    try:
        return _status(point)
    except control.Silent as error:
        pid = error.pid or None
        trouble = (f"its holder, process {pid}, does not answer: it is stopped or frozen, or a source keeps it "
                   f"waiting; let it go on (kill -CONT {pid}), or regionfs umount {point}")
    except ConnectionError:
        if mount.alive:  # starting, or just ending
            return None
        pid, trouble = None, f"its daemon died; clear it with regionfs umount {point}"
    except MountError as error:
        pid, trouble = None, str(error)
    log = runtime.log_of(point)
    return {"mountpoint": str(point), "manifest": str(mount.manifest), "engine": "", "pid": None, "holder_pid": pid,
            "restarts": 0, "trouble": trouble, "log": str(log) if log.exists() else "", "files": {}}


def _status(mountpoint: Path) -> dict[str, Any]:
    """Asked again when the server dies over the answer. Raises ConnectionError, Silent, MountError."""
    for _ in range(3):
        with suppress(control.Unanswered):
            return control.call(runtime.socket_of(mountpoint), "status", PATIENCE)
    return control.call(runtime.socket_of(mountpoint), "status", PATIENCE)


def is_alive(mountpoint: Path) -> bool:
    """True while a holder of this user runs for the mount point."""
    return any(mount.alive for mount in runtime.known() if mount.mountpoint == mountpoint)


def unmount(point: Path, lazy: bool) -> list[int]:
    """Unmount, and clean up after a daemon that died; pidfds of the processes that now end."""
    processes, silent = [], 0
    try:
        with suppress(ConnectionError, MountError, ProcessLookupError):
            status = control.call(runtime.socket_of(point), "status", PATIENCE)
            processes = [os.pidfd_open(status[key]) for key in ("holder_pid", "pid") if status[key]]
    except control.Silent as error:
        silent, processes = error.pid, frozen.processes(error.pid)
    dead = not processes and not is_alive(point)
    try:
        device.unmount(str(point), lazy or (dead and mounts.find(point) is not None))
    except MountError:
        if not dead or point not in (mount.mountpoint for mount in runtime.known()):
            raise
    if silent and not lazy:
        frozen.end(silent)
    if dead or (silent and not lazy):
        runtime.clean(point)
    return processes


def ask(mountpoint: Path, command: str, **arguments: Any) -> dict[str, Any]:
    """Ask the daemon of one mount. Raises MountError when none answers."""
    try:
        return control.call(runtime.socket_of(mountpoint), command, **arguments)
    except control.Silent as error:
        raise MountError(str(error)) from error
    except control.Unanswered as error:
        raise MountError("the server died before it answered, and another takes over; ask again") from error
    except ConnectionError as error:
        raise MountError(f"no regionfs mount of this user on {mountpoint}") from error
