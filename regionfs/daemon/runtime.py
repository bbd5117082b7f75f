"""Where a daemon keeps its socket and log: a private directory, one stem per mount point.

Root's is /run/regionfs, an ordinary user's lies in $XDG_RUNTIME_DIR or else in /tmp. It is 0700 and
must be ours: what lies in it may be believed.
"""

from __future__ import annotations

import os
import stat
from hashlib import blake2b
from pathlib import Path

from regionfs.errors import MountError


def directory() -> Path:
    """This user's runtime directory, made if it was missing. Raises MountError when it is not private."""
    path = _place()
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise MountError(f"{path} must be a directory of user {os.geteuid()} with mode 0700; remove or mend it")
    return path


def socket_of(mountpoint: Path) -> Path:
    """The control socket of the mount on `mountpoint` (absolute, resolved)."""
    return directory() / f"{_stem(mountpoint)}.sock"


def log_of(mountpoint: Path) -> Path:
    """The log of the background daemon of the mount on `mountpoint`."""
    return directory() / f"{_stem(mountpoint)}.log"


def sockets() -> list[Path]:
    """The control sockets of all mounts of this user, dead ones included."""
    return sorted(directory().glob("*.sock"))


def _place() -> Path:
    if os.geteuid() == 0:
        return Path("/run/regionfs")
    base = os.environ.get("XDG_RUNTIME_DIR")
    return Path(base, "regionfs") if base else Path(f"/tmp/regionfs-{os.geteuid()}")


def _stem(mountpoint: Path) -> str:
    """Short, because a socket's path may have 107 bytes only."""
    return blake2b(os.fsencode(mountpoint), digest_size=8).hexdigest()
