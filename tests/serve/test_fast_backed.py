"""OPEN and RELEASE of passthrough files in the compiled loop: what it writes down, and when it leaves them to Python.

The device is a socket: it registers no backing file, so whatever needs a new backing id is handed over.
"""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import NamedTuple

import pytest

from regionfs.fs import FileSystem
from regionfs.manifest.load import load
from regionfs.modes.choose import Choice, Mode
from regionfs.serve.backing import Backings
from regionfs.serve.ledger import JOURNAL, SLOTS, Entry, Ledger
from regionfs.serve.relay import AWAKE, SINCE
from regionfs.source import Sources
from regionfs.tree import FileNode
from regionfs.wire.abi import UNIQUE_RESEND, Opcode
from regionfs.wire.requests import InHeader
from tests.faults.lives import eventually
from tests.serve.device import NOTHING, OPEN, OPENED, RELEASE, REPLY, Device, Handed, open_request, release_request
from tests.serve.test_fast_open import CHANGES, longer, write_map

PASSTHROUGH = 128
SIZE = 4096
FILES = {"whole.bin": {"whole": "a.img"}, "map.bin": {"regions": [{"source": "b.img"}]},
         "rw.bin": {"whole": "c.img", "access": "rw"}, "alias.bin": {"whole": "link.img"}}


class Ids:
    """Backing ids that were given and not given back."""

    def __init__(self) -> None:
        self.alive: set[int] = set()
        self._next = 0

    def backing_open(self, source_fd: int) -> int:
        self._next += 1
        self.alive.add(self._next)
        return self._next

    def backing_close(self, backing_id: int) -> None:
        self.alive.remove(backing_id)


class Backed(NamedTuple):
    """Passthrough files behind a device, and a server's ledger of their handles."""

    fs: FileSystem
    device: Device
    backings: Backings
    ledger: Ledger
    ids: Ids
    path: Path

    def node(self, path: str) -> FileNode:
        return self.fs.tree.files[path]

    def python_opens(self, path: str, unique: int = 2, pid: int = 1) -> int | None:
        """An OPEN as Python answers it; the backing id."""
        node = self.node(path)
        node.counters.opens[Mode.PASSTHROUGH] += 1
        header = InHeader(0, Opcode.OPEN, unique, node.ino, 0, 0, pid, 0)
        backed = self.backings.open(node, self.fs.open(node.ino, os.O_RDONLY), os.O_RDONLY, header)
        return backed and backed.backing_id

    def learn(self, path: str) -> int:
        """Let Python open the file twice and hand it over; its inode number."""
        node = self.node(path)
        eventually(lambda: self.fs.open(node.ino, os.O_RDONLY).settled)
        assert self.python_opens(path) == self.python_opens(path, 4)
        self.device.fast.learn_backed(node.ino, self.backings.hand_over)
        return node.ino

    def open(self, ino: int, flags: int = os.O_RDONLY, unique: int = 100) -> int | None:
        """The backing id that the loop answers with, or None."""
        reply = self.device.ask(open_request(ino, flags, unique))
        if isinstance(reply, Handed):
            assert OPEN.size == reply.size
            return None
        *header, backing_id = OPENED.unpack(reply)
        assert [OPENED.size, 0, unique, 0, PASSTHROUGH] == header
        return int(backing_id)

    def release(self, ino: int, unique: int = 102) -> bool:
        """True when the loop answers it."""
        reply = self.device.ask(release_request(ino, unique))
        if isinstance(reply, Handed):
            assert RELEASE.size == reply.size
            return False
        assert (REPLY.size, 0, unique) == REPLY.unpack(reply)
        return True

    def handles(self) -> dict[int, int]:
        """By inode, as a successor would find them."""
        return {entry.ino: entry.handles for entry in Ledger(self.path).entries()}


@pytest.fixture
def backed(tmp_path: Path) -> Iterator[Backed]:
    """FILES in passthrough mode."""
    for name in "abc":
        (tmp_path / f"{name}.img").write_bytes(name.encode() * SIZE)
    (tmp_path / "link.img").hardlink_to(tmp_path / "c.img")
    manifest = load(write_map(tmp_path, FILES))
    path, ids = tmp_path / "ledger", Ids()
    ledger = Ledger(path)
    with Sources(manifest) as sources:
        fs = FileSystem(manifest, sources, dict.fromkeys(manifest.files, Choice(Mode.PASSTHROUGH, "a test")))
        with Device(fs, ledger) as device:
            yield Backed(fs, device, Backings(fs, ids, ledger, device.fast), ledger, ids, path)


@pytest.mark.parametrize("path", ["whole.bin", "map.bin"])
def test_more_handles_of_an_open_file(backed: Backed, path: str) -> None:
    """Answered with the id in use, written down and counted; the last RELEASE too. Not the first OPEN, here."""
    ino, counters = backed.learn(path), backed.node(path).counters
    backing_id, = backed.ids.alive
    assert [backing_id] * 3 == [backed.open(ino), backed.open(ino, os.O_DIRECT), backed.open(ino, os.O_NOFOLLOW)]
    assert {ino: 5} == backed.handles()
    assert 1 == len(backed.backings)
    assert [True] * 4 == [backed.release(ino) for _ in range(4)]
    assert {ino: 1} == backed.handles()
    assert backed.release(ino)
    assert {} == backed.handles()
    assert [0, None, False] == [len(backed.backings), backed.open(ino), backed.release(ino)]
    backed.device.fast.count()
    assert (2 + 3, 0) == (counters.opens[Mode.PASSTHROUGH], counters.opens[Mode.USERSPACE])


@pytest.mark.parametrize("path", ["rw.bin", "alias.bin"])
def test_opens_for_python(backed: Backed, path: str) -> None:
    """Of a file that writes, and of one over the same source by another name."""
    ino = backed.learn(path)
    assert [None, False] == [backed.open(ino), backed.release(ino)]
    assert {ino: 2} == backed.handles()


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY, os.O_ACCMODE, os.O_TRUNC, os.O_DIRECT | os.O_RDWR])
def test_opens_with_rules_of_their_own(backed: Backed, flags: int) -> None:
    """Writing, truncating."""
    ino = backed.learn("whole.bin")
    assert backed.open(ino, flags) is None
    assert backed.open(ino)


def test_what_came_again(backed: Backed) -> None:
    """May have been counted by another server: Python's."""
    ino = backed.learn("whole.bin")
    assert backed.open(ino, unique=200 | UNIQUE_RESEND) is None
    assert not backed.release(ino, unique=202 | UNIQUE_RESEND)
    assert {ino: 2} == backed.handles()
    assert [True, True] == [backed.open(ino, unique=200) is not None, backed.release(ino, unique=202)]
    successor = Ledger(backed.path)
    assert [True, True, False] == [successor.counted(unique) for unique in (200, 202, 204)]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("path", ["whole.bin", "map.bin"])
def test_a_source_that_changed(backed: Backed, tmp_path: Path, change: str, path: str) -> None:
    """Its OPENs are Python's, its RELEASEs are not."""
    source = tmp_path / ("a.img" if path == "whole.bin" else "b.img")
    source.chmod(0o644)
    ino = backed.learn(path)
    CHANGES[change](source)
    assert [None, True] == [backed.open(ino), backed.release(ino)]
    assert {ino: 1} == backed.handles()


def test_a_source_that_grew(backed: Backed, tmp_path: Path) -> None:
    """A file of fixed size is not handed over again, one that is all of its source is."""
    for path, source in ("whole.bin", "a.img"), ("map.bin", "b.img"):
        ino = backed.learn(path)
        longer(tmp_path / source)
        assert backed.open(ino) is None
        news = backed.fs.open(ino, os.O_RDONLY).news
        assert (path == "whole.bin") == (news is not None)
        if news is not None:  # the kernel is told
            backed.node(path).told.forgotten(news)
        eventually(lambda ino=ino: backed.fs.open(ino, os.O_RDONLY).settled)  # type: ignore[misc]
        backed.device.fast.learn_backed(ino, backed.backings.hand_over)
        assert (path == "whole.bin") == (backed.open(ino) is not None)


def test_who_was_sent_to_look_again(backed: Backed, tmp_path: Path) -> None:
    """Is answered by Python, which knows since when it asks: until then it keeps the file to itself."""
    before = backed.learn("map.bin")
    longer(tmp_path / "b.img")
    with pytest.raises(OSError, match=f"Errno {errno.ESTALE}"):
        backed.python_opens("map.bin", 6)
    os.truncate(tmp_path / "b.img", SIZE)
    ino = backed.node("map.bin").ino
    assert ino != before
    eventually(lambda: backed.fs.open(ino, os.O_RDONLY).settled)
    for pid in (2, 3, 1):
        assert backed.python_opens("map.bin", 6 + 2 * pid, pid)
        backed.device.fast.learn_backed(ino, backed.backings.hand_over)
        assert (pid == 1) == (backed.open(ino) is not None)


def test_python_takes_an_inode_back(backed: Backed) -> None:
    """With each OPEN and RELEASE that it answers; both count the same handles."""
    ino = backed.learn("whole.bin")
    assert backed.open(ino) is not None
    assert backed.python_opens("whole.bin", 6)
    assert {ino: 4} == backed.handles()
    assert [None, False] == [backed.open(ino), backed.release(ino)]
    backed.device.fast.learn_backed(ino, backed.backings.hand_over)
    assert backed.release(ino)
    backed.backings.release(ino, 8)
    assert {ino: 2} == backed.handles()
    assert not backed.release(ino)
    for unique in (10, 12, 14):
        backed.backings.release(ino, unique)
    assert ({}, set()) == (backed.handles(), backed.ids.alive)


def test_forgetting(backed: Backed) -> None:
    """With all else; Python goes on with the handles that the loop counted."""
    ino = backed.learn("whole.bin")
    assert backed.open(ino) is not None
    backed.device.fast.forget()
    assert [None, False] == [backed.open(ino), backed.release(ino)]
    assert backed.python_opens("whole.bin", 6) in backed.ids.alive
    assert {ino: 4} == backed.handles()


def test_a_reply_that_nobody_takes(backed: Backed) -> None:
    """Python is handed the OPEN without its number, and takes the handle back."""
    ino, device = backed.learn("whole.bin"), backed.device
    device.kernel.send(open_request(ino))
    device.kernel.close()
    assert OPEN.size == device.receive()
    assert 0 == int.from_bytes(device.request[8:16], "little")
    assert {ino: 3} == backed.handles()


def test_an_open_that_nobody_would_watch(backed: Backed) -> None:
    """A stat(2) may hang, and so may letting go of a file: Python's, which wakes the watchman."""
    ino, turns = backed.learn("whole.bin"), backed.device.relay.turns
    turns[AWAKE] = 0
    assert [None, False, 0] == [backed.open(ino), backed.release(ino), turns[SINCE]]
    turns[AWAKE] = 1
    assert backed.open(ino)


def test_a_full_ledger(backed: Backed) -> None:
    """Inodes that only the loop knows make room for those that are open."""
    ino = backed.learn("whole.bin")
    assert [True, True] == [backed.release(ino), backed.release(ino)]
    for other in range(SLOTS - 1):
        assert backed.ledger.write(0, Entry(1 << 40 | other, 0, 1, 0))
    assert backed.python_opens("map.bin")
    assert SLOTS == len(Ledger(backed.path).entries())
    assert backed.python_opens("whole.bin") is None
    assert backed.open(ino) is None


def test_writers_make_the_same_bytes(tmp_path: Path) -> None:
    """Numbered random requests by Python alone and by the loop's function leave equal files, and equal successors."""
    from regionfs.serve._fast import Table
    alone, shared = Ledger(tmp_path / "alone"), Ledger(tmp_path / "shared")
    shared.share(Table(0, 0, 0))
    rng = Random(11)
    for unique in range(2, 4 * JOURNAL):
        ino, handles = rng.randrange(40) + 5, rng.choice([0, 1, 1, 2, 3])
        known = alone.get(ino)
        backing_id, stamp = (known.backing_id, known.stamp) if known else (unique, rng.getrandbits(64))
        entry = Entry(ino, backing_id, handles, stamp)
        assert (True, True) == (alone.write(unique, entry), shared.write(unique, entry))
        assert alone.get(ino) == shared.get(ino) == (entry if handles else None)
    assert (tmp_path / "alone").read_bytes() == (tmp_path / "shared").read_bytes()
    first, second = Ledger(tmp_path / "alone"), Ledger(tmp_path / "shared")
    assert first.entries() == second.entries() == alone.entries()
    kept = range(unique + 2 - JOURNAL, unique + 1)  # the oldest record may be half written
    assert [*kept] == [number for number in range(unique + 1) if second.counted(number)]


def test_the_loop_among_threads(backed: Backed) -> None:
    """OPENs and RELEASEs in the loop while others write, take back, hand over and forget: every one is counted once."""
    inos = [backed.learn(path) for path in ("whole.bin", "map.bin")]
    stop, made, failed = threading.Event(), [0, 0], list[BaseException]()
    asked, more = [0], threading.Condition()  # requests so far; a round waits for some, else the loop never has a turn

    def python(number: int) -> None:
        path, node = list(FILES)[number], backed.node(list(FILES)[number])
        try:
            while not stop.is_set():
                seen = asked[0]
                if backed.python_opens(path, 6):
                    made[number] += 1
                    backed.device.fast.learn_backed(node.ino, backed.backings.hand_over)
                if number:
                    backed.device.fast.forget()
                with more:
                    more.wait_for(lambda: stop.is_set() or asked[0] >= seen + 10)  # noqa: B023 - waited for at once
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=python, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    counted = dict.fromkeys(inos, 2)
    rng = Random(12)
    answered = 0
    while answered < 2000 and not failed:
        ino = rng.choice(inos)
        if rng.random() < 0.6:
            done = backed.open(ino) is not None
            counted[ino] += done
        else:
            done = counted[ino] > 1 and backed.release(ino)
            counted[ino] -= done
        answered += done
        with more:
            asked[0] += 1
            more.notify_all()
    stop.set()
    with more:
        more.notify_all()
    for thread in threads:
        thread.join()
    assert [] == failed
    assert min(made) > 10
    assert {ino: counted[ino] + made[number] for number, ino in enumerate(inos)} == backed.handles()


@pytest.mark.parametrize("at", [0, -5, 1 << 40])
def test_slots_that_are_none(backed: Backed, at: int) -> None:
    """Are refused."""
    table = backed.device.table
    with pytest.raises(ValueError, match="no such slot"):
        table.write(2, at, 1, 2, 3, 4)
    with pytest.raises(ValueError, match="one ledger"):
        backed.ledger.share(table)
    if at > 0:
        with pytest.raises(ValueError, match=r"source|slot"):
            table.open(table.epoch, 5, ((b"/", *range(11)),), NOTHING, at, 1)
