"""Modes asked for, forbidden, or not to be had: what applications see stays the same, operators are told."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.harness import ROOT_OR_ME, TIMEOUT, Mount, User
from tests.mounted.kernel import log_lines, opens, require
from tests.worker import Worker

SIZE = 64 * 1024
FILES: dict[str, Any] = {
    "whole": {"whole": "a", "access": "rw"},
    "swapped": {"mode": "0644", "regions": [{"source": "c"}, {"source": "b"}]},
    "odd": {"mode": "0644", "regions": [{"source": "b", "offset": 1}]},
}
KERNEL = {"whole": "passthrough", "swapped": "composed", "odd": "userspace"}
CONTENTS = {name: Random(name).randbytes(SIZE) for name in "abc"}
SHOWN = {"whole": CONTENTS["a"], "swapped": CONTENTS["c"] + CONTENTS["b"], "odd": CONTENTS["b"][1:]}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A directory with the sources of FILES."""
    for name, contents in CONTENTS.items():
        (tmp_path / name).write_bytes(contents)
    return tmp_path


def modes(mount: Mount) -> dict[str, str]:
    return {path: file["mode"] for path, file in mount.status()["files"].items()}


def test_who_tells_the_modes_agrees(sources: Path) -> None:
    """status, show, the extended attribute and doctor name the same mode and reason for every file."""
    require("passthrough")
    require("composed")
    with Mount(sources, FILES) as mount, Worker() as worker:
        status = {path: (file["mode"], file["reason"]) for path, file in mount.status()["files"].items()}
        shown = json.loads(ROOT_OR_ME.regionfs("show", mount.manifest, "--json").stdout)["files"]
        assert KERNEL == {path: mode for path, (mode, _) in status.items()}
        assert status == {path: (file["mode"], file["reason"]) for path, file in shown.items()}
        for path, mode in KERNEL.items():
            assert mode.encode() == worker.getxattr(mount.path / path, "user.regionfs.mode")
        tool = ROOT_OR_ME.run("getfattr", "--only-values", "-n", "user.regionfs.mode", mount.path / "swapped")
        assert "composed" == tool.stdout


@pytest.mark.parametrize(("order", "expected"), [
    ("userspace", {"userspace"}),
    ("userspace,passthrough,composed", {"userspace"}),
    ("passthrough,userspace", {"passthrough", "userspace"}),
    ("composed,userspace", {"userspace", "composed"}),
])
def test_the_order_is_obeyed(sources: Path, order: str, expected: set[str]) -> None:
    """A mode that is not named is not used, and an earlier one that fits wins."""
    require("passthrough")
    require("composed")
    with Mount(sources, FILES, options=["--modes", order]) as mount, Worker() as worker:
        for path, contents in SHOWN.items():
            assert contents == worker.pread(mount.path / path, 0, 4 * SIZE)
        assert expected == set(modes(mount).values())
        assert expected == {mode for path in FILES for mode in opens(mount, path)}


@pytest.mark.parametrize(("order", "exact"), [("composed,passthrough,userspace", "composed"),
                                              ("passthrough,composed,userspace", "passthrough")])
def test_the_first_mode_that_fits_wins(sources: Path, order: str, exact: str) -> None:
    """A read-only map of one whole file fits both kernel modes; what is asked for first serves it."""
    require("passthrough")
    require("composed")
    with Mount(sources, {"f": {"regions": [{"source": "a"}]}}, options=["--modes", order]) as mount, Worker() as worker:
        assert CONTENTS["a"] == worker.pread(mount.path / "f", 0, SIZE)
        assert {exact: 1} == opens(mount, "f")
        assert (0, 0) == mount.served("f")


@pytest.mark.parametrize(("order", "words"), [
    ("passthrough", ["swapped: no mode of passthrough", "not exactly one whole source", "odd:"]),
    ("composed", ["whole: no mode of composed", "odd:"]),
    ("passthrough,composed", ["odd: no mode of passthrough,composed", "region 0"]),
    ("iomap", ["whole: no mode of iomap"]),
    ("speed", ["'speed' is not one of", "passthrough"]),
])
def test_a_forced_mode_that_cannot_be_had(sources: Path, order: str, words: Sequence[str]) -> None:
    """An error at mount that names the files and the reasons, and no mount is left."""
    refused(Mount(sources, FILES, options=["--modes", order]), words)


def refused(mount: Mount, words: Sequence[str]) -> None:
    mount.path.mkdir(exist_ok=True)
    done = mount.user.regionfs("mount", mount.manifest, mount.path, "--engine", mount.engine, *mount.options)
    try:
        assert done.returncode != 0
        assert [] == [word for word in words if word not in done.stderr], done.stderr
        assert not mount.mounted
        assert 1 == mount.user.regionfs("status", mount.path).returncode
    finally:
        if mount.mounted:
            subprocess.run(["umount", "-l", mount.path], check=True, timeout=TIMEOUT)


@contextmanager
def small_disk(directory: Path, loop_device: Callable[..., AbstractContextManager[Path]]) -> Iterator[Path]:
    """A mounted ext4 with hardly any room."""
    backing, point = directory / "small.img", directory / "small"
    point.mkdir()
    with backing.open("wb") as file:
        file.truncate(1 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-b", "1024", "-O", "^has_journal", backing], check=True, timeout=TIMEOUT)
    with loop_device(backing) as device:
        subprocess.run(["mount", device, point], check=True, timeout=TIMEOUT)
        try:
            yield point
        finally:
            subprocess.run(["umount", point], check=True, timeout=TIMEOUT)


def test_no_room_for_an_image(sources: Path, loop_device: Callable[..., AbstractContextManager[Path]]) -> None:
    """A composed file whose image finds no room is served in userspace; one log line tells, and status shows it."""
    require("composed")
    (sources / "inline").write_bytes(Random(9).randbytes(2 << 20))
    files = {"f": {"regions": [{"data": {"file": "inline"}}, {"source": "b"}]}, "g": FILES["swapped"]}
    expected = (sources / "inline").read_bytes() + CONTENTS["b"]
    with small_disk(sources, loop_device) as small:
        user = User(process={"env": {**os.environ, "TMPDIR": str(small)}})
        with Mount(sources, files, user=user) as mount, Worker() as worker:
            assert {"f": "composed", "g": "composed"} == modes(mount)
            path = mount.path / "f"
            assert [expected] * 3 == worker.run([("pread", path, 0, 4 << 20)] * 3)
            assert expected == worker.mmap_read(path, 0, 4 << 20)
            entry = mount.status()["files"]["f"]
            assert ("userspace", {"userspace": 4}) == (entry["mode"], entry["opens_by_mode"])
            assert "composed failed: " in entry["reason"] and "No space left" in entry["reason"]
            assert b"userspace" == worker.getxattr(path, "user.regionfs.mode")
            assert 1 == len(log_lines(mount, "composed failed"))
            assert SHOWN["swapped"] == worker.pread(mount.path / "g", 0, 4 * SIZE)
            assert "composed" == modes(mount)["g"]


@pytest.mark.parametrize("who", ["root without kernel modes", "an ordinary user", "root"])
def test_the_same_behaviour(request: pytest.FixtureRequest, sources: Path, who: str) -> None:
    """What applications can see is the same whoever mounts, by whatever mode."""
    user: User = request.getfixturevalue("ordinary_user") if who == "an ordinary user" else ROOT_OR_ME
    directory = sources
    if user.directory is not None and who == "an ordinary user":
        directory = user.directory / "same-behaviour"
        directory.mkdir()
        for name, contents in CONTENTS.items():
            (directory / name).write_bytes(contents)
            (directory / name).chmod(0o666)
    options = ["--modes", "userspace"] if who == "root without kernel modes" else []
    with Mount(directory, FILES, user=user, options=options) as mount, \
            Worker(user.python, **user.process) as worker:
        if who != "root":
            assert {"userspace"} == set(modes(mount).values())
        observe(worker, mount.path, directory / "a")


def observe(worker: Worker, root: Path, source: Path) -> None:
    """Read, write, map, grow, truncate, append and fail, each with its one right outcome."""
    whole = root / "whole"
    for path, contents in SHOWN.items():
        found = worker.run([("pread", root / path, 0, 4 * SIZE), ("mmap_read", root / path, 0, 4 * SIZE),
                            ("sendfile", root / path, 0, SIZE), ("pread_direct", root / path, 0, SIZE // 2)])
        assert [contents, contents, contents[:SIZE], contents[:SIZE // 2]] == found, path
    results = worker.run([
        ("pwrite", whole, 100, b"written"), ("mmap_write", whole, 4096, b"mapped"), ("pwrite", whole, SIZE, b"grown"),
        ("pread", whole, 100, 7), ("pread", whole, 4096, 6), ("pread", whole, SIZE - 1, 100),
        ("truncate", whole, SIZE), ("pwrite_direct", whole, 8192, b"d" * 4096),
        ("pwrite", root / "swapped", 0, b"x"), ("truncate", root / "swapped", 1), ("truncate", root / "odd", SIZE - 1)])
    outcomes = [type(result).__name__ + str(result.errno) if isinstance(result, OSError) else result
                for result in results]
    assert [7, None, 5, b"written", b"mapped", CONTENTS["a"][-1:] + b"grown", None, 4096,
            "OSError30", "PermissionError1", None] == outcomes
    expected = bytearray(CONTENTS["a"])
    expected[100:107], expected[4096:4102], expected[8192:12288] = b"written", b"mapped", b"d" * 4096
    assert bytes(expected) == source.read_bytes() == worker.pread(whole, 0, 2 * SIZE)
    assert SIZE == worker.stat(whole).st_size
