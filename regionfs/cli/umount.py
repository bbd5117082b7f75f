"""regionfs umount: end a mount and wait until what was written is safe."""

from __future__ import annotations

import os
import select
from pathlib import Path

import click

from regionfs.cli.common import examples

WAIT = 60  # seconds for the daemon to flush and end


@click.command(epilog=examples("regionfs umount /mnt/vm", "regionfs umount --lazy /mnt/vm"))
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--lazy", is_flag=True, help="Detach now; end when the last file is closed.")
def umount(directory: Path, lazy: bool) -> None:
    """Unmount DIRECTORY, and wait until data is safe."""
    from regionfs.daemon.start import daemon_of
    from regionfs.errors import MountError
    from regionfs.wire import device

    # the directory itself must not be touched: behind it a daemon may be dead
    point = Path(os.path.realpath(directory.parent), directory.name) if directory.name else directory.resolve()
    daemon = daemon_of(point)
    try:
        device.unmount(str(point), lazy)
        if daemon is not None and not lazy:
            poll = select.poll()
            poll.register(daemon, select.POLLIN)
            if not poll.poll(WAIT * 1000):
                raise MountError(f"{point} is unmounted, but its daemon still flushes after {WAIT} s")
    finally:
        if daemon is not None:
            os.close(daemon)
