"""/dev/fuse: open, mount, receive, send, clone, register backing files. The wire's only I/O.

One request per read(2), one reply per writev(2). Who keeps the descriptor keeps the mount: it ends with
umount or with the last copy of the descriptor. Knows nothing of what the messages say.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from regionfs.errors import MountError
from regionfs.wire import fusermount
from regionfs.wire.abi import DEV_IOC_BACKING_CLOSE, DEV_IOC_BACKING_OPEN, DEV_IOC_CLONE
from regionfs.wire.codec import Buffer, pack
from regionfs.wire.iomap_v7 import BACKING_IOMAP
from regionfs.wire.options import MountOptions
from regionfs.wire.replies import BackingMap

DEVICE = "/dev/fuse"
MNT_DETACH = 2        # linux/fs.h, for umount2(2)
BLKBSZSET = 0x40081271  # _IOW(0x12, 113, size_t), linux/fs.h; reads an int
UMOUNT_NOFOLLOW = 8

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mount.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p)
_libc.umount2.argtypes = (ctypes.c_char_p, ctypes.c_int)


def mount(mountpoint: str, options: MountOptions) -> int:
    """Mount on the existing directory `mountpoint`; returns the descriptor of /dev/fuse, close-on-exec.

    By mount(2) where that is allowed, else through fusermount3. The kernel has then queued INIT; calls on
    the mount wait for its answer. MountError says what to do.
    """
    try:
        fd = open_device()
    except PermissionError:
        return fusermount.mount(mountpoint, options)
    except OSError as error:
        raise MountError(f"cannot open {DEVICE}: {error.strerror}; load the driver: modprobe fuse") from error
    try:
        _mount(fd, mountpoint, options)
    except OSError as error:
        os.close(fd)
        if error.errno == errno.EPERM:
            return fusermount.mount(mountpoint, options)
        raise MountError(_mount_advice(error, mountpoint)) from error
    return fd


def unmount(mountpoint: str, lazy: bool = False) -> None:
    """Unmount; lazy detaches it now and ends it with its last user. MountError says what to do."""
    try:
        flags = UMOUNT_NOFOLLOW | (MNT_DETACH if lazy else 0)
        _check(_libc.umount2(os.fsencode(mountpoint), flags))
    except PermissionError:
        fusermount.unmount(mountpoint, lazy)
    except OSError as error:
        raise MountError(_unmount_advice(error, mountpoint)) from error


def open_device() -> int:
    """A new descriptor of /dev/fuse, belonging to no mount yet; OSError as open(2)."""
    return os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)


def is_connected(fd: int) -> bool:
    """True while the mount behind a descriptor of /dev/fuse is there, wherever: fuse_dev_poll, fs/fuse/dev.c."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return not any(events & select.POLLERR for _, events in poll.poll(0))


def descriptors() -> Iterator[int]:
    """Those of /dev/fuse that this process has, by /proc."""
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the one that listed
            if str(entry.readlink()) == DEVICE:
                yield int(entry.name)


def clone(fd: int) -> int:
    """Another descriptor of the connection `fd`, with a queue of its own for what it reads; OSError."""
    new = open_device()
    try:
        fcntl.ioctl(new, DEV_IOC_CLONE, fd.to_bytes(4, sys.byteorder))
    except BaseException:
        os.close(new)
        raise
    return new


def backing_open(fd: int, source_fd: int) -> int:
    """Register a regular file with the connection; returns its backing id (> 0).

    OSError: EPERM without CAP_SYS_ADMIN or negotiated passthrough, EINVAL or EISDIR for other than regular
    files, ELOOP where the file system is stacked too deep, ENOTTY before Linux 6.9.
    """
    # a mutable argument makes ioctl() return the call's result
    return int(fcntl.ioctl(fd, DEV_IOC_BACKING_OPEN, bytearray(pack(BackingMap(source_fd)))))


def backing_device(fd: int, device_fd: int) -> int:
    """Register a block device with the connection for iomap; returns its dev number (1..1024).

    OSError: EPERM before INIT was answered or without iomap, ENODEV for a regular file. Set its block size first.
    """
    return int(fcntl.ioctl(fd, DEV_IOC_BACKING_OPEN, bytearray(pack(BackingMap(device_fd, BACKING_IOMAP)))))


def set_block_size(device_fd: int, block: int) -> None:
    """Let a block device's own page cache use blocks of `block` bytes. OSError: EBUSY when others claim it."""
    fcntl.ioctl(device_fd, BLKBSZSET, block.to_bytes(4, sys.byteorder))


def backing_close(fd: int, backing_id: int) -> None:
    """Forget a backing id; opens that use it go on. OSError ENOENT when there is none."""
    fcntl.ioctl(fd, DEV_IOC_BACKING_CLOSE, backing_id.to_bytes(4, sys.byteorder))


class Registry:
    """Backing files of the connection behind one descriptor."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def backing_open(self, source_fd: int) -> int:
        """As the function of this name."""
        return backing_open(self._fd, source_fd)

    def backing_device(self, device_fd: int) -> int:
        """As the function of this name."""
        return backing_device(self._fd, device_fd)

    def backing_close(self, backing_id: int) -> None:
        """As the function of this name."""
        backing_close(self._fd, backing_id)

    def trial(self, source_fd: int) -> None:
        """Register a file and give its number back at once. OSError as backing_open."""
        self.backing_close(self.backing_open(source_fd))


def receive(fd: int, buffer: bytearray | memoryview) -> int:
    """Read one request into `buffer`; its size in bytes, or 0 when the mount has ended.

    BlockingIOError on a non-blocking descriptor without a request. `buffer` holds at least
    session.Negotiated.buffer_size bytes, 8192 before INIT.
    """
    while True:
        try:
            return os.readv(fd, (buffer,))
        except OSError as error:
            # ENODEV: unmounted or aborted. ENOENT: the request was interrupted while it was read.
            if error.errno == errno.ENODEV:
                return 0
            if error.errno != errno.ENOENT:
                raise


def send(fd: int, parts: Sequence[Buffer]) -> bool:
    """Write one reply or notification. False when nobody waits for it any more or the mount has ended.

    For notifications also when the kernel does not know the inode or name. OSError on anything else.
    """
    try:
        os.writev(fd, parts)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return False
        raise
    return True


def _mount(fd: int, mountpoint: str, options: MountOptions) -> None:
    data = (f"fd={fd},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},default_permissions,"
            f"max_read={options.max_read}") + (",allow_other" if options.allow_other else "")
    _check(_libc.mount(os.fsencode(options.fsname), os.fsencode(mountpoint),
                       os.fsencode(f"fuse.{options.subtype}"), options.flags, data.encode()))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _mount_advice(error: OSError, mountpoint: str) -> str:
    match error.errno:
        case errno.ENODEV:
            why = "the kernel has no FUSE; load the driver: modprobe fuse"
        case errno.ENOENT:
            why = "no such directory; create it"
        case errno.ENOTDIR:
            why = "not a directory; choose one"
        case errno.ENOTCONN:
            why = "a dead mount is in the way; end it: regionfs umount --lazy"
        case errno.EINVAL:
            why = "the kernel refused the mount options"
        case _:
            why = f"mount(2) failed: {error.strerror}"
    return f"cannot mount on {mountpoint}: {why}"


def _unmount_advice(error: OSError, mountpoint: str) -> str:
    match error.errno:
        case errno.EBUSY:
            why = "it is in use; see fuser -vm, or unmount with --lazy"
        case errno.EINVAL:
            why = "nothing is mounted there"
        case errno.ENOENT:
            why = "no such directory"
        case _:
            why = f"umount2(2) failed: {error.strerror}"
    return f"cannot unmount {mountpoint}: {why}"
