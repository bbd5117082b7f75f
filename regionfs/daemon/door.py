"""The control socket at the holder's end: many clients at once, none of them waited for.

A client sends one line; what it asks is somebody else's to answer. Whoever sends too much, too little
or too slowly loses his place, nothing else; so does one whose request meets a fault of ours.
"""

from __future__ import annotations

import errno
import logging
import selectors
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regionfs.daemon import control, failure
from regionfs.daemon.timers import Timers

log = logging.getLogger("regionfs")

CLIENTS = 32  # that have not sent their request yet; one more, and the oldest goes
PAUSE = 0.2   # seconds without a descriptor for anybody before the next try

_NO_ROOM = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)


class Door:
    """Listens at `path`, a new socket, in the selector's loop; `obey` gets each request and answers its client."""

    def __init__(self, path: Path, selector: selectors.BaseSelector, timers: Timers,
                 obey: Callable[[dict[str, Any], socket.socket], None]) -> None:
        self._path = path
        self._selector = selector
        self._timers = timers
        self._obey = obey
        self._heard: dict[socket.socket, bytes] = {}  # client -> what it has sent so far; the oldest first
        self._listener = self._listen()

    def close(self) -> None:
        """Nobody is heard any more."""
        self._timers.cancel("door")
        self._leave(self._listener)
        for client in list(self._heard):
            self._dismiss(client)
            client.close()

    def reopen(self) -> None:
        """Listen at the path again: somebody took the socket away. OSError."""
        self._timers.cancel("door")
        old, self._listener = self._listener, self._listen()
        self._leave(old)

    def _listen(self) -> socket.socket:
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._path.unlink(missing_ok=True)
            listener.bind(str(self._path))
            listener.listen(128)
        except OSError:
            listener.close()
            raise
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        return listener

    def _leave(self, listener: socket.socket) -> None:
        if listener in self._selector.get_map():
            self._selector.unregister(listener)
        listener.close()

    def _accept(self, listener: Any) -> None:
        try:
            client, _ = listener.accept()
        except OSError as error:
            if error.errno in _NO_ROOM:  # he stays in the queue, and would wake us at once again
                self._make_room()
            return
        client.setblocking(False)
        if len(self._heard) >= CLIENTS:
            self._dismiss_oldest()
        self._heard[client] = b""
        self._selector.register(client, selectors.EVENT_READ, self._hear)

    def _make_room(self) -> None:
        if self._heard:
            self._dismiss_oldest()
            return
        self._selector.unregister(self._listener)
        self._timers.set("door", PAUSE, lambda: self._listen_on(self._listener))

    def _listen_on(self, listener: socket.socket) -> None:
        self._selector.register(listener, selectors.EVENT_READ, self._accept)

    def _dismiss_oldest(self) -> None:
        oldest = next(iter(self._heard))
        self._dismiss(oldest)
        oldest.close()

    def _hear(self, client: Any) -> None:
        try:
            piece = client.recv(control.REQUEST_LIMIT)
        except BlockingIOError:
            return
        except OSError:
            piece = b""
        heard = self._heard[client] = self._heard[client] + piece
        if piece and b"\n" not in piece and len(heard) <= control.REQUEST_LIMIT:
            return
        self._dismiss(client)
        try:
            control.check_peer(client)
            self._obey(control.parse(heard.partition(b"\n")[0]), client)
        except (control.Refused, OSError) as error:
            control.reply(client, {"error": str(error)}, patience=0)
        except Exception as error:  # a fault of ours costs this client its answer, nobody else anything
            log.exception("hearing a client")
            control.reply(client, failure.describe(error), patience=0)

    def _dismiss(self, client: socket.socket) -> None:
        self._selector.unregister(client)
        del self._heard[client]
