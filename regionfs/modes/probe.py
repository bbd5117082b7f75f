"""What this machine and this process can do, found out by trying; never derived from a version number.

Each probe answers with an Ability: the reason is a sentence for people, the remedy what would help. They
take a few milliseconds, since every mount runs them, and leave nothing behind. Passthrough can only be tried
on a live FUSE connection, which this layer does not have: the server passes a function that tries it.
"""

from __future__ import annotations

import errno
import os
import struct
import tempfile
from collections.abc import Callable, Sequence
from fcntl import ioctl
from pathlib import Path

from regionfs.modes.choose import Ability, Kernel
from regionfs.modes.composed import ComposeError, image_directory

FUSE_DEVICE = Path("/dev/fuse")
ENABLE_IOMAP = Path("/sys/module/fuse/parameters/enable_iomap")

# FUSE_DEV_IOC_IOMAP_SUPPORT of the fuse-iomap patches, v7: _IOR(229, 99, {u64 flags, u64 0})
_IOMAP_SUPPORT, _IOMAP_ANSWER = 0x8010E563, struct.Struct("=QQ")
_IOMAP_FILE_IO = 1  # flags: the kernel permits file I/O through iomap to this process
_CAP_SYS_ADMIN = 21

_AS_ROOT = "run regionfs as root, outside of a container's user namespace"
_PASSTHROUGH_REFUSED = {
    errno.EOPNOTSUPP: ("this kernel's FUSE has no passthrough",
                       "a kernel with CONFIG_FUSE_PASSTHROUGH (Linux 6.9 or newer)"),
    errno.ENOTTY: ("this kernel's FUSE has no passthrough",
                   "a kernel with CONFIG_FUSE_PASSTHROUGH (Linux 6.9 or newer)"),
    errno.EPERM: ("the kernel does not let this process register backing files", _AS_ROOT),
    errno.ELOOP: ("the file system of the temporary directory is stacked too deep already",
                  "sources and TMPDIR on a file system that is not itself an overlay"),
}
_COMPOSED_REFUSED = {
    errno.EPERM: ("mounting an image needs CAP_SYS_ADMIN", _AS_ROOT),
    errno.ENODEV: ("this kernel has no EROFS", "modprobe erofs, or a kernel with CONFIG_EROFS_FS"),
    errno.ENOSYS: ("this kernel has no fsopen(2)", "Linux 5.2 or newer"),
    errno.ENOTBLK: ("EROFS takes no image from a file here",
                    "a kernel with CONFIG_EROFS_FS_BACKED_BY_FILE (Linux 6.12 or newer), and TMPDIR or "
                    "/var/tmp on ext4, xfs or btrfs"),
}


def probe(try_passthrough: Callable[[int], object] | None = None) -> Kernel:
    """The abilities of this process on this machine.

    `try_passthrough` registers a descriptor as backing file on a live connection and releases it again; it
    raises OSError as the kernel does, with EOPNOTSUPP when INIT did not grant passthrough. Without it,
    passthrough counts as available when nothing that can be seen from here stands against it.
    """
    return Kernel(probe_passthrough(try_passthrough), probe_composed(), probe_iomap())


def probe_passthrough(trial: Callable[[int], object] | None = None) -> Ability:
    """Whether the kernel may read and write sources by itself; `trial` as in probe()."""
    if not _is_admin():
        return Ability(False, "passthrough needs CAP_SYS_ADMIN in the initial user namespace", _AS_ROOT)
    if refused := _no_device():
        return refused
    if trial is None:
        return Ability(True, "nothing stands against it; a mount tries it")
    try:
        with tempfile.TemporaryFile() as file:
            trial(file.fileno())
    except OSError as error:
        return _refusal("passthrough", _PASSTHROUGH_REFUSED, error.errno, error.strerror or str(error))
    return Ability(True, "the kernel registered a backing file")


def probe_composed(directories: Sequence[Path] | None = None) -> Ability:
    """Whether a tiny image mounts, and reads right, from one of `directories`."""
    try:
        directory = image_directory(directories)
    except ComposeError as error:
        return _refusal("composed", _COMPOSED_REFUSED, error.code, str(error))
    return Ability(True, f"a trial image in {directory} mounted and read right")


def probe_iomap(device: Path = FUSE_DEVICE, ask: Callable[[int], int] | None = None,
                parameter: Path = ENABLE_IOMAP) -> Ability:
    """Whether the kernel has fuse-iomap and permits it to this process.

    `ask` gets a descriptor of `device` and answers with the flags of IOMAP_SUPPORT, or raises its OSError.
    """
    if refused := _no_device(device):
        return refused
    fd = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    try:
        permitted = (ask or _iomap_support)(fd) & _IOMAP_FILE_IO
    except OSError as error:
        built = error.errno == errno.EOPNOTSUPP
        return Ability(False, "fuse-iomap is compiled out of this kernel" if built else "this kernel has no fuse-iomap",
                       "a kernel with the fuse-iomap patches and CONFIG_FUSE_IOMAP")
    finally:
        os.close(fd)
    if permitted:
        return Ability(True, "the kernel permits file I/O through iomap")
    if _is_off(parameter):
        return Ability(False, "fuse-iomap is switched off by the parameter enable_iomap", f"echo 1 > {parameter}")
    return Ability(False, "fuse-iomap is not permitted to this process", "CAP_SYS_RAWIO; run regionfs as root")


def _iomap_support(fd: int) -> int:
    flags: int
    flags, _ = _IOMAP_ANSWER.unpack(ioctl(fd, _IOMAP_SUPPORT, bytes(_IOMAP_ANSWER.size)))
    return flags


def _is_off(parameter: Path) -> bool:
    """A module parameter says no; one that cannot be read says nothing."""
    try:
        return parameter.read_text().strip() in ("N", "0")
    except OSError:
        return False


def _no_device(device: Path = FUSE_DEVICE) -> Ability | None:
    """Why `device` does not open; None when it does."""
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return Ability(False, f"there is no {device}", "modprobe fuse; in a container, --device /dev/fuse")
    except OSError as error:
        return Ability(False, f"{device} does not open: {error.strerror}",
                       f"permission to read and write {device}, or root")
    return None


def _is_admin() -> bool:
    """CAP_SYS_ADMIN is effective, in the initial user namespace."""
    lines = Path("/proc/self/status").read_text().splitlines()
    effective = next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))
    initial = Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]
    return initial and bool(effective >> _CAP_SYS_ADMIN & 1)


def _refusal(mode: str, table: dict[int, tuple[str, str]], code: int | None, words: str) -> Ability:
    """What an errno of a trial means, or the kernel's own words where the table does not know it."""
    reason, remedy = table.get(code or 0, (f"a trial of {mode} failed: {words}", "the kernel log may say more"))
    return Ability(False, reason, remedy)
