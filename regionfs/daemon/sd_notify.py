"""The service manager: telling it how the service is, and leaving descriptors with it.

Speaks the protocol of sd_notify(3), datagrams of VARIABLE=value lines to the socket in NOTIFY_SOCKET,
and takes descriptors as sd_listen_fds(3) does. Where no manager listens nothing happens. Knows nothing
of mounts.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from contextlib import suppress

from regionfs.printable import printable

FIRST = 3      # SD_LISTEN_FDS_START
_ENVIRONMENT = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")


def notify(*lines: str, fds: Sequence[int] = ()) -> bool:
    """Send `lines`, whatever names they hold, and copies of `fds`; False when nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as peer, suppress(OSError):
        peer.connect(address.replace("@", "\0", 1) if address[0] == "@" else address)
        socket.send_fds(peer, ["\n".join(map(printable, lines)).encode()], list(fds))
        return True
    return False


def store(fd: int, name: str) -> bool:
    """Leave a copy of `fd` with the manager, which hands it to the next process of the service.

    It drops the copy by itself when poll(2) shows an error on it.
    """
    return notify("FDSTORE=1", f"FDNAME={name}", fds=[fd])


def discard(name: str) -> None:
    """Let the manager close what was stored under `name`."""
    notify("FDSTOREREMOVE=1", f"FDNAME={name}")


def is_given(name: str) -> bool:
    """True when the manager handed this process a descriptor of that name, not taken yet."""
    return name in _names()


def take(name: str) -> int | None:
    """The descriptor of that name, close-on-exec; all others are closed, and children see none of it."""
    taken = None
    for fd, given in enumerate(_names(), FIRST):
        if given == name and taken is None:
            os.set_inheritable(fd, False)
            taken = fd
        else:
            with suppress(OSError):
                os.close(fd)
    for variable in _ENVIRONMENT:
        os.environ.pop(variable, None)
    return taken


def silence() -> None:
    """This process is not the service's: it says nothing and takes nothing."""
    for variable in ("NOTIFY_SOCKET", *_ENVIRONMENT):
        os.environ.pop(variable, None)


def _names() -> list[str]:
    """Names of the descriptors from FIRST on."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not os.environ.get("LISTEN_FDS", "").isdigit():
        return []
    count = int(os.environ["LISTEN_FDS"])
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    return [names[index] if index < len(names) else "unknown" for index in range(count)]
