"""Step 5: whether the time stamps of a source prove that its bytes are what they were.

What was read of a source may be kept as long as its stamps are the same, if two things held when it was looked at,
after the stamps were read and before the bytes were:

- The stamps were older than their grain, else a later change might get the same ones. The grain is a tick of the
  kernel's clock, or up to two seconds (FAT) where no stamp has a fraction of a second (ext4 with small inodes).
- Nobody had it open for writing. Stores through a shared mapping move the stamps at most when a page is written to
  first. A mapping that is made later moves them with its first store; one that was there may store unseen. The kernel
  tells that by a lease for readers, which it refuses while a descriptor or a mapping may write (fcntl(2)).

The second holds on file systems that set the stamps in page_mkwrite. In memory (tmpfs) a page that was read first takes
stores unseen; an overlay's mapping is one of another inode; what FUSE and networks show may be changed from elsewhere.
There, and where the kernel grants no lease (whoever owns the file may ask, or has CAP_LEASE), nothing is proven, and
what was read is read again at the next open.
"""

from __future__ import annotations

import ctypes
import fcntl
import signal
from contextlib import suppress

from regionfs.manifest.inspect import SourceFacts

GRAIN_NS = 20_000_000            # of stamps with fractions of a second; ticks are at most 10 ms
COARSE_GRAIN_NS = 2_020_000_000  # of those without
_F_SETSIG = 10                   # asm-generic/fcntl.h
#: f_type of statfs(2), linux/magic.h; seen in their page_mkwrite, and tried: ext2 to ext4, XFS, Btrfs
_STAMP_STORES = frozenset({
    0xEF53, 0x58465342, 0x9123683E,  # ext2 to ext4, XFS, Btrfs
    0xF2F52010, 0xCA451A4E,          # F2FS, bcachefs
    0x4D44, 0x2011BAB0, 0x7366746E,  # FAT, exFAT, NTFS (ntfs3)
    0x3153464A, 0x15013346,          # JFS, UDF
})
#: those that nobody can write to
_NEVER_WRITTEN = frozenset({0x73717368, 0xE0F5E1E2, 0x9660, 0x28CD3D45})  # squashfs, EROFS, ISO 9660, cramfs

_libc = ctypes.CDLL(None, use_errno=True)


def old_enough(facts: SourceFacts, now: int) -> bool:
    """True when a change from `now` (ns since the epoch) on gets other stamps; a disk's say nothing of its bytes."""
    coarse = not (facts.mtime_ns % 10**9 or facts.ctime_ns % 10**9)
    limit = now - (COARSE_GRAIN_NS if coarse else GRAIN_NS)
    return facts.kind == "file" and facts.mtime_ns < limit and facts.ctime_ns < limit


def nobody_writes(fd: int) -> bool:
    """True when no process has the regular file behind `fd`, which was opened for reading, open or mapped for writing.

    And what is stored through a descriptor or a mapping from now on will show in the stamps. False also when nobody
    can tell.
    """
    kind = _file_system(fd)
    return kind in _NEVER_WRITTEN or (kind in _STAMP_STORES and _lease(fd))


def _lease(fd: int) -> bool:
    """Whether the kernel grants a lease; it is given back at once."""
    try:
        # who opens it for writing just now waits, and the kernel tells us by a signal: SIGIO by default, which kills
        fcntl.fcntl(fd, _F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return False
    with suppress(OSError):  # another thread was faster: a lease is the open file's
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return True


def _file_system(fd: int) -> int:
    """Its f_type, the first word of struct statfs; 0 when it does not tell."""
    words = (ctypes.c_long * 32)()
    return 0 if _libc.fstatfs(fd, words) else words[0] & 0xFFFFFFFF
