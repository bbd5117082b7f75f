"""What the loop writes down of a WRITE: before it is done, after it, and until its reply is given."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from regionfs.fs import FileSystem
from regionfs.manifest.load import load
from regionfs.modes.choose import Choice, Mode
from regionfs.serve.ledger import Ledger
from regionfs.serve.relay import AWAKE
from regionfs.sharing import Span
from regionfs.source import Sources
from tests.serve.device import UNIQUE, Device, Handed, World, write_request


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """Of a successor, too."""
    return Ledger(tmp_path / "ledger")


@pytest.fixture
def world(tmp_path: Path, ledger: Ledger) -> Iterator[World]:
    """One file that is written, which the loop knows."""
    (tmp_path / "s.img").write_bytes(bytes(4096))
    (tmp_path / "map.yaml").write_text("regionfs: 1\nfiles: {file: {whole: s.img, access: rw}}\n")
    manifest = load(tmp_path / "map.yaml")
    with Sources(manifest) as sources:
        fs = FileSystem(manifest, sources, {"file": Choice(Mode.USERSPACE, "a test")})
        with Device(fs, ledger) as device:
            made = World(fs, device)
            made.learn("file")
            yield made


def test_a_write_that_was_answered(world: World, ledger: Ledger) -> None:
    """Nothing is left of it; what was under way there is overtaken."""
    ino = world.ino("file")
    task = ledger.underway.begin(2, ino, 10, 20)
    other = ledger.underway.begin(4, ino + 1, 10, 20)
    assert 8 == world.device.write(ino, 15, b"12345678")
    assert {2, 4} == set(ledger.underway.left())
    assert ([(15, 20)], []) == (ledger.underway.overtaken(task), ledger.underway.overtaken(other))


def test_a_write_that_could_not_be_answered(world: World, ledger: Ledger, tmp_path: Path) -> None:
    """A successor finds it done, and with which count."""
    ino = world.ino("file")
    world.device.kernel.send(write_request(ino, 5, b"1234"))
    world.device.kernel.close()
    with pytest.raises(BrokenPipeError):
        world.device.receive()
    successor = Ledger(tmp_path / "ledger").underway
    assert {UNIQUE: (0, Span(ino, 5, 4))} == successor.left()
    assert 4 == successor.result(0)


def test_a_write_that_is_handed_over(world: World, ledger: Ledger, tmp_path: Path) -> None:
    """Python goes on with its task, and so does a successor."""
    ino = world.ino("file")
    world.device.relay.turns[AWAKE] = 0
    assert isinstance(world.device.write(ino, 5, b"1234"), Handed)
    for underway in ledger.underway, Ledger(tmp_path / "ledger").underway:
        assert {UNIQUE: (0, Span(ino, 5, 4))} == underway.left()
        assert None is underway.result(0)
    assert 0 == ledger.underway.begin(UNIQUE, ino, 5, 9)
