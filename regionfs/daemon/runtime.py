"""Where a daemon keeps its files: a private directory, one stem per mount point.

Root's is /run/regionfs, an ordinary user's lies in $XDG_RUNTIME_DIR or else in /tmp. It is 0700 and
must be ours: what lies in it may be believed. Per mount: the control socket, the log of a background
daemon, the lock that its holder keeps while it lives (with the mount's name in it), the ledger and
the store of its servers.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from regionfs.digest import blake2b
from regionfs.errors import MountError
from regionfs.wire import device, mounts

log = logging.getLogger("regionfs")

LOGS_STAY = 7 * 24 * 3600.0  # seconds after the last line of a mount that has ended
COMING = 60.0                # seconds within which a file may be that of a mount about to be announced


class Known(NamedTuple):
    """A mount that a holder has announced; `alive` while that holder runs."""

    mountpoint: Path
    manifest: Path
    alive: bool


def directory() -> Path:
    """This user's runtime directory, made if it was missing. Raises MountError when it is not private."""
    path = _place()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise MountError(f"{path} must be a directory of user {os.geteuid()} with mode 0700; remove or mend it")
    return path


def stem_of(mountpoint: Path) -> Path:
    """The path, without suffix, of everything kept for the mount on `mountpoint` (absolute, resolved).

    Short, because a socket's path may have 107 bytes only.
    """
    return directory() / blake2b(os.fsencode(mountpoint), digest_size=8).hexdigest()


def socket_of(mountpoint: Path) -> Path:
    """Its control socket."""
    return stem_of(mountpoint).with_suffix(".sock")


def log_of(mountpoint: Path) -> Path:
    """The log of its background daemon."""
    return stem_of(mountpoint).with_suffix(".log")


def ledger_of(mountpoint: Path) -> Path:
    """The servers' ledger."""
    return stem_of(mountpoint).with_suffix(".ledger")


def connection_of(mountpoint: Path) -> Path:
    """What INIT agreed on, for a holder that takes the mount over."""
    return stem_of(mountpoint).with_suffix(".connection")


def discard_state(mountpoint: Path) -> None:
    """Remove what its servers know of each other (daemon.state): the next one begins anew."""
    stem = stem_of(mountpoint)
    for path in (*stem.parent.glob(f"{stem.name}.snapshot-*"), stem.with_suffix(".index")):
        path.unlink(missing_ok=True)


def claim(mountpoint: Path, manifest: Path) -> int:
    """Take the mount point for this process, until it ends or closes the descriptor returned.

    Raises MountError when another holder has it.
    """
    fd = os.open(stem_of(mountpoint).with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise MountError(f"{mountpoint} is mounted already; end it with regionfs umount {mountpoint}") from None
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.dumps({"mountpoint": str(mountpoint), "manifest": str(manifest)}).encode(), 0)
    return fd


def known() -> Iterator[Known]:
    """Every mount of this user that was announced and not cleaned up."""
    for path in sorted(directory().glob("*.lock")):
        try:
            with path.open("rb") as lock:
                said = json.loads(lock.read())
                yield Known(Path(said["mountpoint"]), Path(said["manifest"]), _is_held(lock.fileno()))
        except (FileNotFoundError, ValueError):  # just going, or just coming
            continue


def clean(mountpoint: Path) -> None:
    """Remove what a mount that has ended left here; its log only when it is empty."""
    stem = stem_of(mountpoint)
    for path in stem.parent.glob(f"{stem.name}.*"):
        if path.suffix != ".log" or not path.stat().st_size:
            path.unlink(missing_ok=True)


def clear_leftovers(mountpoint: Path) -> None:
    """End what a holder that died left: a mount that answers nobody, files. The log and our claim stay."""
    if mounts.find(mountpoint):
        log.warning("%s: a dead mount was in the way; it is cleared", mountpoint)
        device.unmount(str(mountpoint), lazy=True)
    stem = stem_of(mountpoint)
    for path in stem.parent.glob(f"{stem.name}.*"):
        if path.suffix not in (".log", ".lock"):
            path.unlink(missing_ok=True)
    _sweep(stem.parent)


def _sweep(place: Path) -> None:
    """Remove files that belong to no announced mount: what was left unfinished, logs that nobody will read."""
    announced = {path.stem for path in place.glob("*.lock")}
    now = time.time()
    for path in place.iterdir():
        with suppress(FileNotFoundError):
            oldest = LOGS_STAY if path.suffix == ".log" else COMING
            if path.name.partition(".")[0] not in announced and now - path.stat().st_mtime > oldest:
                path.unlink()


def _is_held(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _place() -> Path:
    if os.geteuid() == 0:
        return Path("/run/regionfs")
    base = os.environ.get("XDG_RUNTIME_DIR")
    return Path(base, "regionfs") if base else Path(f"/tmp/regionfs-{os.geteuid()}")
