"""regionfs umount: end a mount and wait until what was written is safe."""

from __future__ import annotations

from pathlib import Path

import click

from regionfs.cli.common import MOUNT_POINT, examples, quiet_option, say


@click.command(epilog=examples("regionfs umount /mnt/vm", "regionfs umount --lazy /mnt/vm"))
@click.argument("directory", type=MOUNT_POINT)
@click.option("--lazy", is_flag=True, help="Detach now; end when the last file is closed.")
@quiet_option
def umount(directory: Path, lazy: bool, quiet: bool) -> None:
    """Unmount DIRECTORY, and wait until data is safe.

    Where the file system is mounted elsewhere too (a bind mount, a container) it lives on there, and this says so.
    """
    from regionfs.daemon.ending import unmount
    from regionfs.wire.mounts import settle

    words = list(unmount(settle(directory), lazy))
    if not words and not quiet:
        words = [f"detached {directory}: files still open are served until they are closed" if lazy else
                 f"unmounted {directory}"]
    for word in words:
        say(word, err=True)
