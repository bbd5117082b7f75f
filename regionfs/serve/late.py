"""Write-backs that were answered while the pages of other files that show the bytes are still being dropped.

The kernel's msync(2) and close(2) return once the WRITE is answered, and dropping pages may wait for just
that. So the answer comes first, and whatever must see the bytes everywhere (FSYNC, which msync sends, and
OPEN) waits here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 1.0  # seconds; a drop takes microseconds, and nobody shall hang for one that waits for a slow disk


class Late:
    """What is under way; true while anything is."""

    def __init__(self) -> None:
        self._unfinished: set[int] = set()
        self._change = threading.Condition()

    def __bool__(self) -> bool:
        return bool(self._unfinished)

    @contextmanager
    def one(self, unique: int) -> Iterator[None]:
        """The request `unique` is answered and its pages elsewhere are dropped in this block."""
        with self._change:
            self._unfinished.add(unique)
        try:
            yield
        finally:
            with self._change:
                self._unfinished.discard(unique)
                self._change.notify_all()

    def wait(self) -> None:
        """Return when all that is under way now is done."""
        if self._unfinished:
            with self._change:
                before = set(self._unfinished)
                self._change.wait_for(lambda: before.isdisjoint(self._unfinished), PATIENCE)
