"""Where a file system is in use, and whether anybody serves it: what the kernel tells of that.

A mount may be known to others than this user's runtime directory, and a file system may be mounted in more
places than one: by a bind mount, or in the copy of a mount namespace that a container or a service has.
"""

from __future__ import annotations

import errno
import os
import select
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from regionfs.errors import MountError
from regionfs.wire import device, mounts
from regionfs.wire.mounts import Mount

PATIENCE = 3.0   # seconds for a mount to answer
_DEAD = (errno.ENOTCONN, errno.ECONNABORTED)


def answers(mount: Mount, patience: float = PATIENCE) -> bool | None:
    """Whether somebody serves a FUSE mount: False for a dead one, None where it does not answer, or not to us.

    Asked by a process that need not return.
    """
    child = os.fork()
    if child == 0:
        os._exit(_ask(mount))
    ended = os.pidfd_open(child)
    poll = select.poll()
    poll.register(ended, select.POLLIN)
    try:
        if not poll.poll(patience * 1000):
            os.kill(child, signal.SIGKILL)
            return None
        _, status = os.waitpid(child, 0)
    finally:
        os.close(ended)
    return {0: True, 1: False}.get(os.waitstatus_to_exitcode(status))


def _ask(mount: Mount) -> int:
    """0: it answers; 1: it is dead; 2: we are not told."""
    try:
        if os.geteuid() == 0:  # the kernel lets nobody else in
            user, group = mount.owner
            os.setresgid(group, group, group)
            os.setresuid(user, user, user)
        return 0 if os.statvfs(mount.mountpoint).f_blocks else 2
    except OSError as error:
        return 1 if error.errno in _DEAD else 2


def clear_dead(point: Path) -> bool:
    """Take away the mount on `point` if its daemon died; False where no regionfs is. MountError when it lives."""
    mount = mounts.top(point)
    if mount is None or not mount.is_ours:
        return False
    alive = answers(mount)
    if alive is False:
        device.unmount(str(point), lazy=True)
        return True
    user, _ = mount.owner
    whose = f"by user {user}" if user != os.geteuid() else "from another runtime directory (XDG_RUNTIME_DIR)"
    silent = "" if alive else ", and does not answer"
    raise MountError(f"{point}: {mount.source} is mounted there already, {whose}{silent}; "
                     f"end that first: regionfs umount {point}")


def other_places(device_number: int) -> Iterator[str]:
    """Every place where the file system with this st_dev is mounted, in words, as far as this user may see."""
    for mount in mounts.list_all():
        if mount.device == device_number:
            yield mount.mountpoint
    seen = {_namespace("self")}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (namespace := _namespace(entry.name)) not in seen:
            seen.add(namespace)
            with suppress(OSError):  # gone
                text, name = (entry / "mountinfo").read_bytes(), (entry / "comm").read_text(errors="replace")
                for mount in mounts.list_all(os.fsdecode(text)):
                    if mount.device == device_number:
                        yield (f"{mount.mountpoint} in the mount namespace of process {entry.name} "
                               f"({name.strip()})")


def _namespace(pid: str) -> str | None:
    """Of a process; this one's where that is not told."""
    try:
        return str(Path(f"/proc/{pid}/ns/mnt").readlink())
    except OSError:
        return _namespace("self") if pid != "self" else None
