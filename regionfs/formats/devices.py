"""What readers may ask this machine: a source's size, and which file a loop device shows.

Source: Linux Documentation/ABI/testing/sysfs-block (loop/backing_file, offset, sizelimit; partition,
start). Knows no format.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import NamedTuple

from regionfs.formats.values import SECTOR, FormatError
from regionfs.manifest.inspect import inspect_source
from regionfs.units import MAX_OFFSET


class Device(NamedTuple):
    """Bytes [offset, offset + size) of the file or device at `path`."""

    path: Path
    offset: int = 0
    size: int = MAX_OFFSET


def from_system(name: str, sys: Path = Path("/sys")) -> Device:
    """What `name`, a path or MAJOR:MINOR, shows. Raises FormatError when this machine does not have it."""
    number = name if re.fullmatch(r"[0-9]{1,10}:[0-9]{1,10}", name) else _number(name)
    node = sys / "dev/block" / number
    if not (node / "uevent").exists():
        raise FormatError(f"{name}: this machine has no block device {number}")
    if (node / "partition").exists() and (node / "../loop").exists():
        whole = _loop(node / "../loop", name)
        start, size = _integer(node / "start") * SECTOR, _integer(node / "size") * SECTOR
        return Device(whole.path, whole.offset + start, size)
    if (node / "loop").exists():
        return _loop(node / "loop", name)
    for line in (node / "uevent").read_text().splitlines():
        if line.startswith("DEVNAME="):
            return Device(Path("/dev") / line.removeprefix("DEVNAME="))
    raise FormatError(f"{name}: the kernel does not tell the name of block device {number}")


def size_of(path: Path) -> int:
    """Bytes of the regular file or block device at `path`. Raises SourceError."""
    return inspect_source(path).size


def _number(name: str) -> str:
    try:
        status = Path(name).stat()
    except (OSError, ValueError) as error:
        raise FormatError(f"{name}: {getattr(error, 'strerror', None) or error}; "
                          "the table's devices must be on this machine") from None
    if not name.startswith("/") or not stat.S_ISBLK(status.st_mode):
        raise FormatError(f"{name} is neither the path of a block device nor MAJOR:MINOR")
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def _loop(loop: Path, name: str) -> Device:
    path = (loop / "backing_file").read_text().removesuffix("\n")
    if path.endswith(" (deleted)"):
        raise FormatError(f"{name}: its file {path.removesuffix(' (deleted)')} was deleted")
    return Device(Path(path), _integer(loop / "offset"), _integer(loop / "sizelimit") or MAX_OFFSET)


def _integer(path: Path) -> int:
    return int(path.read_text())
