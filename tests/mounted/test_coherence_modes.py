"""Two composite files over the same bytes in any pair of modes, one of them rw: a stale byte is a bug."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.harness import Mount
from tests.mounted.kernel import require
from tests.worker import Worker

PAGE = 4096
SIZE = 16 * PAGE           # of a source
HOLE = 3                   # FALLOC_FL_PUNCH_HOLE | KEEP_SIZE
ORDERS = ("iomap,passthrough,composed,userspace", "composed,passthrough,userspace", "userspace")


class Shape(NamedTuple):
    """A file over one source: its manifest, and where it shows the source's byte 0."""

    make: Callable[[str], dict[str, Any]]
    place: int = 0


WRITERS = {
    "whole": Shape(lambda s: {"whole": s, "access": "rw"}),
    "part": Shape(lambda s: {"regions": [{"start": 2 * PAGE, "source": s, "offset": PAGE, "access": "rw"}]}, PAGE),
    "twice": Shape(lambda s: {"regions": [{"source": s, "access": "rw"}] * 2}),
}
READERS = {
    "whole ro": Shape(lambda s: {"whole": s}),
    "exact": Shape(lambda s: {"regions": [{"source": s}]}),
    "aligned": Shape(lambda s: {"regions": [{"start": 2 * PAGE, "source": s, "offset": PAGE}]}, PAGE),
    "odd": Shape(lambda s: {"regions": [{"start": 100, "source": s}]}, 100),
}
SHAPES = {**WRITERS, **READERS}

# by the default order: writer, reader -> their modes
PASS, USER = "passthrough", "userspace"
MODES = {
    ("whole", "whole"): (PASS, PASS), ("whole", "part"): (USER, USER), ("whole", "twice"): (USER, USER),
    ("whole", "whole ro"): (PASS, PASS), ("whole", "exact"): (PASS, PASS), ("whole", "aligned"): (USER, USER),
    ("whole", "odd"): (USER, USER),
    ("part", "whole"): (USER, USER), ("part", "part"): (USER, USER), ("part", "twice"): (USER, USER),
    ("part", "whole ro"): (USER, PASS), ("part", "exact"): (USER, PASS), ("part", "aligned"): (USER, USER),
    ("part", "odd"): (USER, USER),
    ("twice", "whole"): (USER, USER), ("twice", "part"): (USER, USER), ("twice", "twice"): (USER, USER),
    ("twice", "whole ro"): (USER, PASS), ("twice", "exact"): (USER, PASS), ("twice", "aligned"): (USER, USER),
    ("twice", "odd"): (USER, USER),
}


@pytest.fixture(autouse=True)
def _able() -> None:
    require("passthrough")
    require("composed")


def make_source(directory: Path, name: str) -> str:
    (directory / name).write_bytes(b"s" * SIZE)
    return name


@pytest.mark.both_paths
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("writer", WRITERS)
def test_a_pair_agrees_at_once(tmp_path: Path, writer: str, order: str, fast: bool) -> None:
    """Writes, stores and punched holes through one show in the other's reads and in its old mapping, both ways."""
    files: dict[str, Any] = {}
    for other, shape in SHAPES.items():
        source = make_source(tmp_path, f"source of {other}")
        files |= {f"{other}/one": WRITERS[writer].make(source), f"{other}/two": shape.make(source)}
    options = ["--modes", order]
    with Mount(tmp_path, files, options=options, fast=fast) as mount, Worker() as worker, Worker() as peer:
        status = mount.status()["files"]
        for other in SHAPES:
            modes = status[f"{other}/one"]["mode"], status[f"{other}/two"]["mode"]
            if order == ORDERS[0]:
                assert MODES[writer, other] == modes, other
            one = Side(worker, mount.path / other / "one", WRITERS[writer].place, writable=True)
            two = Side(peer, mount.path / other / "two", SHAPES[other].place, writable=other in WRITERS)
            exchange(one, two, f"{writer} {modes[0]}, {other} {modes[1]}")
            if other in WRITERS:
                exchange(two, one, f"{other} {modes[1]}, {writer} {modes[0]}")


class Side:
    """One of the two files, open and mapped in a process of its own."""

    def __init__(self, worker: Worker, path: Path, place: int, writable: bool) -> None:
        self.worker, self.place = worker, place
        self.handle = worker.open(path, os.O_RDWR if writable else os.O_RDONLY)
        self.view = worker.map(self.handle, writable)

    def write(self, how: str, position: int, data: bytes) -> None:
        at = position + self.place
        if how == "pwrite":
            self.worker.pwrite(self.handle, at, data)
        elif how == "store":
            self.worker.view_write(self.view, at, data)
        else:
            self.worker.fallocate(self.handle, HOLE, at, len(data))

    def shown(self, position: int, length: int) -> Sequence[bytes]:
        """The bytes by read and by the mapping."""
        at = position + self.place
        return list(self.worker.run([("pread", self.handle, at, length), ("view_read", self.view, at, length)]))


def exchange(one: Side, two: Side, names: str) -> None:
    """What is written through `one` both show at once, also inside a page and across pages."""
    for turn, (position, length) in enumerate([(2 * PAGE, PAGE), (3 * PAGE + 7, 50), (4 * PAGE - 9, 3 * PAGE)]):
        for how in ("pwrite", "store", "punch"):
            data = bytes([turn * 3 + len(how)]) * length if how != "punch" else bytes(length)
            one.write(how, position, data)
            assert [data] * 2 == two.shown(position, length), f"{names}: {how} at {position} is not seen"
            assert [data] * 2 == one.shown(position, length), f"{names}: {how} at {position} is not kept"


@pytest.mark.both_paths
@pytest.mark.parametrize("order", ORDERS)
def test_changed_outside_between_opens(tmp_path: Path, order: str, fast: bool) -> None:
    """An open sees all that was closed before it, in every mode, however soon after the change it comes."""
    source = tmp_path / make_source(tmp_path, "source")
    files = {name: shape.make("source") for name, shape in READERS.items()}
    options = ["--modes", order]
    with Mount(tmp_path, files, options=options, fast=fast) as mount, Worker() as worker, Worker() as outside:
        for turn in range(40):
            data = bytes([turn]) * 5
            change(outside, source, turn, data)
            for name, shape in READERS.items():
                path, at = mount.path / name, 5 * PAGE + shape.place
                found = worker.run([("pread", path, at, 5), ("mmap_read", path, at, 5)])
                assert [data] * 2 == found, f"{name}, turn {turn}"
            if turn % 4 == 0:  # handles that stay
                for name in READERS:
                    worker.open(mount.path / name)


def change(outside: Worker, source: Path, turn: int, data: bytes) -> None:
    """Change the source beside the mount, in one of four ways."""
    if turn % 4 == 0:
        outside.pwrite(source, 5 * PAGE, data)
    elif turn % 4 == 1:
        outside.mmap_write(source, 5 * PAGE, data)
    elif turn % 4 == 2:
        outside.run([("truncate", source, PAGE), ("truncate", source, SIZE), ("pwrite", source, 5 * PAGE, data)])
    else:
        outside.run([("fallocate", source, HOLE, 4 * PAGE, 4 * PAGE), ("pwrite_direct", source, 5 * PAGE,
                                                                     data + bytes(PAGE - 5))])


@pytest.mark.both_paths
def test_a_store_is_seen_once_msync_returned(tmp_path: Path, fast: bool) -> None:
    """However soon another file's mapping and an open look: a thousand stores through a mapping."""
    make_source(tmp_path, "source")
    files = {name: WRITERS["twice"].make("source") for name in ("one", "two")}
    with Mount(tmp_path, files, fast=fast) as mount, Worker() as worker:
        store, view = worker.map(mount.path / "one", True), worker.map(mount.path / "two")
        for turn in range(1000):
            data = b"%8d" % turn
            _, seen, opened = worker.run([("view_write", store, 3 * PAGE, data), ("view_read", view, 3 * PAGE, 8),
                                          ("pread", mount.path / "two", SIZE + 3 * PAGE, 8)])
            assert [data] * 2 == [seen, opened], f"turn {turn}"


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("other", ["part", "odd", "exact"])
def test_a_mapping_in_use_keeps_no_stale_page(tmp_path: Path, writer: str, other: str) -> None:
    """While another process reads the pages all the time, each write shows once it has returned."""
    make_source(tmp_path, "source")
    files = {"one": WRITERS[writer].make("source"), "two": SHAPES[other].make("source")}
    with Mount(tmp_path, files) as mount, Worker() as worker:
        at = {"one": 3 * PAGE + WRITERS[writer].place, "two": 3 * PAGE + SHAPES[other].place}
        handle = worker.open(mount.path / "one", os.O_RDWR)
        views = {name: worker.map(mount.path / name) for name in files}
        places = json.dumps([[str(mount.path / name), at[name]] for name in files])
        spinner = subprocess.Popen([sys.executable, "-c", SPIN, places], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert spinner.stdin and spinner.stdout
        try:
            assert b"!" == spinner.stdout.read(1)
            for turn in range(1000):
                data = b"%8d" % turn
                _, *shown = worker.run([("pwrite", handle, at["one"], data),
                                        *(("view_read", views[name], at[name], 8) for name in files)])
                assert [data] * 2 == shown, f"turn {turn}"
        finally:
            spinner.kill()
            spinner.communicate()


# reads the first byte of two places of two mappings until it is ended
SPIN = """
import json, mmap, sys
views = []
for path, at in json.loads(sys.argv[1]):
    with open(path, "rb") as file:
        views.append((mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ), at))
sys.stdout.write("!")
sys.stdout.flush()
while True:
    for view, at in views:
        view[at]
"""
