"""Composed mode: a read-only map becomes a file that the kernel reads alone.

compose() writes the EROFS image of a region map (erofs), mounts it detached over exactly the descriptors
it was given, and returns a descriptor of the one file in it. The image is an unnamed file that only the
mount holds: nothing appears in /proc/mounts or in a directory, and all is gone, crash or not, when the last
user of the file closes it. Knows the mount system calls; does not know who reads the file, nor when it must
be composed again.

Needs file-backed EROFS (Linux 6.12), CAP_SYS_ADMIN, regular files as sources, and for the image a directory
on a file system that reads pages into the page cache: not tmpfs, not overlayfs. Whatever is missing ends in
a ComposeError; nothing is asked of the kernel's version.
"""

from __future__ import annotations

import ctypes
import errno
import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from regionfs import readahead
from regionfs.errors import MountError
from regionfs.modes.erofs import NAME, Layout, assemble, layout
from regionfs.modes.geometry import BLOCKS, measure
from regionfs.modes.quiet import quietly
from regionfs.regions import Kind, Region, RegionMap

# asm-generic/unistd.h and x86 agree
_FSOPEN, _FSCONFIG, _FSMOUNT = 430, 431, 432
_FSOPEN_CLOEXEC = _FSMOUNT_CLOEXEC = 1
# enum fsconfig_command, linux/mount.h
_SET_FLAG, SET_STRING, _CMD_CREATE = 0, 1, 6
_ATTRIBUTES = 0x1 | 0x2 | 0x4 | 0x8  # MOUNT_ATTR_RDONLY | NOSUID | NODEV | NOEXEC
_LOG_LINE = 4096                     # bytes; one message of a file system context
_DIRECTORIES = (Path("/var/tmp"), Path("/var/lib"))  # where an unnamed image may lie, after TMPDIR

_libc = ctypes.CDLL(None, use_errno=True)
_mounting = threading.Lock()  # so that what is new is its own
_PATIENCE = 0.5               # seconds to wait for another's, which a slow source may hold up


class ComposeError(MountError):
    """The kernel or the map refuses; `code` is the errno, the message carries the kernel's own words."""

    exit_status: ClassVar[int] = 1

    def __init__(self, message: str, cause: OSError | None = None) -> None:
        super().__init__(message)
        self.code = errno.EINVAL if cause is None or cause.errno is None else cause.errno


def compose(regions: RegionMap, devices: Mapping[str, int], read: Callable[[int, int], bytes],
            directory: Path) -> int:
    """A descriptor (read-only, close-on-exec) of a file with the bytes of `regions`; the caller closes it.

    `devices` maps source keys to open descriptors of regular files, which may be closed afterwards.
    `read(offset, length)` gives bytes of the composite file, for the few that are copied. `directory` is
    one that image_directory() found. Raises ComposeError when the map or the machine cannot, SourceError
    when `read` answers short, and whatever `read` raises.
    """
    geometry = measure(regions)
    if geometry.objection:
        raise ComposeError(geometry.objection)
    described = layout(regions, geometry)
    image = _write(described, read, directory)
    quiet: list[int] = []
    try:
        quiet += (quietly(devices[key]) for key in described.devices)
        return _open_inside(image, quiet)
    finally:
        for fd in (image, *quiet):
            os.close(fd)


def image_directory(candidates: Sequence[Path] | None = None) -> Path:
    """The first of `candidates` that can hold images, tried with a tiny one.

    Raises ComposeError, for the first reason met, when none can.
    """
    places = candidates if candidates is not None else (Path(tempfile.gettempdir()), *_DIRECTORIES)
    failure: ComposeError | None = None
    for directory in dict.fromkeys(places):
        try:
            _try(directory)
        except ComposeError as error:
            failure = failure or error
        else:
            return directory
    raise failure or ComposeError("no directory to try")


def _try(directory: Path) -> None:
    """Compose two blocks of a source in swapped order. Raises ComposeError."""
    block = BLOCKS[0]
    halves = [bytes([number]) * block for number in (1, 2)]
    regions = RegionMap(2 * block, [
        Region(0, block, Kind.SOURCE, source="trial", shift=block),
        Region(block, 2 * block, Kind.SOURCE, source="trial", shift=-block),
    ])
    try:
        with tempfile.TemporaryFile(dir=directory) as source:
            source.write(b"".join(halves))
            source.flush()
            fd = compose(regions, {"trial": source.fileno()}, lambda offset, length: b"", directory)
        try:
            seen = os.pread(fd, 3 * block, 0)
        finally:
            os.close(fd)
    except OSError as error:
        raise ComposeError(f"{directory}: {error.strerror}", error) from error
    if seen != halves[1] + halves[0]:
        raise ComposeError(f"{directory}: a trial image read wrong")


def _write(described: Layout, read: Callable[[int, int], bytes], directory: Path) -> int:
    """The image as an unnamed file in `directory`: a descriptor whose pages are in the page cache."""
    with _blaming(directory):
        image = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        for piece in assemble(described, read):
            with _blaming(directory):
                _append(image, piece)
        return image
    except BaseException:
        os.close(image)
        raise


def _append(fd: int, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[os.write(fd, view):]


@contextmanager
def _blaming(directory: Path) -> Iterator[None]:
    """What fails inside is the directory's fault, not a source's."""
    try:
        yield
    except OSError as error:
        raise ComposeError(f"{directory} holds no image: {error.strerror}", error) from error


def _open_inside(image: int, devices: Sequence[int]) -> int:
    """Mount the image detached over the devices and open its file."""
    root = mount(image, devices)
    try:
        return os.open(NAME, os.O_RDONLY | os.O_CLOEXEC, dir_fd=root)
    except OSError as error:
        raise ComposeError(f"the composed file does not open: {error.strerror}", error) from error
    finally:
        os.close(root)


def mount(image: int, devices: Sequence[int]) -> int:
    """A descriptor of a detached mount of the EROFS image open as `image`. Raises ComposeError."""
    alone = _mounting.acquire(timeout=_PATIENCE)
    try:
        before = readahead.names()
        mounted = _mount(image, devices)
        new = [name for name in readahead.names() - before if name.startswith("erofs-")]
        if len(new) == 1:  # else somebody else mounted one too, and nothing says which is whose
            readahead.raise_of(new[0])
        return mounted
    finally:
        if alone:
            _mounting.release()


def _mount(image: int, devices: Sequence[int]) -> int:
    with context() as erofs:
        configure(erofs, SET_STRING, b"source", _path(image))
        for device in devices:
            configure(erofs, SET_STRING, b"device", _path(device))
        configure(erofs, _SET_FLAG, b"ro", None)
        configure(erofs, _CMD_CREATE, None, None)
        return _call("fsmount", _FSMOUNT, erofs, _FSMOUNT_CLOEXEC, _ATTRIBUTES)


@contextmanager
def context() -> Iterator[int]:
    """A file system context of EROFS; an OSError inside becomes a ComposeError with what EROFS said."""
    try:
        fd = _call("fsopen", _FSOPEN, b"erofs", _FSOPEN_CLOEXEC)
    except OSError as error:
        raise ComposeError(str(error.strerror), error) from error
    try:
        yield fd
    except OSError as error:
        raise ComposeError(_words(fd, error), error) from error
    finally:
        os.close(fd)


def configure(context: int, command: int, key: bytes | None, value: bytes | None) -> None:
    """fsconfig(2). Raises OSError."""
    _call("fsconfig", _FSCONFIG, context, command, key, value, 0)


def _path(fd: int) -> bytes:
    """A path by which the kernel opens exactly the file behind `fd`."""
    return b"/proc/self/fd/%d" % fd


def _words(context: int, error: OSError) -> str:
    """The error, and what the file system had to say about it (one message a read, "e erofs: ...")."""
    said = []
    while True:
        try:
            line = os.read(context, _LOG_LINE).decode(errors="replace").strip()
        except OSError:  # ENODATA: no more
            break
        said.append(line.removeprefix("e ").removeprefix("w ").removeprefix("i "))
    return f"{error.strerror} ({'; '.join(said)})" if said else str(error.strerror)


def _call(name: str, number: int, *arguments: int | bytes | None) -> int:
    """One system call. Raises OSError, its message naming the call."""
    result = int(_libc.syscall(ctypes.c_long(number), *map(_word, arguments)))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def _word(value: int | bytes | None) -> ctypes.c_long | ctypes.c_char_p:
    return ctypes.c_long(value) if isinstance(value, int) else ctypes.c_char_p(value)
