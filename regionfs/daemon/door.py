"""The control socket at the holder's end: many clients at once, none of them waited for.

A client sends one line; what it asks is somebody else's to answer. Whoever sends too much, too little
or too slowly loses his place, nothing else.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from regionfs.daemon import control

CLIENTS = 32  # that have not sent their request yet; one more, and the oldest goes


class Door:
    """Listens at `path`, a new socket, in the selector's loop; `obey` gets each request and answers its client."""

    def __init__(self, path: Path, selector: selectors.BaseSelector,
                 obey: Callable[[dict[str, Any], socket.socket], None]) -> None:
        self._selector = selector
        self._obey = obey
        self._heard: dict[socket.socket, bytes] = {}  # client -> what it has sent so far; the oldest first
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._listener.bind(str(path))
        self._listener.listen(128)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close(self) -> None:
        """Nobody is heard any more."""
        self._selector.unregister(self._listener)
        self._listener.close()
        for client in list(self._heard):
            self._dismiss(client)
            client.close()

    def _accept(self, listener: Any) -> None:
        with suppress(OSError):  # it has gone again
            client, _ = listener.accept()
            client.setblocking(False)
            if len(self._heard) >= CLIENTS:
                oldest = next(iter(self._heard))
                self._dismiss(oldest)
                oldest.close()
            self._heard[client] = b""
            self._selector.register(client, selectors.EVENT_READ, self._hear)

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
            request = control.parse(heard.partition(b"\n")[0])
        except (control.Refused, OSError) as error:
            control.reply(client, {"error": str(error)})
            return
        self._obey(request, client)

    def _dismiss(self, client: socket.socket) -> None:
        self._selector.unregister(client)
        del self._heard[client]
