"""The structs of linux/fuse.h that the kernel sends, and one table of their layouts, in the header's order.

A message's fields are those of its struct without padding: LAYOUTS turns bytes into them and back. Knows
no I/O and no meaning; where the sense of a field is not obvious the header says it. Sizes and offsets are
checked against the compiled header by test.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from regionfs.wire.abi import InitFlag


class ForgetIn(NamedTuple):
    """struct fuse_forget_in."""

    nlookup: int


class ForgetOne(NamedTuple):
    """struct fuse_forget_one."""

    nodeid: int
    nlookup: int


class BatchForgetIn(NamedTuple):
    """struct fuse_batch_forget_in; `number` ForgetOne follow."""

    number: int  # the header's `count`


class GetattrIn(NamedTuple):
    """struct fuse_getattr_in."""

    flags: int  # GETATTR_FH
    fh: int


class MknodIn(NamedTuple):
    """struct fuse_mknod_in."""

    mode: int
    rdev: int
    umask: int


class MkdirIn(NamedTuple):
    """struct fuse_mkdir_in."""

    mode: int
    umask: int


class RenameIn(NamedTuple):
    """struct fuse_rename_in."""

    newdir: int


class Rename2In(NamedTuple):
    """struct fuse_rename2_in."""

    newdir: int
    flags: int  # RENAME_* of renameat2(2)


class LinkIn(NamedTuple):
    """struct fuse_link_in."""

    oldnodeid: int


class SetattrIn(NamedTuple):
    """struct fuse_setattr_in."""

    valid: int  # SetattrValid
    fh: int
    size: int
    lock_owner: int
    atime: int
    mtime: int
    ctime: int
    atimensec: int
    mtimensec: int
    ctimensec: int
    mode: int
    uid: int
    gid: int


class OpenIn(NamedTuple):
    """struct fuse_open_in: OPEN and OPENDIR."""

    flags: int       # O_* of open(2); never O_CREAT, O_EXCL, O_NOCTTY
    open_flags: int  # OPEN_KILL_SUIDGID, since 7.33


class CreateIn(NamedTuple):
    """struct fuse_create_in: CREATE and TMPFILE."""

    flags: int
    mode: int
    umask: int
    open_flags: int


class ReleaseIn(NamedTuple):
    """struct fuse_release_in: RELEASE and RELEASEDIR."""

    fh: int
    flags: int          # O_* of the open
    release_flags: int  # RELEASE_*
    lock_owner: int


class FlushIn(NamedTuple):
    """struct fuse_flush_in: one per close(2), so more than one per open."""

    fh: int
    lock_owner: int


class ReadIn(NamedTuple):
    """struct fuse_read_in: READ, READDIR and READDIRPLUS."""

    fh: int
    offset: int
    size: int
    read_flags: int  # READ_LOCKOWNER
    lock_owner: int
    flags: int       # O_* of the open file


class WriteIn(NamedTuple):
    """struct fuse_write_in; `size` bytes follow."""

    fh: int
    offset: int
    size: int
    write_flags: int  # WRITE_*
    lock_owner: int
    flags: int        # O_* of the open file


class FsyncIn(NamedTuple):
    """struct fuse_fsync_in: FSYNC and FSYNCDIR."""

    fh: int
    fsync_flags: int  # FSYNC_FDATASYNC


class SetxattrIn(NamedTuple):
    """struct fuse_setxattr_in as sent without SETXATTR_EXT, which session never asks for."""

    size: int   # bytes of the value
    flags: int  # XATTR_CREATE, XATTR_REPLACE


class GetxattrIn(NamedTuple):
    """struct fuse_getxattr_in: GETXATTR and LISTXATTR; size 0 asks for the size."""

    size: int


class LkIn(NamedTuple):
    """struct fuse_lk_in: GETLK, SETLK, SETLKW."""

    fh: int
    owner: int
    start: int
    end: int       # inclusive
    type: int      # F_RDLCK, F_WRLCK, F_UNLCK
    pid: int
    lk_flags: int  # LK_FLOCK


class AccessIn(NamedTuple):
    """struct fuse_access_in."""

    mask: int  # R_OK, W_OK, X_OK


class InitIn(NamedTuple):
    """struct fuse_init_in: 16 bytes before 7.36, then 64; a later minor may append."""

    major: int
    minor: int
    max_readahead: int
    flags_low: int
    flags_high: int = 0  # since 7.36

    @property
    def flags(self) -> InitFlag:
        """What the kernel offers, as one value; flags2 counts only with INIT_EXT."""
        extended = self.flags_low & InitFlag.INIT_EXT
        return InitFlag(self.flags_low | (self.flags_high << 32 if extended else 0))


class InterruptIn(NamedTuple):
    """struct fuse_interrupt_in: the unique of the request to interrupt."""

    unique: int


class BmapIn(NamedTuple):
    """struct fuse_bmap_in."""

    block: int
    blocksize: int


class IoctlIn(NamedTuple):
    """struct fuse_ioctl_in; `in_size` bytes follow."""

    fh: int
    flags: int  # IOCTL_*
    cmd: int
    arg: int
    in_size: int
    out_size: int


class PollIn(NamedTuple):
    """struct fuse_poll_in."""

    fh: int
    kh: int
    flags: int  # POLL_SCHEDULE_NOTIFY
    events: int


class FallocateIn(NamedTuple):
    """struct fuse_fallocate_in."""

    fh: int
    offset: int
    length: int
    mode: int  # FALLOC_FL_*


class InHeader(NamedTuple):
    """struct fuse_in_header: begins every request."""

    length: int        # of the whole request
    opcode: int
    unique: int
    nodeid: int
    uid: int
    gid: int
    pid: int
    total_extlen: int  # 8-byte units, since 7.38; 0 unless extensions were negotiated


class NotifyRetrieveIn(NamedTuple):
    """struct fuse_notify_retrieve_in: body of NOTIFY_REPLY; `size` bytes follow."""

    offset: int
    size: int


class LseekIn(NamedTuple):
    """struct fuse_lseek_in."""

    fh: int
    offset: int
    whence: int  # SEEK_DATA, SEEK_HOLE


class CopyFileRangeIn(NamedTuple):
    """struct fuse_copy_file_range_in: COPY_FILE_RANGE and COPY_FILE_RANGE_64."""

    fh_in: int
    off_in: int
    nodeid_out: int
    fh_out: int
    off_out: int
    length: int
    flags: int


class SyncfsIn(NamedTuple):
    """struct fuse_syncfs_in: nothing but padding."""


class StatxIn(NamedTuple):
    """struct fuse_statx_in, since 7.39."""

    flags: int     # GETATTR_FH
    fh: int
    sx_flags: int  # AT_STATX_*
    sx_mask: int   # STATX_*


LAYOUTS: dict[type[tuple[object, ...]], Struct] = {
    ForgetIn: Struct("=Q"),
    ForgetOne: Struct("=QQ"),
    BatchForgetIn: Struct("=I4x"),
    GetattrIn: Struct("=I4xQ"),
    MknodIn: Struct("=3I4x"),
    MkdirIn: Struct("=2I"),
    RenameIn: Struct("=Q"),
    Rename2In: Struct("=QI4x"),
    LinkIn: Struct("=Q"),
    SetattrIn: Struct("=I4x6Q4I4x2I4x"),
    OpenIn: Struct("=2I"),
    CreateIn: Struct("=4I"),
    ReleaseIn: Struct("=QIIQ"),
    FlushIn: Struct("=Q8xQ"),
    ReadIn: Struct("=QQIIQI4x"),
    WriteIn: Struct("=QQIIQI4x"),
    FsyncIn: Struct("=QI4x"),
    SetxattrIn: Struct("=2I"),
    GetxattrIn: Struct("=I4x"),
    LkIn: Struct("=4Q3I4x"),
    AccessIn: Struct("=I4x"),
    InitIn: Struct("=5I44x"),
    InterruptIn: Struct("=Q"),
    BmapIn: Struct("=QI4x"),
    IoctlIn: Struct("=QIIQII"),
    PollIn: Struct("=QQII"),
    FallocateIn: Struct("=3QI4x"),
    InHeader: Struct("=IIQQ3IH2x"),
    NotifyRetrieveIn: Struct("=8xQI20x"),
    LseekIn: Struct("=QQI4x"),
    CopyFileRangeIn: Struct("=7Q"),
    SyncfsIn: Struct("=8x"),
    StatxIn: Struct("=I4xQII"),
}

INIT_IN_SHORT = Struct("=4I")  # struct fuse_init_in before 7.36: no flags2
