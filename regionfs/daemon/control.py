"""The control socket's words: one JSON request a connection, one JSON answer, both a line.

The socket lies in a 0700 directory, and the peer's credentials are checked besides: requests come
from the user of the daemon or from root.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any

from regionfs.daemon import failure

REQUEST_LIMIT = 1 << 16  # bytes
PATH_LIMIT = 4095        # bytes, PATH_MAX less its NUL
PATIENCE = 10.0          # seconds in which a client must have sent its request or taken its answer
LOOK = 1.0               # seconds between two looks whether who is to answer is stopped
ANSWER_WITHIN = 120.0    # seconds for the daemon to answer; a reload may read a large manifest


class Refused(Exception):  # noqa: N818  # an answer, not an error of ours
    """The request gets no hearing; the message says why."""


class Unanswered(ConnectionError):  # noqa: N818  # reads as what it is
    """The daemon took the request, and closed the connection without a word."""


class Silent(TimeoutError):  # noqa: N818  # reads as what it is
    """The daemon, process `pid`, keeps the connection and says nothing: it is stopped, or frozen."""

    def __init__(self, path: Path, pid: int) -> None:
        super().__init__(f"the daemon at {path} (process {pid}) does not answer; it may be stopped or frozen")
        self.pid = pid  # 0: not even known, for it takes no connection


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
    """Raise Refused unless the client is our own user or root."""
    if int.from_bytes(_credentials(client)[4:8], sys.byteorder) not in (0, os.geteuid()):
        raise Refused("only the daemon's own user and root may ask")


def reply(client: int | socket.socket, answer: dict[str, Any], patience: float = PATIENCE) -> None:
    """Send the answer and close; a client that has gone, or takes no answer for `patience` seconds, is no matter."""
    with socket.socket(fileno=client) if isinstance(client, int) else client as peer:
        try:
            peer.settimeout(patience)
            peer.sendall(json.dumps(answer).encode() + b"\n")
        except OSError:
            pass


def call(path: Path, command: str, within: float = ANSWER_WITHIN, **arguments: Any) -> dict[str, Any]:
    """Ask the daemon behind `path`. Raises its error anew, ConnectionError when none is there or answers.

    Silent when one is there that says nothing for `within` seconds, or is stopped.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        # connect(2) waits while many others do; with a timeout of Python's it would fail at once
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(within))
        pid = 0
        try:
            peer.connect(str(path))
            pid = int.from_bytes(_credentials(peer)[:4], sys.byteorder)
            peer.settimeout(within)
        except (BlockingIOError, TimeoutError) as error:
            raise Silent(path, pid) from error
        except (FileNotFoundError, ConnectionError) as error:
            raise ConnectionError(f"no daemon answers at {path}") from error
        try:
            peer.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            line = _answer(peer, pid, time.monotonic() + within)
        except ConnectionError:
            line = b""
        except TimeoutError as error:
            raise Silent(path, pid) from error
    if not line.endswith(b"\n"):
        raise Unanswered(f"the daemon at {path} ended without an answer")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise failure.revive(answer)
    return answer


def _answer(peer: socket.socket, pid: int, end: float) -> bytes:
    """What `peer`, process `pid`, says until it closes. TimeoutError at `end`, or when it is stopped."""
    said = bytearray()
    peer.settimeout(LOOK)
    while True:
        try:
            piece = peer.recv(1 << 16)
        except TimeoutError:
            if time.monotonic() > end or is_stopped(pid):
                raise
            continue
        if not piece:
            return bytes(said)
        said += piece


def is_stopped(pid: int) -> bool:
    """True when a signal has stopped a process (proc_pid_stat(5), state T; a debugger's stops are another state)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[:1] == ["T"]


def _credentials(peer: socket.socket) -> bytes:
    """SO_PEERCRED: struct ucred, that is pid, uid, gid; of a listener's end those of who listens."""
    return peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)


def _timeval(seconds: float) -> bytes:
    """struct timeval."""
    whole = int(seconds)
    parts = (whole, int(1e6 * (seconds - whole)))
    return b"".join(part.to_bytes(8, sys.byteorder) for part in parts)
