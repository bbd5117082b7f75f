"""The control socket: one JSON request a connection, one JSON answer, both a line.

The socket lies in a 0700 directory, and the peer's credentials are checked besides: requests come
from the user of the daemon or from root. Knows no command; the daemon hands in a table of them.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from regionfs.errors import MountError, RegionfsError

log = logging.getLogger("regionfs")

REQUEST_LIMIT = 1 << 16  # bytes
TIMEOUT = 10.0           # seconds for one side to wait for the other

Command = Callable[[dict[str, Any]], dict[str, Any]]


class ControlServer:
    """Answers on the socket at `path` in threads of its own until closed."""

    def __init__(self, path: Path, commands: Mapping[str, Command]) -> None:
        path.unlink(missing_ok=True)  # a dead daemon's
        handler = type("Handler", (_Handler,), {"commands": commands})
        self._path = path
        server = _Server(str(path), handler)
        threading.Thread(target=server.serve_forever, name="control", daemon=True).start()

    def close(self) -> None:
        """Remove the socket: nobody finds it any more. Its thread ends with the process."""
        self._path.unlink(missing_ok=True)


def call(path: Path, command: str, **arguments: object) -> dict[str, Any]:
    """Ask the daemon behind `path`. Raises MountError with its message, ConnectionError when none is there."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(TIMEOUT)
        try:
            peer.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise ConnectionError(f"no daemon answers at {path}") from error
        peer.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
        with peer.makefile("rb") as stream:
            line = stream.readline()
    if not line:
        raise ConnectionError(f"the daemon at {path} ended without an answer")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise MountError(answer["error"])
    return answer


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A peer that hung up or stalled; anything else is a bug worth its trace."""
        log.debug("control connection", exc_info=True)


class _Handler(socketserver.StreamRequestHandler):
    timeout = TIMEOUT
    commands: Mapping[str, Command] = {}  # set by ControlServer

    def handle(self) -> None:
        answer = self._answer()
        self.wfile.write(json.dumps(answer).encode() + b"\n")

    def _answer(self) -> dict[str, Any]:
        if _peer_uid(self.connection) not in (0, os.geteuid()):
            return {"error": "only the daemon's own user and root may ask"}
        line = self.rfile.readline(REQUEST_LIMIT + 1)
        if len(line) > REQUEST_LIMIT:
            return {"error": f"the request is over {REQUEST_LIMIT} bytes"}
        try:
            request = json.loads(line)
            command = self.commands.get(request.pop("command", None)) if isinstance(request, dict) else None
        except (ValueError, RecursionError, TypeError):
            return {"error": "the request is not JSON"}
        if command is None:
            return {"error": f"no such command; known are {', '.join(self.commands)}"}
        try:
            return command(request)
        except (RegionfsError, OSError) as error:
            return {"error": str(error)}


def _peer_uid(connection: socket.socket) -> int:
    """SO_PEERCRED is struct ucred: pid, uid, gid."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(raw[4:8], sys.byteorder)
