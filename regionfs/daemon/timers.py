"""What a loop does later: one call per name, due at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator


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
