"""Sharing blocks between two files of one file system (a reflink): FICLONERANGE, which Python does not have.

Knows the structure and the number; whether and which ranges to share is the caller's business.
"""

from __future__ import annotations

import struct
from fcntl import ioctl

_FICLONERANGE = 0x4020940D  # _IOW(0x94, 13, struct file_clone_range), linux/fs.h
_FILE_CLONE_RANGE = struct.Struct("=qQQQ")  # src_fd, src_offset, src_length, dest_offset


def clone_range(source: int, offset: int, length: int, target: int, position: int) -> None:
    """Make `length` bytes at `position` of `target` share the blocks at `offset` of `source`.

    All three are whole blocks of the file system. Raises OSError: EXDEV, EOPNOTSUPP or EINVAL where the
    two cannot share (ioctl_ficlonerange(2)).
    """
    ioctl(target, _FICLONERANGE, _FILE_CLONE_RANGE.pack(source, offset, length, position))
