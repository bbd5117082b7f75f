"""The byte oracle: what every byte of a composite file must be, said one byte at a time.

Deliberately naive, and independent of regionfs: a file is a list with one entry per byte, built
region by region in the order of the declaration, the later one over the earlier. It knows the
contract (docs/contract.md sections 3 and 4) and must not know regionfs.regions or regionfs.plan.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, repeat
from pathlib import Path

BLOCK = 4096  # bytes; sparse sources leave out whole blocks of zeros, and a hole is told in whole blocks


@dataclass(eq=False)
class Source:
    """A source and what it must hold; models over the same source share `contents`."""

    key: str
    path: Path
    contents: bytearray
    device: bool = False

    def put(self) -> None:
        """Write the contents to `path`: a device in place, a file sparse where a block is all zeros."""
        with open(self.path, "r+b" if self.device else "wb", buffering=0) as out:
            for start in range(0, len(self.contents), BLOCK):
                block = self.contents[start:start + BLOCK]
                if self.device or any(block):
                    os.pwrite(out.fileno(), block, start)
            if not self.device:
                out.truncate(len(self.contents))

    def get(self) -> bytes:
        """What `path` holds now."""
        return self.path.read_bytes()

    def holes(self) -> Iterator[tuple[int, int]]:
        """Half-open ranges its file system did not allocate; a device has none."""
        with open(self.path, "rb", buffering=0) as file:
            pos, size = 0, len(self.contents)
            while not self.device and pos < size:
                start = os.lseek(file.fileno(), pos, os.SEEK_HOLE)
                try:
                    pos = os.lseek(file.fileno(), start, os.SEEK_DATA) if start < size else size
                except OSError as error:
                    assert error.errno == errno.ENXIO
                    pos = size
                if start < pos:
                    yield start, pos


# (store, index, source, writable): the value of one byte is store[index]; without a store reading it
# fails; source is whose contents the store is. A plain tuple: tests make tens of millions of them.
Byte = tuple[bytearray | None, int, Source | None, bool]

HOLE: Byte = (bytearray(1), 0, None, False)
ERROR: Byte = (None, 0, None, False)


@dataclass(frozen=True)
class Declared:
    """One region as a manifest declares it, its start and length worked out."""

    start: int
    length: int
    kind: str = "hole"  # hole, error, data, source
    source: Source | None = None
    offset: int = 0
    data: bytes = b""
    writable: bool = False

    @property
    def end(self) -> int:
        """One past its last byte."""
        return self.start + self.length

    def bytes(self) -> list[Byte]:
        """Its bytes, one by one."""
        if self.kind == "source":
            assert self.source is not None
            place, places = self.source, range(self.offset, self.offset + self.length)
            return list(zip(repeat(place.contents), places, repeat(place), repeat(self.writable)))
        if self.kind == "data":
            return list(zip(repeat(bytearray(self.data)), range(self.length), repeat(None), repeat(False)))
        return [ERROR if self.kind == "error" else HOLE] * self.length


class Model:
    """A composite file of `size` bytes, by its declared regions in order."""

    def __init__(self, size: int, regions: Iterable[Declared]) -> None:
        self.bytes = [HOLE] * size
        for region in regions:
            assert region.end <= size
            self.bytes[region.start:region.end] = region.bytes()

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self.bytes)

    def read(self, offset: int, length: int) -> bytes:
        """The bytes up to end of file or the first bad byte; OSError(EIO) when it comes first."""
        good = bytearray()
        for store, index, _, _ in self.bytes[offset:offset + length]:
            if store is None:
                break
            good.append(store[index])
        if not good and self.bytes[offset:offset + length]:
            raise OSError(errno.EIO, "an error region")
        return bytes(good)

    def write(self, offset: int, data: bytes) -> int:
        """Write up to the first byte that is not rw; OSError(EROFS) when it comes first."""
        done = 0
        for (store, index, _, writable), value in zip(self.bytes[offset:], data, strict=False):
            if not writable:
                break
            assert store is not None
            store[index] = value
            done += 1
        if data and not done:
            raise OSError(errno.EROFS, "not in a rw region")
        return done

    def is_hole(self) -> list[bool]:
        """For every byte: is it told as a hole? Only whole blocks are, the last one up to end of file."""
        exact = self.exact_holes()
        blocks = (exact[start:start + BLOCK] for start in range(0, self.size, BLOCK))
        return [told for block in blocks for told in [all(block)] * len(block)]

    def exact_holes(self) -> list[bool]:
        """For every byte: does it lie in a hole of the map or of its source?"""
        sparse = {source: {n for start, end in source.holes() for n in range(start, end)}
                  for source in {byte[2] for byte in self.bytes} if source is not None}
        return [byte is HOLE or (byte[2] is not None and byte[1] in sparse[byte[2]]) for byte in self.bytes]

    def seek(self, offset: int, whence: int, holes: list[bool] | None = None) -> int:
        """lseek with SEEK_DATA or SEEK_HOLE; OSError(ENXIO) as lseek(2) says."""
        holes = self.is_hole() if holes is None else holes
        for position in range(offset, self.size):
            if holes[position] == (whence == os.SEEK_HOLE):
                return position
        if whence == os.SEEK_HOLE and offset < self.size:
            return self.size
        raise OSError(errno.ENXIO, "no data after this offset")

    @cached_property
    def grounds(self) -> list[tuple[int, int]]:
        """Half-open ranges of rw bytes, as long as they go on without a gap."""
        ranges, position = [], 0
        for writable, members in groupby(byte[3] for byte in self.bytes):
            length = sum(1 for _ in members)
            ranges += [(position, position + length)] * writable
            position += length
        return ranges
