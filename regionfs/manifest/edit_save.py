"""Manifests on disk: one editor at a time, and either the old text or the new one, never a mixture.

The lock is flock(2) on the manifest itself, so nothing is left behind when its holder dies. A save
puts a new inode in the manifest's place, and who waited on the old one holds a lock nobody else
looks at: so after every lock the name is looked up again, and unless it still leads to the locked
inode the lock is taken anew. A symbolic link stays; what it leads to is replaced.

A save writes a temporary file next to the manifest, syncs it, renames it over the manifest and syncs
the directory. The temporary name is fixed: what a killed editor leaves is removed by the next one to hold the lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from regionfs.appear import appearing, sync_directory
from regionfs.errors import RegionfsError, UsageError

_NO_XATTR = (errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.ENODATA)


@dataclass(frozen=True, slots=True)
class Locked:
    """A manifest that nobody else edits as long as this is in use."""

    path: Path  # with every symbolic link resolved
    fd: int     # carries the lock; only read from

    def read(self) -> str:
        """The text as it is, line endings included. Raises RegionfsError when it is not UTF-8."""
        with open(self.fd, "rb", closefd=False) as stream:
            stream.seek(0)
            data = stream.read()
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise RegionfsError(f"{self.path} is not text: byte {error.start} is not UTF-8") from None

    def replace(self, text: str) -> None:
        """Put `text` in the manifest's place; same mode, owner and extended attributes."""
        status = os.fstat(self.fd)
        temporary = _temporary(self.path)
        with _written(temporary, text, stat.S_IMODE(status.st_mode)) as fd:
            _keep_owner(fd, status, self.path)
            _copy_xattrs(self.fd, fd)
            os.fchmod(fd, stat.S_IMODE(status.st_mode))
        _rename(temporary, self.path)


@contextmanager
def locked(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[Locked]:
    """Hold the manifest at `path` for editing; `waiting` is called once when somebody else holds it."""
    fd = _lock(path, waiting)
    try:
        held = Locked(Path(os.path.realpath(path)), fd)
        with suppress(PermissionError):  # a directory for reading only has nothing to sweep
            _temporary(held.path).unlink(missing_ok=True)
        yield held
    finally:
        os.close(fd)


def create(path: Path, text: str, *, force: bool = False) -> None:
    """Write a new manifest. Raises UsageError when `path` exists and not `force`."""
    if force and path.exists():
        with locked(path) as held:
            held.replace(text)
        return
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a directory; {path.name} cannot be written there")
    try:
        with appearing(path, replace=False) as fd, open(fd, "wb", closefd=False) as stream:
            stream.write(text.encode("utf-8"))
    except FileExistsError:
        raise UsageError(f"{path} exists; --force replaces it") from None


def _lock(path: Path, waiting: Callable[[], None]) -> int:
    told = False
    while True:
        fd = _open(path)
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise UsageError(f"{path} is not a regular file; nothing else can be edited")
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not told:
                    waiting()
                told = True
                fcntl.flock(fd, fcntl.LOCK_EX)
            if _leads_to(path, fd):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _open(path: Path) -> int:
    """For writing where that is allowed, because NFS locks nothing else; nothing is written through it."""
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS, errno.EISDIR, errno.EPERM):
            raise
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def _leads_to(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(fd))
    except FileNotFoundError:
        return False


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.regionfs-edit")


@contextmanager
def _written(temporary: Path, text: str, mode: int) -> Iterator[int]:
    """A new synced file with `text`; removed again when anything fails."""
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb", closefd=False) as stream:
            stream.write(text.encode("utf-8"))
        yield fd
        os.fsync(fd)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    finally:
        os.close(fd)


def _keep_owner(fd: int, status: os.stat_result, path: Path) -> None:
    mine = os.fstat(fd)
    if (mine.st_uid, mine.st_gid) == (status.st_uid, status.st_gid):
        return
    try:
        os.fchown(fd, status.st_uid, status.st_gid)
    except PermissionError:
        raise RegionfsError(f"{path} belongs to {status.st_uid}:{status.st_gid} and this user may not give a "
                            "file to them: edit it as its owner") from None


def _copy_xattrs(source: int, target: int) -> None:
    """ACLs and labels; what the file system or the user's rights do not allow stays behind."""
    try:
        for name in os.listxattr(source):
            os.setxattr(target, name, os.getxattr(source, name))
    except OSError as error:
        if error.errno not in _NO_XATTR:
            raise


def _rename(temporary: Path, path: Path) -> None:
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)

