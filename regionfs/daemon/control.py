"""The control socket's words: one JSON request a connection, one JSON answer, both a line.

The socket lies in a 0700 directory, and the peer's credentials are checked besides: requests come
from the user of the daemon or from root.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

from regionfs.daemon import failure

REQUEST_LIMIT = 1 << 16  # bytes
PATH_LIMIT = 4095        # bytes, PATH_MAX less its NUL
PATIENCE = 10.0          # seconds in which a client must have sent its request or taken its answer
ANSWER_WITHIN = 120.0    # seconds for the daemon to answer; a reload may read a large manifest


class Refused(Exception):  # noqa: N818  # an answer, not an error of ours
    """The request gets no hearing; the message says why."""


class Unanswered(ConnectionError):  # noqa: N818  # reads as what it is
    """The daemon took the request, and closed the connection without a word."""


def parse(line: bytes) -> dict[str, Any]:
    """A request whose fields have their types. Raises Refused."""
    if len(line) > REQUEST_LIMIT:
        raise Refused(f"the request is over {REQUEST_LIMIT} bytes")
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        raise Refused("the request is not JSON") from None
    if not isinstance(request, dict) or not isinstance(request.get("command"), str):
        raise Refused("the request is no object with a command")
    for field in ("manifest", "python"):
        if request.get(field) is not None and not _is_path(request[field]):
            raise Refused(f"{field} is no path")
    return request


def _is_path(value: object) -> bool:
    """True for what a path in a file system may be: text of at most PATH_LIMIT bytes, without NUL."""
    try:
        return isinstance(value, str) and 0 < len(os.fsencode(value)) <= PATH_LIMIT and "\0" not in value
    except UnicodeEncodeError:
        return False


def check_peer(client: socket.socket) -> None:
    """Raise Refused unless the client is our own user or root. SO_PEERCRED is struct ucred: pid, uid, gid."""
    raw = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    if int.from_bytes(raw[4:8], sys.byteorder) not in (0, os.geteuid()):
        raise Refused("only the daemon's own user and root may ask")


def reply(client: int | socket.socket, answer: dict[str, Any]) -> None:
    """Send the answer and close; a client that has gone is no matter."""
    with socket.socket(fileno=client) if isinstance(client, int) else client as peer:
        peer.settimeout(PATIENCE)
        try:
            peer.sendall(json.dumps(answer).encode() + b"\n")
        except OSError:
            pass


def call(path: Path, command: str, **arguments: object) -> dict[str, Any]:
    """Ask the daemon behind `path`. Raises its error anew, ConnectionError when none is there or answers."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        try:
            peer.connect(str(path))  # waits while many others do; with a timeout it would fail at once
            peer.settimeout(ANSWER_WITHIN)
        except (FileNotFoundError, ConnectionError) as error:
            raise ConnectionError(f"no daemon answers at {path}") from error
        try:
            peer.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            with peer.makefile("rb") as stream:
                line = stream.readline()
        except ConnectionError:
            line = b""
    if not line.endswith(b"\n"):
        raise Unanswered(f"the daemon at {path} ended without an answer")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise failure.revive(answer)
    return answer
