"""What a source is, seen from outside: its kind, size and identity, or why it cannot serve.

The one place that judges sources. stat(2) comes first and decides; a FIFO, a tape or a socket is never
opened, so nothing here can block or have an effect on a device. Only a block device is opened, without
waiting, to find its end. Knows nothing of manifests, and keeps no descriptor. The way to the path is
confine's.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

from regionfs.errors import SourceError
from regionfs.manifest.confine import reach

_AT_FDCWD, _AT_EACCESS = -100, 0x200  # linux/fcntl.h
_libc = ctypes.CDLL(None, use_errno=True)

Avoid = Callable[[Path], str]

_URL = re.compile(r"(?:^|/)[a-z][a-z0-9+.-]+:/+[^/]")  # a Path has one of the two slashes

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a character device",
    stat.S_IFBLK: "a block device",
}


class SourceFacts(NamedTuple):
    """A regular file or block device as it is now."""

    kind: Literal["file", "block"]
    size: int      # bytes
    device: int    # st_dev
    inode: int     # st_ino
    rdev: int      # st_rdev of a block device, else 0
    mtime_ns: int
    ctime_ns: int
    mode: int      # permission bits
    uid: int
    gid: int
    blocks: int    # 512-byte units allocated; a block device counts as whole
    sector: int = 512  # bytes; the logical block of a block device

    @property
    def identity(self) -> tuple[int, ...]:
        """Equal for two names of the same bytes: a device by its number, a file by its inode."""
        return (self.rdev,) if self.kind == "block" else (self.device, self.inode)

    @property
    def stamp(self) -> tuple[int, ...]:
        """Equal as long as nobody replaced, resized or wrote the source (docs/contract.md section 4, coherence)."""
        return (self.device, self.inode, self.rdev, self.size, self.mtime_ns, self.ctime_ns)

    @property
    def shown(self) -> tuple[int, ...]:
        """What stat(2) tells of changes: size and times."""
        return (self.size, self.mtime_ns, self.ctime_ns)

    def hold(self, path: str) -> bool:
        """True when a regular file at `path` is the same as these facts in all of them, False also when stat(2) fails.

        Then inspect_source would find nothing else: who may read a file does not change without its ctime.
        """
        try:
            now = os.stat(path)  # noqa: PTH116 - each open asks, and a Path would cost as much as the call
        except OSError:
            return False
        return (now.st_ino == self.inode and now.st_ctime_ns == self.ctime_ns and now.st_mtime_ns == self.mtime_ns
                and now.st_size == self.size and now.st_dev == self.device and now.st_blocks == self.blocks
                and now.st_uid == self.uid and now.st_gid == self.gid and now.st_mode == stat.S_IFREG | self.mode)


def inspect_source(path: Path, *, writable: bool = False, confine: Path | None = None) -> SourceFacts:
    """Facts about the regular file or block device at `path`, which this process may read.

    With `writable`, also write; with `confine`, only beneath that directory. Raises SourceError with a
    sentence that names the path and the reason.
    """
    try:
        if confine is None:
            return _inspect(path, path, writable)
        with reach(path, confine) as here:
            return _inspect(here, path, writable)
    except (OSError, ValueError) as error:
        raise SourceError(_reason(path, error)) from error


def _inspect(here: Path, path: Path, writable: bool) -> SourceFacts:
    status = here.stat()
    _check_kind(status, str(path))
    if not os.access(here, os.R_OK, effective_ids=True):
        raise SourceError(f"{path} cannot be read: permission denied")
    if writable:
        _refuse_unwritable(here, status, path)
    return _facts(status, _block_size(here) if stat.S_ISBLK(status.st_mode) else status.st_size)


def no_path(path: Path) -> str:
    """Why `path` must not be touched: there is no such path."""
    return ""


class Way(NamedTuple):
    """How the paths of one manifest may be gone."""

    confine: Path | None = None  # absolute, resolved: only beneath it
    avoid: Avoid = no_path       # says of a path (absolute) why no call may be made on it, else ""

    def inspect(self, path: Path, *, writable: bool = False) -> SourceFacts:
        """As inspect_source."""
        if why := self.avoid(path):
            raise SourceError(f"{path} {why}")
        return inspect_source(path, writable=writable, confine=self.confine)


def inspect_open(fd: int, name: str) -> SourceFacts:
    """Facts about the source open as `fd`; `name` is for the message. Raises SourceError.

    For whoever opened it after inspect_source: the name may mean another file by then. Moves the
    position of a block device's descriptor.
    """
    try:
        status = os.fstat(fd)
        _check_kind(status, name)
        block = stat.S_ISBLK(status.st_mode)
        return _facts(status, os.lseek(fd, 0, os.SEEK_END) if block else status.st_size)
    except OSError as error:
        raise SourceError(f"{name}: {error.strerror}") from error


def open_at_once(path: str, flags: int) -> int:
    """An opener for open(): of a regular file or block device, however late something else took its place.

    Does not wait for that. SourceError when it did, OSError as open(2).
    """
    fd = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        _check_kind(os.fstat(fd), path)
    except SourceError:
        os.close(fd)
        raise
    return fd


def why_no_text(status: os.stat_result) -> str:
    """Why this cannot be read to its end at once, as a regular file can; "" for one."""
    return "" if stat.S_ISREG(status.st_mode) else f"it is {_kind(status)}, not a regular file"


def _check_kind(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISBLK(status.st_mode):
        raise SourceError(f"{name} is {_kind(status)}; a source is a regular file or a block device")


def _kind(status: os.stat_result) -> str:
    return _KINDS.get(stat.S_IFMT(status.st_mode), "of an unknown type")


def check_writable(path: Path, confine: Path | None = None) -> None:
    """OSError with the errno that the kernel gives who opens it for writing; SourceError when it lies elsewhere.

    Without opening it: who watches the source would take that for a change.
    """
    with reach(path, confine) as here:
        if _libc.faccessat(_AT_FDCWD, os.fsencode(here), os.W_OK, _AT_EACCESS):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
        status = here.stat()
        if stat.S_ISBLK(status.st_mode) and _is_read_only_device(status.st_rdev):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))


def open_source(path: Path, flags: int) -> int:
    """open(2) of a source with O_NOATIME where that is permitted: to show bytes is no use of them. Raises OSError."""
    # O_NONBLOCK: a FIFO that took the path's place must not stop us; files and disks ignore it
    flags |= os.O_CLOEXEC | os.O_NONBLOCK
    try:
        return _open_unless_leased(path, flags | os.O_NOATIME)
    except PermissionError as error:  # neither its owner nor privileged; or it cannot be opened at all
        if error.errno != errno.EPERM:
            raise
        return _open_unless_leased(path, flags)


def _open_unless_leased(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags)
    except BlockingIOError:  # somebody has a lease on it, for an instant or until asked
        if not stat.S_ISREG(path.stat().st_mode):
            raise
        return os.open(path, flags & ~os.O_NONBLOCK)


def _refuse_unwritable(here: Path, status: os.stat_result, path: Path) -> None:
    if not os.access(here, os.W_OK, effective_ids=True):
        if stat.S_ISREG(status.st_mode) and os.statvfs(here).f_flag & os.ST_RDONLY:
            raise SourceError(f"{path} cannot be written: its file system is read-only")
        raise SourceError(f"{path} cannot be written: permission denied")
    if stat.S_ISBLK(status.st_mode) and _is_read_only_device(status.st_rdev):
        raise SourceError(f"{path} cannot be written: the device is read-only")


def _is_read_only_device(rdev: int) -> bool:
    """What blockdev --getro answers, without opening; False where sysfs does not tell."""
    try:
        return Path(f"/sys/dev/block/{os.major(rdev)}:{os.minor(rdev)}/ro").read_text().strip() == "1"
    except OSError:
        return False


def _sector(rdev: int) -> int:
    """The device's logical block; a partition has its disk's. 512 where sysfs does not tell."""
    entry = Path(f"/sys/dev/block/{os.major(rdev)}:{os.minor(rdev)}")
    for queue in (entry / "queue", entry / ".." / "queue"):
        with suppress(OSError, ValueError):
            return int((queue / "logical_block_size").read_text())
    return 512


def _block_size(path: Path) -> int:
    fd = open_source(path, os.O_RDONLY)
    try:
        return os.lseek(fd, 0, os.SEEK_END)
    finally:
        os.close(fd)


def _facts(status: os.stat_result, size: int) -> SourceFacts:
    block = stat.S_ISBLK(status.st_mode)
    return SourceFacts(
        kind="block" if block else "file", size=size,
        device=status.st_dev, inode=status.st_ino, rdev=status.st_rdev if block else 0,
        mtime_ns=status.st_mtime_ns, ctime_ns=status.st_ctime_ns,
        mode=stat.S_IMODE(status.st_mode), uid=status.st_uid, gid=status.st_gid,
        blocks=size // 512 if block else status.st_blocks,
        sector=_sector(status.st_rdev) if block else 512,
    )


def url_hint(path: object) -> str:
    """What to add to a message about `path`, which cannot be found; '' unless it is a URL."""
    return ("; this is a URL: regionfs reads files and block devices of this machine, nothing from the network yet"
            if _URL.search(str(path)) else "")


def _reason(path: Path, error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        with suppress(OSError):
            return f"{path} is a symbolic link to {path.readlink()}, which does not exist"
        return f"{path} does not exist{url_hint(path)}"
    if isinstance(error, OSError):
        return f"{path}: {error.strerror}"
    return f"{str(path)!r} is not a path"
