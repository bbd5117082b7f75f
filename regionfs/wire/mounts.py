"""What the kernel shows of mounts: /proc/self/mountinfo, their read-ahead and their connections in /sys."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from regionfs import readahead

MOUNTINFO = Path("/proc/self/mountinfo")
CONNECTIONS = Path("/sys/fs/fuse/connections")
FSTYPE = "fuse.regionfs"

_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """One line of mountinfo, proc_pid_mountinfo(5)."""

    device: int      # st_dev of everything in it
    mountpoint: str
    fstype: str      # with subtype
    source: str      # the manifest's path
    options: str     # of the super block, "rw,user_id=0,..."


def list_mounts(text: str | None = None) -> list[Mount]:
    """The regionfs mounts this process sees, in the kernel's order; from `text` instead of mountinfo if given."""
    if text is None:
        text = os.fsdecode(MOUNTINFO.read_bytes())
    return [mount for mount in map(_parse, text.splitlines()) if mount.fstype == FSTYPE]


def find(mountpoint: Path) -> Mount | None:
    """The regionfs mount on `mountpoint`, the topmost where there are several; None without one."""
    return next((mount for mount in reversed(list_mounts()) if mount.mountpoint == str(mountpoint)), None)


def settle(directory: Path) -> Path:
    """`directory` absolute and resolved, without a call on what is mounted there: nobody may answer it."""
    path = directory.absolute()
    point = Path(os.path.realpath(path.parent), path.name)
    return point if find(point) else point.resolve()


def raise_readahead(device: int, kib: int = readahead.READ_AHEAD_KIB) -> bool:
    """Let the kernel read ahead up to `kib` KiB on the mount with this st_dev; never lowers it.

    False when that is not allowed (only root may) or not there. The kernel starts with 128 KiB, and anew when
    fuse-iomap gives the mount a backing device of its own name.
    """
    name = f"{os.major(device)}:{os.minor(device)}"
    raised = [readahead.raise_of(entry, kib) for entry in (name, f"{name}-fuse.iomap")]
    return any(raised)


def abort_connection(device: int) -> bool:
    """End the connection of the mount with this st_dev at once: waiting calls fail, and so do later ones.

    False when not allowed or /sys/fs/fuse/connections is not mounted.
    """
    try:
        (CONNECTIONS / str(os.minor(device)) / "abort").write_text("1")
    except OSError:
        return False
    return True


def _parse(line: str) -> Mount:
    # 36 35 98:0 /root /mountpoint options [tags...] - fstype source super_options
    head, _, tail = line.partition(" - ")
    _, _, device, _, mountpoint, *_ = head.split(" ")
    fstype, source, options = tail.split(" ", 2)
    major, minor = map(int, device.split(":"))
    return Mount(os.makedev(major, minor), _unescape(mountpoint), fstype, _unescape(source), options)


def _unescape(text: str) -> str:
    """Undo the kernel's \\040 for space, tab, newline, # and backslash."""
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)
