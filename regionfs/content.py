"""Step 5d: the bytes of one composite file on open sources: size, read, write, allocate, one class per body.

Whether a file may be written, and who else shows it, is the caller's business. Errors are OSErrors with the errno
that the caller of read(2) or write(2) should see.
"""

from __future__ import annotations

import errno
import os

from regionfs import execute
from regionfs.errors import RegionfsError
from regionfs.manifest.body import Mapped, Whole
from regionfs.manifest.schema import FileSpec
from regionfs.source import Sources


class MappedContent:
    """Bytes where a region map says."""

    __slots__ = ("_path", "_regions", "_sources")

    def __init__(self, path: str, body: Mapped, sources: Sources) -> None:
        self._path, self._regions, self._sources = path, body.regions, sources

    def size(self) -> int:
        """Bytes in the file now."""
        return self._regions.size

    def size_before(self) -> int:
        """As it was when the manifest was loaded: nothing has to be asked."""
        return self._regions.size

    def read_into(self, offset: int, buffer: memoryview, flags: int = 0, paging: bool = False) -> int:
        """Fill `buffer` from `offset`, `flags` as execute.read_into; `paging`: all up to end of file, or EIO."""
        done = execute.read_into(self._regions, self._sources, offset, buffer, flags)
        if paging and done < min(len(buffer), self._regions.size - offset):
            raise OSError(errno.EIO, f"{self._path}: bytes at {offset + done} cannot be read")
        return done

    def write(self, offset: int, data: memoryview, paging: bool, append: bool, drop_setid: bool) -> int:
        """Write into rw regions, short at their border; `paging` for pages of a shared mapping."""
        if not paging:
            return execute.write_from(self._regions, self._sources, offset, data)
        execute.write_pages(self._regions, self._sources, offset, data)
        return len(data)

    def fallocate(self, mode: int, offset: int, length: int) -> None:
        """Punch and zero inside rw ground; allocate changes nothing; no growth."""
        size = self._regions.size
        if offset + length > size and not mode & execute.KEEP_SIZE:
            raise OSError(errno.EPERM, "the manifest fixes this file's size")
        if mode & ~(execute.PUNCH_HOLE | execute.ZERO_RANGE | execute.KEEP_SIZE):
            raise OSError(errno.EOPNOTSUPP, f"fallocate mode {mode:#x}")
        if mode & (execute.PUNCH_HOLE | execute.ZERO_RANGE):
            execute.punch(self._regions, self._sources, mode, offset, min(length, size - offset))


class WholeContent:
    """All bytes of one source."""

    __slots__ = ("_key", "_sources")

    def __init__(self, body: Whole, sources: Sources) -> None:
        self._key, self._sources = body.source, sources

    def size(self) -> int:
        """Bytes in the file now."""
        block = self._sources.facts(self._key).kind == "block"
        return self._sources.device_size(self._key) if block else self._sources.status(self._key).st_size

    def size_before(self) -> int:
        """As it was when the manifest was loaded: nothing has to be asked."""
        return self._sources.facts(self._key).size

    def read_into(self, offset: int, buffer: memoryview, flags: int = 0, paging: bool = False) -> int:
        """Fill `buffer` from `offset`, `flags` as execute.read_into."""
        return execute.read_whole(self._sources, self._key, offset, buffer, flags)

    def write(self, offset: int, data: memoryview, paging: bool, append: bool, drop_setid: bool) -> int:
        """Write into the source."""
        fd = descriptor(self._sources, self._key, write=True)
        count = os.pwritev(fd, (data,), offset, os.RWF_APPEND if append else 0)
        if drop_setid:
            execute.drop_setid(fd)
        return count

    def fallocate(self, mode: int, offset: int, length: int) -> None:
        """Forwarded to the source."""
        execute.fallocate(descriptor(self._sources, self._key, write=True), mode, offset, length)


Content = MappedContent | WholeContent


def content_of(spec: FileSpec, sources: Sources) -> Content:
    """The bytes of a file over `sources`, which stay the caller's to close."""
    if isinstance(spec.body, Mapped):
        return MappedContent(spec.path, spec.body, sources)
    return WholeContent(spec.body, sources)


def descriptor(sources: Sources, key: str, *, write: bool = False) -> int:
    """A source's descriptor. OSError: EIO where the source cannot serve."""
    try:
        return sources.fd_to_write(key) if write else sources.fd(key)
    except RegionfsError as error:
        raise OSError(errno.EIO, str(error)) from error
