"""Where a daemon keeps its files: a private directory, one stem per mount point.

Root's is /run/regionfs, an ordinary user's lies in $XDG_RUNTIME_DIR or else in /tmp. It is 0700 and
must be ours: what lies in it may be believed. Per mount: the control socket, the log of a background
daemon, the lock that its holder keeps while it lives (with the mount's name and place in it), the ledger
and the store of its servers. A holder whose file system was unmounted here and is in use elsewhere keeps
its stem; the next mount there gets another.
"""

from __future__ import annotations

import fcntl
import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, count
from pathlib import Path
from typing import NamedTuple

from regionfs.digest import blake2b
from regionfs.errors import MountError
from regionfs.wire import mounts

LOGS_STAY = 7 * 24 * 3600.0  # seconds after the last line of a mount that has ended
COMING = 60.0                # seconds within which a file may be that of a mount about to be announced


class Known(NamedTuple):
    """A mount that a holder has announced; `alive` while that holder runs."""

    mountpoint: Path
    manifest: Path
    alive: bool
    number: int = 0                # tells it from others of its mount point, which are not mounted there any more
    place: tuple[int, int] | None = None  # id and st_dev of its mount; None before there is one
    holder: int | None = None      # pid

    @property
    def name(self) -> tuple[Path, int]:
        """What the functions below know it by."""
        return self.mountpoint, self.number

    @property
    def socket(self) -> Path:
        """Its control socket."""
        return socket_of(self.mountpoint, self.number)

    def is_of(self, mount: mounts.Mount) -> bool:
        """True when `mount` shows its file system, wherever that is mounted."""
        return self.place is not None and self.place[1] == mount.device and mount.is_ours


def directory() -> Path:
    """This user's runtime directory, made if it was missing. Raises MountError when it is not private."""
    path = _place()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise MountError(f"{path} must be a directory of user {os.geteuid()} with mode 0700; remove or mend it")
    return path


def stem_of(mountpoint: Path, number: int = 0) -> Path:
    """The path, without suffix, of everything kept for a mount on `mountpoint` (absolute, resolved).

    Short, because a socket's path may have 107 bytes only. `number` is 0 but where the holder of an earlier mount
    still lives, whose file system is in use elsewhere.
    """
    digest = blake2b(os.fsencode(mountpoint), digest_size=8).hexdigest()
    return directory() / (f"{digest}-{number}" if number else digest)


def socket_of(mountpoint: Path, number: int = 0) -> Path:
    """Its control socket."""
    return stem_of(mountpoint, number).with_suffix(".sock")


def log_of(mountpoint: Path, number: int = 0) -> Path:
    """The log of its background daemon."""
    return stem_of(mountpoint, number).with_suffix(".log")


def ledger_of(mountpoint: Path, number: int = 0) -> Path:
    """The servers' ledger."""
    return stem_of(mountpoint, number).with_suffix(".ledger")


def connection_of(mountpoint: Path, number: int = 0) -> Path:
    """What INIT agreed on, for a holder that takes the mount over."""
    return stem_of(mountpoint, number).with_suffix(".connection")


def discard_state(mountpoint: Path, number: int = 0) -> None:
    """Remove what its servers know of each other (daemon.state): the next one begins anew."""
    stem = stem_of(mountpoint, number)
    for path in (*stem.parent.glob(f"{stem.name}.snapshot-*"), stem.with_suffix(".index")):
        path.unlink(missing_ok=True)


def missing(mountpoint: Path, number: int, *suffixes: str) -> Path | None:
    """The first of its files that is not there; None when all are."""
    stem = stem_of(mountpoint, number)
    return next((path for path in map(stem.with_suffix, suffixes) if not path.exists()), None)


def claim(mountpoint: Path, manifest: Path) -> tuple[int, int]:
    """Take the mount point for this process and its children, until all close the descriptor.

    Returns the number of the mount and that descriptor. Raises MountError when another holder is mounted there, or
    about to be: one whose mount was taken away from there does not count.
    """
    there = {(mount.id, mount.device) for mount in mounts.list_mounts() if mount.mountpoint == str(mountpoint)}
    left = [mount.number for mount in known()
            if mount.mountpoint == mountpoint and not mount.alive and mount.place in there]
    for number in chain(left, count()):
        fd = _lock(stem_of(mountpoint, number).with_suffix(".lock"))
        if fd is not None:
            announce(fd, mountpoint, manifest, None)
            return number, fd
        holder = next((mount for mount in known() if mount.mountpoint == mountpoint and mount.number == number), None)
        if holder is not None and holder.alive and (holder.place is None or holder.place in there):
            raise MountError(f"{mountpoint} is mounted already; end it with regionfs umount {mountpoint}")
    raise AssertionError("numbers do not end")


def announce(lock: int, mountpoint: Path, manifest: Path, mount: mounts.Mount | None) -> None:
    """Write into a claim what known() tells of it; `mount` once there is one."""
    place = None if mount is None else (mount.id, mount.device)
    said = {"mountpoint": str(mountpoint), "manifest": str(manifest), "place": place, "holder": os.getpid()}
    text = json.dumps(said).encode()
    try:
        # one call, and blanks over what is left of a longer text: whoever reads meanwhile, or after a death, can
        os.pwrite(lock, text.ljust(os.fstat(lock).st_size), 0)
    except OSError as error:
        raise MountError(f"{directory()}: {error.strerror}; a mount keeps its state there") from error


def known() -> Iterator[Known]:
    """Every mount of this user that was announced and not cleaned up."""
    for path in sorted(directory().glob("*.lock")):
        try:
            with path.open("rb") as lock:
                said = json.loads(lock.read())
                place = said.get("place")
                yield Known(Path(said["mountpoint"]), Path(said["manifest"]), _is_held(lock.fileno()),
                            int(path.stem.partition("-")[2] or 0), None if place is None else (place[0], place[1]),
                            said.get("holder"))
        except (FileNotFoundError, ValueError):  # just going, or just coming
            continue


def of(point: Path) -> Known | None:
    """The mount that `point` shows, else the last one that was mounted there; None when none was announced."""
    there = mounts.top(point)
    found = [mount for mount in known()
             if there is not None and mount.is_of(there) and (mount.alive or mount.mountpoint == point)]
    found = found or [mount for mount in known() if mount.mountpoint == point]
    return max(found, key=lambda mount: (mount.alive, mount.number), default=None)


def clean(mountpoint: Path, number: int = 0) -> None:
    """Remove what a mount that has ended left here; its log only when it is empty."""
    stem = stem_of(mountpoint, number)
    for path in stem.parent.glob(f"{stem.name}.*"):
        if path.suffix != ".log" or not path.stat().st_size:
            path.unlink(missing_ok=True)


def clear_leftovers(mountpoint: Path, number: int = 0) -> None:
    """Remove the files that a holder that died left. The log and our claim stay."""
    stem = stem_of(mountpoint, number)
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


def _lock(path: Path) -> int | None:
    """A descriptor that holds the lock file; None while another process does."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), path.stat()):
                return fd
        except BlockingIOError:
            os.close(fd)
            return None
        except FileNotFoundError:
            pass
        os.close(fd)  # a mount that ended took it away meanwhile


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
