"""A server dies at any store to its ledger, any call to the kernel, and before any reply: nothing is lost or left.

The kernel's table of backing ids is a shared page here; everything else is the server's own.
"""

from __future__ import annotations

import errno
import itertools
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regionfs.fs import FileSystem
from regionfs.manifest.load import load
from regionfs.modes.choose import Choice, Mode
from regionfs.serve.backing import Backings
from regionfs.serve.handlers import Handlers
from regionfs.serve.ledger import Ledger
from regionfs.source import Sources
from regionfs.tree import FileNode
from regionfs.wire.abi import UNIQUE_RESEND, Opcode
from regionfs.wire.parse import Request
from regionfs.wire.requests import InHeader, OpenIn
from tests.harness import PROJECT

REQUESTS = [("open", 2), ("open", 4), ("release", 6), ("release", 8), ("open", 10), ("release", 12)]
NEXT, ANSWERED, ALIVE = 0, 1, 2  # bytes of the page: the id given last, requests answered, then a flag for each id


class IdTable:
    """What the kernel keeps for a connection; `step` is called around everything it does."""

    def __init__(self, step: Callable[[], None], page: mmap.mmap) -> None:
        self._step, self._page = step, page

    def backing_open(self, source_fd: int) -> int:
        self._step()
        self._page[NEXT] += 1
        self._page[ALIVE + self._page[NEXT]] = 1
        self._step()
        return self._page[NEXT]

    def backing_close(self, backing_id: int) -> None:
        self._step()
        if not self._page[ALIVE + backing_id]:
            raise OSError(errno.ENOENT, "no such backing id")
        self._page[ALIVE + backing_id] = 0
        self._step()

    def alive(self) -> list[int]:
        return [number for number, flag in enumerate(self._page[ALIVE:]) if flag]


class Stores:
    """The ledger's words, with a step before each store."""

    def __init__(self, words: Any, step: Callable[[], None]) -> None:
        self._words, self._step = words, step

    def __getitem__(self, index: Any) -> Any:
        return self._words[index]

    def __setitem__(self, index: int, value: int) -> None:
        self._step()
        self._words[index] = value


class Life:
    """One server's backings over the ledger at `path`."""

    def __init__(self, fs: FileSystem, path: Path, page: mmap.mmap, step: Callable[[], None] = lambda: None) -> None:
        self._fs, self._page, self._step = fs, page, step
        self.ids = IdTable(step, page)
        self.ledger = Ledger(path)
        self.ledger._words = Stores(self.ledger._words, step)  # type: ignore[assignment]
        self.backings = Backings(fs, self.ids, self.ledger)
        self.backings.recover()

    def ask_to_open(self, node: FileNode, unique: int) -> None:
        handlers = Handlers(self._fs, self.backings, lambda ino: None, lambda ino: None)
        handlers.table[Opcode.OPEN](Request(opening(node.ino, unique), OpenIn(os.O_RDONLY, 0), (), b""))

    def serve(self, resend: int = 0) -> None:
        """What has not been answered yet, the first of it sent again."""
        node, = self._fs.tree.files.values()
        for kind, unique in REQUESTS[self._page[ANSWERED]:]:
            if kind == "open":
                header = InHeader(0, Opcode.OPEN, unique | resend, node.ino, 0, 0, 1, 0)
                found = self.backings.open(node, self._fs.open(node.ino, os.O_RDONLY), os.O_RDONLY, header)
                assert found is not None and found.backing_id in self.ids.alive()
            else:
                self.backings.release(node.ino, unique | resend)
            self._step()
            self._page[ANSWERED] += 1
            resend = 0


def test_death_at_every_step(tmp_path: Path) -> None:
    """The successor answers what was open, counts nothing twice, and gives every id back."""
    (tmp_path / "source").write_bytes(b"x")
    (tmp_path / "one.yaml").write_text("regionfs: 1\nfiles: {file: {whole: source}}\n")
    manifest = load(tmp_path / "one.yaml")
    with Sources(manifest) as sources:
        fs = FileSystem(manifest, sources, {"file": Choice(Mode.PASSTHROUGH, "it is whole")})
        for steps in itertools.count():
            path = tmp_path / f"{steps}.ledger"
            page = mmap.mmap(-1, mmap.PAGESIZE)
            died = in_a_child(lambda path=path, page=page, steps=steps: die_after(fs, path, page, steps))
            successor = Life(fs, path, page)
            successor.serve(UNIQUE_RESEND)
            assert ([], [], 0) == (successor.ids.alive(), successor.ledger.entries(), len(successor.backings)), steps
            if not died:
                break
    print(f"\ndied at each of {steps} steps")
    assert steps > 50


def die_after(fs: FileSystem, path: Path, page: mmap.mmap, steps: int) -> None:
    left = itertools.count(steps, -1)

    def step() -> None:
        if next(left) <= 0:
            os._exit(9)

    Life(fs, path, page, step).serve()


def in_a_child(work: Callable[[], None]) -> bool:
    """True when it died before its end."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (0, 9)
    return status == 9


def test_an_open_that_fails_when_it_comes_again(tmp_path: Path) -> None:
    """Its source is gone by then: the handle that the dead server had counted goes, the one before it stays."""
    (tmp_path / "source").write_bytes(b"x")
    (tmp_path / "one.yaml").write_text("regionfs: 1\nfiles: {file: {whole: source}}\n")
    manifest, page = load(tmp_path / "one.yaml"), mmap.mmap(-1, mmap.PAGESIZE)
    with Sources(manifest) as sources:
        fs = FileSystem(manifest, sources, {"file": Choice(Mode.PASSTHROUGH, "it is whole")})
        node, = fs.tree.files.values()
        first = Life(fs, tmp_path / "ledger", page)
        for unique in (2, 4):
            first.backings.open(node, fs.open(node.ino, os.O_RDONLY), os.O_RDONLY, opening(node.ino, unique))
        source = (tmp_path / "source").rename(tmp_path / "elsewhere")
        second = Life(fs, tmp_path / "ledger", page)
        for unique in (4 | UNIQUE_RESEND, 6 | UNIQUE_RESEND, 8):
            with pytest.raises(OSError):
                second.ask_to_open(node, unique)
            assert [1] == [entry.handles for entry in second.ledger.entries()]
        third = Life(fs, tmp_path / "ledger", page)  # the second one had not answered
        with pytest.raises(OSError):
            third.ask_to_open(node, 4 | UNIQUE_RESEND)
        assert [1] == [entry.handles for entry in third.ledger.entries()]
        source.rename(tmp_path / "source")
        fourth = Life(fs, tmp_path / "ledger", page)
        fourth.ask_to_open(node, 4 | UNIQUE_RESEND)
        assert [2] == [entry.handles for entry in fourth.ledger.entries()]
        for unique in (10, 12):
            fourth.backings.release(node.ino, unique)
        assert ([], []) == (fourth.ids.alive(), fourth.ledger.entries())


def opening(ino: int, unique: int) -> InHeader:
    return InHeader(0, Opcode.OPEN, unique, ino, 0, 0, 1, 0)


FILL = """
import sys
from pathlib import Path
from regionfs.serve.ledger import SLOTS, Entry, Ledger, open_ledger
fd = open_ledger(Path(sys.argv[1]))
Path(sys.argv[1]).with_name("filler").write_bytes(b"")
try:
    with Path(sys.argv[1]).with_name("filler").open("wb") as filler:
        while True:
            filler.write(b"x" * 4096)
            filler.flush()
except OSError:
    pass
ledger = Ledger(fd)
for ino in range(1, SLOTS + 1):
    assert ledger.write(ino, Entry(ino, 1, 1, 0))
assert len(Ledger(fd).entries()) == SLOTS
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs needs root")
@pytest.mark.parametrize("size", ["1M", "8M"])
def test_a_full_file_system_kills_no_server(tmp_path: Path, size: str) -> None:
    """Neither where the ledger had room when it was made, nor where it had none: no store of it is a SIGBUS."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "regionfs-test", tmp_path], check=True)
    try:
        done = subprocess.run([sys.executable, "-c", FILL, tmp_path / "ledger"], check=False, cwd=PROJECT, timeout=60)
    finally:
        subprocess.run(["umount", "-l", tmp_path], check=True)
    assert 0 == done.returncode
