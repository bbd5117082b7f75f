"""OPEN and RELEASE in the compiled loop: answered while the sources are what they were, else handed over."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from regionfs.manifest.load import load
from regionfs.modes.choose import Choice, Mode
from regionfs.serve.fast import MOST_SOURCES
from regionfs.serve.relay import AWAKE, SINCE
from regionfs.source import Sources
from regionfs.tree import Tree
from tests.serve.device import (
    NOTHING,
    OPENED,
    REPLY,
    REQUEST,
    ROOM,
    STOP,
    Handed,
    World,
    open_request,
    read_request,
    release_request,
    served,
)

PAGE = 4096
FILES: dict[str, Any] = {
    "one.bin": {"regions": [{"source": "a.img"}, {"length": PAGE, "hole": True}]},
    "two.bin": {"regions": [{"source": "a.img"}, {"source": "b.img"}]},
    "whole.bin": {"whole": "c.img"},
    "data.bin": {"regions": [{"data": {"text": "!"}}]},
    "rw.bin": {"regions": [{"source": "w.img", "access": "rw", "length": 1}]},
    "beside.bin": {"regions": [{"source": "link.img", "offset": 1, "length": 1}]},
    "most.bin": {"regions": [{"source": f"{number}.img"} for number in range(MOST_SOURCES)]},
    "more.bin": {"regions": [{"source": f"{number}.img"} for number in range(MOST_SOURCES + 1)]},
}
ANSWERED, NEVER = ("one.bin", "two.bin", "whole.bin", "data.bin", "most.bin"), ("rw.bin", "beside.bin", "more.bin")


def write_map(directory: Path, files: dict[str, Any]) -> Path:
    """A manifest of these files."""
    (directory / "map.yaml").write_text(json.dumps({"regionfs": 1, "files": files}))
    return directory / "map.yaml"


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """FILES behind a device."""
    for name in ("a", "b", "c", "w", *map(str, range(MOST_SOURCES + 1))):
        (tmp_path / f"{name}.img").write_bytes(name[:1].encode() * PAGE)
    (tmp_path / "link.img").hardlink_to(tmp_path / "w.img")
    with served(write_map(tmp_path, FILES)) as made:
        yield made


@pytest.mark.parametrize("path", ANSWERED)
def test_opens_that_keep_the_page_cache(world: World, path: str) -> None:
    """Answered once Python has kept it, with their RELEASE; not before, and of no other file."""
    ino, device = world.ino(path), world.device
    world.learn(path)
    assert [False, False] == [device.open(ino), device.release(ino)]
    world.learn_open(path)
    assert [True] * 4 == [device.open(ino), device.open(ino, os.O_NOFOLLOW), device.release(ino), device.release(ino)]
    others = [world.ino(other) for other in FILES if other != path]
    assert [False] * 2 * len(others) == [each(other) for other in others for each in (device.open, device.release)]


@pytest.mark.parametrize("path", NEVER)
def test_opens_for_python(world: World, path: str) -> None:
    """Of a file that writes, of one over the same source by another name, of one over too many sources."""
    ino = world.learn_open(path)
    assert [False, False] == [world.device.open(ino), world.device.release(ino)]


def test_a_file_of_many_sources_is_not_looked_at_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of its opens is Python's, and has asked all of them already."""
    world.learn_open("more.bin")
    asked: list[int] = []
    monkeypatch.setattr(world.fs, "getattr", asked.append)
    world.device.fast.learn_open(world.ino("more.bin"))
    assert [] == asked
    with pytest.raises(AttributeError):
        world.learn_open("one.bin")
    assert [world.ino("one.bin")] == asked, "others are asked for"


def test_python_must_have_kept_the_page_cache(world: World) -> None:
    """Whose source has changed since that is not learned, nor whose file is served in another mode."""
    node = world.fs.tree.files["one.bin"]
    world.device.fast.learn_open(node.ino)
    assert not world.device.open(node.ino)
    world.learn_open("two.bin")
    node.cached = ((1, 2, 3),)
    world.device.fast.learn_open(node.ino)
    assert not world.device.open(node.ino)
    node.choice = Choice(Mode.COMPOSED, "a test")
    world.learn_open("one.bin")
    assert not world.device.open(node.ino)


@pytest.mark.parametrize("flags", [os.O_RDWR, os.O_WRONLY, os.O_ACCMODE, os.O_DIRECT, os.O_TRUNC,
                                   os.O_DIRECT | os.O_RDWR])
def test_opens_with_rules_of_their_own(world: World, flags: int) -> None:
    """Writing, truncating, past the page cache."""
    ino = world.learn_open("one.bin")
    assert not world.device.open(ino, flags)
    assert world.device.open(ino)


def longer(source: Path) -> None:
    """One byte more, with the modification time of before."""
    before = source.stat()
    os.truncate(source, before.st_size + 1)
    os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))


def replaced(source: Path) -> None:
    """Another file of the same size and times takes its place."""
    before, other = source.stat(), source.with_suffix(".new")
    other.write_bytes(source.read_bytes())
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(source)


CHANGES: dict[str, Callable[[Path], None]] = {
    "mtime": lambda source: os.utime(source, ns=(1, 1)),
    "before 1678": lambda source: os.utime(source, ns=(0, -10**19)),
    "size": longer,
    "inode": replaced,
    "mode": lambda source: source.chmod(0o600),
    "bytes": lambda source: os.close(os.open(source, os.O_TRUNC | os.O_WRONLY)) or os.truncate(source, PAGE),
    "gone": Path.unlink,
    "no file": lambda source: (source.unlink(), source.mkdir())[1],
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("path", ["one.bin", "two.bin"])
def test_a_source_that_changed(world: World, tmp_path: Path, change: str, path: str) -> None:
    """Its files' OPENs are Python's, others' are not; what Python kept again is learned again."""
    ino, other = world.learn_open(path), world.learn_open("whole.bin")
    source = tmp_path / ("a.img" if path == "one.bin" else "b.img")
    (tmp_path / "a.img").chmod(0o644)
    world.learn_open(path)
    CHANGES[change](source)
    assert [False, True] == [world.device.open(ino), world.device.open(other)]
    world.device.fast.learn_open(ino)
    assert not world.device.open(ino), "Python has not kept the page cache since"
    if change in ("mtime", "before 1678", "mode", "bytes"):
        world.learn_open(path)
        assert world.device.open(ino)


def test_forgetting(world: World) -> None:
    """With all else; an old epoch teaches nothing."""
    inos, table = [world.learn_open(path) for path in ANSWERED], world.device.table
    assert [True] * len(inos) == [world.device.open(ino) for ino in inos]
    world.device.fast.forget()
    assert [False] * 2 * len(inos) == [each(ino) for ino in inos for each in (world.device.open, world.device.release)]
    world.learn("data.bin")
    table.open(table.epoch - 1, inos[3], (), NOTHING)
    assert not world.device.open(inos[3])
    table.open(table.epoch, inos[3], (), NOTHING)
    assert world.device.open(inos[3])


def test_another_manifest_that_writes(world: World, tmp_path: Path) -> None:
    """A file that stays keeps its Sources, which know nothing of it."""
    node = world.fs.tree.files["one.bin"]
    world.learn_open("one.bin")
    after = load(write_map(tmp_path, {"one.bin": FILES["one.bin"],
                                      "new.bin": {"regions": [{"source": "a.img", "access": "rw"}]}}))
    with Sources(after) as sources:
        tree = Tree(after, dict.fromkeys(after.files, Choice(Mode.USERSPACE, "a test")), sources)
        tree.keep(node)
        world.fs.swap(tree)
        assert not world.device.open(world.learn_open("one.bin"))


def test_an_open_that_nobody_would_watch(world: World) -> None:
    """A stat(2) may hang: Python's, which wakes the watchman. A RELEASE needs none."""
    ino, turns = world.learn_open("one.bin"), world.device.relay.turns
    turns[AWAKE] = 0
    assert [False, True, 0] == [world.device.open(ino), world.device.release(ino), turns[SINCE]]
    turns[AWAKE], turns[SINCE] = 1, 12345
    assert [False, 12345] == [world.device.open(ino), turns[SINCE]]
    turns[SINCE] = 0
    assert world.device.open(ino)


@pytest.mark.parametrize("make", [open_request, release_request])
def test_malformed_messages(world: World, make: Callable[[int], bytes]) -> None:
    """Cut at every byte, with bytes too many, with a length that is not true, of another opcode."""
    good = make(world.learn_open("one.bin"))
    assert isinstance(world.device.ask(good), bytes)
    bad = [good[:length] for length in range(1, len(good))] + [good + bytes(count) for count in range(1, 90)]
    bad += [len(short).to_bytes(4, "little") + short[4:] for short in bad if len(short) >= 4]
    bad += [value.to_bytes(4, "little") + good[4:] for value in (0, len(good) - 1, len(good) + 1, 2**32 - 1)]
    bad += [good[:4] + opcode.to_bytes(4, "little") + good[8:] for opcode in (0, 3, 15, 16, 27, 29, 14 + 18 - good[4])]
    for message in bad:
        assert Handed(len(message)) == world.device.ask(message), message.hex()


def test_opens_among_reads(world: World) -> None:
    """Many at once, more than wait for each other: replies are in order, and before what is handed over."""
    ino, device = world.learn_open("one.bin"), world.device
    world.learn("one.bin")
    sizes = []
    for turn in range(40):
        device.kernel.send(read_request(ino, 0, 10 * PAGE if turn % 7 == 6 else turn + 1))
        sizes.append(REPLY.size + (2 * PAGE if turn % 7 == 6 else turn + 1))
        if turn % 5 == 4:
            device.kernel.send(open_request(ino))
            device.kernel.send(release_request(ino))
            sizes += [OPENED.size, REPLY.size]
    device.kernel.send(read_request(ino, 2 * PAGE, 1))  # past the end: Python's
    device.kernel.send(STOP)
    assert REQUEST.size == device.receive()
    assert sizes == [len(device.kernel.recv(ROOM, socket.MSG_DONTWAIT)) for _ in sizes]
    assert len(STOP) == device.receive()


def test_counters(world: World) -> None:
    """OPENs are counted once, as userspace ones; what was handed over is not."""
    ino, other = world.learn_open("one.bin"), world.learn_open("two.bin")
    for _ in range(5):
        assert world.device.open(ino)
        assert world.device.release(ino)
    assert world.device.open(other)
    assert not world.device.open(other, os.O_RDWR)
    counted = [world.fs.tree.files[path].counters.opens for path in ("one.bin", "two.bin", "whole.bin")]
    for _ in range(2):
        world.device.fast.count()
        assert [{Mode.USERSPACE: count} for count in (5, 1, 0)] == [
            {mode: count for mode, count in each.items() if count or mode is Mode.USERSPACE} for each in counted]
    assert world.device.open(ino)
    world.device.fast.forget()
    assert 6 == counted[0][Mode.USERSPACE]


@pytest.mark.parametrize("facts", [(1,), ((b"/",),), ((b"/", *range(11)),) * 2 + (None,), (("text", *range(11)),)])
def test_sources_that_are_none(world: World, facts: Any) -> None:
    """Are refused, and what is known stays."""
    ino = world.learn_open("one.bin")
    with pytest.raises((TypeError, SystemError)):
        world.device.table.open(world.device.table.epoch, ino, facts, NOTHING)
    assert world.device.open(ino)
