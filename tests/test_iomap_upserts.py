"""Mappings told in advance: how many, in what order, and when no more."""

from __future__ import annotations

import threading
from errno import EIO, ESTALE

import pytest

from regionfs.modes.iomap import WINDOW
from regionfs.plan import Mapping
from regionfs.regions import Kind, Region, RegionMap
from regionfs.serve.upserts import LEAST, Batch, Upserts
from regionfs.wire import codec, iomap_v7
from regionfs.wire.iomap_v7 import Io, Type, UpsertOut

MANY = RegionMap(512 * 5000, [Region(512 * n, 512 * n + 512, Kind.SOURCE, "d", shift=512, writable=n % 2 == 1)
                              for n in range(5000)])


def io(mapping: Mapping) -> Io:
    return iomap_v7.mapped(mapping.offset, mapping.length, 1, mapping.address, boundary=False)


class Told:
    """Takes what is sent."""

    def __init__(self) -> None:
        self.messages: list[UpsertOut] = []
        self.error: OSError | None = None

    def __call__(self, parts: list[codec.Buffer]) -> bool:
        self.messages.append(iomap_v7.unpack(UpsertOut, parts[1]))
        if self.error is not None:
            raise self.error
        return True

    def take(self) -> list[int]:
        """Offsets told since the last call."""
        offsets = [message.read.offset for message in self.messages]
        self.messages.clear()
        return offsets


def batch(pos: int, *, change: bool = False, first_rw: Io | None = None) -> Batch:
    return Batch(7, MANY, pos, io, first_rw, change)


def ask(upserts: Upserts, told: Told, one: Batch) -> list[int]:
    upserts.add(one)
    upserts.settle()
    return told.take()


def test_a_window_is_told_whole_at_first() -> None:
    """From the position asked for on; asked again at once each batch is half the one before."""
    told = Told()
    upserts = Upserts(told, lambda: None)
    first = ask(upserts, told, batch(512 * 100))
    assert (512 * 100, set(range(0, 512 * WINDOW, 512))) == (first[0], set(first))
    sizes = [len(ask(upserts, told, batch(512 * 100))) for _ in range(11)]
    assert [2048, 1024, 512, 256, 128, 64, 32, 16, LEAST, LEAST, LEAST] == sizes
    assert 5000 - 2 * WINDOW == len(ask(upserts, told, batch(512 * 4999)))
    upserts.close()


def test_after_a_write_a_few() -> None:
    """The kernel drops what it wrote and soon asks again: no whole window for each small write."""
    told = Told()
    upserts = Upserts(told, lambda: None)
    assert [512 * (100 + n) for n in range(LEAST)] == ask(upserts, told, batch(512 * 100, change=True))
    upserts.close()


def test_write_halves() -> None:
    """In a file with rw regions every message tells a write mapping, a ro region's that of the first rw one."""
    told = Told()
    upserts = Upserts(told, lambda: None)
    first_rw = io(Mapping(512, 512, Kind.SOURCE, 1024, "d", True))
    upserts.add(batch(0, first_rw=first_rw))
    upserts.settle()
    upserts.close()
    assert {Type.PURE_OVERWRITE} == {message.write.type for message in told.messages}
    assert {True, False} == {message.read.offset == message.write.offset for message in told.messages}
    assert {512} == {message.write.offset for message in told.messages if message.read.offset != message.write.offset}


def test_no_write_halves_without_rw_regions() -> None:
    """A file that nobody can write has none."""
    told = Told()
    regions = RegionMap(512, [Region(0, 512, Kind.SOURCE, "d")])
    upserts = Upserts(told, lambda: None)
    upserts.add(Batch(7, regions, 0, io, None, False))
    upserts.settle()
    upserts.close()
    assert [Type.NOCACHE] == [message.write.type for message in told.messages]


@pytest.mark.parametrize(("number", "lines"), [(ESTALE, 0), (EIO, 1)])
def test_a_refusal_ends_the_batch(caplog: pytest.LogCaptureFixture, number: int, lines: int) -> None:
    """The rest is not tried; an inode that the kernel has forgotten is no news."""
    told = Told()
    told.error = OSError(number, "refused")
    upserts = Upserts(told, lambda: None)
    assert [0] == ask(upserts, told, batch(0))
    assert lines == len(caplog.messages)
    upserts.close()


def test_first_of_all() -> None:
    """What shall happen when the kernel has first asked happens once, before anything is told."""
    told, order = Told(), []
    upserts = Upserts(told, lambda: order.append(len(told.messages)))
    ask(upserts, told, batch(0))
    ask(upserts, told, batch(0))
    upserts.close()
    assert [0] == order


def test_closed() -> None:
    """After the end nothing is told, and the thread is gone."""
    told = Told()
    upserts = Upserts(told, lambda: None)
    ask(upserts, told, batch(0))
    upserts.close()
    upserts.add(batch(512 * 3000))
    assert [] == told.take()
    assert "upserts" not in {thread.name for thread in threading.enumerate()}
