"""Step 5d: a composite file becomes a real one: the plan again, performed from file to file.

Three ways, tried in this order for each source, and a way that fails is not tried again for it: sharing
blocks (a reflink), copy_file_range, read and write. Holes of the map and holes inside sources stay holes,
because only data_ranges are written. Knows nothing of names: a target is a descriptor.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from regionfs.errors import RegionfsError
from regionfs.execute import read_into
from regionfs.extents import data_ranges, extents
from regionfs.modes.clone import clone_range
from regionfs.plan import Mapping, plan_read
from regionfs.regions import Kind, RegionMap
from regionfs.source import Sources
from regionfs.units import align_down, align_up

STEP = 1 << 20           # bytes read and written at once
KERNEL_STEP = 64 << 20   # bytes asked of one system call, so that an interrupt is soon heard
CLONE_STEP = 1 << 30

Progress = Callable[[int], None]  # called with the bytes done since the last call
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no other way would do better


@dataclass(slots=True)
class Tally:
    """Bytes of the new file by the way they came; what is left of its size are holes."""

    shared: int = 0   # blocks shared with the source
    copied: int = 0   # by the kernel
    written: int = 0  # by read and write, and inline data


@dataclass(slots=True)
class Flattening:
    """One composite file on its way into the open, empty file `target`."""

    regions: RegionMap
    sources: Sources
    target: int
    tally: Tally = field(default_factory=Tally)
    _block: int = 0  # bytes that can be shared, at least
    _failed: set[tuple[str, str]] = field(default_factory=set)  # (way, source): not to be tried again

    def __post_init__(self) -> None:
        self._block = os.fstatvfs(self.target).f_bsize

    def total(self) -> int:
        """Bytes that are not holes: what `write` and `verify` report as progress."""
        return sum(stop - start for start, stop in self._data())

    def write(self, progress: Progress) -> None:
        """Fill the target and bring it to the disk.

        Raises OSError of the target (no space), RegionfsError with the place of what cannot be read.
        """
        os.truncate(self.target, self.regions.size)
        for start, stop in self._data():
            for mapping in plan_read(self.regions, start, stop - start):
                for count in self._perform(mapping):
                    progress(count)
        os.fsync(self.target)

    def verify(self, progress: Progress) -> None:
        """Compare every byte of the target with the composite file. Raises RegionfsError at the first other one."""
        if (size := os.fstat(self.target).st_size) != self.regions.size:
            raise RegionfsError(f"has {size} bytes instead of {self.regions.size}")
        # from the disk, not from the memory it was written from
        os.posix_fadvise(self.target, 0, 0, os.POSIX_FADV_DONTNEED)
        pos = 0
        for start, stop in self._data():
            self._compare_hole(pos, start)
            self._compare(start, stop, progress)
            pos = stop
        self._compare_hole(pos, self.regions.size)

    def _data(self) -> Iterator[tuple[int, int]]:
        return data_ranges(self.regions, self.sources, 0, self.regions.size)

    def _perform(self, mapping: Mapping) -> Iterator[int]:
        """Bring one mapping over; yields the counts of bytes done."""
        if mapping.kind is Kind.HOLE:  # the rest of a block: the target is new, and zero
            yield mapping.length
            return
        if mapping.kind is not Kind.SOURCE:
            yield from self._transfer(mapping)
            return
        # blocks can be shared where the offsets agree; what sticks out on either side is copied
        block = self._block
        start, end = align_up(mapping.offset, block), align_down(mapping.end, block)
        if (mapping.offset - mapping.address) % block or start >= end or ("clone", mapping.source) in self._failed:
            yield from self._copy(mapping)
            return
        if mapping.offset < start:
            yield from self._copy(_cut(mapping, mapping.offset, start))
        yield from self._clone(_cut(mapping, start, end))
        if end < mapping.end:
            yield from self._copy(_cut(mapping, end, mapping.end))

    def _clone(self, mapping: Mapping) -> Iterator[int]:
        source = self.sources.fd(mapping.source)
        for part in _steps(mapping, CLONE_STEP):
            try:
                clone_range(source, part.address, part.length, self.target, part.offset)
            except OSError as error:
                if error.errno in _FULL:
                    raise
                self._failed.add(("clone", mapping.source))
                yield from self._copy(_cut(mapping, part.offset, mapping.end))
                return
            self.tally.shared += part.length
            yield part.length

    def _copy(self, mapping: Mapping) -> Iterator[int]:
        source, done = self.sources.fd(mapping.source), 0
        while done < mapping.length and ("copy", mapping.source) not in self._failed:
            try:
                count = os.copy_file_range(source, self.target, min(mapping.length - done, KERNEL_STEP),
                                           mapping.address + done, mapping.offset + done)
            except OSError as error:
                if error.errno in _FULL:
                    raise
                count = 0
            # 0: the end of a source that shrank, or a file whose size means nothing (/proc)
            if count == 0:
                self._failed.add(("copy", mapping.source))
            self.tally.copied += count
            done += count
            yield count
        if done < mapping.length:
            yield from self._transfer(_cut(mapping, mapping.offset + done, mapping.end))

    def _transfer(self, mapping: Mapping) -> Iterator[int]:
        buffer = memoryview(bytearray(min(STEP, mapping.length)))
        for part in _steps(mapping, STEP):
            data = buffer[:part.length]
            self._read(part.offset, data)
            _write(self.target, data, part.offset)
            self.tally.written += part.length
            yield part.length

    def _read(self, offset: int, buffer: memoryview) -> None:
        """The composite file's own bytes; RegionfsError says where they cannot be read."""
        try:
            while buffer:
                count = read_into(self.regions, self.sources, offset, buffer)
                buffer, offset = buffer[count:], offset + count
        except OSError as error:
            raise RegionfsError(f"cannot be read at byte {offset}: {error.strerror or error}") from error

    def _compare(self, start: int, stop: int, progress: Progress) -> None:
        wanted, found = (memoryview(bytearray(min(STEP, stop - start))) for _ in range(2))
        for pos in range(start, stop, STEP):
            length = min(STEP, stop - pos)
            self._read(pos, wanted[:length])
            if os.preadv(self.target, [found[:length]], pos) != length or found[:length] != wanted[:length]:
                pairs = zip(found[:length], wanted[:length], strict=True)
                at = next((index for index, (one, other) in enumerate(pairs) if one != other), 0)
                raise RegionfsError(f"differs from its sources at byte {pos + at}")
            progress(length)

    def _compare_hole(self, start: int, stop: int) -> None:
        for first, last in extents(self.target, start, stop):
            self._compare(first, last, lambda count: None)


def without_errors(regions: RegionMap) -> RegionMap:
    """The same map with holes where reads would fail."""
    return RegionMap(regions.size, (region for region in regions if region.kind is not Kind.ERROR))


def first_error(regions: RegionMap) -> int | None:
    """Index of the first error region; None when there is none."""
    return next((index for index, region in enumerate(regions) if region.kind is Kind.ERROR), None)


def _cut(mapping: Mapping, start: int, end: int) -> Mapping:
    return mapping._replace(offset=start, length=end - start, address=mapping.address + start - mapping.offset)


def _steps(mapping: Mapping, step: int) -> Iterator[Mapping]:
    for start in range(mapping.offset, mapping.end, step):
        yield _cut(mapping, start, min(start + step, mapping.end))


def _write(fd: int, data: memoryview, offset: int) -> None:
    while data:
        count = os.pwrite(fd, data, offset)
        data, offset = data[count:], offset + count
