"""The line between holder and server: small JSON messages, with descriptors, over a socket pair.

SOCK_SEQPACKET keeps messages whole, and the kernel keeps what was sent when the sender dies.
"""

from __future__ import annotations

import json
import os
import socket
from array import array
from collections.abc import Sequence
from typing import Any

LIMIT = 1 << 17  # bytes of one message
_FDS = 253       # descriptors of one message: SCM_MAX_FD, net/scm.h


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

    def send(self, message: dict[str, Any], fds: Sequence[int] = (), *, wait: bool = True) -> None:
        """Send a message and copies of `fds`. OSError when the other end is gone.

        Without `wait` BlockingIOError when the other end has not taken what was sent before.
        """
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", fds))] if fds else []
        # not send_fds() and recv_fds(): Python's take flags, and leave them out
        self._socket.sendmsg([json.dumps(message).encode()], rights, 0 if wait else socket.MSG_DONTWAIT)

    def receive(self, *, wait: bool = True) -> tuple[dict[str, Any], list[int]] | None:
        """The next message and its descriptors, close-on-exec; None when the other end is gone.

        Without `wait` BlockingIOError when there is none yet. ValueError when it is no message.
        """
        flags = socket.MSG_CMSG_CLOEXEC | (0 if wait else socket.MSG_DONTWAIT)
        room = socket.CMSG_SPACE(_FDS * array("i").itemsize)
        try:
            data, rights, _, _ = self._socket.recvmsg(LIMIT, room, flags)
        except ConnectionResetError:
            return None
        fds = array("i")
        for level, kind, payload in rights:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                fds.frombytes(payload[:len(payload) - len(payload) % fds.itemsize])
        try:
            return (json.loads(data), list(fds)) if data else None
        except ValueError:
            for fd in fds:
                os.close(fd)
            raise

    def close(self) -> None:
        """Close this end."""
        self._socket.close()
