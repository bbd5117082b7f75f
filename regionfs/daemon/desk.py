"""Requests that cannot be answered yet: for the next server, or for the news how its start goes."""

from __future__ import annotations

import logging
import socket
from typing import Any

from regionfs.daemon import control, failure

log = logging.getLogger("regionfs")

MOST = 128  # requests that wait; whoever comes then is told to come again

Words = dict[str, Any]
BUSY = {"error": "the mount's server is busy; ask again"}


class Desk:
    """Clients and what they wait for. Client None: a signal's request, whose answer goes to the log."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Words, socket.socket | None]] = []  # requests for a server
        self._curious: list[tuple[socket.socket | None, Words]] = []  # (who, answer) once one serves

    def park(self, words: Words, client: socket.socket | None) -> None:
        """A request for the next server."""
        if len(self._waiting) < MOST:
            self._waiting.append((words, client))
        else:
            self.reply(client, BUSY)

    def take(self) -> list[tuple[Words, socket.socket | None]]:
        """What was parked, to be asked again."""
        waiting, self._waiting = self._waiting, []
        return waiting

    def promise(self, client: socket.socket | None, answer: Words) -> None:
        """`client` gets `answer` once a server serves."""
        if len(self._curious) < MOST:
            self._curious.append((client, answer))
        else:
            self.reply(client, BUSY)

    def keep_promises(self, trouble: Words | None) -> None:
        """A server serves, or there is `trouble`."""
        curious, self._curious = self._curious, []
        for client, answer in curious:
            self.reply(client, trouble or answer)

    @staticmethod
    def reply(client: socket.socket | None, answer: Words) -> None:
        """Answer, without waiting for who does not take it."""
        if client is not None:
            control.reply(client, answer, patience=0)
        elif "error" in answer:
            log.error("%s", failure.for_log(answer))
