"""Threads, where there may be none left to have (RLIMIT_NPROC, pids.max of a cgroup).

Who can do the work in line asks with begin(); who cannot go on without insists.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

log = logging.getLogger("regionfs")

PAUSE = 0.1  # seconds between two tries


def begin(work: Callable[..., None], *arguments: Any, name: str) -> threading.Thread | None:
    """A new thread that does `work`; None when there is none to be had."""
    thread = threading.Thread(target=work, args=arguments, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:
        log.warning("no thread can be started for %s; see RLIMIT_NPROC and pids.max", name)
        return None
    return thread


def insist(work: Callable[..., None], *arguments: Any, name: str) -> threading.Thread:
    """The same, as soon as one is to be had."""
    while (thread := begin(work, *arguments, name=name)) is None:
        threading.Event().wait(PAUSE)
    return thread
