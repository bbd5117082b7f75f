"""regionfs mount: show a manifest's files in a directory."""

from __future__ import annotations

from pathlib import Path

import click

from regionfs.cli.common import examples, manifest_argument


@click.command(epilog=examples("regionfs mount disk.yaml /mnt/vm",
                               "regionfs mount -f --modes passthrough,userspace disk.yaml /mnt/vm"))
@manifest_argument
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground; log to stderr.")
@click.option("-o", "options", metavar="OPTS", default="", help="Mount options as in mount(8): ro,allow_other,...")
@click.option("--engine", type=click.Choice(["auto", "native", "pyfuse3"]), default="auto", show_default=True,
              help="Who speaks FUSE.")
@click.option("--modes", metavar="LIST", help="Modes to use, in this order; others are forbidden.")
@click.option("--allow-other", is_flag=True, help="Let other users in; permissions are still checked.")
@click.option("--ro", is_flag=True, help="Mount read-only.")
@click.option("-v", "--verbose", is_flag=True, help="Log more.")
def mount(manifest: Path, directory: Path, foreground: bool, options: str, engine: str, modes: str | None,
          allow_other: bool, ro: bool, verbose: bool) -> None:
    """Mount MANIFEST on DIRECTORY; returns when the mount answers."""
    from regionfs.daemon import start
    from regionfs.daemon.config import MountConfig
    from regionfs.modes.choose import DEFAULT_ORDER, parse_modes
    from regionfs.wire.options import parse_options

    words = ",".join([options, *(["allow_other"] if allow_other else []), *(["ro"] if ro else [])])
    path, point = manifest.absolute(), directory.resolve()
    config = MountConfig(manifest=path, mountpoint=point, options=parse_options(words, fsname=str(path)),
                         engine=engine, modes=parse_modes(modes) if modes else DEFAULT_ORDER, verbose=verbose)
    start.check_mountpoint(point, nonempty="nonempty" in words.split(","))
    if foreground:
        start.serve_in_foreground(config)
    start.serve_in_background(config)
