"""The compiled loop and its device: many requests at once, errors, signals, and whose turn it is to read."""

from __future__ import annotations

import signal
import socket
import threading
from array import array
from pathlib import Path

import pytest

from regionfs.serve import fast
from regionfs.serve.relay import TURN
from tests.serve.conftest import DISK_RW, PAGE
from tests.serve.device import REPLY, REQUEST, ROOM, STOP, UNIQUE, WRITTEN, World, read_request, write_request

# answers that wait for each other

def test_many_requests_at_once(world: World) -> None:
    """All are answered, in order, however many they are and however large."""
    ino, lengths = world.learn("disk.img"), [*range(1, 60), 4 * PAGE, 1, 5 * PAGE, *range(60, 100)]
    for length in lengths:
        world.device.kernel.send(read_request(ino, DISK_RW - 50, length))
    world.device.kernel.send(STOP)
    assert len(STOP) == world.device.receive()
    shown = b"r" * 50 + b"a" * 2 * PAGE + b"b" * 2 * PAGE + bytes(PAGE)
    assert [shown[:length] for length in lengths] == [world.device.kernel.recv(ROOM)[REPLY.size:] for _ in lengths]


def test_reads_and_writes_at_once(world: World) -> None:
    """A READ shows what came before it, and nothing that came after."""
    ino, turns = world.learn("disk.img"), range(30)
    for turn in turns:
        world.device.kernel.send(write_request(ino, DISK_RW, bytes([turn]) * 5))
        for _ in range(turn % 3 + 1):
            world.device.kernel.send(read_request(ino, DISK_RW, 5))
    world.device.kernel.send(STOP)
    assert len(STOP) == world.device.receive()
    for turn in turns:
        assert WRITTEN.pack(WRITTEN.size, 0, UNIQUE, 5) == world.device.kernel.recv(ROOM)
        for _ in range(turn % 3 + 1):
            assert bytes([turn]) * 5 == world.device.kernel.recv(ROOM)[REPLY.size:]


@pytest.mark.parametrize("place", range(0, 20, 3))
def test_answers_go_out_before_a_request_is_handed_over(world: World, place: int) -> None:
    """Whatever Python does then, nobody waits for it but who asked; what came after is still to be read."""
    ino, device = world.learn("disk.img"), world.device
    for turn in range(20):
        device.kernel.send(read_request(ino, 0 if turn == place else PAGE, 1))
    assert REQUEST.size == device.receive()
    for count in place, 19 - place:
        assert [b"r"] * count == [device.kernel.recv(ROOM, socket.MSG_DONTWAIT)[REPLY.size:] for _ in range(count)]
        device.kernel.send(STOP)
        assert len(STOP) == device.receive()


# who leads

def test_a_turn_that_is_over_reads_nothing(world: World) -> None:
    """The request is left for who leads now."""
    ino, device = world.learn("disk.img"), world.device
    device.kernel.send(read_request(ino, PAGE, 1))
    buffer = memoryview(bytearray(ROOM))
    device.relay.turns[TURN] = 5
    assert device.table.serve(device._ours.fileno(), buffer, buffer, device.relay.turns, 4) is None
    device.kernel.send(STOP)
    assert len(STOP) == device.receive()
    assert 17 == len(device.kernel.recv(ROOM))


@pytest.mark.parametrize("poll", [0, 10**6])
def test_who_is_deposed_answers_once_more(world: World, monkeypatch: pytest.MonkeyPatch, poll: int) -> None:
    """And returns then, so that the new leader is alone; whether it sleeps between requests or stays awake."""
    device = world.device
    monkeypatch.setattr(device.fast, "_table", table := fast.table(poll))
    monkeypatch.setattr(device, "table", table)
    ino = world.learn("disk.img")
    returned: list[int | None] = []
    thread = threading.Thread(target=lambda: returned.append(device.receive()))
    thread.start()
    device.kernel.send(read_request(ino, PAGE, 1))
    assert 17 == len(device.kernel.recv(ROOM))  # so it is in the loop
    device.relay.turns[TURN] += 1
    device.kernel.send(read_request(ino, PAGE, 2))
    thread.join()
    assert [None] == returned
    # answered on the way out, or still to be read: nothing is lost
    device.kernel.send(STOP)
    assert len(STOP) == device.receive()
    assert 18 == len(device.kernel.recv(ROOM))


class RefusalError(Exception):
    """What a handler raises."""


@pytest.mark.parametrize("refuses", [False, True])
def test_a_signal_is_heard_in_the_loop(world: World, refuses: bool) -> None:
    """Its handler runs; the loop goes on, unless that raises."""
    ino, device, main, heard = world.learn("disk.img"), world.device, threading.get_native_id(), []

    def handler(number: int, frame: object) -> None:
        heard.append(number)
        if refuses:
            raise RefusalError
        device.kernel.send(read_request(ino, PAGE, 2))
        device.kernel.send(STOP)

    def interrupt() -> None:
        device.kernel.send(read_request(ino, PAGE, 1))
        assert 17 == len(device.kernel.recv(ROOM))  # so it is in the loop, and soon waits for the next
        while b") S " not in Path(f"/proc/self/task/{main}/stat").read_bytes():
            pass
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)

    before, thread = signal.signal(signal.SIGUSR1, handler), threading.Thread(target=interrupt)
    try:
        thread.start()
        if refuses:
            with pytest.raises(RefusalError):
                device.receive()
        else:
            assert len(STOP) == device.receive()
            assert 18 == len(device.kernel.recv(ROOM))
    finally:
        thread.join()
        signal.signal(signal.SIGUSR1, before)
    assert [signal.SIGUSR1] == heard


# errors

@pytest.mark.parametrize("writing", [False, True])
def test_a_reply_that_cannot_be_given(world: World, writing: bool) -> None:
    """Its error ends the serving: a successor gets the request again."""
    ino = world.learn("disk.img")
    world.device.kernel.send(write_request(ino, DISK_RW, b"!") if writing else read_request(ino, PAGE, 1))
    world.device.kernel.close()
    with pytest.raises(BrokenPipeError):
        world.device.receive()


def test_a_descriptor_that_cannot_be_read(world: World) -> None:
    """The error is the caller's."""
    table, buffer = world.device.table, memoryview(bytearray(ROOM))
    with pytest.raises(OSError, match="Bad file descriptor"):
        table.serve(-1, buffer, buffer, array("q", (0, 0, 1)), 0)


@pytest.mark.parametrize(("request_size", "reply_size", "turns"), [(79, ROOM, 3), (ROOM, 23, 3), (ROOM, ROOM, 2)])
def test_buffers_of_the_wrong_size(world: World, request_size: int, reply_size: int, turns: int) -> None:
    """Are refused before anything is read into them."""
    with pytest.raises(ValueError, match="wrong size"):
        world.device.table.serve(-1, memoryview(bytearray(request_size)), memoryview(bytearray(reply_size)),
                                 array("q", (0,) * turns), 0)
