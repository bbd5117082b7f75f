"""Who leads, and who is watched."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from regionfs.serve import threads
from regionfs.serve.relay import SINCE, Relay


class Turns(list[int]):
    """Relay.turns, which another thread becomes leader beside, as far as it can."""

    def __init__(self, relay: Relay) -> None:
        super().__init__(relay.turns)
        self.relay, self.other = relay, threading.Thread(target=self.lead)

    def lead(self) -> None:
        """As _replace() and _follow() do; then it begins what may stall."""
        with self.relay._change:
            self.relay._leader = threading.get_ident()
            super().__setitem__(SINCE, 7)

    def __setitem__(self, place: Any, value: Any) -> None:
        self.other.start()
        self.other.join(0.2)
        super().__setitem__(place, value)


def test_an_old_leader_takes_nobodys_watch_away() -> None:
    """It says that it is safe just when another one takes its place."""
    relay: Any = Relay(lambda relay: None)
    relay._leader, relay.turns = threading.get_ident(), Turns(relay)
    relay.safe()
    relay.turns.other.join()
    assert 7 == relay.turns[SINCE]
    relay.safe()
    assert 7 == relay.turns[SINCE]


def none_left(thread: threading.Thread) -> None:
    """What Thread.start does where RLIMIT_NPROC or pids.max is reached."""
    raise RuntimeError("can't start new thread")


def test_without_a_thread_the_leader_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for its disk itself, and once threads can be had again another one leads."""
    relay: Any = Relay(lambda relay: None)
    relay._leader = me = threading.get_ident()
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        relay.step_down()
        assert (me, 0) == (relay._leader, relay.turns[0])
        assert threads.begin(lambda: None, name="test") is None
    relay.step_down()
    assert relay._leader != me
    relay.end()


def test_threads_stand_by_before_the_first_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where none can be started later, the leader can still step down for as many disks."""
    led: set[int] = set()

    def lead(relay: Relay) -> None:
        monkeypatch.setattr(threading.Thread, "start", none_left)
        led.add(threading.get_ident())
        if len(led) == 3:
            relay.end()
        while relay.leads():
            relay.step_down()

    Relay(lead).run()
    assert 3 == len(led)
