"""What the kernel shows of mounts: /proc/self/mountinfo, their read-ahead and their connections in /sys."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from regionfs import readahead

MOUNTINFO = Path("/proc/self/mountinfo")
CONNECTIONS = Path("/sys/fs/fuse/connections")
FSTYPE = "fuse.regionfs"
MOST_LINKS = 40  # of a path, path_resolution(7)

_OCTAL = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """One line of mountinfo, proc_pid_mountinfo(5)."""

    id: int          # stays when the mount is moved; no two mounts have one at the same time
    parent: int      # id of the mount that this one is mounted in, or on
    device: int      # st_dev of everything in it; equal for all mounts of one file system
    mountpoint: str
    fstype: str      # with subtype
    source: str      # the manifest's path
    options: str     # of the super block, "rw,user_id=0,..."

    @property
    def is_ours(self) -> bool:
        """True for a regionfs."""
        return self.fstype == FSTYPE

    @property
    def owner(self) -> tuple[int, int]:
        """User and group of a FUSE mount: whom the kernel lets in, besides others where allow_other says so."""
        found = re.search(r"\buser_id=(\d+),group_id=(\d+)", self.options)
        return (int(found[1]), int(found[2])) if found else (0, 0)


def list_all(text: str | None = None) -> list[Mount]:
    """The mounts this process sees, of any file system, in the kernel's order; from `text` if given."""
    if text is None:
        text = os.fsdecode(MOUNTINFO.read_bytes())
    return [*map(_parse, text.splitlines())]


def list_mounts(text: str | None = None) -> list[Mount]:
    """The regionfs mounts this process sees, in the kernel's order; from `text` instead of mountinfo if given."""
    return [mount for mount in list_all(text) if mount.is_ours]


def find(mountpoint: Path) -> Mount | None:
    """The regionfs mount on `mountpoint`, the topmost where there are several; None without one."""
    return next((mount for mount in reversed(list_mounts()) if mount.mountpoint == str(mountpoint)), None)


def top(mountpoint: Path, table: Iterable[Mount] | None = None) -> Mount | None:
    """The mount that umount(2) of `mountpoint` would end, of any file system; None where nothing is mounted."""
    here = [mount for mount in (list_all() if table is None else table) if mount.mountpoint == str(mountpoint)]
    covered = {mount.parent for mount in here}
    return next((mount for mount in here if mount.id not in covered), None)


def ways_into(device: int, table: Iterable[Mount] | None = None) -> Callable[[Path], bool]:
    """Tells of a path (absolute) whether it leads into the file system with this st_dev, without a call on that.

    Follows symbolic links, and remembers directories: good for a moment, and for many paths.
    """
    table = [*(list_all() if table is None else table)]
    roots = {mount.mountpoint for mount in table
             if mount.device == device and top(Path(mount.mountpoint), table) == mount}
    known: dict[str, str | None] = {"": ""}  # directory as written -> what it is; None: inside

    def follow(path: str, links: int) -> str | None:
        if path not in known:
            above, _, name = path.rpartition("/")
            directory = follow(above, links)
            known[path] = None if directory is None else enter(directory, name, links)
        return known[path]

    def enter(directory: str, name: str, links: int) -> str | None:
        if name in ("", "."):
            return directory
        if name == "..":
            return directory.rpartition("/")[0]
        here = f"{directory}/{name}"
        if here in roots:
            return None
        with suppress(OSError):  # no link
            target = os.readlink(here)  # noqa: PTH115 - a Path would cost more than the call, for each source
            if links < MOST_LINKS:
                return follow(target if target.startswith("/") else f"{directory}/{target}", links + 1)
        return here

    return lambda path: follow(str(path), 0) is None


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
    identity, parent, device, _, mountpoint, *_ = head.split(" ")
    fstype, source, options = tail.split(" ", 2)
    major, minor = map(int, device.split(":"))
    return Mount(int(identity), int(parent), os.makedev(major, minor), _unescape(mountpoint), fstype,
                 _unescape(source), options)


def _unescape(text: str) -> str:
    """Undo the kernel's \\040 for space, tab, newline, # and backslash."""
    return _OCTAL.sub(lambda found: chr(int(found[1], 8)), text)
