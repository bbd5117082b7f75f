"""The line between holder and server: small JSON messages, with descriptors, over a socket pair.

SOCK_SEQPACKET keeps messages whole, and the kernel keeps what was sent when the sender dies.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

LIMIT = 1 << 17  # bytes of one message
_FDS = 4         # descriptors of one message


class Link:
    """One end of the line."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    @staticmethod
    def pair() -> tuple[Link, Link]:
        """Two ends; neither is inherited unless passed on."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return Link(ours), Link(theirs)

    @staticmethod
    def adopt(fd: int) -> Link:
        """The end that was inherited as `fd`."""
        os.set_inheritable(fd, False)
        return Link(socket.socket(fileno=fd))

    def fileno(self) -> int:
        """For selectors."""
        return self._socket.fileno()

    def send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        """Send a message and copies of `fds`. OSError when the other end is gone."""
        socket.send_fds(self._socket, [json.dumps(message).encode()], list(fds))

    def receive(self) -> tuple[dict[str, Any], list[int]] | None:
        """The next message and its descriptors, close-on-exec; None when the other end is gone."""
        try:
            data, fds, _, _ = socket.recv_fds(self._socket, LIMIT, _FDS)
        except ConnectionResetError:
            return None
        for fd in fds:
            os.set_inheritable(fd, False)
        return (json.loads(data), fds) if data else None

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
