"""fuse-iomap, generation v7 (2026-02-23): numbers, structs and their codec. Sans-io.

Not upstream: the patches of Darrick J. Wong, whose numbers are placeholders. So the ABI stands here alone,
by the name of its generation, and another generation is another table like this one. Its meaning: the
kernel asks BEGIN for the mapping that covers a position of a file, then does the I/O on a block device
itself. Knows layouts and which values the kernel takes, nothing of files.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum, IntFlag
from struct import Struct
from typing import Any, NamedTuple, TypeVar

from regionfs.errors import ProtocolError
from regionfs.wire.abi import InitFlag
from regionfs.wire.codec import Buffer, Message
from regionfs.wire.parse import Request

GENERATION = "v7"
MINOR = 99                  # FUSE_KERNEL_MINOR_VERSION of the patches
INIT_FLAG = InitFlag(1 << 43)  # FUSE_IOMAP; Linux 7.3 uses this bit for something else: never detect by it
ATTR_EXCLUSIVE = 1 << 2     # fuse_attr.flags: only this mount changes the file
ATTR_IOMAP = 1 << 3         # fuse_attr.flags: its data goes by iomap; read when the inode is instantiated
BACKING_IOMAP = 1           # fuse_backing_map.flags of DEV_IOC_BACKING_OPEN: a block device, returns its dev
IOC_ADD_IOMAP = 0xE565      # _IO(229, 101): lets an unprivileged mounter use iomap
CACHE_MAXBYTES = 2 << 20    # bytes; the most the kernel takes for one file's mapping cache

DEV_NULL = 0                # no device
NULL_ADDR = 2**64 - 1       # no place on a device


class Opcode(IntEnum):
    """Requests."""

    CONFIG = 4092
    IOEND = 4093
    BEGIN = 4094
    END = 4095


class Notify(IntEnum):
    """Codes of notifications."""

    DEV_INVAL = 99
    UPSERT_MAPPINGS = 100
    INVAL_MAPPINGS = 101


class Type(IntEnum):
    """FUSE_IOMAP_TYPE_*: what a mapping is."""

    HOLE = 0
    DELALLOC = 1
    MAPPED = 2
    UNWRITTEN = 3
    INLINE = 4
    NOCACHE = 253         # upsert: leave this half of the cache alone
    RETRY_CACHE = 254     # BEGIN: look into the cache again
    PURE_OVERWRITE = 255  # write half: writes go where reads come from


class MapFlag(IntFlag):
    """FUSE_IOMAP_F_*: state of a mapping."""

    NEW = 1 << 0
    DIRTY = 1 << 1
    SHARED = 1 << 2
    MERGED = 1 << 3
    BOUNDARY = 1 << 4     # write-back never joins this mapping with the one before it


class OpFlag(IntFlag):
    """FUSE_IOMAP_OP_*: what a BEGIN is for."""

    WRITE = 1 << 0
    ZERO = 1 << 1
    REPORT = 1 << 2       # FIEMAP, SEEK_DATA, SEEK_HOLE
    FAULT = 1 << 3
    DIRECT = 1 << 4
    NOWAIT = 1 << 5
    OVERWRITE_ONLY = 1 << 6
    UNSHARE = 1 << 7
    DAX = 1 << 8
    ATOMIC = 1 << 9
    DONTCACHE = 1 << 10
    SWAPFILE = 1 << 30
    WRITEBACK = 1 << 31


CHANGES = OpFlag.WRITE | OpFlag.ZERO | OpFlag.UNSHARE | OpFlag.WRITEBACK  # these write


class IoendFlag(IntFlag):
    """FUSE_IOMAP_IOEND_*: what kind of write has ended."""

    SHARED = 1 << 0
    UNWRITTEN = 1 << 1
    BOUNDARY = 1 << 2
    DIRECT = 1 << 3
    APPEND = 1 << 4
    WRITEBACK = 1 << 5
    SWAPOFF = 1 << 6


class ConfigFlag(IntFlag):
    """FUSE_IOMAP_CONFIG_*: which fields of ConfigOut count."""

    SID = 1 << 0
    UUID = 1 << 1
    BLOCKSIZE = 1 << 2
    MAX_LINKS = 1 << 3
    TIME = 1 << 4
    MAXBYTES = 1 << 5
    CACHE_MAXBYTES = 1 << 6


class Io(NamedTuple):
    """struct fuse_iomap_io: one mapping, [offset, offset + length) of the file at `addr` of `dev`."""

    offset: int  # bytes
    length: int  # bytes
    addr: int    # bytes on the device, or NULL_ADDR
    type: int    # Type
    flags: int   # MapFlag
    dev: int     # as BACKING_OPEN returned it, or DEV_NULL

    @property
    def end(self) -> int:
        """One past the last byte in the file."""
        return self.offset + self.length


class BeginIn(NamedTuple):
    """struct fuse_iomap_begin_in."""

    opflags: int  # OpFlag
    attr_ino: int
    pos: int
    length: int  # the header's `count`


class BeginOut(NamedTuple):
    """struct fuse_iomap_begin_out; the kernel checks both halves, whatever it asked for."""

    read: Io
    write: Io


class EndIn(NamedTuple):
    """struct fuse_iomap_end_in; the reply is a header alone."""

    opflags: int
    attr_ino: int
    pos: int
    length: int  # the header's `count`
    written: int
    map: Io


class IoendIn(NamedTuple):
    """struct fuse_iomap_ioend_in."""

    flags: int     # IoendFlag
    error: int     # 0 or -errno
    attr_ino: int
    pos: int
    new_addr: int  # 512-byte sectors from write-back, NULL_ADDR from direct I/O
    written: int
    dev: int


class IoendOut(NamedTuple):
    """struct fuse_iomap_ioend_out."""

    newsize: int


class ConfigIn(NamedTuple):
    """struct fuse_iomap_config_in: what the kernel takes."""

    flags: int  # ConfigFlag
    maxbytes: int
    cache_maxbytes: int


class ConfigOut(NamedTuple):
    """struct fuse_iomap_config_out."""

    flags: int           # ConfigFlag
    sid: bytes = b""
    uuid: bytes = b""
    uuid_length: int = 0
    blocksize: int = 0   # bytes; the alignment of every mapping
    max_links: int = 0
    time_gran: int = 0   # nanoseconds
    time_min: int = 0    # seconds
    time_max: int = 0    # seconds
    maxbytes: int = 0
    cache_maxbytes: int = 0


class UpsertOut(NamedTuple):
    """struct fuse_iomap_upsert_mappings_out: one mapping for the kernel's cache."""

    nodeid: int
    attr_ino: int
    read: Io
    write: Io


class InvalMappingsOut(NamedTuple):
    """struct fuse_iomap_inval_mappings_out; a length of 0 leaves that half alone."""

    nodeid: int
    attr_ino: int
    read_offset: int
    read_length: int
    write_offset: int
    write_length: int


class DevInvalOut(NamedTuple):
    """struct fuse_iomap_dev_inval_out: drop pages of the device itself."""

    dev: int
    offset: int
    length: int


_IO = "QQQHHI"

LAYOUTS: dict[type[Message], Struct] = {
    Io: Struct("=" + _IO),
    BeginIn: Struct("=I4xQQQ"),
    BeginOut: Struct("=" + 2 * _IO),
    EndIn: Struct("=I4xQQQq" + _IO),
    IoendIn: Struct("=IiQQQQI4x"),
    IoendOut: Struct("=Q"),
    ConfigIn: Struct("=QqI44x"),
    ConfigOut: Struct("=Q32s16sB3xIIIqqqI4x"),
    UpsertOut: Struct("=QQ" + 2 * _IO),
    InvalMappingsOut: Struct("=6Q"),
    DevInvalOut: Struct("=I4xQQ"),
}

_BODIES: dict[int, type[Message]] = {
    Opcode.CONFIG: ConfigIn, Opcode.IOEND: IoendIn, Opcode.BEGIN: BeginIn, Opcode.END: EndIn,
}
_MAPPINGS: dict[type[Message], int] = {BeginOut: 2, EndIn: 1, UpsertOut: 2}  # how many Io a struct ends in
_TEXTS = frozenset({ConfigOut})  # structs whose bytes end at a NUL

M = TypeVar("M", bound=Message)


def pack(message: Message) -> bytes:
    """The bytes of one struct; padding is zero."""
    return LAYOUTS[type(message)].pack(*_flat(message))


def unpack(cls: type[M], buffer: Buffer) -> M:
    """The `cls` that fills `buffer` exactly, as the kernel demands it too. ProtocolError otherwise."""
    layout = LAYOUTS[cls]
    if len(buffer) != layout.size:
        raise ProtocolError(f"{cls.__name__} has {layout.size} bytes, not {len(buffer)}")
    values: tuple[Any, ...] = layout.unpack(buffer)
    if count := _MAPPINGS.get(cls, 0):
        width = len(Io._fields)
        first = len(values) - count * width
        values = (*values[:first], *(Io._make(values[at:at + width]) for at in range(first, len(values), width)))
    if cls in _TEXTS:
        values = tuple(value.rstrip(b"\0") if isinstance(value, bytes) else value for value in values)
    return cls.__new__(cls, *values)


def body(request: Request) -> Message:
    """The struct of a request with one of the opcodes above. ProtocolError when it is cut off or too long."""
    try:
        return unpack(_BODIES[request.header.opcode], request.data)
    except ProtocolError as error:
        raise ProtocolError(f"malformed {Opcode(request.header.opcode).name}: {error}") from None


def hole(offset: int, length: int) -> Io:
    """Zeros."""
    return Io(offset, length, NULL_ADDR, Type.HOLE, 0, DEV_NULL)


def mapped(offset: int, length: int, dev: int, addr: int, *, boundary: bool) -> Io:
    """Bytes of a device; `boundary` for every mapping of a file with more than one device."""
    return Io(offset, length, addr, Type.MAPPED, MapFlag.BOUNDARY if boundary else 0, dev)


def overwrite(read: Io) -> Io:
    """The write half that says: writes go to `read`; also what plain reads and holes carry."""
    return Io(read.offset, read.length, NULL_ADDR, Type.PURE_OVERWRITE, 0, DEV_NULL)


def nocache(read: Io) -> Io:
    """The write half of an upsert that leaves the cache's write mappings alone."""
    return Io(read.offset, read.length, NULL_ADDR, Type.NOCACHE, 0, DEV_NULL)


def _flat(message: Message) -> Iterator[object]:
    for value in message:
        if isinstance(value, Io):
            yield from value
        else:
            yield value
