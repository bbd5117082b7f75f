"""Descriptors through which the kernel reads a source without moving its access time.

O_NOATIME is the caller's of read(2). Where the kernel opens a file again by itself (EROFS its devices), only the
mount counts that the file was found in: a private copy of that mount, MOUNT_ATTR_NOATIME, which nobody sees.
"""

from __future__ import annotations

import ctypes
import os
from struct import pack

# asm-generic/unistd.h and x86 agree
_OPEN_TREE, _MOUNT_SETATTR = 428, 442
_OPEN_TREE_CLONE, _AT_EMPTY_PATH = 1, 0x1000
# struct mount_attr, linux/mount.h: attr_set, attr_clr, propagation, userns_fd
_NOATIME = pack("=QQQQ", 0x10, 0x70, 0, 0)  # MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME

_libc = ctypes.CDLL(None, use_errno=True)


def quietly(fd: int) -> int:
    """A descriptor (read-only, close-on-exec; the caller's) of the file behind `fd`, whose reads leave its atime alone.

    Where that is not permitted, or the mount cannot be copied, one that does not. Raises OSError.
    """
    if os.fstatvfs(fd).f_flag & os.ST_NOATIME:  # a copy costs some 0.1 ms
        return os.dup(fd)
    tree = _libc.syscall(_OPEN_TREE, fd, b"", _OPEN_TREE_CLONE | os.O_CLOEXEC | _AT_EMPTY_PATH)
    if tree < 0:
        return os.dup(fd)
    try:
        if _libc.syscall(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH, _NOATIME, len(_NOATIME)) < 0:
            return os.dup(fd)
        return os.open(f"/proc/self/fd/{tree}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(tree)
