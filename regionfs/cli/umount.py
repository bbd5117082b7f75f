"""regionfs umount: end a mount and wait until what was written is safe."""

from __future__ import annotations

import os
import select
from pathlib import Path

import click

from regionfs.cli.common import MOUNT_POINT, examples

WAIT = 60  # seconds for the daemon to flush and end


@click.command(epilog=examples("regionfs umount /mnt/vm", "regionfs umount --lazy /mnt/vm"))
@click.argument("directory", type=MOUNT_POINT)
@click.option("--lazy", is_flag=True, help="Detach now; end when the last file is closed.")
def umount(directory: Path, lazy: bool) -> None:
    """Unmount DIRECTORY, and wait until data is safe."""
    from regionfs.daemon.start import unmount
    from regionfs.errors import MountError
    from regionfs.wire.mounts import settle

    point = settle(directory)
    for process in unmount(point, lazy):
        with os.fdopen(process, "rb", buffering=0):
            poll = select.poll()
            poll.register(process, select.POLLIN)
            if not lazy and not poll.poll(WAIT * 1000):
                raise MountError(f"{point} is unmounted, but its daemon still flushes after {WAIT} s")
