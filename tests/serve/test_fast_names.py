"""LOOKUP and GETATTR in the compiled loop: what Python would answer, as long as the sources are what they were."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import Struct
from typing import Any, NamedTuple

import pytest

from regionfs import stamps
from regionfs.fs import FileSystem
from regionfs.manifest.inspect import SourceFacts
from regionfs.manifest.load import load
from regionfs.modes.choose import Choice, Mode
from regionfs.serve import fast
from regionfs.serve.backing import Backings
from regionfs.serve.fast import MOST_OPEN, MOST_REGIONS, MOST_SOURCES, FastPath, Shown
from regionfs.serve.handlers import Handlers
from regionfs.serve.ledger import Ledger
from regionfs.serve.relay import AWAKE, SINCE
from regionfs.source import Sources
from regionfs.tree import ROOT, FileNode, Tree
from regionfs.wire.parse import parse
from tests.faults.lives import eventually
from tests.serve.device import OPENED, REPLY, Device, Handed, open_request
from tests.serve.test_fast_backed import Ids
from tests.serve.test_fast_open import CHANGES, longer, write_map

PAGE = 4096
HEADER = Struct("=IIQQIIIHH")  # fuse_in_header; the last two are the extensions' length and padding
UNIQUE = 4712
PASSTHROUGH, USERSPACE = ("whole.bin", "d/deep/map.bin"), ("d/two.bin", "d/piece.bin", "hole.bin")
WRITTEN = ("rw.bin", "beside.bin")
FILES: dict[str, Any] = {
    "whole.bin": {"whole": "a.img"},
    "d/deep/map.bin": {"regions": [{"source": "b.img"}]},
    "d/two.bin": {"mode": "0640", "regions": [{"source": "a.img"}, {"length": PAGE, "hole": True},
                                              {"source": "b.img"}]},
    "d/piece.bin": {"regions": [{"source": "a.img", "offset": 7, "length": 8}]},
    "hole.bin": {"size": PAGE, "regions": []},
    "rw.bin": {"whole": "w.img", "access": "rw"},
    "beside.bin": {"regions": [{"source": "w.img", "offset": 1, "length": 1}]},
}


class Names(NamedTuple):
    """FILES behind a device, and Python's answers."""

    fs: FileSystem
    device: Device
    backings: Backings
    handlers: Handlers

    def node(self, path: str) -> FileNode:
        return self.fs.tree.files[path]

    def place(self, path: str) -> tuple[int, bytes]:
        """Directory and name."""
        place = self.fs.tree.place(self.node(path))
        assert place is not None
        return place

    def lookup(self, path: str) -> bytes | None:
        """The loop's answer."""
        parent, name = self.place(path)
        return self.ask(lookup_request(parent, name + b"\0"))

    def getattr(self, path: str) -> bytes | None:
        """Likewise."""
        return self.ask(getattr_request(self.node(path).ino))

    def ask(self, message: bytes) -> bytes | None:
        """The body of the loop's answer to a request; None when it was handed over."""
        reply = self.device.ask(message)
        if isinstance(reply, Handed):
            assert len(message) == reply.size
            return None
        assert (len(reply), 0, UNIQUE) == REPLY.unpack_from(reply)
        return reply[REPLY.size:]

    def python(self, message: bytes) -> bytes:
        """The body of Python's answer."""
        request = parse(message, len(message))
        return self.handlers.table[request.header.opcode](request)

    def python_entry(self, path: str) -> bytes:
        parent, name = self.place(path)
        return self.python(lookup_request(parent, name + b"\0"))

    def python_attributes(self, path: str) -> bytes:
        return self.python(getattr_request(self.node(path).ino))

    def begin(self) -> None:
        """As a mount does, once the sources have settled."""
        settle(self.fs)
        self.device.fast._begun = False
        self.device.fast.learn_all(self.backings.hand_over_unopened)


def settle(fs: FileSystem) -> None:
    """Wait until a change of the sources would show in their time stamps."""
    eventually(lambda: all(fs.open(node.ino, os.O_RDONLY).settled for node in fs.tree.files.values()))


def lookup_request(parent: int, rest: bytes, extensions: int = 0) -> bytes:
    """A LOOKUP; `rest` is name and NUL."""
    return HEADER.pack(HEADER.size + len(rest), 1, UNIQUE, parent, 0, 0, 0, extensions, 0) + rest


def getattr_request(ino: int) -> bytes:
    """A GETATTR."""
    return HEADER.pack(HEADER.size + 16, 3, UNIQUE, ino, 0, 0, 0, 0, 0) + bytes(16)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine learns as much."""
    monkeypatch.setattr(fast, "PATIENCE", 60)


@pytest.fixture
def names(tmp_path: Path) -> Iterator[Names]:
    for name in "abw":
        (tmp_path / f"{name}.img").write_bytes(name.encode() * (PAGE + 5))
    (tmp_path / "a.img").chmod(0o444)
    manifest, ledger = load(write_map(tmp_path, FILES)), Ledger()
    choices = {path: Choice(Mode.PASSTHROUGH if path in PASSTHROUGH or path == "rw.bin" else Mode.USERSPACE, "a test")
               for path in FILES}
    with Sources(manifest) as sources:
        fs = FileSystem(manifest, sources, choices)
        with Device(fs, ledger) as device:
            backings = Backings(fs, Ids(), ledger, device.fast)
            yield Names(fs, device, backings, Handlers(fs, backings, lambda ino: None, lambda ino: None))


@pytest.mark.parametrize("path", [*PASSTHROUGH, *USERSPACE])
def test_answers_are_pythons(names: Names, path: str) -> None:
    """To the byte, before and after; and as often as one asks."""
    assert (None, None) == (names.lookup(path), names.getattr(path))
    names.begin()
    for _ in range(2):
        assert (names.python_entry(path), names.python_attributes(path)) == (names.lookup(path), names.getattr(path))
    names.device.fast.forget()
    assert (None, None) == (names.lookup(path), names.getattr(path))


@pytest.mark.parametrize("path", WRITTEN)
def test_what_is_written_is_told_by_python(names: Names, path: str) -> None:
    """Its size and times follow at once."""
    names.begin()
    assert (None, None) == (names.lookup(path), names.getattr(path))


def test_other_names_are_pythons(names: Names) -> None:
    """Of files that are not there or lie elsewhere, of directories, and what is no name at all."""
    names.begin()
    ino, (deep, _) = names.node("whole.bin").ino, names.place("d/deep/map.bin")
    assert names.ask(lookup_request(ROOT, b"whole.bin\0")) is not None
    for parent, rest in ((ROOT, b"whole.bi\0"), (ROOT, b"whole.bin2\0"), (deep, b"whole.bin\0"), (ino, b"whole.bin\0"),
                         (0, b"whole.bin\0"), (ROOT, b"d\0"), (ROOT, b"whole.bin"), (ROOT, b"whole.bin\0\0"),
                         (ROOT, b"whole.bin\0x\0"), (ROOT, b"\0"), (ROOT, b"")):
        assert names.ask(lookup_request(parent, rest)) is None, rest
    assert names.ask(lookup_request(ROOT, b"whole.bin\0", extensions=1)) is None
    assert [None] * 3 == [names.ask(getattr_request(number)) for number in (ROOT, deep, 12345)]
    assert names.ask(getattr_request(ino)[:-1]) is None


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("path", ["whole.bin", "d/two.bin"])
def test_a_source_that_changed(names: Names, tmp_path: Path, path: str, change: str) -> None:
    """Its files are Python's, others are not."""
    (tmp_path / "a.img").chmod(0o644)
    names.begin()
    assert names.lookup(path)
    CHANGES[change](tmp_path / "a.img")
    assert (None, None) == (names.lookup(path), names.getattr(path))
    assert names.lookup("d/deep/map.bin")


def test_the_access_time_is_the_sources(names: Names, tmp_path: Path) -> None:
    """Of a `whole` file, as Python tells it: not as it was when it was learned."""
    source = tmp_path / "a.img"
    os.utime(source, ns=(1, source.stat().st_mtime_ns))
    names.begin()
    before = names.getattr("whole.bin")
    with open(source, "rb") as file:
        file.read()  # it is older than the last change, so it is updated
    assert source.stat().st_atime_ns != 1
    assert names.python_attributes("whole.bin") == names.getattr("whole.bin") != before
    assert names.python_attributes("d/two.bin") == names.getattr("d/two.bin")


@pytest.mark.parametrize("path", ["whole.bin", "d/two.bin"])
def test_an_open_of_pythons_comes_first(names: Names, path: str) -> None:
    """From when it looks at the sources nothing is told, until it has taught the loop."""
    names.begin()
    names.fs.open(names.node(path).ino, os.O_RDONLY)
    assert (None, None) == (names.lookup(path), names.getattr(path))
    names.begin()
    assert names.python_attributes(path) == names.getattr(path)


def test_an_open_knows_what_the_loop_has_told(names: Names, tmp_path: Path) -> None:
    """So it has the kernel forget that, though Python never said it."""
    names.begin()
    assert names.getattr("whole.bin")
    longer(tmp_path / "a.img")
    opened = names.fs.open(names.node("whole.bin").ino, os.O_RDONLY)
    assert opened.news is not None
    names.node("whole.bin").told.forgotten(opened.news)
    assert names.fs.open(names.node("whole.bin").ino, os.O_RDONLY).news is None


def test_an_open_that_looked_before_the_loop_was_taught(names: Names, tmp_path: Path,
                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends after: what the loop tells from then on stays noted, so the next open finds it."""
    names.begin()
    node, source, look = names.node("whole.bin"), tmp_path / "a.img", Sources.look

    def late(sources: Sources, key: str, need: int) -> SourceFacts:
        found = look(sources, key, need)
        patched.undo()
        longer(source)
        settle(names.fs)
        for unique in (2, 4):
            names.python(open_request(node.ino, unique=unique))
        names.device.fast.learn_backed(node.ino, names.backings.hand_over)
        assert names.getattr("whole.bin")
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Sources, "look", late)
        names.python(open_request(node.ino, unique=6))
    longer(source)
    assert names.fs.open(node.ino, os.O_RDONLY).news is not None


def test_what_the_kernel_may_hold_has_to_be_true(names: Names, tmp_path: Path) -> None:
    """Python told something else before: an open has to come, so the loop tells nothing."""
    names.python_attributes("whole.bin")
    longer(tmp_path / "a.img")
    names.begin()
    assert (None, None) == (names.lookup("whole.bin"), names.getattr("whole.bin"))


def test_first_opens(names: Names) -> None:
    """In userspace; the page cache is kept, for nothing is in it. For passthrough there are no backing ids here."""
    names.begin()
    for path in USERSPACE[:2]:
        ino = names.node(path).ino
        assert names.device.open(ino)
        assert names.fs.open(ino, os.O_RDONLY).keep_cache
        assert names.node(path).filled
    reads = [names.device.read(names.node(path).ino, 0, 100) for path in USERSPACE[:2]]
    assert [b"a" * 100, b"a" * 8] == reads
    for path in PASSTHROUGH:
        assert isinstance(names.device.ask(open_request(names.node(path).ino)), Handed)


def test_opens_that_python_makes_after_all(names: Names) -> None:
    """Of a passthrough file that the loop was to count: its entry is Python's, and then the loop's again."""
    names.begin()
    node, before = names.node("whole.bin"), len(names.backings)
    for unique in (2, 4):
        message = open_request(node.ino, unique=unique)
        reply = names.python(message)
        assert len(reply) == OPENED.size - REPLY.size
    assert before + 1 == len(names.backings)
    names.device.fast.learn_backed(node.ino, names.backings.hand_over)
    assert names.lookup("whole.bin")
    assert not isinstance(names.device.ask(open_request(node.ino)), Handed)


def test_another_inode_has_the_name(names: Names) -> None:
    """Whoever holds the old one teaches nothing by it."""
    names.begin()
    old = names.node("whole.bin")
    names.fs.renew(old)
    assert names.lookup("whole.bin") is None
    for unique in (2, 4):
        names.python(open_request(old.ino, unique=unique))
    names.device.fast.learn_backed(old.ino, names.backings.hand_over)
    assert names.lookup("whole.bin") is None
    names.begin()
    assert names.python_entry("whole.bin") == names.lookup("whole.bin")


def test_another_tree(names: Names, tmp_path: Path) -> None:
    """A file that a new manifest writes to is Python's."""
    names.begin()
    after = load(write_map(tmp_path, {"whole.bin": {"whole": "b.img"}, "new": {"whole": "b.img", "access": "rw"}}))
    with Sources(after) as sources:
        names.fs.swap(Tree(after, dict.fromkeys(after.files, Choice(Mode.USERSPACE, "a test")), sources))
        names.begin()
        assert (None, None) == (names.lookup("whole.bin"), names.getattr("whole.bin"))


def test_what_was_looked_up_before_a_change_is_not_learned(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the loop learned, the tree changed."""
    place = Tree.place

    def slow(tree: Tree, node: FileNode) -> tuple[int, bytes] | None:
        found = place(tree, node)
        names.fs.swap(names.fs.tree)
        return found

    with monkeypatch.context() as patched:
        patched.setattr(Tree, "place", slow)
        names.begin()
    assert [None] * 2 * len(FILES) == [each(path) for path in FILES for each in (names.lookup, names.getattr)]


@pytest.mark.parametrize("word", [AWAKE, SINCE])
def test_nobody_would_watch(names: Names, word: int) -> None:
    """A source's file system may stall, so it is Python's where the watchman sleeps or watches another."""
    names.begin()
    names.device.relay.turns[word] = 0 if word == AWAKE else 1
    parent, name = names.place("whole.bin")
    names.device.kernel.send(lookup_request(parent, name + b"\0"))
    assert HEADER.size + len(name) + 1 == names.device.receive()


def test_sources_that_may_still_change_unseen(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """Are not learned: their time stamps are too young."""
    settle(names.fs)
    monkeypatch.setattr(stamps, "GRAIN_NS", stamps.GRAIN_NS + 3600 * 10**9)
    names.device.fast.learn_all(names.backings.hand_over_unopened)
    assert [None] * len(PASSTHROUGH) == [names.lookup(path) for path in PASSTHROUGH]
    assert not names.device.open(names.node("d/two.bin").ino)


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of files, of their regions and sources: the rest is learned when it is used."""
    for number in range(MOST_SOURCES + 1):
        (tmp_path / f"{number}.img").write_bytes(bytes(MOST_REGIONS + 1))
    files = {"regions": {"regions": [{"source": "0.img", "offset": n, "length": 1}
                                     for n in range(MOST_REGIONS, -1, -1)]},
             "sources": {"regions": [{"source": f"{n}.img"} for n in range(MOST_SOURCES + 1)]},
             **{f"f{n}": {"regions": [{"source": "0.img"}]} for n in range(4)}}
    monkeypatch.setattr(fast, "MOST_FILES", 5)
    manifest = load(write_map(tmp_path, files))
    with Sources(manifest) as sources:
        fs = FileSystem(manifest, sources, dict.fromkeys(files, Choice(Mode.USERSPACE, "a test")))
        with Device(fs) as device:
            settle(fs)
            device.fast.learn_all(lambda node, give: None)
            assert [False, False, True, True, True, False] == [device.table.knows(fs.tree.files[path].ino)
                                                               for path in files]


def test_sources_are_not_opened_by_the_dozen(tmp_path: Path) -> None:
    """More than some, and each is opened when it is needed: so a mount of many files holds few."""
    for number in range(MOST_OPEN + 1):
        (tmp_path / f"{number}.img").write_bytes(b"x")
    for count in (MOST_OPEN, MOST_OPEN + 1):
        manifest = load(write_map(tmp_path, {f"f{n}": {"regions": [{"source": f"{n}.img"}]} for n in range(count)}))
        with Sources(manifest) as sources:
            fs = FileSystem(manifest, sources, dict.fromkeys(manifest.files, Choice(Mode.USERSPACE, "a test")))
            with Device(fs) as device:
                settle(fs)
                device.fast.learn_all(lambda node, give: None)
                assert (count == MOST_OPEN) == device.table.knows(fs.tree.files["f0"].ino)


def test_a_slow_source_keeps_nobody_waiting(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not known when the first request is read is not learned after: the kernel may hold something by then."""
    settle(names.fs)
    held, look = threading.Event(), Sources.look

    def slow(sources: Sources, key: str, needed: int) -> SourceFacts:
        if key in names.node("d/deep/map.bin").spec.sources:
            held.wait(30)
        return look(sources, key, needed)

    monkeypatch.setattr(fast, "PATIENCE", 0.2)
    before = threading.active_count()
    with monkeypatch.context() as patched:
        patched.setattr(Sources, "look", slow)
        names.device.fast.learn_all(names.backings.hand_over_unopened)
        assert names.lookup("whole.bin")
        held.set()
        eventually(lambda: threading.active_count() == before)
    assert [None] * 2 == [names.lookup(path) for path in ("d/deep/map.bin", "d/two.bin")]
    assert not names.node("d/two.bin").filled


def test_where_names_are_not_told(names: Names) -> None:
    """An iomap connection's attributes say more than the loop knows."""
    settle(names.fs)
    there, ours = os.pipe()
    try:
        silent = FastPath(names.fs, there, shows=False)
        silent.learn_all(names.backings.hand_over_unopened)
        assert silent._table is not None and silent._table.knows(names.node("d/two.bin").ino)
        assert Shown() == silent._shown(names.node("d/two.bin"), [])
    finally:
        os.close(there)
        os.close(ours)


SHOWN: dict[str, tuple[Any, ...]] = {"short": (b"x", False, 1, b"n"), "few": (b"",), "text": ("", False, 1, b"n"),
                                     "zero": (bytes(128), False, 1, b"a\0b")}


@pytest.mark.parametrize("kind", SHOWN)
def test_entries_that_are_none(names: Names, kind: str) -> None:
    """Are refused."""
    table: Any = names.device.table
    with pytest.raises((TypeError, ValueError)):
        table.open(table.epoch, 5, (), SHOWN[kind])


@pytest.mark.parametrize("ask", ["lookup", "getattr"])
def test_directories_with_thousands(tmp_path: Path, ask: str) -> None:
    """More names than the table has places: each leads to its own file, and goes with it."""
    (tmp_path / "a.img").write_bytes(b"a")
    files = {f"d{n % 7}/{n}": {"regions": [{"source": "a.img"}]} for n in range(20_000)}
    manifest = load(write_map(tmp_path, files))
    with Sources(manifest) as sources:
        fs = FileSystem(manifest, sources, dict.fromkeys(files, Choice(Mode.USERSPACE, "a test")))
        with Device(fs) as device:
            names = Names(fs, device, *(None, None))  # type: ignore[arg-type]
            eventually(lambda: fs.open(names.node("d0/0").ino, os.O_RDONLY).settled)
            device.fast.learn_all(lambda node, give: None)
            each: Callable[[str], bytes | None] = getattr(names, ask)
            for path in list(files)[::37]:
                body = each(path)
                assert body is not None
                at = 0 if ask == "lookup" else 16
                assert names.node(path).ino == int.from_bytes(body[at:at + 8], "little")
            device.fast.forget()
            assert all(each(path) is None for path in list(files)[::997])
