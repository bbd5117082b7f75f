"""Who leads, and who is watched."""

from __future__ import annotations

import threading
from typing import Any

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
