"""regionfs mount: show a manifest's files in a directory."""

from __future__ import annotations

from pathlib import Path

import click

from regionfs.cli.common import MOUNT_POINT, examples, manifest_argument, say
from regionfs.errors import UsageError


@click.command(epilog=examples("regionfs mount disk.yaml /mnt/vm",
                               "regionfs mount -f --modes passthrough,userspace disk.yaml /mnt/vm",
                               "regionfs mount -o ro,allow_other --confine /srv/images disk.yaml /mnt/vm"))
@manifest_argument
@click.argument("directory", type=MOUNT_POINT)
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground; log to stderr.")
@click.option("-o", "options", metavar="OPTS", multiple=True, help="Mount options as in mount(8): ro,allow_other,... "
              "and engine=, modes= (parted by colons), confine=, log_level=, poll=. May be given several times.")
@click.option("--engine", type=click.Choice(["auto", "native", "pyfuse3"]), help="Who speaks FUSE.  [default: auto]")
@click.option("--modes", metavar="LIST", help="Modes to use, in this order; others are forbidden.")
@click.option("--allow-other", is_flag=True, help="Let other users in; permissions are still checked.")
@click.option("--confine", metavar="DIR", help="Refuse sources outside DIR: no symbolic link, mount or .. leads out.")
@click.option("--ro", is_flag=True, help="Mount read-only.")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]),
              help="Log from this level on.  [default: info]")
@click.option("--poll", metavar="US", help="Stay awake for this many microseconds when requests come one by one; 0 "
              "spares the processor.  [default: 50]")
@click.option("-v", "--verbose", "log_level", flag_value="debug", help="As --log-level debug.")
@click.option("-q", "--quiet", "log_level", flag_value="warning",
              help="As --log-level warning, and do not say what was mounted.")
def mount(manifest: Path, directory: Path, foreground: bool, options: tuple[str, ...], allow_other: bool, ro: bool,
          **own: str | None) -> None:
    """Mount MANIFEST on DIRECTORY; returns when the mount answers."""
    from regionfs.wire.options import escape
    flags = [word for word, given in (("allow_other", allow_other), ("ro", ro)) if given]
    values = [f"{name}={escape(value)}" for name, value in own.items() if value is not None]
    mount_words(manifest, directory, ",".join([*options, *flags, *values]), foreground,
                quiet=own["log_level"] in ("warning", "error"))


def mount_words(manifest: Path, directory: Path, words: str, foreground: bool = False, *, quiet: bool = True) -> None:
    """Mount with the options `words` of -o; returns when the mount answers, or has ended in the foreground.

    Says on stderr what was mounted, unless `quiet`.
    """
    from regionfs.daemon import start
    from regionfs.daemon.config import MountConfig

    if manifest.is_dir() and directory.is_file():
        raise UsageError(f"{manifest} is a directory and {directory} a file; the manifest comes first: "
                         f"regionfs mount {directory} {manifest}")
    config = MountConfig.from_options(manifest, directory, words)
    start.check_mountpoint(config.mountpoint, nonempty="nonempty" in words.split(","))
    if foreground:
        start.serve_in_foreground(config)
    serves = start.serve_in_background(config)
    for warning in serves.get("warnings", ()):
        say(f"warning: {warning}", err=True)
    if not quiet:
        say(f"mounted {manifest} on {directory}: {start.served(serves)}", err=True)
