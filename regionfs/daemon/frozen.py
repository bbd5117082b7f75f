"""A holder that is stopped or frozen when its mount is to end: it will not notice, so it is ended, without loss.

Its server notices for both: it flushes what was written once its holder is gone, and ends.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path


def processes(holder: int) -> list[int]:
    """pidfds of a holder and of its servers."""
    found = []
    with suppress(OSError):
        children = Path(f"/proc/{holder}/task/{holder}/children").read_text().split()
        for pid in (holder, *map(int, children)):
            with suppress(ProcessLookupError):
                found.append(os.pidfd_open(pid))
    return found


def end(holder: int) -> None:
    """End the holder; its servers follow when they have flushed."""
    with suppress(ProcessLookupError):
        os.kill(holder, signal.SIGKILL)
