"""The structs of linux/fuse.h that the server sends, and one table of their layouts, in the header's order.

Bodies of replies, bodies of notifications, and the argument of one ioctl; else as in requests.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from regionfs.wire.abi import InitFlag


class Attr(NamedTuple):
    """struct fuse_attr: st_* of one inode; times in seconds and nanoseconds."""

    ino: int
    size: int
    blocks: int       # 512-byte units
    atime: int
    mtime: int
    ctime: int
    atimensec: int
    mtimensec: int
    ctimensec: int
    mode: int         # type and permissions
    nlink: int
    uid: int
    gid: int
    rdev: int
    blksize: int
    flags: int = 0    # ATTR_*, since 7.32


class EntryOut(NamedTuple):
    """struct fuse_entry_out: replies to LOOKUP and creations; nodeid 0 is a cached ENOENT."""

    nodeid: int
    generation: int
    entry_valid: int       # seconds the name may be cached
    attr_valid: int        # seconds the attributes may be cached
    entry_valid_nsec: int
    attr_valid_nsec: int
    attr: Attr


class AttrOut(NamedTuple):
    """struct fuse_attr_out: replies to GETATTR and SETATTR."""

    attr_valid: int       # seconds
    attr_valid_nsec: int
    attr: Attr


class OpenOut(NamedTuple):
    """struct fuse_open_out."""

    fh: int
    open_flags: int      # FOPEN_*
    backing_id: int = 0  # with FOPEN_PASSTHROUGH, since 7.40


class WriteOut(NamedTuple):
    """struct fuse_write_out: WRITE and COPY_FILE_RANGE."""

    size: int


class StatfsOut(NamedTuple):
    """struct fuse_statfs_out."""

    blocks: int
    bfree: int
    bavail: int
    files: int
    ffree: int
    bsize: int
    namelen: int
    frsize: int


class GetxattrOut(NamedTuple):
    """struct fuse_getxattr_out: the reply when size was 0; else the bytes themselves."""

    size: int


class LkOut(NamedTuple):
    """struct fuse_lk_out: GETLK."""

    start: int
    end: int
    type: int
    pid: int


class InitOut(NamedTuple):
    """struct fuse_init_out."""

    major: int
    minor: int = 0
    max_readahead: int = 0
    flags_low: int = 0
    max_background: int = 0
    congestion_threshold: int = 0
    max_write: int = 0
    time_gran: int = 0         # nanoseconds
    max_pages: int = 0
    map_alignment: int = 0
    flags_high: int = 0        # since 7.36
    max_stack_depth: int = 0   # since 7.40
    request_timeout: int = 0   # seconds, since 7.43

    @property
    def flags(self) -> InitFlag:
        """What the server wants, as one value."""
        return InitFlag(self.flags_low | self.flags_high << 32)


class BmapOut(NamedTuple):
    """struct fuse_bmap_out."""

    block: int


class IoctlOut(NamedTuple):
    """struct fuse_ioctl_out; the output bytes follow."""

    result: int
    flags: int = 0
    in_iovs: int = 0
    out_iovs: int = 0


class PollOut(NamedTuple):
    """struct fuse_poll_out."""

    revents: int


class OutHeader(NamedTuple):
    """struct fuse_out_header: begins every reply and notification."""

    length: int  # of the whole reply
    error: int   # 0 or -errno; a NotifyCode where unique is 0
    unique: int


class Dirent(NamedTuple):
    """struct fuse_dirent; `namelen` bytes follow, padded to 8."""

    ino: int
    offset: int  # of the entry after this one
    namelen: int
    type: int    # DT_*: mode >> 12


class NotifyInvalInodeOut(NamedTuple):
    """struct fuse_notify_inval_inode_out; off < 0: attributes only, length 0: to the end."""

    ino: int
    offset: int
    length: int


class NotifyInvalEntryOut(NamedTuple):
    """struct fuse_notify_inval_entry_out; the name and a NUL follow, namelen without the NUL."""

    parent: int
    namelen: int
    flags: int = 0  # EXPIRE_ONLY, since 7.38


class NotifyDeleteOut(NamedTuple):
    """struct fuse_notify_delete_out; the name and a NUL follow, namelen without the NUL."""

    parent: int
    child: int
    namelen: int


class NotifyStoreOut(NamedTuple):
    """struct fuse_notify_store_out; `size` bytes follow."""

    nodeid: int
    offset: int
    size: int


class NotifyRetrieveOut(NamedTuple):
    """struct fuse_notify_retrieve_out."""

    notify_unique: int
    nodeid: int
    offset: int
    size: int


class BackingMap(NamedTuple):
    """struct fuse_backing_map, since 7.40: argument of DEV_IOC_BACKING_OPEN."""

    fd: int
    flags: int = 0


class LseekOut(NamedTuple):
    """struct fuse_lseek_out."""

    offset: int


class CopyFileRangeOut(NamedTuple):
    """struct fuse_copy_file_range_out, since 7.45: COPY_FILE_RANGE_64."""

    bytes_copied: int


class StatxOut(NamedTuple):
    """struct fuse_statx_out with its struct fuse_statx; times in seconds and nanoseconds."""

    attr_valid: int
    attr_valid_nsec: int
    flags: int
    mask: int
    blksize: int
    attributes: int
    nlink: int
    uid: int
    gid: int
    mode: int
    ino: int
    size: int
    blocks: int
    attributes_mask: int
    atime: int
    atimensec: int
    btime: int
    btimensec: int
    ctime: int
    ctimensec: int
    mtime: int
    mtimensec: int
    rdev_major: int
    rdev_minor: int
    dev_major: int
    dev_minor: int


_ATTR = "6Q10I"

LAYOUTS: dict[type[tuple[object, ...]], Struct] = {
    Attr: Struct("=" + _ATTR),
    EntryOut: Struct("=4Q2I" + _ATTR),
    AttrOut: Struct("=QI4x" + _ATTR),
    OpenOut: Struct("=QIi"),
    WriteOut: Struct("=I4x"),
    StatfsOut: Struct("=5Q3I28x"),
    GetxattrOut: Struct("=I4x"),
    LkOut: Struct("=QQII"),
    InitOut: Struct("=4I2H2I2H2IH22x"),
    BmapOut: Struct("=Q"),
    IoctlOut: Struct("=i3I"),
    PollOut: Struct("=I4x"),
    OutHeader: Struct("=IiQ"),
    Dirent: Struct("=QQII"),
    NotifyInvalInodeOut: Struct("=Qqq"),
    NotifyInvalEntryOut: Struct("=QII"),
    NotifyDeleteOut: Struct("=QQI4x"),
    NotifyStoreOut: Struct("=QQI4x"),
    NotifyRetrieveOut: Struct("=QQQI4x"),
    BackingMap: Struct("=iI8x"),
    LseekOut: Struct("=Q"),
    CopyFileRangeOut: Struct("=Q"),
    StatxOut: Struct("=QII16x" + "IIQ3IH2x4Q" + 4 * "qI4x" + "4I112x"),
}
