"""What a server hands to its holder: the files of its state, whenever one is written or removed (see keeper)."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from regionfs.daemon.link import Link


class Teller:
    """Hands the files of our state to the holder, which keeps them for the next server."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._untold: dict[Path, None] = {}
        self._lock = threading.Lock()

    def tell(self, path: Path) -> None:
        """A file was written or removed. A holder that takes nothing now is told with the next change."""
        with self._lock:
            self._untold[path] = None
            with suppress(OSError):
                while self._untold:
                    self._tell(next(iter(self._untold)))

    def _tell(self, path: Path) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            self._link.send({"state": path.name}, wait=False)
        else:
            try:
                self._link.send({"state": path.name}, [fd], wait=False)
            finally:
                os.close(fd)
        del self._untold[path]
