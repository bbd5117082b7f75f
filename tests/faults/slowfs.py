"""A file system whose faults are ordered: python -m tests.faults.slowfs DIRECTORY NAME=SIZE...

Operations are lookup, getattr, open, read, write and fsync. It keeps its files in memory and obeys lines on
standard input, each answered by a line:

    delay 2 open read  each of these takes 2 seconds from now on, everything else no time
    fail read 5        the next reads fail with errno 5; fail read 0 ends that
    failing fsync 5    the next one only
    keep               opens keep the page cache from now on, so they do not wait for a write

Ends with its standard input. Runs in a process of its own; knows nothing of regionfs.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import threading
import time

import pyfuse3
import trio

ONLY_ONCE: dict[str, int] = {}
ALWAYS: dict[str, int] = {}
DELAYS: dict[str, float] = {}  # seconds
KEEPS: set[bool] = set()  # not empty: opens keep the page cache


async def trouble(operation: str) -> None:
    """What was ordered for this operation."""
    if seconds := DELAYS.get(operation):
        await trio.sleep(seconds)
    code = ONLY_ONCE.pop(operation, 0) or ALWAYS.get(operation, 0)
    if code:
        raise pyfuse3.FUSEError(code)


class SlowFS(pyfuse3.Operations):
    """Regular files in one directory."""

    def __init__(self, files: dict[bytes, bytearray]) -> None:
        super().__init__()
        self._names = {name: ino for ino, name in enumerate(files, pyfuse3.ROOT_INODE + 1)}
        self._data = {ino: files[name] for name, ino in self._names.items()}
        self._time = time.time_ns()

    def _attributes(self, ino: int) -> pyfuse3.EntryAttributes:
        entry = pyfuse3.EntryAttributes()
        directory = ino == pyfuse3.ROOT_INODE
        entry.st_ino, entry.st_nlink = ino, 1
        entry.st_mode = stat.S_IFDIR | 0o755 if directory else stat.S_IFREG | 0o644
        entry.st_size = 0 if directory else len(self._data[ino])
        entry.st_atime_ns = entry.st_mtime_ns = entry.st_ctime_ns = self._time
        entry.st_uid, entry.st_gid, entry.st_blksize, entry.st_blocks = os.getuid(), os.getgid(), 4096, 8
        entry.entry_timeout = entry.attr_timeout = 0
        return entry

    async def lookup(self, parent: int, name: bytes, ctx: object) -> pyfuse3.EntryAttributes:
        await trouble("lookup")
        if name not in self._names:
            raise pyfuse3.FUSEError(errno.ENOENT)
        return self._attributes(self._names[name])

    async def getattr(self, ino: int, ctx: object) -> pyfuse3.EntryAttributes:
        await trouble("getattr")
        return self._attributes(ino)

    async def open(self, ino: int, flags: int, ctx: object) -> pyfuse3.FileInfo:
        await trouble("open")
        return pyfuse3.FileInfo(fh=ino, direct_io=False, keep_cache=bool(KEEPS))

    async def read(self, ino: int, offset: int, size: int) -> bytes:
        await trouble("read")
        return bytes(self._data[ino][offset:offset + size])

    async def write(self, ino: int, offset: int, data: bytes) -> int:
        await trouble("write")
        self._data[ino][offset:offset + len(data)] = data
        return len(data)

    async def fsync(self, ino: int, datasync: bool) -> None:
        await trouble("fsync")

    async def opendir(self, ino: int, ctx: object) -> int:
        return ino


def obey() -> None:
    """Standard input; at its end the program's."""
    for line in sys.stdin:
        match line.split():
            case ["delay", seconds, *operations]:
                DELAYS.clear()
                DELAYS.update(dict.fromkeys(operations, float(seconds)))
            case ["fail", operation, number]:
                ALWAYS[operation] = int(number)
            case ["failing", operation, number]:
                ONLY_ONCE[operation] = int(number)
            case ["keep"]:
                KEEPS.add(True)
        print("done", flush=True)
    os._exit(0)


def main() -> None:
    """See above."""
    directory, *files = sys.argv[1:]
    sizes = (item.split("=") for item in files)
    fs = SlowFS({os.fsencode(name): bytearray(name.encode()[:1] * int(size)) for name, size in sizes})
    pyfuse3.init(fs, directory, {"fsname=slowfs", "default_permissions"})
    threading.Thread(target=obey, daemon=True).start()
    print("ready", flush=True)
    trio.run(pyfuse3.main)


if __name__ == "__main__":
    main()
