"""A server's process as its holder sees it: started, told to serve, heard, ended.

A started server has loaded its code and waits; what it shall serve it is told later. So one can
stand by, and take over in a fraction of the time that a Python process needs to begin.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from regionfs.daemon import control
from regionfs.daemon.config import MountConfig
from regionfs.daemon.link import Link


class Child:
    """One server, and the line to it."""

    def __init__(self, python: str) -> None:
        """Start it, by the interpreter `python`. Raises OSError."""
        self._link, theirs = Link.pair()
        command = [python, "-P", "-m", "regionfs.daemon.server", str(theirs.fileno())]
        try:
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        except OSError as error:
            self._link.close()
            raise OSError(error.errno, f"{python}: {error.strerror}") from error
        finally:
            theirs.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def runs(self) -> bool:
        """True while its process has not ended."""
        return self._process.poll() is None

    def pidfd(self) -> int | None:
        """A descriptor that is readable once all threads of it have ended; None when they have, or it cannot be had."""
        with suppress(OSError):
            return os.pidfd_open(self.pid) if self.runs else None
        return None

    @property
    def stopped(self) -> bool:
        """True when a signal has stopped it."""
        return control.is_stopped(self.pid)

    def fileno(self) -> int:
        """Of the line, for selectors."""
        return self._link.fileno()

    def serve(self, config: MountConfig) -> None:
        """Let it begin; it speaks next. A dead one is heard to be dead."""
        self.say({"serve": config.to_json(), "keeps_state": True})

    def say(self, words: dict[str, Any], fds: Sequence[int] = ()) -> bool:
        """Speak to it, without waiting; False when it is not there any more, or takes nothing."""
        try:
            self._link.send(words, fds, wait=False)
        except OSError:  # it just died: its end of the line tells
            return False
        return True

    def hear(self) -> tuple[dict[str, Any], list[int]] | None:
        """Its next words and the descriptors that came along; None when it is gone, or about to be.

        BlockingIOError when it has said nothing, ValueError when what it said is no message.
        """
        return self._link.receive(wait=False)

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def leave(self, seconds: float) -> int | None:
        """Close the line, and wait so long for its end at most; the status, None when it has not ended yet.

        A thread of it may wait for a disk, and cannot be ended before.
        """
        self._link.close()
        with suppress(subprocess.TimeoutExpired):
            return self._process.wait(seconds)
        return None
