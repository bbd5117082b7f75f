"""Unmounting: only what is ours, until what was written is safe; and who keeps the file system in use elsewhere."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from regionfs.daemon import control, frozen, runtime, whereabouts
from regionfs.errors import MountError
from regionfs.wire import device, mounts
from regionfs.wire.mounts import Mount

WAIT = 60.0      # seconds for the daemon to flush and end
PATIENCE = 20.0  # seconds for a holder to answer; a new server may have to begin first


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
        with _Processes(ours) as processes:
            silent = not lazy and _is_silent(ours)
            device.unmount(str(point), lazy)
            if silent:
                yield from _end_silent(point, ours, processes)
            elif not lazy:
                yield from _until_safe(point, ours, processes)
    else:
        yield from _unmount_unknown(point, there, lazy)
        if ours is not None and not ours.alive:
            runtime.clean(*ours.name)


def _nothing_there(point: Path, ours: runtime.Known | None) -> Iterator[str]:
    """Somebody unmounted it already: what a dead daemon left is cleared, and one that still flushes is waited for."""
    if ours is None:
        raise MountError(f"cannot unmount {point}: nothing is mounted there")
    if not ours.alive:
        runtime.clean(*ours.name)
        return
    with _Processes(ours) as processes:
        for word in _until_safe(point, ours, processes):
            raise MountError(f"cannot unmount {point}: nothing is mounted there any more; {word}")
    yield from ()


def _unmount_unknown(point: Path, there: Mount, lazy: bool) -> Iterator[str]:
    """A mount that this user's runtime directory does not know: a dead one, or one that others look after."""
    dead = whereabouts.answers(there) is False
    device.unmount(str(point), lazy or dead)
    if not dead:
        yield (f"{point} is unmounted; its daemon belongs to another user or runtime directory (XDG_RUNTIME_DIR), "
               "and was not waited for")


def _until_safe(point: Path, ours: runtime.Known, processes: _Processes) -> Iterator[str]:
    """Wait for the daemon's end, or, where its file system is in use elsewhere, until what was written is on disk."""
    if processes.ended(0.2):  # it does nearly always
        return
    serving = False
    with suppress(ConnectionError):  # it just ends
        serving = bool(control.call(ours.socket, "sync")["serving"])
    if serving:
        yield from _in_use(ours)
    else:
        processes.wait(point)


def _is_silent(ours: runtime.Known) -> bool:
    """True when its holder is stopped or frozen: it will not notice that the mount ends."""
    try:
        with suppress(ConnectionError, MountError):
            control.call(ours.socket, "status", PATIENCE)
    except control.Silent:
        return True
    return False


def _end_silent(point: Path, ours: runtime.Known, processes: _Processes) -> Iterator[str]:
    """End a holder that will not notice; its servers flush then, and end. Not while others use its file system."""
    if ours.place and (places := [*whereabouts.other_places(ours.place[1])]):
        raise MountError(f"{point} is unmounted; {ours.manifest} stays in use, by {', '.join(places)}, and its holder, "
                         f"process {ours.holder}, does not answer: what was written may not be on disk yet")
    if ours.holder is not None:
        frozen.end(ours.holder)
    processes.wait(point)
    runtime.clean(*ours.name)
    yield from ()


def _in_use(ours: runtime.Known) -> Iterator[str]:
    places = [*whereabouts.other_places(ours.place[1])] if ours.place else []
    where = ", ".join(places) or "a place that this user may not see: files still open, or another mount namespace"
    yield f"what was written is on disk; the file system of {ours.manifest} stays in use, by {where}"


class _Processes:
    """A holder and its servers, until they end."""

    def __init__(self, ours: runtime.Known) -> None:
        self._fds = frozen.processes(ours.holder) if ours.holder is not None else []

    def ended(self, seconds: float) -> bool:
        """True once all have, within so many seconds."""
        until = time.monotonic() + seconds
        return all(select.select([fd], [], [], max(0.0, until - time.monotonic()))[0] for fd in self._fds)

    def wait(self, point: Path) -> None:
        """Wait for their end. MountError when that takes too long."""
        if not self.ended(WAIT):
            raise MountError(f"{point} is unmounted, but its daemon still flushes after {WAIT:.0f} s")

    def __enter__(self) -> _Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._fds:
            os.close(fd)
