"""What a run has the machine do for the length of a `with` block: cores of daemons, idle cores, memory."""

from __future__ import annotations

import mmap
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from regionfs.cli.wakeups import HALT_POLL, USUAL_HALT_POLL

PROC = Path("/proc")
DIRTY = Path("/proc/sys/vm")
REPORTING = Path("/sys/module/page_reporting/parameters/page_reporting_order")  # of the smallest block reported
LARGEST = 10          # order of the largest free block that Linux keeps: 1024 pages
MOST_FREE = 8 << 30   # bytes to keep from the host; never more than half of what is free


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


@contextmanager
def dirty_limit(size: int) -> Iterator[None]:
    """Whoever writes waits for the disk when `size` bytes wait for it, and it begins at half of them.

    By itself the kernel lets a fifth of the memory wait, and begins at a tenth. Raises OSError where it is not
    permitted to change.
    """
    limits = {"dirty_bytes": size, "dirty_background_bytes": size // 2}
    # the kernel has either in bytes or as a share of the memory: whichever is written last holds, the other reads 0
    before = {name: (DIRTY / name).read_text() for name in (*limits, "dirty_ratio", "dirty_background_ratio")}
    for name, limit in limits.items():
        (DIRTY / name).write_text(str(limit))
    try:
        yield
    finally:
        for name, value in before.items():
            if int(value):
                (DIRTY / name).write_text(value)


@contextmanager
def free_memory(*, as_is: bool) -> Iterator[int | None]:
    """The host of a virtual machine lets it keep memory that lies free; yields how many bytes, if it would not.

    Else it takes back what is free (Documentation/mm/free_page_reporting.rst) and gives it again on first use, page
    by page, at a tenth of the speed: how much of that a run meets would be chance. Only free blocks of a certain
    size are reported. That is made the largest, and one page of each such block is held, so that the rest is no
    such block. `as_is`: leave all that alone. Raises OSError where it is not permitted.
    """
    before = REPORTING.read_text() if REPORTING.exists() and not as_is else ""
    if not before or int(before) > LARGEST:  # no block is that large: nothing is reported
        yield None
        return
    block = mmap.PAGESIZE << LARGEST
    size = min(MOST_FREE, os.sysconf("SC_AVPHYS_PAGES") * mmap.PAGESIZE // 2) // block * block or block
    REPORTING.write_text(str(LARGEST))
    try:
        with mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE) as held:
            for start in range(0, size, block):
                held.madvise(mmap.MADV_DONTNEED, start + mmap.PAGESIZE, block - mmap.PAGESIZE)
            yield size
    finally:
        REPORTING.write_text(before)
