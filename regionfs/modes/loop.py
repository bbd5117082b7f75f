"""Loop devices on request: a regular file as a block device, so that iomap can serve it.

A device is attached with autoclear: it goes when the last descriptor of it is closed, that is when the mount
ends, or the processes that hold it die. Knows the loop driver's ioctls; does not decide whether iomap is
worth it. One file gets one device, however many names it has.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from fcntl import ioctl
from pathlib import Path
from struct import Struct

from regionfs.manifest.confine import reach
from regionfs.manifest.inspect import inspect_source
from regionfs.manifest.schema import Manifest

log = logging.getLogger("regionfs")

CONTROL = Path("/dev/loop-control")
SECTOR = 512  # bytes; a loop device hides what follows its file's last whole one

# linux/loop.h
_CTL_GET_FREE, _GET_STATUS64, _CONFIGURE = 0x4C82, 0x4C05, 0x4C0A
_READ_ONLY, _AUTOCLEAR = 1, 4
# struct loop_info64: device, inode, rdevice, offset, sizelimit; number, two of encryption, flags; names, key, init
_INFO = Struct("=5Q4I64s64s32s2Q")
_CONFIG = Struct("=2I" + _INFO.format[1:] + "64x")  # struct loop_config: fd, block_size, info
_TRIES = 16

Identity = tuple[int, ...]  # SourceFacts.identity


def attach_loops(manifest: Manifest, known: Iterable[Path] = ()) -> tuple[Manifest, list[int]]:
    """The manifest with a loop device for every source that asks for one, and descriptors that keep new ones.

    Of `known` devices those that fit are used again. A file that gets none stays what it is, with one log line.
    """
    asking = [key for key, spec in manifest.sources.items() if spec.loop]
    if not asking:
        return manifest, []
    facts = {key: inspect_source(spec.path, confine=manifest.confine) for key, spec in manifest.sources.items()}
    written = {facts[key].identity for file in manifest.files.values() for key in file.rw_sources}
    found = _attached(known)
    devices: dict[Identity, Path] = {}
    kept: list[int] = []
    for key in asking:
        identity, size = facts[key].identity, facts[key].size
        if size % SECTOR:
            log.warning("%s: no loop device: %d bytes are not whole sectors of %d", key, size, SECTOR)
        elif (identity, identity in written) in found:
            devices[identity] = found[identity, identity in written]
        elif identity not in devices:
            try:
                with reach(manifest.sources[key].path, manifest.confine) as here:
                    fd, devices[identity] = attach(here, identity in written)
                kept.append(fd)
            except OSError as error:
                log.warning("%s: no loop device: %s", key, error.strerror)
    sources = {key: replace(spec, device=devices.get(facts[key].identity)) for key, spec in manifest.sources.items()}
    return replace(manifest, sources=sources), kept


def attach(path: Path | str, writable: bool) -> tuple[int, Path]:
    """A new loop device over the file at `path`: a descriptor that keeps it, and its name. OSError."""
    access = os.O_RDWR if writable else os.O_RDONLY
    backing = os.open(path, access | os.O_CLOEXEC)
    try:
        for _ in range(_TRIES):
            device = Path(f"/dev/loop{_free()}")
            fd = os.open(device, access | os.O_CLOEXEC)
            try:
                ioctl(fd, _CONFIGURE, _configuration(backing, 0 if writable else _READ_ONLY))
                return fd, device
            except OSError as error:
                os.close(fd)
                if error.errno != errno.EBUSY:  # somebody was faster
                    raise
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(CONTROL))
    finally:
        os.close(backing)


def _free() -> int:
    control = os.open(CONTROL, os.O_RDWR | os.O_CLOEXEC)
    try:
        return ioctl(control, _CTL_GET_FREE)
    finally:
        os.close(control)


def _configuration(backing: int, flags: int) -> bytes:
    return _CONFIG.pack(backing, SECTOR, 0, 0, 0, 0, 0, 0, 0, 0, flags | _AUTOCLEAR, b"", b"", b"", 0, 0)


def _attached(devices: Iterable[Path]) -> dict[tuple[Identity, bool], Path]:
    """What each of `devices` shows, as its driver tells: (the file's identity, writable) -> device."""
    found: dict[tuple[Identity, bool], Path] = {}
    for device in devices:
        try:
            fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            values = _INFO.unpack(ioctl(fd, _GET_STATUS64, bytes(_INFO.size)))
            found[(values[0], values[1]), not values[8] & _READ_ONLY] = device
        except OSError:  # no file behind it any more
            pass
        finally:
            os.close(fd)
    return found
