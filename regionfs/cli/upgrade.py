"""regionfs upgrade: put this version's server behind a running mount."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from regionfs.cli.common import MOUNT_POINT, examples, quiet_option, say


@click.command(epilog=examples("regionfs upgrade /mnt/vm"))
@click.argument("directory", type=MOUNT_POINT)
@quiet_option
def upgrade(directory: Path, quiet: bool) -> None:
    """Replace the server of the mount on DIRECTORY by this installation's; nobody who uses it notices."""
    from regionfs import __version__
    from regionfs.daemon.start import ask
    from regionfs.wire.mounts import settle

    ask(settle(directory), "upgrade", python=sys.executable)
    if not quiet:
        say(f"{directory} is served by regionfs {__version__} of {sys.executable}", err=True)
