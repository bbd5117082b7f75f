"""Files that appear whole or not at all, and of which nothing is left, whatever ends their writer.

Where the file system has it, a new file has no name until it is complete (O_TMPFILE, linkat), so even a kill leaves
nothing. Elsewhere, and for the moment in which a complete file takes another's place, it is called PREFIX and
something random. Its writer keeps it locked; a file of that name that nobody locks was left by a writer that is
gone, and the next one that writes into the directory removes it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PREFIX = ".regionfs-new."

_DESCRIPTORS = Path("/proc/self/fd")
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL, errno.ENOENT)  # open(2): the last three of old kernels
_NO_LINK = (errno.EPERM, errno.EOPNOTSUPP)
_FLAGS = os.O_RDWR | os.O_CLOEXEC


@contextmanager
def appearing(path: Path, *, replace: bool) -> Iterator[int]:
    """A descriptor, to be read and written, whose file is `path` when the block ends well; it is synced then.

    Its permissions are those of any new file. With `replace` it takes the place of what is there, as rename(2)
    does; else raises FileExistsError. Raises OSError.
    """
    directory = path.absolute().parent
    _sweep(directory)
    fd, temporary = _new(directory)
    try:
        yield fd
        os.fchmod(fd, 0o666 & ~_umask())
        os.fsync(fd)
        if temporary is None and not _link(fd, path, replace):
            temporary = _name(directory)
            _link(fd, temporary, replace=False)
        if temporary is not None:
            _move(temporary, path, replace)
        sync_directory(directory)
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        os.close(fd)


def sync_directory(directory: Path) -> None:
    """Bring its names to the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _new(directory: Path) -> tuple[int, Path | None]:
    """A new locked file in `directory`, and its name if it has one."""
    if _DESCRIPTORS.is_dir():
        try:
            fd = os.open(directory, _FLAGS | os.O_TMPFILE, 0o600)
            _lock(fd)
            return fd, None
        except OSError as error:
            if error.errno not in _NO_TMPFILE:
                raise
    while True:
        path = _name(directory)
        fd = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        # somebody who swept before it was locked has removed it
        if _lock(fd) and os.fstat(fd).st_nlink:
            return fd, path
        os.close(fd)


def _lock(fd: int) -> bool:
    """False when another process has it; a file system without locks has no sweepers either."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _link(fd: int, path: Path, replace: bool) -> bool:
    """Give an unnamed file its name; False when `replace` and somebody has it."""
    directory = os.open(_DESCRIPTORS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # linkat(2), AT_SYMLINK_FOLLOW: only with a directory does Python follow the link
        os.link(str(fd), path, src_dir_fd=directory, follow_symlinks=True)
    except FileExistsError:
        if replace:
            return False
        raise
    finally:
        os.close(directory)
    return True


def _move(temporary: Path, path: Path, replace: bool) -> None:
    if replace:
        temporary.replace(path)
        return
    try:
        os.link(temporary, path)  # never replaces, as rename does
    except OSError as error:
        if error.errno not in _NO_LINK:
            raise
        # a file system without hard links, such as vfat
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        temporary.rename(path)


def _sweep(directory: Path) -> None:
    """Remove what writers that are gone have left; whatever cannot be removed is left to others."""
    with suppress(OSError), os.scandir(directory) as entries:
        for name in [entry.name for entry in entries if entry.name.startswith(PREFIX)]:
            with suppress(OSError):
                _remove_left(directory / name)


def _remove_left(path: Path) -> None:
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    finally:
        os.close(fd)


def _name(directory: Path) -> Path:
    return directory / f"{PREFIX}{secrets.token_hex(8)}"


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
