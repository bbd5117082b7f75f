"""regionfs upgrade: put this version's server behind a running mount."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from regionfs.cli.common import MOUNT_POINT, examples


@click.command(epilog=examples("regionfs upgrade /mnt/vm"))
@click.argument("directory", type=MOUNT_POINT)
def upgrade(directory: Path) -> None:
    """Replace the server of the mount on DIRECTORY by this installation's; nobody who uses it notices."""
    from regionfs.daemon.start import ask
    from regionfs.wire.mounts import settle

    ask(settle(directory), "upgrade", python=sys.executable)
