"""Unmounting: only what is ours, until what was written is safe; and who keeps the file system in use elsewhere."""

from __future__ import annotations

import os
import select
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from regionfs.daemon import control, runtime, whereabouts
from regionfs.errors import MountError
from regionfs.wire import device, mounts
from regionfs.wire.mounts import Mount

WAIT = 60.0  # seconds for the daemon to flush and end


def unmount(point: Path, lazy: bool) -> Iterator[str]:
    """Unmount what regionfs mounted on `point`, and wait until its data is safe, but not where `lazy`.

    Yields what a person has to know: that the file system lives on, and where. What a dead daemon left is cleaned up.
    Raises MountError when there is nothing of ours, it is in use, or its data may not be safe.
    """
    there, ours = mounts.top(point), runtime.of(point)
    if there is None:
        yield from _nothing_there(point, ours)
    elif not there.is_ours:
        beneath = any(mount.mountpoint == str(point) for mount in mounts.list_mounts())
        raise MountError(f"{point}: {there.fstype} ({there.source}) is mounted there, " + (
            f"over a regionfs; end that first: umount {point}" if beneath else "not a regionfs; umount(8) ends it"))
    elif ours is not None and ours.alive and ours.is_of(there):
        with _holder(ours) as holder:
            device.unmount(str(point), lazy)
            if not lazy:
                yield from _until_safe(point, ours, holder)
    else:
        yield from _unmount_unknown(point, there, lazy)
        if ours is not None and not ours.alive:
            runtime.clean(ours.mountpoint, ours.number)


def _nothing_there(point: Path, ours: runtime.Known | None) -> Iterator[str]:
    """Somebody unmounted it already: what a dead daemon left is cleared, and one that still flushes is waited for."""
    if ours is None:
        raise MountError(f"cannot unmount {point}: nothing is mounted there")
    if not ours.alive:
        runtime.clean(ours.mountpoint, ours.number)
        return
    with _holder(ours) as holder:
        for word in _until_safe(point, ours, holder):
            raise MountError(f"cannot unmount {point}: nothing is mounted there any more; {word}")
    yield from ()


def _unmount_unknown(point: Path, there: Mount, lazy: bool) -> Iterator[str]:
    """A mount that this user's runtime directory does not know: a dead one, or one that others look after."""
    dead = whereabouts.answers(there) is False
    device.unmount(str(point), lazy or dead)
    if not dead:
        yield (f"{point} is unmounted; its daemon belongs to another user or runtime directory (XDG_RUNTIME_DIR), "
               "and was not waited for")


def _until_safe(point: Path, ours: runtime.Known, holder: _Process) -> Iterator[str]:
    """Wait for the daemon's end, or, where its file system is in use elsewhere, until what was written is on disk."""
    if holder.ended(0.2):  # it does nearly always
        return
    serving = False
    with suppress(ConnectionError):  # it just ends
        serving = bool(control.call(ours.socket, "sync")["serving"])
    if serving:
        yield from _in_use(ours)
    elif not holder.ended(WAIT):
        raise MountError(f"{point} is unmounted, but its daemon still flushes after {WAIT:.0f} s")


def _in_use(ours: runtime.Known) -> Iterator[str]:
    places = [*whereabouts.other_places(ours.place[1])] if ours.place else []
    where = ", ".join(places) or "a place that this user may not see: files still open, or another mount namespace"
    yield f"what was written is on disk; the file system of {ours.manifest} stays in use, by {where}"


class _Process:
    """The holder, until it ends."""

    def __init__(self, pid: int | None) -> None:
        self._fd = -1
        with suppress(ProcessLookupError):
            self._fd = os.pidfd_open(pid) if pid is not None else -1

    def ended(self, seconds: float) -> bool:
        """True once it has, within so many seconds."""
        poll = select.poll()
        if self._fd >= 0:
            poll.register(self._fd, select.POLLIN)
            return bool(poll.poll(seconds * 1000))
        return True

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def _holder(ours: runtime.Known) -> _Process:
    return _Process(ours.holder)
