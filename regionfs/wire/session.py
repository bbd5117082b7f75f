"""INIT: what the kernel offers and what we want -> what holds for the connection. Pure.

**Versions.** Both sides speak major 7 and the smaller minor. A kernel of a larger major is told ours and
sends INIT again; a smaller one is refused, and so is a minor below 7.31 (Linux 5.4): several structs had
other sizes before, and nothing here reads them.

**ACLs.** POSIX_ACL makes the kernel check permissions itself (default_permissions, which every mount has anyway) and
ask for system.posix_acl_access where a user who is not the file's owner comes with some group bit set; it keeps the
answer, none too, as long as the file's attributes.

**Flags.** A flag is in the reply only if the kernel offered it. Left out on purpose:
- ATOMIC_O_TRUNC: without it open(O_TRUNC) is OPEN, then SETATTR size 0, whose error open(2) returns after
  a RELEASE. So truncation has one road, fixed-size files refuse it in one place with EPERM, and an open
  that fails for another reason (EIO of a passthrough conflict) has not emptied a source before.
- WRITEBACK_CACHE: excludes passthrough, and would acknowledge writes that the map must refuse.
- AUTO_INVAL_DATA, EXPLICIT_INVAL_DATA: the kernel's default drops cached pages when the size changes; a
  changed mtime alone does not. The daemon compares sources at open instead.
- POSIX_LOCKS, FLOCK_LOCKS: the kernel's own locks do, all users of the mount are local.
- SETXATTR_EXT, SECURITY_CTX, CREATE_SUPP_GROUP: they change the layout of requests.
- NO_OPEN_SUPPORT, NO_OPENDIR_SUPPORT: every open is checked. CACHE_SYMLINKS: there are none.
- ALLOW_IDMAP: uids belong to the sources. SPLICE_*: the kernel splices
  without being told (loop/bulk.h).
"""

from __future__ import annotations

import errno
from dataclasses import asdict, dataclass
from mmap import PAGESIZE

from regionfs.errors import ProtocolError
from regionfs.wire import iomap_v7
from regionfs.wire.abi import (
    DEFAULT_MAX_PAGES,
    KERNEL_MAJOR,
    KERNEL_MINOR,
    MAX_STACK_DEPTH,
    MIN_READ_BUFFER,
    InitFlag,
)
from regionfs.wire.parse import IO_REQUEST_SIZE
from regionfs.wire.replies import InitOut
from regionfs.wire.requests import InitIn

OLDEST_MINOR = 31  # Linux 5.4

WANTED_FLAGS = (
    InitFlag.ASYNC_READ               # several READs of one file at once
    | InitFlag.BIG_WRITES
    | InitFlag.ASYNC_DIO
    | InitFlag.PARALLEL_DIROPS
    | InitFlag.DO_READDIRPLUS | InitFlag.READDIRPLUS_AUTO
    | InitFlag.MAX_PAGES              # requests of more than 128 KiB
    | InitFlag.HANDLE_KILLPRIV_V2     # spares a GETXATTR before each write; requests carry KILL_SUIDGID
    | InitFlag.INIT_EXT
    | InitFlag.DIRECT_IO_ALLOW_MMAP   # shared mmap of a file opened with FOPEN_DIRECT_IO
    | InitFlag.HAS_RESEND             # a new server may ask for unanswered requests again
    | InitFlag.POSIX_ACL              # a source's ACL decides for other users: its mask is all that the mode shows
)


class VersionError(ProtocolError):
    """The kernel speaks a version of the protocol that is not understood here."""

    errno = errno.EPROTO


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a server would like; the kernel may grant less."""

    flags: InitFlag = WANTED_FLAGS
    max_write: int = 1 << 20           # bytes of data in one WRITE, and of READ through max_pages
    max_readahead: int = 1 << 20       # bytes; the kernel offers 128 KiB: see device.raise_readahead
    max_background: int = 64           # requests the kernel keeps in flight for read-ahead and AIO
    congestion_threshold: int = 48
    time_gran: int = 1                 # nanoseconds
    passthrough: bool = False          # needs CAP_SYS_ADMIN for BACKING_OPEN
    iomap: bool = False                # fuse-iomap v7, only where its ioctl says so: the flag alone proves nothing
    max_stack_depth: int = MAX_STACK_DEPTH  # 2: sources may be stacked once (overlayfs, EROFS)
    page_size: int = PAGESIZE          # bytes


@dataclass(frozen=True, slots=True)
class Negotiated:
    """What holds from INIT's reply on."""

    minor: int
    flags: InitFlag
    max_write: int             # bytes
    max_pages: int
    max_readahead: int         # bytes
    max_background: int
    congestion_threshold: int
    time_gran: int
    max_stack_depth: int       # 0 without passthrough

    @property
    def passthrough(self) -> bool:
        """Whether FOPEN_PASSTHROUGH may be used."""
        return InitFlag.PASSTHROUGH in self.flags

    @property
    def iomap(self) -> bool:
        """Whether fuse-iomap v7 holds: the kernel asks for IOMAP_CONFIG next."""
        return iomap_v7.INIT_FLAG in self.flags

    @property
    def resend(self) -> bool:
        """Whether the kernel knows NotifyCode.RESEND."""
        return InitFlag.HAS_RESEND in self.flags

    @property
    def buffer_size(self) -> int:
        """Bytes a buffer must have to receive any request."""
        return max(MIN_READ_BUFFER, IO_REQUEST_SIZE + self.max_write)

    def values(self) -> dict[str, int]:
        """As plain values, for another process."""
        return asdict(self)

    @staticmethod
    def from_values(values: dict[str, int]) -> Negotiated:
        """The inverse of values()."""
        return Negotiated(**{**values, "flags": InitFlag(values["flags"])})  # type: ignore[arg-type]  # checked above

    def reply(self) -> InitOut:
        """The message that tells the kernel."""
        return InitOut(
            major=KERNEL_MAJOR,
            minor=self.minor,
            max_readahead=self.max_readahead,
            flags_low=self.flags & 0xFFFFFFFF,
            max_background=self.max_background,
            congestion_threshold=self.congestion_threshold,
            max_write=self.max_write,
            time_gran=self.time_gran,
            max_pages=self.max_pages,
            flags_high=self.flags >> 32,
            max_stack_depth=self.max_stack_depth,
        )


RETRY = InitOut(KERNEL_MAJOR, KERNEL_MINOR)  # "we speak 7": the kernel sends INIT again


def negotiate(init: InitIn, wanted: Wanted | None = None) -> Negotiated | None:
    """What holds after this INIT; send `.reply()`.

    None when the kernel's major is larger than ours: send RETRY and wait for a second INIT. Raises
    VersionError (EPROTO) when the kernel is older than 7.31.
    """
    wanted = wanted or Wanted()
    if init.major > KERNEL_MAJOR:
        return None
    if (init.major, init.minor) < (KERNEL_MAJOR, OLDEST_MINOR):
        raise VersionError(f"the kernel speaks FUSE {init.major}.{init.minor}, regionfs needs"
                           f" {KERNEL_MAJOR}.{OLDEST_MINOR} (Linux 5.4) or later")
    flags = init.flags & _asked(wanted)
    max_pages = DEFAULT_MAX_PAGES
    if InitFlag.MAX_PAGES in flags:
        max_pages = max(1, min(0xFFFF, wanted.max_write // wanted.page_size))
    return Negotiated(
        minor=min(init.minor, iomap_v7.MINOR if iomap_v7.INIT_FLAG in flags else KERNEL_MINOR),
        flags=flags,
        max_write=min(wanted.max_write, max_pages * wanted.page_size),
        max_pages=max_pages if InitFlag.MAX_PAGES in flags else 0,
        max_readahead=min(init.max_readahead, wanted.max_readahead),
        max_background=wanted.max_background,
        congestion_threshold=wanted.congestion_threshold,
        time_gran=wanted.time_gran,
        max_stack_depth=wanted.max_stack_depth if InitFlag.PASSTHROUGH in flags else 0,
    )


def _asked(wanted: Wanted) -> InitFlag:
    if wanted.passthrough:
        # the kernel would silently leave passthrough off next to a write-back cache
        asked = (wanted.flags | InitFlag.PASSTHROUGH) & ~InitFlag.WRITEBACK_CACHE
    else:
        asked = wanted.flags & ~InitFlag.PASSTHROUGH
    return asked | iomap_v7.INIT_FLAG if wanted.iomap else asked
