"""`regionfs mount` up to the point where the mount answers: checks, daemon, readiness.

The daemon is a child that left the terminal; it tells over a pipe that it serves, or why it cannot.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from regionfs.daemon import runtime
from regionfs.daemon.config import MountConfig
from regionfs.errors import MountError
from regionfs.manifest.schema import Manifest
from regionfs.wire import mounts


def check_mountpoint(config: MountConfig, manifest: Manifest) -> None:
    """Raise MountError, with what to do, when `config.mountpoint` cannot be mounted on."""
    point = config.mountpoint
    if mounts.find(point):
        raise MountError(f"{point} is mounted already; see regionfs status, end it with regionfs umount {point}")
    try:
        if not point.is_dir():
            raise MountError(f"{point} is not a directory" if point.exists() else
                             f"{point} does not exist; create it: mkdir -p {point}")
        if not config.nonempty and any(point.iterdir()):
            raise MountError(f"{point} is not empty; choose another directory or say -o nonempty")
    except OSError as error:
        raise MountError(f"{point}: {error.strerror}") from error
    for spec in manifest.sources.values():
        if spec.path.resolve().is_relative_to(point):
            raise MountError(f"source {spec.path} lies inside the mount point {point}, where the mount would hide it")


def serve_in_foreground(config: MountConfig, manifest: Manifest) -> None:
    """Serve in this process until the mount ends; the log goes to stderr."""
    from regionfs.daemon.server import Daemon
    _log_to(None, config.verbose)
    Daemon(config, manifest).run(lambda: None)


def serve_in_background(config: MountConfig, manifest: Manifest) -> None:
    """Start a daemon and return when it answers. Raises MountError with its reason when it cannot."""
    log = runtime.log_of(config.mountpoint)
    receive, send = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid == 0:
        os.close(receive)
        _daemon(config, manifest, log, send)
    os.close(send)
    with os.fdopen(receive, "rb") as stream:
        answer = stream.read()
    if answer == b"ready\n":
        _await_answer(config.mountpoint, log)
        return
    os.waitpid(pid, 0)
    if not answer:
        raise MountError(f"the daemon ended before the mount answered; see {log}")
    raise MountError(answer.decode())


def _await_answer(mountpoint: Path, log: Path) -> None:
    """Ask the mount itself: ready means answering."""
    try:
        os.statvfs(mountpoint)
    except OSError as error:
        raise MountError(f"the daemon ended before the mount answered ({error.strerror}); see {log}") from error


def _daemon(config: MountConfig, manifest: Manifest, log: Path, send: int) -> None:
    """The child: never returns."""
    from regionfs.daemon.server import Daemon
    status = 0
    try:
        os.setsid()
        os.chdir("/")
        _detach_streams(log)
        _log_to(log, config.verbose)

        def ready() -> None:
            os.write(send, b"ready\n")
            os.close(send)

        Daemon(config, manifest).run(ready)
    except BaseException as error:
        status = 1
        logging.getLogger("regionfs").exception("the daemon failed")
        with suppress(OSError):  # the parent has its answer already
            os.write(send, (str(error) or type(error).__name__).encode())
    finally:
        os._exit(status)


def _detach_streams(log: Path) -> None:
    """stdin from nowhere; what libraries print goes to the log."""
    null = os.open(os.devnull, os.O_RDONLY)
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
    for source, stream in ((null, 0), (target, 1), (target, 2)):
        os.dup2(source, stream)
    os.close(null)
    os.close(target)


def _log_to(path: Path | None, verbose: bool) -> None:
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO, stream=sys.stderr,
        format="regionfs: %(levelname)s: %(message)s" if path is None else "%(asctime)s %(levelname)s %(message)s")


def statuses(mountpoint: Path | None) -> Iterator[dict[str, Any]]:
    """The status of one mount or of all of this user. A mount without a daemon has no pid."""
    from regionfs.daemon import control
    if mountpoint is not None:
        try:
            yield control.call(runtime.socket_of(mountpoint), "status")
        except ConnectionError as error:
            raise MountError(f"no regionfs mount of this user on {mountpoint}") from error
        return
    for path in runtime.sockets():
        with suppress(ConnectionError):
            yield control.call(path, "status")


def daemon_of(mountpoint: Path) -> int | None:
    """A pidfd of the daemon that serves `mountpoint`; None when none answers."""
    from regionfs.daemon import control
    try:
        return os.pidfd_open(control.call(runtime.socket_of(mountpoint), "status")["pid"])
    except (ConnectionError, ProcessLookupError, MountError):
        return None
