"""On which core a daemon runs, and how soon idle cores sleep: for the length of a `with` block, then put back."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from regionfs.cli.wakeups import HALT_POLL, USUAL_HALT_POLL

PROC = Path("/proc")


def cores() -> list[int]:
    """Those this process may use."""
    return sorted(os.sched_getaffinity(0))


def family(pids: Collection[int]) -> set[int]:
    """The processes and all that descend from them."""
    parents = {}
    for entry in PROC.glob("[0-9]*/stat"):
        with suppress(OSError):
            # the name, in parentheses, may hold anything
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    found: set[int] = set()
    new = set(pids)
    while new:
        found |= new
        new = {pid for pid, parent in parents.items() if parent in new} - found
    return found


def threads(pids: Collection[int]) -> list[int]:
    """Of the processes and their descendants."""
    found = []
    for pid in sorted(family(pids)):
        with suppress(FileNotFoundError):
            found += [int(entry.name) for entry in (PROC / str(pid) / "task").iterdir()]
    return found


@contextmanager
def pinned(pids: Collection[int], core: int) -> Iterator[None]:
    """Every thread of these processes and their descendants on `core`; threads that they start meanwhile too."""
    before = {}
    for thread in threads(pids):
        with suppress(ProcessLookupError):
            before[thread] = os.sched_getaffinity(thread)
            os.sched_setaffinity(thread, {core})
    try:
        yield
    finally:
        for thread in threads(pids):
            with suppress(ProcessLookupError):
                os.sched_setaffinity(thread, before.get(thread, os.sched_getaffinity(0)))


def halt_poll() -> int | None:
    """How long idle cores of this virtual machine wait awake, in ns; None where nothing says so."""
    return int(HALT_POLL.read_text()) if HALT_POLL.exists() else None


@contextmanager
def idling(*, as_is: bool) -> Iterator[int | None]:
    """Idle cores wait awake for as long as the kernel lets them by default; yields the other setting before, if any.

    `as_is`: for as long as this machine lets them. Where somebody turned that down each wake-up costs 20 to 50 us,
    several times what a request does. Raises OSError where it is not permitted to change.
    """
    before = halt_poll()
    if as_is or before is None or before >= USUAL_HALT_POLL:
        yield None
        return
    HALT_POLL.write_text(str(USUAL_HALT_POLL))
    try:
        yield before
    finally:
        HALT_POLL.write_text(str(before))
