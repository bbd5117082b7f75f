"""The way to a source: by its name, or only beneath one directory (`--confine DIR`).

Whoever may rename, link and mount things beneath DIR, and may write the manifest, must not make the
daemon open anything else. openat2(2) refuses every path that leaves DIR, goes through a symbolic or
magic link or enters another mount, at whatever moment it changes. What it found is held by a
descriptor, and everything after that (stat, access, open) goes through that descriptor: what was
checked is what is used. DIR itself and the directories above it are the administrator's.

Knows nothing of what a source must be.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from regionfs.errors import SourceError

_OPENAT2 = 437        # the same on every architecture
# RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS | RESOLVE_BENEATH, linux/openat2.h
_RESOLVE = 0x01 | 0x02 | 0x04 | 0x08
_TRIES = 128          # the kernel says EAGAIN when something was renamed while it followed a ".."

_WHY_NOT = {
    errno.EXDEV: "leads out of {}, or into another mount",
    errno.ELOOP: "goes through a symbolic link, beneath {}",
    errno.ENOSYS: "cannot be confined to {}: that needs Linux 5.6",
    errno.EAGAIN: "is renamed again and again, beneath {}",
}

_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    """struct open_how, linux/openat2.h."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


@contextmanager
def reach(path: Path, confine: Path | None) -> Iterator[Path]:
    """A path to exactly what `path` (absolute) means now, good within the block.

    With `confine` (absolute, resolved) that is the same file through the whole block, and lies beneath
    that directory. Raises SourceError when it would not, OSError when there is none.
    """
    if confine is None:
        yield path
        return
    fd = _find(path, confine)
    try:
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _find(path: Path, confine: Path) -> int:
    """An O_PATH descriptor of what lies at `path` beneath `confine`."""
    if not path.is_relative_to(confine):
        raise SourceError(f"{path} lies outside {confine}, to which sources are confined")
    try:
        return _open_beneath(_root(confine), path.relative_to(confine))
    except OSError as error:
        if error.errno in _WHY_NOT:
            why = _WHY_NOT[error.errno].format(confine)
            raise SourceError(f"{path} {why}, to which sources are confined") from error
        raise


@cache
def _root(confine: Path) -> int:
    """The directory, held for as long as this process lives."""
    return os.open(confine, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _open_beneath(root: int, path: Path) -> int:
    how = _How(os.O_PATH | os.O_CLOEXEC, 0, _RESOLVE)
    for _ in range(_TRIES):
        fd = int(_libc.syscall(ctypes.c_long(_OPENAT2), ctypes.c_int(root), ctypes.c_char_p(os.fsencode(path)),
                               ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))))
        if fd >= 0:
            return fd
        if (number := ctypes.get_errno()) != errno.EAGAIN:
            break
    raise OSError(number, os.strerror(number))
