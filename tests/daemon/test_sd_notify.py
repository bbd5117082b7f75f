"""The service manager's protocol, with a real datagram socket at the other end."""

from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from regionfs.daemon import sd_notify


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket that NOTIFY_SOCKET names."""
    address = str(tmp_path / "notify") if request.param == "path" else f"@regionfs-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
        peer.settimeout(10)
        peer.bind(address.replace("@", "\0"))
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        yield peer


def test_a_message_is_a_datagram_of_lines(manager: socket.socket) -> None:
    """As sd_notify(3) sends it."""
    assert sd_notify.notify("READY=1", "STATUS=fine")
    assert b"READY=1\nSTATUS=fine" == manager.recv(1000)


def test_stored_descriptors_travel_along(manager: socket.socket, tmp_path: Path) -> None:
    """With their name; the manager gets a copy."""
    (tmp_path / "x").write_text("stored")
    with (tmp_path / "x").open() as file:
        assert sd_notify.store(file.fileno(), "fuse")
    data, fds, _, _ = socket.recv_fds(manager, 1000, 4)
    assert (b"FDSTORE=1\nFDNAME=fuse", b"stored") == (data, os.read(fds[0], 10))
    os.close(fds[0])


@pytest.mark.parametrize("address", ["", "/nonexistent/notify", "vsock:2:1234"])
def test_nobody_listens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing happens."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert not sd_notify.notify("READY=1")


TAKE = """
import os, stat
os.environ["LISTEN_PID"] = os.environ["LISTEN_PID"].replace("me", str(os.getpid()))
from regionfs.daemon import sd_notify

def is_pipe(fd):
    try:
        return stat.S_ISFIFO(os.fstat(fd).st_mode)
    except OSError:
        return False

given, fd = sd_notify.is_given("fuse"), sd_notify.take("fuse")
others = [number for number in (3, 4, 5) if number != fd and is_pipe(number)]
left = [name for name in os.environ if name.startswith("LISTEN_")]
print(given, fd, fd is not None and os.get_inheritable(fd), others, left)
"""


def taken(names: str, count: int, pid: str = "me") -> str:
    """What a process that gets `count` descriptors from 3 on makes of them."""
    ends = array.array("i")
    for _ in range(count):
        ends.extend(os.pipe())
    environment = {**os.environ, "LISTEN_PID": pid, "LISTEN_FDS": str(count), "LISTEN_FDNAMES": names}
    moves = " ".join(f"{3 + index}<&{ends[2 * index]}" for index in range(count))
    done = subprocess.run(["bash", "-c", f'exec "$0" -c "$1" {moves}', sys.executable, TAKE], env=environment,
                          pass_fds=ends, check=True, stdout=subprocess.PIPE, text=True)
    for end in ends:
        os.close(end)
    return done.stdout.strip()


def test_the_named_descriptor_is_taken() -> None:
    """It is not inherited any further; the others are closed, the variables gone."""
    assert "True 4 False [] []" == taken("other:fuse:fuse", 3)


def test_no_descriptor_of_that_name() -> None:
    """None, and what was given is closed."""
    assert "False None False [] []" == taken("other", 1)


def test_descriptors_of_another_process() -> None:
    """LISTEN_PID is not ours: they are not touched."""
    assert "False None False [3] []" == taken("fuse", 1, pid="1")
