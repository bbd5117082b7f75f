"""The numbers of the FUSE protocol, in the order of linux/fuse.h (minor 45, Linux 6.18).

Knows names and values only; layouts are in requests and replies, and no number here is ever computed from a
version. CUSE, DAX windows and io_uring are left out: regionfs never meets them. fuse-iomap is not
upstream and has its own table.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

KERNEL_MAJOR = 7       # FUSE_KERNEL_VERSION
KERNEL_MINOR = 45      # FUSE_KERNEL_MINOR_VERSION of the header this table follows
ROOT_ID = 1            # FUSE_ROOT_ID, the nodeid of the mount's root


class SetattrValid(IntFlag):
    """FATTR_*: which fields of fuse_setattr_in count."""

    MODE = 1 << 0
    UID = 1 << 1
    GID = 1 << 2
    SIZE = 1 << 3
    ATIME = 1 << 4
    MTIME = 1 << 5
    FH = 1 << 6
    ATIME_NOW = 1 << 7
    MTIME_NOW = 1 << 8
    LOCKOWNER = 1 << 9
    CTIME = 1 << 10
    KILL_SUIDGID = 1 << 11  # since 7.33


# FOPEN_*: flags of the OPEN and OPENDIR replies
FOPEN_DIRECT_IO = 1 << 0               # bypass the page cache for this open file
FOPEN_KEEP_CACHE = 1 << 1              # keep the cached pages over this open
FOPEN_NONSEEKABLE = 1 << 2
FOPEN_CACHE_DIR = 1 << 3               # OPENDIR: the listing may be cached
FOPEN_STREAM = 1 << 4
FOPEN_NOFLUSH = 1 << 5                 # since 7.35: no FLUSH at close
FOPEN_PARALLEL_DIRECT_WRITES = 1 << 6  # since 7.38
FOPEN_PASSTHROUGH = 1 << 7             # since 7.40: backing_id counts


class InitFlag(IntFlag):
    """FUSE_* flags of INIT as one 64-bit value; bits 32..63 travel in the field flags2."""

    ASYNC_READ = 1 << 0
    POSIX_LOCKS = 1 << 1
    FILE_OPS = 1 << 2
    ATOMIC_O_TRUNC = 1 << 3
    EXPORT_SUPPORT = 1 << 4
    BIG_WRITES = 1 << 5
    DONT_MASK = 1 << 6
    SPLICE_WRITE = 1 << 7
    SPLICE_MOVE = 1 << 8
    SPLICE_READ = 1 << 9
    FLOCK_LOCKS = 1 << 10
    HAS_IOCTL_DIR = 1 << 11
    AUTO_INVAL_DATA = 1 << 12
    DO_READDIRPLUS = 1 << 13
    READDIRPLUS_AUTO = 1 << 14
    ASYNC_DIO = 1 << 15
    WRITEBACK_CACHE = 1 << 16
    NO_OPEN_SUPPORT = 1 << 17
    PARALLEL_DIROPS = 1 << 18
    HANDLE_KILLPRIV = 1 << 19
    POSIX_ACL = 1 << 20
    ABORT_ERROR = 1 << 21
    MAX_PAGES = 1 << 22
    CACHE_SYMLINKS = 1 << 23
    NO_OPENDIR_SUPPORT = 1 << 24
    EXPLICIT_INVAL_DATA = 1 << 25
    MAP_ALIGNMENT = 1 << 26
    SUBMOUNTS = 1 << 27
    HANDLE_KILLPRIV_V2 = 1 << 28
    SETXATTR_EXT = 1 << 29
    INIT_EXT = 1 << 30              # since 7.36: flags2 counts
    INIT_RESERVED = 1 << 31
    SECURITY_CTX = 1 << 32
    HAS_INODE_DAX = 1 << 33
    CREATE_SUPP_GROUP = 1 << 34
    HAS_EXPIRE_ONLY = 1 << 35
    DIRECT_IO_ALLOW_MMAP = 1 << 36  # since 7.39
    PASSTHROUGH = 1 << 37           # since 7.40
    NO_EXPORT_SUPPORT = 1 << 38
    HAS_RESEND = 1 << 39
    ALLOW_IDMAP = 1 << 40           # since 7.41
    OVER_IO_URING = 1 << 41         # since 7.42
    REQUEST_TIMEOUT = 1 << 42       # since 7.43


RELEASE_FLUSH = 1 << 0          # FUSE_RELEASE_FLUSH
RELEASE_FLOCK_UNLOCK = 1 << 1   # FUSE_RELEASE_FLOCK_UNLOCK
GETATTR_FH = 1 << 0             # FUSE_GETATTR_FH: fh counts
LK_FLOCK = 1 << 0               # FUSE_LK_FLOCK: flock(2), not fcntl(2)

# FUSE_WRITE_*: fuse_write_in.write_flags
WRITE_CACHE = 1 << 0            # from the page cache (shared mmap); fh is guessed
WRITE_LOCKOWNER = 1 << 1
WRITE_KILL_SUIDGID = 1 << 2     # with HANDLE_KILLPRIV_V2

READ_LOCKOWNER = 1 << 1         # FUSE_READ_LOCKOWNER

# FUSE_IOCTL_*: fuse_ioctl_in.flags
IOCTL_COMPAT = 1 << 0
IOCTL_UNRESTRICTED = 1 << 1
IOCTL_RETRY = 1 << 2
IOCTL_32BIT = 1 << 3
IOCTL_DIR = 1 << 4
IOCTL_COMPAT_X32 = 1 << 5
IOCTL_MAX_IOV = 256

POLL_SCHEDULE_NOTIFY = 1 << 0       # FUSE_POLL_SCHEDULE_NOTIFY
FSYNC_FDATASYNC = 1 << 0            # FUSE_FSYNC_FDATASYNC: data only
ATTR_SUBMOUNT = 1 << 0              # FUSE_ATTR_SUBMOUNT: fuse_attr.flags
ATTR_DAX = 1 << 1                   # FUSE_ATTR_DAX
OPEN_KILL_SUIDGID = 1 << 0          # FUSE_OPEN_KILL_SUIDGID: fuse_open_in.open_flags
SETXATTR_ACL_KILL_SGID = 1 << 0     # FUSE_SETXATTR_ACL_KILL_SGID
EXPIRE_ONLY = 1 << 0                # FUSE_EXPIRE_ONLY: fuse_notify_inval_entry_out.flags


class Opcode(IntEnum):
    """enum fuse_opcode."""

    LOOKUP = 1
    FORGET = 2        # no reply
    GETATTR = 3
    SETATTR = 4
    READLINK = 5
    SYMLINK = 6
    MKNOD = 8
    MKDIR = 9
    UNLINK = 10
    RMDIR = 11
    RENAME = 12
    LINK = 13
    OPEN = 14
    READ = 15
    WRITE = 16
    STATFS = 17
    RELEASE = 18
    FSYNC = 20
    SETXATTR = 21
    GETXATTR = 22
    LISTXATTR = 23
    REMOVEXATTR = 24
    FLUSH = 25
    INIT = 26
    OPENDIR = 27
    READDIR = 28
    RELEASEDIR = 29
    FSYNCDIR = 30
    GETLK = 31
    SETLK = 32
    SETLKW = 33
    ACCESS = 34
    CREATE = 35
    INTERRUPT = 36    # reply only with EAGAIN: the request it names has not been seen
    BMAP = 37
    DESTROY = 38
    IOCTL = 39
    POLL = 40
    NOTIFY_REPLY = 41  # no reply
    BATCH_FORGET = 42  # no reply
    FALLOCATE = 43
    READDIRPLUS = 44
    RENAME2 = 45
    LSEEK = 46
    COPY_FILE_RANGE = 47
    SETUPMAPPING = 48
    REMOVEMAPPING = 49
    SYNCFS = 50                # since 7.34
    TMPFILE = 51               # since 7.37
    STATX = 52                 # since 7.39
    COPY_FILE_RANGE_64 = 53    # since 7.45


# a reply to one of these fails with EINVAL
UNANSWERED = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.NOTIFY_REPLY})


class NotifyCode(IntEnum):
    """enum fuse_notify_code: travels in the error field of a header whose unique is 0."""

    POLL = 1
    INVAL_INODE = 2
    INVAL_ENTRY = 3
    STORE = 4
    RETRIEVE = 5
    DELETE = 6
    RESEND = 7       # since 7.40
    INC_EPOCH = 8    # since 7.44
    PRUNE = 9        # since 7.45


MIN_READ_BUFFER = 8192      # FUSE_MIN_READ_BUFFER; a smaller buffer makes read(2) fail with EINVAL
MAX_ERRNO = 511             # fuse_dev_do_write, fs/fuse/dev.c: a larger error in a reply is EINVAL
UNIQUE_RESEND = 1 << 63     # FUSE_UNIQUE_RESEND: this request was sent before; reply with the bit kept
INVALID_UIDGID = 2**32 - 1  # FUSE_INVALID_UIDGID

# ioctls on an open /dev/fuse (FUSE_DEV_IOC_MAGIC 229); numbers of x86 and arm, as in asm-generic/ioctl.h
DEV_IOC_CLONE = 0x8004E500          # _IOR(229, 0, u32 fd)
DEV_IOC_BACKING_OPEN = 0x4010E501   # _IOW(229, 1, struct fuse_backing_map); returns the backing id
DEV_IOC_BACKING_CLOSE = 0x4004E502  # _IOW(229, 2, u32 backing id)

# limits of fs/fuse/fuse_i.h
NAME_MAX = 1024                 # FUSE_NAME_MAX until 6.14; PATH_MAX - 1 after
DEFAULT_MAX_PAGES = 32          # FUSE_DEFAULT_MAX_PAGES_PER_REQ: pages in a request without MAX_PAGES
MAX_MAX_PAGES = 256             # FUSE_MAX_MAX_PAGES; fs.fuse.max_pages_limit since 6.13
MAX_STACK_DEPTH = 2             # FILESYSTEM_MAX_STACK_DEPTH, linux/fs.h
