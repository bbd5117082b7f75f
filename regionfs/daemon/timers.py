"""A loop's round over a selector, and what it does later: one call per name, due at a time.

Whatever fails in a round is logged, and ends that business alone.
"""

from __future__ import annotations

import logging
import select
import selectors
import time
from collections.abc import Callable, Iterator
from typing import Any

log = logging.getLogger("regionfs")

PAUSE = 0.05  # seconds after a call that failed, lest one that always fails takes a processor


class Timers:
    """Calls that are due; used by the loop's thread alone."""

    def __init__(self) -> None:
        self._calls: dict[str, tuple[float, Callable[[], None]]] = {}  # name -> (monotonic seconds, call)

    def set(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        """Have `call` made in so many seconds, in place of an earlier one of this name."""
        self._calls[name] = time.monotonic() + seconds, call

    def cancel(self, name: str) -> None:
        """Not to be called any more, if it was to be."""
        self._calls.pop(name, None)

    def wait(self) -> float | None:
        """Seconds until the next call is due; None when there is none."""
        if not self._calls:
            return None
        return max(0.0, min(when for when, _ in self._calls.values()) - time.monotonic())

    def due(self) -> Iterator[Callable[[], None]]:
        """The calls whose time has come, each once; what is set meanwhile waits for the next round."""
        now = time.monotonic()
        for name, (when, call) in list(self._calls.items()):
            if when <= now and self._calls.get(name) == (when, call):
                del self._calls[name]
                yield call


def take_turn(selector: selectors.BaseSelector, timers: Timers) -> None:
    """Wait for what comes first, then make each call whose time has come; the selector's data are calls, too."""
    for key, _ in selector.select(timers.wait()):
        if selector.get_map().get(key.fd) is key:  # nothing before it in this round has ended it
            _do(key.data, key.fileobj)
    for call in timers.due():
        _do(call)


def _do(call: Callable[..., None], *arguments: Any) -> None:
    try:
        call(*arguments)
    except Exception:
        log.exception("one call of the loop failed")
        select.select([], [], [], PAUSE)
