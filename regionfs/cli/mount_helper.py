"""mount.regionfs: what mount(8) and fstab run for the type regionfs.

    mount -t regionfs disk.yaml /mnt/vm -o ro,allow_other
    /etc/regionfs/vm.yaml  /mnt/vm  regionfs  nofail,modes=passthrough:userspace  0 0

mount(8) calls `mount.regionfs MANIFEST DIRECTORY [-sfnv] [-N namespace] [-o options] [-t type]`, mount(8),
"EXTERNAL HELPERS", and finds it in /sbin only. Options are those of `regionfs mount -o`; what concerns
mount(8) and systemd (nofail, _netdev, x-systemd.automount, ...) has no effect on the mount.
"""

from __future__ import annotations

from pathlib import Path

import click

from regionfs import __version__
from regionfs.cli.common import MOUNT_POINT
from regionfs.cli.main import Reporting, run


@click.command(cls=Reporting, name="mount.regionfs")
@click.argument("manifest", type=click.Path(path_type=Path))
@click.argument("directory", type=MOUNT_POINT)
@click.option("-o", "options", metavar="OPTS", multiple=True, help="Mount options, as of regionfs mount -o.")
@click.option("-f", "fake", is_flag=True, help="Check the options, mount nothing.")
@click.option("-v", "verbose", is_flag=True, help="Log more.")
@click.option("-s", "sloppy", is_flag=True, help="Accepted without effect: unknown options are errors.")
@click.option("-n", "no_mtab", is_flag=True, help="Accepted without effect: there is no mtab.")
@click.option("-t", "fstype", metavar="TYPE", help="Accepted without effect.")
@click.option("-N", "namespace", metavar="NS", help="Refused: run mount in the namespace instead.")
@click.version_option(__version__, "-V", "--version", message="mount.regionfs %(version)s")
def helper(manifest: Path, directory: Path, options: tuple[str, ...], fake: bool, verbose: bool,
           namespace: str | None, **_: object) -> None:
    """Mount MANIFEST on DIRECTORY for mount(8)."""
    from regionfs.cli.mount import mount_words
    from regionfs.daemon.config import MountConfig
    from regionfs.errors import UsageError

    if namespace is not None:
        raise UsageError(f"-N {namespace}: enter the namespace first: nsenter --mount={namespace} mount ...")
    words = ",".join([*options, *(["log_level=debug"] if verbose else [])])
    if fake:
        MountConfig.from_options(manifest, directory, words)
    else:
        mount_words(manifest, directory, words)


def main() -> None:
    """Run the helper and exit."""
    run(helper, "mount.regionfs")
