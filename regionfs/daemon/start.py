"""The command line's side of a daemon: check the mount point, start a holder, find the daemons that run."""

from __future__ import annotations

import json
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from regionfs.daemon import adopt, control, failure, logs, runtime, sd_notify, whereabouts
from regionfs.daemon.config import MountConfig
from regionfs.errors import MountError, RegionfsError
from regionfs.wire import mounts

log = logging.getLogger("regionfs")

T = TypeVar("T")

PATIENCE = 20.0    # seconds for the status of a mount; a new server may have to begin first
MOST_AT_ONCE = 32  # mounts asked at once


def check_mountpoint(point: Path, nonempty: bool) -> None:
    """Raise MountError, with what to do, when `point` (absolute) cannot be mounted on."""
    there = mounts.top(point)
    ours = runtime.of(point)
    if ours is not None and ours.alive and any(
            mount.mountpoint == str(point) and ours.is_of(mount) for mount in mounts.list_mounts()):
        beneath = f", beneath {there.fstype} ({there.source})" if there is not None and not there.is_ours else ""
        raise MountError(f"{point} is mounted already{beneath}; see regionfs status, "
                         f"end it with regionfs umount {point}")
    if there is not None and there.is_ours:
        if adopt.is_kept():  # it waits for us: nobody else would answer a call on it
            return
        whereabouts.clear_dead(point)
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
        if "serves" not in answer:
            failed.append(failure.revive(answer))
        else:
            log.info("mounted %s on %s: %s", config.manifest, config.mountpoint, served(answer["serves"]))
            sd_notify.notify("READY=1", f"STATUS=serving {config.mountpoint}")

    number, lock = runtime.claim(config.mountpoint, config.manifest)
    status = hold(replace(config, number=number), lock, tell, logs.TTY_FORMAT)
    if failed:
        raise failed[0]
    raise SystemExit(status)


def serve_in_background(config: MountConfig) -> dict[str, Any]:
    """Start a holder and return when the mount answers: Server.serves(). Raises its error when it cannot be made."""
    number, lock = runtime.claim(config.mountpoint, config.manifest)
    output = runtime.log_of(config.mountpoint, number)
    receive, send = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        _become_holder(replace(config, number=number), lock, output, send)
    os.close(lock)  # the holder has it too
    os.close(send)
    with os.fdopen(receive, "rb") as answers:
        line = answers.readline()
    answer: dict[str, Any] = json.loads(line) if line else {"error": f"the daemon ended before the mount answered; "
                                                                     f"see {output}"}
    if "serves" not in answer:
        os.waitpid(pid, 0)
        raise failure.revive(answer)
    try:
        os.statvfs(config.mountpoint)  # ready means answering
    except OSError as error:
        raise MountError(f"the mount does not answer ({error.strerror}); see {output}") from error
    serves: dict[str, Any] = answer["serves"]
    return serves


def served(serves: dict[str, Any]) -> str:
    """'3 files, 1 passthrough, 2 userspace', of Server.serves()."""
    modes: dict[str, int] = serves.get("modes", {})
    count = sum(modes.values())
    return ", ".join([f"{count} {'file' if count == 1 else 'files'}",
                      *(f"{number} {mode}" for mode, number in modes.items())])


def _become_holder(config: MountConfig, lock: int, log: Path, send: int) -> NoReturn:
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
        status = hold(config, lock, tell, logs.FILE_FORMAT)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def statuses(mountpoint: Path | None) -> Iterator[dict[str, Any]]:
    """The status of one mount, or of all of this user; what a dead holder left has no pid."""
    if mountpoint is not None:
        one = runtime.of(mountpoint)
        if one is None:
            raise MountError(f"no regionfs mount of this user on {mountpoint}")
        found = [one]
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
        return {**_status(mount), "places": _places(mount)}
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
    log = runtime.log_of(point, mount.number)
    return {"mountpoint": str(point), "manifest": str(mount.manifest), "engine": "", "pid": None, "holder_pid": pid,
            "restarts": 0, "trouble": trouble, "places": [], "log": str(log) if log.exists() else "", "files": {}}


def _status(mount: runtime.Known) -> dict[str, Any]:
    """Asked again when the server dies over the answer. Raises ConnectionError, Silent, MountError."""
    for _ in range(3):
        with suppress(control.Unanswered):
            return control.call(mount.socket, "status", PATIENCE)
    return control.call(mount.socket, "status", PATIENCE)


def _places(mount: runtime.Known) -> list[str]:
    """Where its file system is mounted; other namespaces are looked at where it is not on its mount point."""
    if mount.place is None:
        return []
    here = [other.mountpoint for other in mounts.list_mounts() if mount.is_of(other)]
    return here if str(mount.mountpoint) in here else [*whereabouts.other_places(mount.place[1])]


def ask(mountpoint: Path, command: str, **arguments: Any) -> dict[str, Any]:
    """Ask the daemon of one mount. Raises MountError when none answers."""
    try:
        mount = runtime.of(mountpoint)
        if mount is None:
            raise ConnectionError
        return control.call(mount.socket, command, **arguments)
    except control.Silent as error:
        raise MountError(str(error)) from error
    except control.Unanswered as error:
        raise MountError("the server died before it answered, and another takes over; ask again") from error
    except ConnectionError as error:
        raise MountError(f"no regionfs mount of this user on {mountpoint}") from error
