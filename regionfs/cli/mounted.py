"""Whether a manifest that was written is mounted: then its mount shows the old one until it is told."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator
from pathlib import Path

from regionfs.cli.common import say
from regionfs.errors import MountError


def tell_written(manifest: Path, what: str, *, quiet: bool = False) -> None:
    """Say what became of the manifest, and how each of this user's mounts of it gets to show that."""
    if quiet:
        return
    say(f"{manifest}: {what}", err=True)
    for point in _mounts(manifest):
        say(f"{point} shows the manifest as it was until: regionfs reload {shlex.quote(str(point))}", err=True)


def _mounts(manifest: Path) -> Iterator[Path]:
    from regionfs.daemon import runtime
    path = os.path.realpath(manifest)
    try:
        yield from [known.mountpoint for known in runtime.known()
                    if known.alive and os.path.realpath(known.manifest) == path]
    except (OSError, MountError):  # no place for runtime files: nothing is mounted by us
        return
