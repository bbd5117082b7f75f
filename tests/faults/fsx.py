"""An exerciser in fsx's manner: the same random operations on a file of a mount and on a plain one, compared.

    python -m tests.faults.fsx FILE MODEL OPERATIONS SEED [--sized] [--read-only]

FILE shows what MODEL holds. --sized: FILE may be truncated and punched, and grows by writing. It ends with
a line of JSON, or with the operation at which the two parted. Runs in a process of its own, on system
calls only; knows nothing of regionfs.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import mmap
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable

PAGE = 4096
REOPEN, SYNC = 500, 100            # operations between two, on average
KEEP_SIZE, PUNCH_HOLE = 1, 2       # linux/falloc.h
LARGEST = 1 << 20                  # bytes that a sized file may have
_libc = ctypes.CDLL(None, use_errno=True)


class Differs(Exception):  # noqa: N818  # a finding
    """The two files are no longer the same."""


class Exerciser:
    """Operations on both files in turn."""

    def __init__(self, path: str, model: str, seed: int, sized: bool, writable: bool) -> None:
        self._paths = path, model
        self._rng = random.Random(seed)
        self._sized = sized
        self._flags = os.O_RDWR if writable else os.O_RDONLY
        self._fd, self._model = (os.open(name, self._flags) for name in self._paths)
        self._size = os.fstat(self._model).st_size
        self._noise = random.Random(seed + 1).randbytes(1 << 17)
        self.done: Counter[str] = Counter()
        reads = [self.read, self.read, self.mmap_read]
        writes = [self.write, self.write, self.mmap_write] if writable else []
        sizes = [self.truncate, self.punch, self.append] if sized and writable else []
        self._operations: list[Callable[[], None]] = [*reads * 2, *writes * 2, *sizes]

    def run(self, operations: int) -> None:
        """So many operations, then all of both."""
        rng = self._rng
        for _ in range(operations):
            operation = rng.choice(self._operations)
            if rng.random() < 1 / SYNC:
                operation = self.fsync
            elif rng.random() < 1 / REOPEN:
                operation = self.reopen
            operation()
            self.done[operation.__name__] += 1
        self._compare(0, self._size + 1)

    def read(self) -> None:
        self._compare(*self._range())

    def write(self) -> None:
        offset, length = self._range()
        data = self._data(length)
        for fd in (self._fd, self._model):
            if os.pwrite(fd, data, offset) != length:
                raise Differs(f"write of {length} at {offset} is short")
        self._size = max(self._size, offset + length)

    def append(self) -> None:
        if self._size < LARGEST:
            data = self._data(self._rng.randrange(1, 3 * PAGE))
            for fd in (self._fd, self._model):
                os.pwrite(fd, data, self._size)
            self._size += len(data)

    def mmap_read(self) -> None:
        offset, length = self._range()
        if length:
            with mmap.mmap(self._fd, 0, prot=mmap.PROT_READ) as view:
                self._check("mmap read", offset, view[offset:offset + length], os.pread(self._model, length, offset))

    def mmap_write(self) -> None:
        offset, length = self._range()
        if length:
            data = self._data(length)
            for fd in (self._fd, self._model):
                with mmap.mmap(fd, 0) as view:
                    view[offset:offset + length] = data

    def truncate(self) -> None:
        self._size = self._rng.randrange(LARGEST) if self._rng.random() < 0.3 else max(1, self._size - PAGE)
        for fd in (self._fd, self._model):
            os.ftruncate(fd, self._size)
        if os.fstat(self._fd).st_size != self._size:
            raise Differs(f"size {os.fstat(self._fd).st_size} after truncate to {self._size}")

    def punch(self) -> None:
        offset, length = self._range()
        if length:
            for fd in (self._fd, self._model):
                if _libc.fallocate(fd, PUNCH_HOLE | KEEP_SIZE, ctypes.c_int64(offset), ctypes.c_int64(length)):
                    raise OSError(ctypes.get_errno(), "fallocate")

    def fsync(self) -> None:
        os.fsync(self._fd)

    def reopen(self) -> None:
        os.close(self._fd)
        self._fd = os.open(self._paths[0], self._flags)
        if os.fstat(self._fd).st_size != self._size:
            raise Differs(f"size {os.fstat(self._fd).st_size} after reopening, not {self._size}")

    def _range(self) -> tuple[int, int]:
        """Within the file."""
        if not self._size:
            return 0, 0
        offset = self._rng.randrange(self._size)
        if self._rng.random() < 0.3:
            offset -= offset % PAGE
        return offset, min(self._size - offset, self._rng.choice((1, 512, PAGE, 3 * PAGE + 7, 1 << 16)))

    def _data(self, length: int) -> bytes:
        start = self._rng.randrange(len(self._noise) - length)
        return self._noise[start:start + length]

    def _compare(self, offset: int, length: int) -> None:
        self._check("read", offset, os.pread(self._fd, length, offset), os.pread(self._model, length, offset))

    def _check(self, what: str, offset: int, found: bytes, expected: bytes) -> None:
        if found != expected:
            first = next((index for index, (a, b) in enumerate(zip(found, expected, strict=False)) if a != b),
                         min(len(found), len(expected)))
            raise Differs(f"{what} at {offset}: {len(found)} bytes, expected {len(expected)}; "
                          f"they part at {offset + first}")


def main() -> None:
    """See above."""
    parser = argparse.ArgumentParser()
    parser.add_argument("file")
    parser.add_argument("model")
    parser.add_argument("operations", type=int)
    parser.add_argument("seed", type=int)
    parser.add_argument("--sized", action="store_true")
    parser.add_argument("--read-only", action="store_true")
    args = parser.parse_args()
    exerciser = Exerciser(args.file, args.model, args.seed, args.sized, not args.read_only)
    begun = time.monotonic()
    try:
        exerciser.run(args.operations)
    except (Differs, OSError) as error:
        sys.exit(f"seed {args.seed}, after {dict(exerciser.done)}: {error}")
    seconds = time.monotonic() - begun
    print(json.dumps({"operations": args.operations, "per_second": round(args.operations / seconds),
                      "done": exerciser.done}))


if __name__ == "__main__":
    main()
