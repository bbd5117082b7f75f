"""Step 5: descriptors that close themselves, and how many of them are kept open.

A thread looks a descriptor up and then reads from it. If another closed it in between, its number
might mean another file by then, and wrong bytes would be served. So nobody closes a descriptor:
`Descriptor` is the number and closes it when the last reference goes, which a system call's caller
holds until the call has returned. To evict one is to forget it. That costs nothing on the way of a read.

No order of use is kept, for that would: who opened first goes first. A source in steady use is then
opened again now and then, a matter of microseconds, and checked again.
"""

from __future__ import annotations

import fcntl
import os
import resource
import threading
from collections import deque
from collections.abc import Callable

RESERVE = 256  # descriptors for everything else: composed files, the connection, a reload


class Descriptor(int):
    """The number of an open file that this object owns. Keep the object while the number is in use."""

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self)


def limit() -> int:
    """How many sources may be open, by this process's limit of descriptors now."""
    return _usable() - duplicates()


def duplicates() -> int:
    """How many of them may be open a second time, for the fast path."""
    return _usable() // 4


def _usable() -> int:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(16, soft - RESERVE, soft // 2) if soft != resource.RLIM_INFINITY else 1 << 20


def in_memory(fd: int) -> bool:
    """True for a file that has no disk behind it; only those have seals."""
    try:
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return False
    return True


class Pool:
    """Bounds the descriptors in the tables of all `Sources` that share it."""

    def __init__(self, bound: int) -> None:
        self._bound = bound
        self._lock = threading.Lock()
        self._order: deque[tuple[dict[str, int], str]] = deque()  # what may be forgotten, the oldest first

    def __len__(self) -> int:
        return len(self._order)

    def added(self, table: dict[str, int], key: str) -> None:
        """`table[key]` was opened; others are forgotten when these are too many."""
        forgotten = []  # outlives the lock: closing may take time
        with self._lock:
            self._order.append((table, key))
            while len(self._order) > self._bound:
                oldest, name = self._order.popleft()
                forgotten.append(oldest.pop(name, None))

    def clear(self, table: dict[str, int]) -> None:
        """Forget all of a table."""
        with self._lock:
            self._order = deque(entry for entry in self._order if entry[0] is not table)
            table.clear()
