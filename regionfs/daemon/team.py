"""The servers of one mount, as its holder's loop sees them: one serves, one stands by, others are on their way out.

None of them is waited for. Each step has a deadline and a next one:

    told to serve, says nothing      killed after SPEAKS; lost
    stopped by a signal              killed after STOPPED; lost
    killed                           lost as soon as its heart stands still (see heart); its process may
                                     last, where a thread of it waits for a disk: the next one is told
    the spare is stopped or gone     another is started in its place
"""

from __future__ import annotations

import logging
import os
import selectors
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from regionfs.daemon.child import Child
from regionfs.daemon.config import MountConfig
from regionfs.daemon.timers import Timers

log = logging.getLogger("regionfs")

SPEAKS, SPARE_SPEAKS = 60.0, 3.0  # seconds for the first word of a new process, of one that has loaded its code
STOPPED = 10.0                    # seconds; who stops a server may want to look at it
KILLED = 1.0                      # seconds from the signal to what it shows, without a heart
ENDING = 0.2                      # seconds to learn the status of a process that ends

Hear = Callable[[dict[str, Any], list[int]], None]


class Team:
    """Used by the loop's thread alone. `hear` gets what the server says, `lost` why there is none any more."""

    def __init__(self, selector: selectors.BaseSelector, timers: Timers, hear: Hear, lost: Callable[[str], None],
                 may_replace: Callable[[], bool]) -> None:
        self._selector, self._timers = selector, timers
        self._hear, self._lost = hear, lost
        self._may_replace = may_replace
        self._server: Child | None = None
        self._heart = -1                  # readable once the server cannot run any more
        self._spare: Child | None = None
        self._leaving: list[Child] = []   # killed, or told to go, and not ended yet

    @property
    def pid(self) -> int | None:
        """Of the server; None without one."""
        return None if self._server is None else self._server.pid

    def begin(self, python: str, config: MountConfig) -> None:
        """Let a server begin, the spare one if it can. OSError when none can be started."""
        spare, self._spare = self._spare, None
        if spare is not None and (spare.stopped or not spare.runs):
            log.warning("the server that stood by (process %d) is %s; starting another", spare.pid,
                        "stopped" if spare.stopped else "gone")
            self._dismiss(spare)
            spare = None
        self._server = server = Child(python) if spare is None else spare
        server.serve(config)
        self._selector.register(server, selectors.EVENT_READ, self._listen)
        self._timers.set("speaks", SPEAKS if spare is None else SPARE_SPEAKS, self._mute)

    def stand_by(self, python: str) -> None:
        """Have a server ready for the death of the one that serves; without one that takes longer."""
        with suppress(OSError):
            self._spare = Child(python)

    def dismiss_spare(self) -> None:
        """It has the code of an older version."""
        if self._spare is not None:
            self._dismiss(self._spare)
            self._spare = None

    def say(self, words: dict[str, Any], fds: list[int]) -> bool:
        """Speak to the server; False when it is not there, or takes nothing."""
        return self._server is not None and self._server.say(words, fds)

    def hand_over(self, words: dict[str, Any], fds: list[int]) -> None:
        """Let the server serve a connection. After `fds` it gets a pidfd of each server that has not ended yet."""
        leaving = [fd for child in self._leaving if (fd := child.pidfd()) is not None] if fds else []
        self.say(words, fds + leaving)
        for fd in leaving:
            os.close(fd)

    def kill(self) -> None:
        """End the server; it is lost soon."""
        if self._server is not None:
            self._server.kill()
            self._timers.set("killed", KILLED, lambda: self._end("the server was killed"))

    def look(self) -> None:
        """Some process has ended, stopped or gone on (SIGCHLD)."""
        self._leaving = [child for child in self._leaving if child.runs]
        if self._spare is not None:
            self._spare.runs  # noqa: B018  # reaps it
        if self._server is not None and self._server.stopped and self._may_replace():
            log.warning("the server (process %d) is stopped; another takes over unless it goes on within %.0f s",
                        self._server.pid, STOPPED)
            self._timers.set("stopped", STOPPED, self._still_stopped)

    def _listen(self, server: Any) -> None:
        """One message of the server."""
        try:
            received = server.hear()
        except BlockingIOError:
            return
        except ValueError:
            log.exception("what the server (process %d) says is no message", server.pid)
            received = None
        if received is None:
            self._end("")
            return
        self._timers.cancel("speaks")
        words, fds = received
        if "heart" in words and fds:
            self._heart = fds[0]
            self._selector.register(self._heart, selectors.EVENT_READ, self._heart_stands_still)
            return
        try:
            self._hear(words, fds)
        except Exception:
            log.exception("obeying the server (process %d)", server.pid)
            self._end("the holder failed over what the server said")

    def _heart_stands_still(self, _: Any) -> None:
        """Killed: what it said before still counts."""
        server = self._server
        while self._server is server and server is not None:
            try:
                received = server.hear()
            except (BlockingIOError, ValueError):
                received = None
            if received is None:
                self._end("")
            else:
                self._hear(*received)

    def _mute(self) -> None:
        if self._server is not None:
            self._end(f"the server (process {self._server.pid}) did not say a word")

    def _still_stopped(self) -> None:
        if self._server is not None and self._server.stopped:
            self._end(f"the server (process {self._server.pid}) was stopped for {STOPPED:.0f} s")

    def _end(self, why: str) -> None:
        """The server is gone, or goes now."""
        server, self._server = self._server, None
        if server is None:
            return
        self._selector.unregister(server)
        if self._heart >= 0:
            self._selector.unregister(self._heart)
            os.close(self._heart)
            self._heart = -1
        for name in ("speaks", "stopped", "killed"):
            self._timers.cancel(name)
        # who closes his line ends by himself, with a status that says more than ours
        status = None if why else server.leave(ENDING)
        if status is None:
            status = self._dismiss(server)
        ended = "was killed, and waits for a disk" if status is None else f"ended with status {status}"
        self._lost(why or f"the server {ended}")

    def _dismiss(self, child: Child) -> int | None:
        child.kill()
        status = child.leave(ENDING)
        if status is None:
            self._leaving.append(child)
        return status
