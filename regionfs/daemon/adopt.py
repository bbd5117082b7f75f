"""A connection that outlives its holder: the service manager keeps the descriptor, a file what INIT agreed on.

When a holder dies under systemd the mount stays, its requests wait, and the next holder of the service
takes all of it over. Whoever ends a mount on purpose discards both.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from regionfs.daemon import sd_notify
from regionfs.wire import mounts
from regionfs.wire.session import Negotiated

NAME = "regionfs"  # of the stored descriptor


def keep(mount: mounts.Mount, file: Path, fd: int, negotiated: Negotiated) -> None:
    """Leave the connection with the service manager, if there is one, and in `file` what was agreed on."""
    if sd_notify.store(fd, NAME):
        file.write_text(json.dumps({"device": mount.device, "negotiated": negotiated.values()}))


def take(mountpoint: Path, file: Path) -> tuple[int, Negotiated] | None:
    """The connection of the mount that is still there; None when none was kept, or it is another mount's."""
    fd = sd_notify.take(NAME)
    if fd is None:
        return None
    mount = mounts.find(mountpoint)
    try:
        said = json.loads(file.read_text())
        if mount is not None and mount.device == said["device"]:
            return fd, Negotiated.from_values(said["negotiated"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        pass
    os.close(fd)
    sd_notify.discard(NAME)
    return None


def is_kept() -> bool:
    """True when this process was given a connection, not taken yet."""
    return sd_notify.is_given(NAME)


def discard() -> None:
    """The mount has ended: nobody shall take it over."""
    sd_notify.discard(NAME)
