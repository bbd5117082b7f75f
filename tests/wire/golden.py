"""Golden messages: every struct as a value and as bytes, and every request as the kernel sends it.

Fields hold 1, 2, 3 ... in order; `-` is padding. That sizes and offsets are the kernel's is shown by
test_layouts, that whole requests are by test_mounted.
"""

from __future__ import annotations

from regionfs.wire.abi import Opcode
from regionfs.wire.codec import Message
from regionfs.wire.replies import (
    Attr,
    AttrOut,
    BackingMap,
    BmapOut,
    CopyFileRangeOut,
    Dirent,
    EntryOut,
    GetxattrOut,
    InitOut,
    IoctlOut,
    LkOut,
    LseekOut,
    NotifyDeleteOut,
    NotifyInvalEntryOut,
    NotifyInvalInodeOut,
    NotifyRetrieveOut,
    NotifyStoreOut,
    OpenOut,
    OutHeader,
    PollOut,
    StatfsOut,
    StatxOut,
    WriteOut,
)
from regionfs.wire.requests import (
    AccessIn,
    BatchForgetIn,
    BmapIn,
    CopyFileRangeIn,
    CreateIn,
    FallocateIn,
    FlushIn,
    ForgetIn,
    ForgetOne,
    FsyncIn,
    GetattrIn,
    GetxattrIn,
    InHeader,
    InitIn,
    InterruptIn,
    IoctlIn,
    LinkIn,
    LkIn,
    LseekIn,
    MkdirIn,
    MknodIn,
    NotifyRetrieveIn,
    OpenIn,
    PollIn,
    ReadIn,
    ReleaseIn,
    Rename2In,
    RenameIn,
    SetattrIn,
    SetxattrIn,
    StatxIn,
    SyncfsIn,
    WriteIn,
)

STRUCTS: list[tuple[Message, str]] = [
    (
        ForgetIn(nlookup=1),
        "0100000000000000",  # nlookup
    ),
    (
        ForgetOne(nodeid=1, nlookup=2),
        "0100000000000000 0200000000000000",  # nodeid, nlookup
    ),
    (
        BatchForgetIn(number=1),
        "01000000 00000000",  # number, -
    ),
    (
        GetattrIn(flags=1, fh=2),
        "01000000 00000000 0200000000000000",  # flags, -, fh
    ),
    (
        MknodIn(mode=1, rdev=2, umask=3),
        "01000000 02000000 03000000 00000000",  # mode, rdev, umask, -
    ),
    (
        MkdirIn(mode=1, umask=2),
        "01000000 02000000",  # mode, umask
    ),
    (
        RenameIn(newdir=1),
        "0100000000000000",  # newdir
    ),
    (
        Rename2In(newdir=1, flags=2),
        "0100000000000000 02000000 00000000",  # newdir, flags, -
    ),
    (
        LinkIn(oldnodeid=1),
        "0100000000000000",  # oldnodeid
    ),
    (
        SetattrIn(valid=1, fh=2, size=3, lock_owner=4, atime=5, mtime=6, ctime=7, atimensec=8,
            mtimensec=9, ctimensec=10, mode=11, uid=12, gid=13),
        "01000000 00000000 0200000000000000 0300000000000000 "  # valid, -, fh, size
        "0400000000000000 0500000000000000 0600000000000000 "  # lock_owner, atime, mtime
        "0700000000000000 08000000 09000000 "  # ctime, atimensec, mtimensec
        "0a000000 0b000000 00000000 0c000000 0d000000 "  # ctimensec, mode, -, uid, gid
        "00000000",  # -
    ),
    (
        OpenIn(flags=1, open_flags=2),
        "01000000 02000000",  # flags, open_flags
    ),
    (
        CreateIn(flags=1, mode=2, umask=3, open_flags=4),
        "01000000 02000000 03000000 04000000",  # flags, mode, umask, open_flags
    ),
    (
        ReleaseIn(fh=1, flags=2, release_flags=3, lock_owner=4),
        "0100000000000000 02000000 03000000 "  # fh, flags, release_flags
        "0400000000000000",  # lock_owner
    ),
    (
        FlushIn(fh=1, lock_owner=2),
        "0100000000000000 0000000000000000 0200000000000000",  # fh, -, lock_owner
    ),
    (
        ReadIn(fh=1, offset=2, size=3, read_flags=4, lock_owner=5, flags=6),
        "0100000000000000 0200000000000000 03000000 04000000 "  # fh, offset, size, read_flags
        "0500000000000000 06000000 00000000",  # lock_owner, flags, -
    ),
    (
        WriteIn(fh=1, offset=2, size=3, write_flags=4, lock_owner=5, flags=6),
        "0100000000000000 0200000000000000 03000000 04000000 "  # fh, offset, size, write_flags
        "0500000000000000 06000000 00000000",  # lock_owner, flags, -
    ),
    (
        FsyncIn(fh=1, fsync_flags=2),
        "0100000000000000 02000000 00000000",  # fh, fsync_flags, -
    ),
    (
        SetxattrIn(size=1, flags=2),
        "01000000 02000000",  # size, flags
    ),
    (
        GetxattrIn(size=1),
        "01000000 00000000",  # size, -
    ),
    (
        LkIn(fh=1, owner=2, start=3, end=4, type=5, pid=6, lk_flags=7),
        "0100000000000000 0200000000000000 0300000000000000 "  # fh, owner, start
        "0400000000000000 05000000 06000000 07000000 00000000",  # end, type, pid, lk_flags, -
    ),
    (
        AccessIn(mask=1),
        "01000000 00000000",  # mask, -
    ),
    (
        InitIn(major=1, minor=2, max_readahead=3, flags_low=4, flags_high=5),
        "01000000 02000000 03000000 04000000 "  # major, minor, max_readahead, flags_low
        "05000000 "  # flags_high
        "0000000000000000000000000000000000000000000000000000000000000000 "  # -
        "000000000000000000000000",  # -
    ),
    (
        InterruptIn(unique=1),
        "0100000000000000",  # unique
    ),
    (
        BmapIn(block=1, blocksize=2),
        "0100000000000000 02000000 00000000",  # block, blocksize, -
    ),
    (
        IoctlIn(fh=1, flags=2, cmd=3, arg=4, in_size=5, out_size=6),
        "0100000000000000 02000000 03000000 0400000000000000 "  # fh, flags, cmd, arg
        "05000000 06000000",  # in_size, out_size
    ),
    (
        PollIn(fh=1, kh=2, flags=3, events=4),
        "0100000000000000 0200000000000000 03000000 04000000",  # fh, kh, flags, events
    ),
    (
        FallocateIn(fh=1, offset=2, length=3, mode=4),
        "0100000000000000 0200000000000000 0300000000000000 "  # fh, offset, length
        "04000000 00000000",  # mode, -
    ),
    (
        InHeader(length=1, opcode=2, unique=3, nodeid=4, uid=5, gid=6, pid=7, total_extlen=8),
        "01000000 02000000 0300000000000000 "  # length, opcode, unique
        "0400000000000000 05000000 06000000 07000000 "  # nodeid, uid, gid, pid
        "0800 0000",  # total_extlen, -
    ),
    (
        NotifyRetrieveIn(offset=1, size=2),
        "0000000000000000 0100000000000000 02000000 "  # -, offset, size
        "0000000000000000000000000000000000000000",  # -
    ),
    (
        LseekIn(fh=1, offset=2, whence=3),
        "0100000000000000 0200000000000000 03000000 00000000",  # fh, offset, whence, -
    ),
    (
        CopyFileRangeIn(fh_in=1, off_in=2, nodeid_out=3, fh_out=4, off_out=5, length=6, flags=7),
        "0100000000000000 0200000000000000 0300000000000000 "  # fh_in, off_in, nodeid_out
        "0400000000000000 0500000000000000 0600000000000000 "  # fh_out, off_out, length
        "0700000000000000",  # flags
    ),
    (
        SyncfsIn(),
        "0000000000000000",  # -
    ),
    (
        StatxIn(flags=1, fh=2, sx_flags=3, sx_mask=4),
        "01000000 00000000 0200000000000000 03000000 "  # flags, -, fh, sx_flags
        "04000000",  # sx_mask
    ),
    (
        Attr(ino=1, size=2, blocks=3, atime=4, mtime=5, ctime=6, atimensec=7, mtimensec=8, ctimensec=9,
            mode=10, nlink=11, uid=12, gid=13, rdev=14, blksize=15, flags=16),
        "0100000000000000 0200000000000000 0300000000000000 "  # ino, size, blocks
        "0400000000000000 0500000000000000 0600000000000000 "  # atime, mtime, ctime
        "07000000 08000000 09000000 0a000000 "  # atimensec, mtimensec, ctimensec, mode
        "0b000000 0c000000 0d000000 0e000000 0f000000 "  # nlink, uid, gid, rdev, blksize
        "10000000",  # flags
    ),
    (
        EntryOut(nodeid=1, generation=2, entry_valid=3, attr_valid=4, entry_valid_nsec=5,
            attr_valid_nsec=6, attr=Attr(ino=7, size=8, blocks=9, atime=10, mtime=11, ctime=12,
            atimensec=13, mtimensec=14, ctimensec=15, mode=16, nlink=17, uid=18, gid=19, rdev=20,
            blksize=21, flags=22)),
        "0100000000000000 0200000000000000 "  # nodeid, generation
        "0300000000000000 0400000000000000 "  # entry_valid, attr_valid
        "05000000 06000000 0700000000000000 "  # entry_valid_nsec, attr_valid_nsec, ino
        "0800000000000000 0900000000000000 0a00000000000000 "  # size, blocks, atime
        "0b00000000000000 0c00000000000000 0d000000 "  # mtime, ctime, atimensec
        "0e000000 0f000000 10000000 11000000 "  # mtimensec, ctimensec, mode, nlink
        "12000000 13000000 14000000 15000000 16000000",  # uid, gid, rdev, blksize, flags
    ),
    (
        AttrOut(attr_valid=1, attr_valid_nsec=2, attr=Attr(ino=3, size=4, blocks=5, atime=6, mtime=7,
            ctime=8, atimensec=9, mtimensec=10, ctimensec=11, mode=12, nlink=13, uid=14, gid=15,
            rdev=16, blksize=17, flags=18)),
        "0100000000000000 02000000 00000000 "  # attr_valid, attr_valid_nsec, -
        "0300000000000000 0400000000000000 0500000000000000 "  # ino, size, blocks
        "0600000000000000 0700000000000000 0800000000000000 "  # atime, mtime, ctime
        "09000000 0a000000 0b000000 0c000000 "  # atimensec, mtimensec, ctimensec, mode
        "0d000000 0e000000 0f000000 10000000 11000000 "  # nlink, uid, gid, rdev, blksize
        "12000000",  # flags
    ),
    (
        OpenOut(fh=1, open_flags=2, backing_id=3),
        "0100000000000000 02000000 0300 0000",  # fh, open_flags, backing_id, -
    ),
    (
        WriteOut(size=1),
        "01000000 00000000",  # size, -
    ),
    (
        StatfsOut(blocks=1, bfree=2, bavail=3, files=4, ffree=5, bsize=6, namelen=7, frsize=8),
        "0100000000000000 0200000000000000 0300000000000000 "  # blocks, bfree, bavail
        "0400000000000000 0500000000000000 06000000 07000000 "  # files, ffree, bsize, namelen
        "08000000 00000000000000000000000000000000000000000000000000000000",  # frsize, -
    ),
    (
        GetxattrOut(size=1),
        "01000000 00000000",  # size, -
    ),
    (
        LkOut(start=1, end=2, type=3, pid=4),
        "0100000000000000 0200000000000000 03000000 04000000",  # start, end, type, pid
    ),
    (
        InitOut(major=1, minor=2, max_readahead=3, flags_low=4, max_background=5,
            congestion_threshold=6, max_write=7, time_gran=8, max_pages=9, map_alignment=10,
            flags_high=11, max_stack_depth=12, request_timeout=13),
        "01000000 02000000 03000000 04000000 "  # major, minor, max_readahead, flags_low
        "0500 0600 07000000 "  # max_background, congestion_threshold, max_write
        "08000000 0900 0a00 0b000000 "  # time_gran, max_pages, map_alignment, flags_high
        "0c000000 0d00 "  # max_stack_depth, request_timeout
        "00000000000000000000000000000000000000000000",  # -
    ),
    (
        BmapOut(block=1),
        "0100000000000000",  # block
    ),
    (
        IoctlOut(result=1, flags=2, in_iovs=3, out_iovs=4),
        "0100 0000 02000000 03000000 04000000",  # result, -, flags, in_iovs, out_iovs
    ),
    (
        PollOut(revents=1),
        "01000000 00000000",  # revents, -
    ),
    (
        OutHeader(length=1, error=2, unique=3),
        "01000000 0200 0000 0300000000000000",  # length, error, -, unique
    ),
    (
        Dirent(ino=1, offset=2, namelen=3, type=4),
        "0100000000000000 0200000000000000 03000000 04000000",  # ino, offset, namelen, type
    ),
    (
        NotifyInvalInodeOut(ino=1, offset=2, length=3),
        "0100000000000000 02000000 00000000 03000000 00000000",  # ino, offset, -, length, -
    ),
    (
        NotifyInvalEntryOut(parent=1, namelen=2, flags=3),
        "0100000000000000 02000000 03000000",  # parent, namelen, flags
    ),
    (
        NotifyDeleteOut(parent=1, child=2, namelen=3),
        "0100000000000000 0200000000000000 03000000 00000000",  # parent, child, namelen, -
    ),
    (
        NotifyStoreOut(nodeid=1, offset=2, size=3),
        "0100000000000000 0200000000000000 03000000 00000000",  # nodeid, offset, size, -
    ),
    (
        NotifyRetrieveOut(notify_unique=1, nodeid=2, offset=3, size=4),
        "0100000000000000 0200000000000000 0300000000000000 "  # notify_unique, nodeid, offset
        "04000000 00000000",  # size, -
    ),
    (
        BackingMap(fd=1, flags=2),
        "0100 0000 02000000 0000000000000000",  # fd, -, flags, -
    ),
    (
        LseekOut(offset=1),
        "0100000000000000",  # offset
    ),
    (
        CopyFileRangeOut(bytes_copied=1),
        "0100000000000000",  # bytes_copied
    ),
    (
        StatxOut(attr_valid=1, attr_valid_nsec=2, flags=3, mask=4, blksize=5, attributes=6, nlink=7,
            uid=8, gid=9, mode=10, ino=11, size=12, blocks=13, attributes_mask=14, atime=15,
            atimensec=16, btime=17, btimensec=18, ctime=19, ctimensec=20, mtime=21, mtimensec=22,
            rdev_major=23, rdev_minor=24, dev_major=25, dev_minor=26),
        "0100000000000000 02000000 03000000 "  # attr_valid, attr_valid_nsec, flags
        "00000000000000000000000000000000 04000000 05000000 "  # -, mask, blksize
        "0600000000000000 07000000 08000000 09000000 "  # attributes, nlink, uid, gid
        "0a00 0000 0b00000000000000 0c00000000000000 "  # mode, -, ino, size
        "0d00000000000000 0e00000000000000 0f000000 "  # blocks, attributes_mask, atime
        "00000000 10000000 00000000 11000000 00000000 "  # -, atimensec, -, btime, -
        "12000000 00000000 13000000 00000000 14000000 "  # btimensec, -, ctime, -, ctimensec
        "00000000 15000000 00000000 16000000 00000000 "  # -, mtime, -, mtimensec, -
        "17000000 18000000 19000000 1a000000 "  # rdev_major, rdev_minor, dev_major, dev_minor
        "0000000000000000000000000000000000000000000000000000000000000000 "  # -
        "0000000000000000000000000000000000000000000000000000000000000000 "  # -
        "0000000000000000000000000000000000000000000000000000000000000000 "  # -
        "00000000000000000000000000000000",  # -
    ),
]

# opcode, its struct, the bytes behind the struct, the names and the data in them
REQUESTS: list[tuple[Opcode, Message | None, bytes, tuple[bytes, ...], bytes]] = [
    (Opcode.LOOKUP, None, b"disk.img\0", (b"disk.img",), b""),
    (Opcode.FORGET, ForgetIn(3), b"", (), b""),
    (Opcode.GETATTR, GetattrIn(1, 7), b"", (), b""),
    (Opcode.SETATTR, SetattrIn(8, 7, 4096, *[0] * 10), b"", (), b""),
    (Opcode.READLINK, None, b"", (), b""),
    (Opcode.SYMLINK, None, b"link\0/to/there\0", (b"link", b"/to/there"), b""),
    (Opcode.MKNOD, MknodIn(0o100644, 0, 0o22), b"new\0", (b"new",), b""),
    (Opcode.MKDIR, MkdirIn(0o755, 0o22), b"new\0", (b"new",), b""),
    (Opcode.UNLINK, None, b"disk.img\0", (b"disk.img",), b""),
    (Opcode.RMDIR, None, b"vm\0", (b"vm",), b""),
    (Opcode.RENAME, RenameIn(2), b"old\0new\0", (b"old", b"new"), b""),
    (Opcode.LINK, LinkIn(2), b"new\0", (b"new",), b""),
    (Opcode.OPEN, OpenIn(0o100002, 0), b"", (), b""),
    (Opcode.READ, ReadIn(7, 4096, 131072, 0, 0, 0o100000), b"", (), b""),
    (Opcode.WRITE, WriteIn(7, 4096, 5, 0, 0, 0o100002), b"a\0b\0c", (), b"a\0b\0c"),
    (Opcode.STATFS, None, b"", (), b""),
    (Opcode.RELEASE, ReleaseIn(7, 0o100000, 0, 0), b"", (), b""),
    (Opcode.FSYNC, FsyncIn(7, 1), b"", (), b""),
    (Opcode.SETXATTR, SetxattrIn(2, 0), b"user.a\0\0/", (b"user.a",), b"\0/"),
    (Opcode.GETXATTR, GetxattrIn(0), b"user.a/b\0", (b"user.a/b",), b""),
    (Opcode.LISTXATTR, GetxattrIn(256), b"", (), b""),
    (Opcode.REMOVEXATTR, None, b"user.a\0", (b"user.a",), b""),
    (Opcode.FLUSH, FlushIn(7, 9), b"", (), b""),
    (Opcode.INIT, InitIn(7, 45, 131072, 0x73FFFFFB, 0x5FD), b"", (), b""),
    (Opcode.OPENDIR, OpenIn(0o200000, 0), b"", (), b""),
    (Opcode.READDIR, ReadIn(7, 0, 4096, 0, 0, 0o200000), b"", (), b""),
    (Opcode.RELEASEDIR, ReleaseIn(7, 0o200000, 0, 0), b"", (), b""),
    (Opcode.FSYNCDIR, FsyncIn(7, 0), b"", (), b""),
    (Opcode.GETLK, LkIn(7, 9, 0, 99, 1, 0, 0), b"", (), b""),
    (Opcode.SETLK, LkIn(7, 9, 0, 99, 1, 0, 1), b"", (), b""),
    (Opcode.SETLKW, LkIn(7, 9, 0, 99, 1, 0, 0), b"", (), b""),
    (Opcode.ACCESS, AccessIn(4), b"", (), b""),
    (Opcode.CREATE, CreateIn(0o102, 0o644, 0o22, 0), b"new\0", (b"new",), b""),
    (Opcode.INTERRUPT, InterruptIn(42), b"", (), b""),
    (Opcode.BMAP, BmapIn(3, 4096), b"", (), b""),
    (Opcode.DESTROY, None, b"", (), b""),
    (Opcode.IOCTL, IoctlIn(7, 0, 0x5401, 0, 4, 0), b"\0\1\2\3", (), b"\0\1\2\3"),
    (Opcode.POLL, PollIn(7, 8, 1, 5), b"", (), b""),
    (Opcode.NOTIFY_REPLY, NotifyRetrieveIn(0, 3), b"abc", (), b"abc"),
    (Opcode.BATCH_FORGET, BatchForgetIn(2), bytes(range(32)), (), bytes(range(32))),
    (Opcode.FALLOCATE, FallocateIn(7, 0, 4096, 3), b"", (), b""),
    (Opcode.READDIRPLUS, ReadIn(7, 0, 4096, 0, 0, 0o200000), b"", (), b""),
    (Opcode.RENAME2, Rename2In(2, 1), b"old\0new\0", (b"old", b"new"), b""),
    (Opcode.LSEEK, LseekIn(7, 0, 3), b"", (), b""),
    (Opcode.COPY_FILE_RANGE, CopyFileRangeIn(7, 0, 2, 8, 0, 4096, 0), b"", (), b""),
    (Opcode.SYNCFS, SyncfsIn(), b"", (), b""),
    (Opcode.TMPFILE, CreateIn(0o20200002, 0o600, 0o22, 0), b"/\0", (b"/",), b""),
    (Opcode.STATX, StatxIn(1, 7, 0, 0x7FF), b"", (), b""),
    (Opcode.COPY_FILE_RANGE_64, CopyFileRangeIn(7, 0, 2, 8, 0, 2**40, 0), b"", (), b""),
]
