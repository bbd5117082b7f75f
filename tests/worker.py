"""I/O in another process: Worker() starts it, its methods run there and come back with values or OSErrors.

    with Worker() as worker:
        worker.pread(path, 0, 4096)                     # bytes, or OSError with its errno
        handle = worker.open(path, os.O_RDWR)           # handles are numbers of the other process
        worker.run([("pwrite", handle, 512, b"x"), ("lseek_data", handle, 0)])  # results or OSErrors

The operations are the methods of Operations; each takes a path, opened for it alone, or a handle.
Knows nothing of regionfs: the same list runs on a mount and on a plain file.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import mmap
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

Target = str | os.PathLike[str] | int
LIBC = ctypes.CDLL(None, use_errno=True)
PROJECT = Path(__file__).resolve().parent.parent


@contextlib.contextmanager
def _opened(target: Target, flags: int) -> Iterator[int]:
    if isinstance(target, int):
        yield target
        return
    fd = os.open(target, flags)
    try:
        yield fd
    finally:
        os.close(fd)


class Operations:
    """What a worker can do. Offsets and lengths are bytes; every failure is the OSError of the call."""

    def __init__(self) -> None:
        self._views: list[mmap.mmap] = []

    def open(self, path: str | os.PathLike[str], flags: int = os.O_RDONLY) -> int:
        """A handle for the other operations, until close()."""
        return os.open(path, flags)

    def close(self, handle: int) -> None:
        os.close(handle)

    def pread(self, target: Target, offset: int, length: int) -> bytes:
        with _opened(target, os.O_RDONLY) as fd:
            return os.pread(fd, length, offset)

    def pwrite(self, target: Target, offset: int, data: bytes) -> int:
        with _opened(target, os.O_WRONLY) as fd:
            return os.pwrite(fd, data, offset)

    def pread_direct(self, target: Target, offset: int, length: int) -> bytes:
        """pread into page-aligned memory; a path is opened with O_DIRECT."""
        with _opened(target, os.O_RDONLY | os.O_DIRECT) as fd, mmap.mmap(-1, length) as buffer:
            return buffer[:os.preadv(fd, [buffer], offset)]

    def pwrite_direct(self, target: Target, offset: int, data: bytes) -> int:
        """pwrite from page-aligned memory; a path is opened with O_DIRECT."""
        with _opened(target, os.O_WRONLY | os.O_DIRECT) as fd, mmap.mmap(-1, len(data)) as buffer:
            buffer[:] = data
            return os.pwritev(fd, [buffer], offset)

    def mmap_read(self, target: Target, offset: int, length: int, shared: bool = True) -> bytes:
        """Bytes through a mapping of the whole file; past its end there are none."""
        flags = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE
        with _opened(target, os.O_RDONLY) as fd, mmap.mmap(fd, 0, flags, mmap.PROT_READ) as view:
            return view[offset:offset + length]

    def mmap_write(self, target: Target, offset: int, data: bytes) -> None:
        """Through a shared mapping of the whole file, then msync."""
        with _opened(target, os.O_RDWR) as fd, mmap.mmap(fd, 0, mmap.MAP_SHARED) as view:
            view[offset:offset + len(data)] = data
            view.flush()

    def map(self, target: Target, writable: bool = False, shared: bool = True) -> int:
        """A mapping of the whole file that stays; its number for view_read and view_write."""
        flags = mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE
        prot = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        with _opened(target, os.O_RDWR if writable and shared else os.O_RDONLY) as fd:
            self._views.append(mmap.mmap(fd, 0, flags, prot))
        return len(self._views) - 1

    def view_read(self, view: int, offset: int, length: int) -> bytes:
        return self._views[view][offset:offset + length]

    def view_write(self, view: int, offset: int, data: bytes, sync: bool = True) -> None:
        """Into the mapping, then msync unless told otherwise."""
        self._views[view][offset:offset + len(data)] = data
        if sync:
            self._views[view].flush()

    def sendfile(self, target: Target, offset: int, length: int) -> bytes:
        """The bytes that sendfile(2) moves into a pipe; at most 64 KiB."""
        read_end, write_end = os.pipe()
        with _opened(target, os.O_RDONLY) as fd, open(read_end, "rb") as pipe:
            try:
                os.sendfile(write_end, fd, offset, min(length, 65536))
            finally:
                os.close(write_end)
            return pipe.read()

    def lseek_data(self, target: Target, offset: int) -> int:
        with _opened(target, os.O_RDONLY) as fd:
            return os.lseek(fd, offset, os.SEEK_DATA)

    def lseek_hole(self, target: Target, offset: int) -> int:
        with _opened(target, os.O_RDONLY) as fd:
            return os.lseek(fd, offset, os.SEEK_HOLE)

    def fallocate(self, target: Target, mode: int, offset: int, length: int) -> None:
        """fallocate(2) itself, with its FALLOC_FL_ bits."""
        with _opened(target, os.O_RDWR) as fd:
            if LIBC.fallocate(fd, mode, ctypes.c_int64(offset), ctypes.c_int64(length)):
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))

    def fsync(self, target: Target) -> None:
        with _opened(target, os.O_RDWR) as fd:
            os.fsync(fd)

    def fdatasync(self, target: Target) -> None:
        with _opened(target, os.O_RDWR) as fd:
            os.fdatasync(fd)

    def truncate(self, target: Target, size: int) -> None:
        os.truncate(target, size)

    def stat(self, target: Target) -> os.stat_result:
        return os.fstat(target) if isinstance(target, int) else Path(target).stat()

    def listdir(self, path: str | os.PathLike[str]) -> list[str]:
        return sorted(entry.name for entry in Path(path).iterdir())

    def getxattr(self, target: Target, name: str) -> bytes:
        return os.getxattr(target, name)

    def lock(self, handle: int, operation: int) -> None:
        """flock(2), with its LOCK_ bits."""
        fcntl.flock(handle, operation)


class WorkerError(Exception):
    """The process ended in a call; `returncode` is -signal.SIGBUS after a fault in a mapping."""

    def __init__(self, returncode: int) -> None:
        super().__init__(f"the worker ended with status {returncode}")
        self.returncode = returncode


class Worker:
    """Another process that runs Operations; ends with the `with` block.

    `command` is the interpreter's command line, `process` goes to subprocess.Popen: an ordinary user's
    worker is Worker(user.python, **user.process).
    """

    def __init__(self, command: Sequence[str] = (sys.executable,), **process: Any) -> None:
        self._process = subprocess.Popen([*command, "-m", "tests.worker"], stdin=subprocess.PIPE,
                                         stdout=subprocess.PIPE, **{"cwd": PROJECT, **process})

    @property
    def pid(self) -> int:
        return self._process.pid

    def run(self, calls: Sequence[tuple[Any, ...]]) -> list[Any]:
        """Each call is (operation, arguments...); a failed one's result is its OSError, the rest go on."""
        assert self._process.stdin and self._process.stdout
        pickle.dump(list(calls), self._process.stdin)
        self._process.stdin.flush()
        try:
            return cast("list[Any]", pickle.load(self._process.stdout))
        except EOFError:
            raise WorkerError(self._process.wait()) from None

    def call(self, operation: str, *arguments: Any) -> Any:
        """One operation; raises its OSError."""
        result, = self.run([(operation, *arguments)])
        if isinstance(result, OSError):
            raise result
        return result

    def __getattr__(self, operation: str) -> Callable[..., Any]:
        if operation.startswith("_") or not hasattr(Operations, operation):
            raise AttributeError(operation)
        return lambda *arguments: self.call(operation, *arguments)

    def close(self) -> None:
        """Ends the process, killed when it hangs in a call."""
        try:
            self._process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.close()


def _attempt(operations: Operations, name: str, *arguments: Any) -> Any:
    try:
        return getattr(operations, name)(*arguments)
    except OSError as error:
        return OSError(error.errno, error.strerror)


def serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Run lists of calls until the other side closes."""
    operations = Operations()
    while True:
        try:
            calls: Sequence[tuple[Any, ...]] = pickle.load(requests)
        except EOFError:
            return
        pickle.dump([_attempt(operations, *call) for call in calls], replies)
        replies.flush()


if __name__ == "__main__":
    serve(sys.stdin.buffer, sys.stdout.buffer)
