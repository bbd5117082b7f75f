"""The EROFS image writer: a read-only region map -> the metadata of a file that the kernel reads by itself.

One image holds one file, `f`. Its chunk index points into the sources, which EROFS calls devices; a chunk
that no single source holds whole is copied into the image, EROFS's device 0. Describe, then do: geometry
chooses block and chunk, layout() writes the plan down as a chunk index and a list of ranges to copy,
assemble() yields the bytes.

Pure: knows the on-disk format (docs/kernel.md section 3, fs/erofs/erofs_fs.h) and no descriptors; the bytes to
copy come from the caller's read function. Each number of the format stands here and nowhere else.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from struct import Struct

from regionfs.errors import SourceError
from regionfs.modes.geometry import NO_BLOCK, Geometry, last_chunk, runs
from regionfs.regions import HOLE, RegionMap
from regionfs.units import align_up

NAME = "f"        # the one file of an image
_PIECE = 1 << 20  # bytes read at once while copying

# struct erofs_super_block, fs/erofs/erofs_fs.h: at byte 1024
_SUPER_OFFSET = 1024
_SUPER = Struct("<III BBH QQI III 16s16s I HHH BB I Q B 23x".replace(" ", ""))
_MAGIC = 0xE0F5E1E2
_INCOMPAT = 0x4 | 0x8  # CHUNKED_FILE | DEVICE_TABLE
# struct erofs_deviceslot
_DEVICE = Struct("<64sII56x")  # tag, blocks, mapped_blkaddr
# struct erofs_inode_extended; its address is meta_blkaddr * block + nid * 32
_INODE = Struct("<HHH2xQIIIIQII16x")  # format, xattrs, mode, size, u, ino, uid, gid, mtime, nsec, nlink
_NID = 32
_INLINE, _CHUNKED = 1 | 2 << 1, 1 | 4 << 1  # i_format: extended, and the layout
_HAS_INDEXES = 0x20                         # i_u of a chunked file, above the chunk's 5 bits
# struct erofs_dirent, then the names
_DIRENT = Struct("<QHBx")  # nid, name offset, file type
_FILE, _DIRECTORY = 1, 2   # file types
# struct erofs_inode_chunk_index as one little-endian u64: advise u16, device u16, start block u32
_HOLE = NO_BLOCK << 32
_ROOT_ROOM = 128           # bytes for the root's inode and its entries: never across a block


@dataclass(frozen=True, slots=True)
class Layout:
    """An image described: everything but the copied bytes."""

    size: int                            # bytes of the composite file
    block: int                           # bytes
    chunk: int                           # bytes
    devices: tuple[str, ...]             # source keys; device ids count from 1 in this order
    blocks: tuple[int, ...]              # of each device, as far as the file reaches into it
    index: array[int]                    # one u64 a chunk
    copied: tuple[tuple[int, int], ...]  # (offset, length) in the composite file, in the image's order

    @property
    def data(self) -> int:
        """Where the copied chunks begin in the image, in bytes."""
        return _data_start(len(self.devices), len(self.index), self.block)


def layout(regions: RegionMap, geometry: Geometry) -> Layout:
    """Write the plan down: a chunk inside one run points there, every other one is copied.

    `geometry` is measure()'s, without an objection.
    """
    size, block, chunk = regions.size, geometry.block, geometry.chunk
    count, step = -(-size // chunk), chunk // block
    reach = [0] * len(regions.names)
    table = array("Q")
    copied: list[tuple[int, int]] = []
    spare = _data_start(len(reach), count, block)  # where the next copied chunk goes

    def copy_until(stop: int) -> None:
        nonlocal spare
        start, end = len(table) * chunk, min(stop * chunk, size)
        copied.append((start, end - start))
        table.extend(_entries(0, spare // block, stop - len(table), step))
        spare += align_up(end - start, block)

    for start, end, target, shift in runs(regions):
        first, stop = -(-start // chunk), last_chunk(end, size, block, chunk)
        if first >= stop or target < HOLE:  # inline data is copied
            continue
        if len(table) < first:
            copy_until(first)
        if target == HOLE:
            table.extend(array("Q", (_HOLE,)) * (stop - first))
            continue
        # device ids count from 1
        table.extend(_entries(target + 1, (first * chunk + shift) // block, stop - first, step))
        if end + shift > reach[target]:
            reach[target] = end + shift
    if len(table) < count:
        copy_until(count)
    return Layout(size, block, chunk, tuple(regions.names), tuple(-(-end // block) for end in reach),
                  table, tuple(copied))


def _entries(device: int, start: int, count: int, step: int) -> array[int] | tuple[int]:
    """Chunk indexes of `count` chunks of `step` blocks each, from block `start` of `device` on."""
    first = start << 32 | device << 16
    # most runs of a map with many are one chunk long
    if count == 1:
        return (first,)
    return array("Q", range(first, first + (count * step << 32), step << 32))


def _data_start(devices: int, chunks: int, block: int) -> int:
    return align_up(_root(devices) + _ROOT_ROOM + _INODE.size + 8 * chunks, block)


def _root(devices: int) -> int:
    """Where the root's inode lies: after the superblock and the device table."""
    return _SUPER_OFFSET + _SUPER.size + devices * _DEVICE.size


def assemble(image: Layout, read: Callable[[int, int], bytes]) -> Iterator[bytes]:
    """The image's bytes, piece by piece; `read(offset, length)` gives bytes of the composite file.

    Raises SourceError when `read` answers short.
    """
    yield _metadata(image)
    for offset, length in image.copied:
        for start in range(offset, offset + length, _PIECE):
            wanted = min(_PIECE, offset + length - start)
            piece = read(start, wanted)
            if len(piece) != wanted:
                raise SourceError(f"only {len(piece)} of {wanted} bytes at {start} of the composite file")
            yield piece
        yield bytes(-length % image.block)


def _metadata(image: Layout) -> bytes:
    """Superblock, device table, root, the file's inode and its chunk index, padded to a block."""
    root = _root(len(image.devices))
    meta = max(0, root // image.block - 1)  # the block that nids count from; no nid is 0
    root_nid = (root - meta * image.block) // _NID
    file_nid = root_nid + _ROOT_ROOM // _NID
    bits = image.block.bit_length() - 1
    total = (image.data + sum(align_up(length, image.block) for _, length in image.copied)) // image.block
    super_block = _SUPER.pack(_MAGIC, 0, 0, bits, 0, root_nid, 2, 0, 0, total, meta, 0, bytes(16),
                              b"regionfs", _INCOMPAT, 0, len(image.devices),
                              (_SUPER_OFFSET + _SUPER.size) // _DEVICE.size, 0, 0, 0, 0, 0)
    names = _directory(root_nid, file_nid)
    chunk_bits = (image.chunk // image.block).bit_length() - 1
    directory = _INODE.pack(_INLINE, 0, 0o040555, len(names), NO_BLOCK, 1, 0, 0, 0, 0, 2) + names
    parts = [
        bytes(_SUPER_OFFSET), super_block,
        *(_DEVICE.pack(b"", blocks, 0) for blocks in image.blocks),
        directory.ljust(_ROOT_ROOM, b"\0"),
        _INODE.pack(_CHUNKED, 0, 0o100444, image.size, _HAS_INDEXES | chunk_bits, 2, 0, 0, 0, 0, 1),
        _little_endian(image.index),
    ]
    return b"".join(parts).ljust(image.data, b"\0")


def _directory(root_nid: int, file_nid: int) -> bytes:
    """The root's entries, sorted by name, and the names after them."""
    table = b"".join((
        _DIRENT.pack(root_nid, 36, _DIRECTORY), _DIRENT.pack(root_nid, 37, _DIRECTORY),
        _DIRENT.pack(file_nid, 39, _FILE)))
    return table + b"." + b".." + NAME.encode()


def _little_endian(index: array[int]) -> bytes:
    if sys.byteorder == "big":
        index = index[:]
        index.byteswap()
    return index.tobytes()
