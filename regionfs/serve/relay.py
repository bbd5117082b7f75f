"""Which thread reads the device: one leads, the others stand by.

A Python process answers fastest with one thread that reads a request, answers it and reads the
next. It must not wait for a disk, though. So the leader steps down before it does something slow:
one that stands by reads on, and the old leader answers its request where it is, without copying
anything to another thread. And where something turns out to be slow (a write that stalls, a stat
on a dead server), the watchman deposes the leader after a grace period.

Two leaders for a moment do no harm: the kernel gives every request to just one reader. That is why
no lock is held around reading the device.

A few threads stand by from the beginning. Where no more can be started (RLIMIT_NPROC, pids.max) the
leader stays, and waits for the disk itself: others wait with it, and nobody gets an error.
"""

from __future__ import annotations

import threading
import time
from array import array
from collections.abc import Callable

from regionfs.serve.threads import begin, insist

GRACE = 2_000_000   # ns in one request before the watchman calls another leader
IDLE = 100_000_000  # ns without anything to watch after which the watchman sleeps
LIMIT = 256     # threads; when all of them wait for disks the leader has to wait too
SPARE = 8       # threads that stand by; more of them end
FIRST = 3       # threads that stand by before the first request
TURN, SINCE, AWAKE = range(3)  # in Relay.turns


class Relay:
    """Threads that run `lead(relay)` in turn: it must return when `relay.leads()` turns false."""

    def __init__(self, lead: Callable[[Relay], None]) -> None:
        self._lead = lead
        self._change = threading.Condition()
        self._leader: int | None = None
        self._idle = 0
        self._threads: set[threading.Thread] = set()  # besides the one that runs
        self._ended = False
        self._watched = threading.Event()   # the watchman is awake
        #: for the fast path too, which runs outside the interpreter: how often the leader has changed; when it
        #: began something that may stall, in ns, or 0; whether the watchman is awake
        self.turns = array("q", (0, 0, 0))

    def run(self) -> None:
        """Serve with this thread among the others, until end() was called and all have returned."""
        watchman = insist(self._watch, name="watchman")
        with self._change:
            for _ in range(FIRST):
                self._add()
        self._serve()
        for thread in list(self._threads):
            thread.join()
        self._watched.set()
        watchman.join()

    def end(self) -> None:
        """No more leaders."""
        with self._change:
            self._ended = True
            self.turns[TURN] += 1
            self._change.notify_all()

    def leads(self) -> bool:
        """True while the calling thread is the leader."""
        return self._leader == threading.get_ident() and not self._ended

    def step_down(self) -> None:
        """Let another thread read on; the caller is about to wait."""
        self._replace(threading.get_ident())

    def risk(self) -> None:
        """If the caller leads: it begins something that may stall; safe() ends it."""
        if self._leader != threading.get_ident():
            return
        self.turns[SINCE] = time.monotonic_ns()
        if not self.turns[AWAKE]:
            self.turns[AWAKE] = 1
            self._watched.set()

    def safe(self) -> None:
        """The leader is done with what might have stalled."""
        with self._change:  # else another one might lead, and be watched, by the time that this is written
            if self._leader == threading.get_ident():
                self.turns[SINCE] = 0

    def _serve(self) -> None:
        while self._follow():
            self._lead(self)
            # returns because another leads, or because all ended

    def _follow(self) -> bool:
        with self._change:
            if self._idle >= SPARE and threading.current_thread() in self._threads:
                self._threads.discard(threading.current_thread())
                return False
            self._idle += 1
            while self._leader is not None and not self._ended:
                self._change.wait()
            self._idle -= 1
            self._leader = threading.get_ident()
            return not self._ended

    def _replace(self, leader: int) -> None:
        with self._change:
            if self._leader != leader or self._ended:
                return
            if not self._idle and not self._add():
                return
            self._leader = None
            self.turns[TURN] += 1
            self.turns[SINCE] = 0
            self._change.notify()

    def _add(self) -> bool:
        """One more thread, which waits for the lock that the caller holds; False when there is none to be had."""
        thread = begin(self._serve, name="server") if len(self._threads) < LIMIT - 1 else None
        if thread is not None:
            self._threads.add(thread)
        return thread is not None

    def _watch(self) -> None:
        quiet = 0
        while not self._ended:
            self._watched.wait()
            time.sleep(GRACE / 1e9)
            leader, since = self._leader, self.turns[SINCE]
            quiet = 0 if since else quiet + GRACE
            if since and leader is not None and time.monotonic_ns() - since > GRACE:
                self._replace(leader)
            elif quiet > IDLE:
                quiet = 0
                self.turns[AWAKE] = 0
                self._watched.clear()
                if self.turns[SINCE]:  # begun while we fell asleep
                    self.turns[AWAKE] = 1
                    self._watched.set()
