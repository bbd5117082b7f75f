"""Step 5: what a directory's file system lies on, so that nobody copies a disk into itself.

Follows /proc/self/mountinfo and sysfs downwards: a partition to its disk, a loop device to its file, a
device-mapper or md device to its parts. Where they do not tell (a network, tmpfs), nothing lies beneath.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from regionfs.manifest.inspect import SourceFacts

_SYS_BLOCK = Path("/sys/dev/block")


def lies_on(directory: Path, source: SourceFacts) -> bool:
    """True when writing below `directory` changes the bytes of `source`."""
    return any(source.identity == identity for identity in _below_file_system(directory))


def _below_file_system(path: Path) -> Iterator[tuple[int, ...]]:
    """Identities of what the file system of `path` lies on, all the way down."""
    path = path.resolve()
    devices = {path.stat().st_dev}
    # btrfs gives its files a number that is no device's; the mount's source is one
    best = 0
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        fields, _, rest = line.partition(" - ")
        point = Path(_unescaped(fields.split()[4]))
        if path.is_relative_to(point) and len(point.parts) >= best:
            best, source = len(point.parts), Path(_unescaped(rest.split()[1]))
    if best and source.is_block_device():
        devices.add(source.stat().st_rdev)
    for device in devices:
        yield from _beneath(device)


def _beneath(device: int) -> Iterator[tuple[int, ...]]:
    """Identities, as SourceFacts has them, of a block device and of everything it is made of."""
    yield (device,)
    here = _SYS_BLOCK / f"{os.major(device)}:{os.minor(device)}"
    below = [*here.glob("slaves/*/dev"), *([here.resolve().parent / "dev"] if (here / "partition").exists() else [])]
    for entry in below:
        major, minor = entry.read_text().split(":")
        yield from _beneath(os.makedev(int(major), int(minor)))
    try:
        file = Path((here / "loop/backing_file").read_text().rstrip("\n"))
        status = file.stat()
    except OSError:  # no loop device, or its file has no name any more
        return
    yield (status.st_rdev,) if file.is_block_device() else (status.st_dev, status.st_ino)
    yield from _below_file_system(file)


def _unescaped(text: str) -> str:
    """The name behind mountinfo's octal escapes."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
