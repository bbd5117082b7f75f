"""Where a holder's mount is: known by the kernel's numbers, not by the directory that it was made on.

It may be moved, and others may mount something over it or in its old place, which must stay.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from regionfs.daemon import runtime, whereabouts
from regionfs.daemon.config import MountConfig
from regionfs.errors import RegionfsError
from regionfs.wire import device, mounts
from regionfs.wire.mounts import Mount

log = logging.getLogger("regionfs")


class Place:
    """One mount, from when it is made until it is gone from this mount namespace."""

    def __init__(self, mountpoint: Path, lock: int) -> None:
        """`lock` is the claim of the mount point, runtime.claim."""
        self._mountpoint = mountpoint
        self._lock = lock
        self.mount: Mount | None = None  # as it was when it was made

    def note(self, config: MountConfig) -> MountConfig:
        """It was just made: everybody may know. The configuration with what its servers have to know of it."""
        self.mount = mounts.find(self._mountpoint)
        if self.mount is None:
            return config
        runtime.announce(self._lock, self._mountpoint, config.manifest, self.mount)
        return replace(config, device=self.mount.device)

    def announce(self, config: MountConfig) -> MountConfig:
        """It shows the manifest of `config` from now on, which is given back: everybody may know."""
        try:
            runtime.announce(self._lock, self._mountpoint, config.manifest, self.mount)
        except RegionfsError as error:
            log.error("%s; other commands take %s for the manifest of before", error, self._mountpoint)
        return config

    def unmount(self) -> None:
        """Unmount it; a busy one is detached, and served until its last file is closed."""
        now, cover = self._find()
        if now is None:
            log.warning("%s is not mounted here any more; where else it is mounted it is served until that ends",
                        self._mountpoint)
        elif cover is not None:
            log.error("%s: %s (%s) is mounted over it, and stays; end that first", now, cover.fstype, cover.source)
        else:
            try:
                device.unmount(now)
            except RegionfsError as error:
                log.warning("%s; it is detached, files still open are served until they are closed", error)
                with suppress(RegionfsError):
                    device.unmount(now, lazy=True)

    def abandon(self) -> None:
        """Detach it, if it is there, in use or not."""
        now, cover = self._find()
        if now is not None and cover is None:
            with suppress(RegionfsError):
                device.unmount(now, lazy=True)
        self.mount = None

    def clear_dead(self) -> None:
        """Detach what a daemon that died left on the mount point. Raises MountError when it lives."""
        if whereabouts.clear_dead(self._mountpoint):
            log.warning("%s: a dead mount was in the way; it is cleared", self._mountpoint)

    def _find(self) -> tuple[str | None, Mount | None]:
        """Where it is now, if anywhere, and what lies over it, if anything."""
        table = mounts.list_all()
        for mount in table:
            if self.mount is not None and (mount.id, mount.device) == (self.mount.id, self.mount.device):
                top = mounts.top(Path(mount.mountpoint), table)
                return mount.mountpoint, None if top == mount else top
        return None, None
