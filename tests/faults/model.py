"""A plain model of a mount: what every open file must show, whatever became of names, sources and servers since.

A source is the list of what it held, from the oldest that an open file may still show to what it holds now. A
write through the mount is seen by everybody at once, so it changes all of them. A change from outside may be seen
by files that were open, byte by byte, and must be by those opened later. The model knows the manifest it wrote
and the steps it took; it knows nothing of inodes, modes or servers.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

PAGE = 4096
SIZE = 5 * PAGE  # bytes of every source
PATHS = ("a", "b", "d", "d/c", "d/e/f", "g", "h")


class Source:
    """One file or device: not its path, which may lead to another one later."""

    def __init__(self, path: Path, contents: bytes, moment: int, device: bool = False) -> None:
        self.path, self.device = path, device
        self.writes = 0  # through the mount
        self.versions = [(moment, bytearray(contents))]  # (since when, what), the oldest first

    @property
    def now(self) -> bytearray:
        return self.versions[-1][1]

    def change(self, moment: int, offset: int, data: bytes) -> None:
        """From outside."""
        new = bytearray(self.now)
        new[offset:offset + len(data)] = data
        self.versions.append((moment, new))

    def write(self, offset: int, data: bytes) -> None:
        """Through the mount."""
        self.writes += 1
        for _, contents in self.versions:
            contents[offset:offset + len(data)] = data

    def since(self, moment: int) -> list[bytearray]:
        """All that may be seen by who opened a file at `moment`, what it holds now first."""
        first = max(index for index, (when, _) in enumerate(self.versions) if when <= moment)
        return [contents for _, contents in reversed(self.versions[first:])]

    def forget(self, moment: int) -> None:
        """Nobody has anything open from before `moment`."""
        while len(self.versions) > 1 and self.versions[1][0] <= moment:
            del self.versions[0]


class Piece(NamedTuple):
    """Bytes [start, end) of a file: of a source, or zeros."""

    start: int
    end: int
    source: Source | None
    offset: int
    writable: bool


class Shape(NamedTuple):
    """What a manifest says of one file."""

    kind: str                                   # for people
    declared: tuple[tuple[str, int, int], ...]  # (source key or "" for a hole, offset, length)
    whole: bool = False
    writable: bool = False

    def manifest(self) -> dict[str, Any]:
        access = {"access": "rw"} if self.writable else {}
        if self.whole:
            return {"whole": self.declared[0][0], **access}
        return {"regions": [{"source": key, "offset": offset, "length": length, **access} if key
                            else {"hole": True, "length": length} for key, offset, length in self.declared]}

    @property
    def sources(self) -> set[str]:
        return {key for key, _, _ in self.declared if key}

    def pieces(self, sources: dict[str, Source]) -> tuple[Piece, ...]:
        found, start = [], 0
        for key, offset, length in self.declared:
            found.append(Piece(start, start + length, sources.get(key), offset, self.writable and bool(key)))
            start += length
        return tuple(found)


@dataclass(eq=False)
class Opened:
    """An open file."""

    fd: int
    path: str
    shape: Shape
    pieces: tuple[Piece, ...]
    moment: int
    writable: bool
    ino: int
    mode: str
    orphaned: dict[Source, int] = field(default_factory=dict)  # sources and their writes, when its server died

    @property
    def size(self) -> int:
        return self.pieces[-1].end


def random_shape(chance: Random, keys: list[str], devices: list[str]) -> Shape:
    """A file for one of the modes."""
    def pages(count: int, length: int = PAGE, shift: int = 0) -> tuple[tuple[str, int, int], ...]:
        return tuple((chance.choice(keys), chance.randrange(4) * PAGE + shift, length) for _ in range(count))

    match chance.choice(["whole", "whole rw", "composed", "composed", "holes", "odd", "map rw", "odd rw", "device"]):
        case "whole":
            return Shape("whole", ((chance.choice(keys), 0, SIZE),), whole=True)
        case "whole rw":
            return Shape("whole rw", ((chance.choice(keys), 0, SIZE),), whole=True, writable=True)
        case "holes":
            return Shape("holes", (*pages(1), ("", 0, PAGE), *pages(2)))
        case "odd":
            return Shape("odd", pages(2, 1500, 77))
        case "map rw":
            return Shape("map rw", pages(2), writable=True)
        case "odd rw":
            return Shape("odd rw", pages(2, 2000, 13), writable=True)
        case "device" if devices:
            mixed = [(devices[0], chance.randrange(4) * PAGE, PAGE), *pages(1)]
            return Shape("device", tuple(mixed), writable=chance.random() < 0.5)
        case _:
            return Shape("composed", pages(chance.randrange(2, 5)))


def fits(path: str, paths: set[str]) -> bool:
    """Whether a file may be there beside these: no file is a directory too."""
    return not any(other.startswith(path + "/") or path.startswith(other + "/") for other in paths if other != path)


@dataclass
class Model:
    """Steps on a mount at `root` and what they must show; the caller has mounted `manifest()`."""

    root: Path
    directory: Path
    chance: Random
    devices: dict[str, Path]
    moment: int = 0
    checks: int = 0
    steps: list[str] = field(default_factory=list)
    opened: list[Opened] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.held: list[int] = []  # sources, whose inode numbers shall not come back
        self.there = {f"s{number}": self._new_source(self.directory / f"s{number}") for number in range(4)}
        for key, path in self.devices.items():
            self.there[key] = Source(path, path.read_bytes(), 0, device=True)
        self.keys = [key for key in self.there if key not in self.devices]
        self.bound = dict(self.there)  # the sources as the manifest in use was loaded
        self.shapes: dict[str, Shape] = {}
        for path in PATHS:
            self._put(path)

    def close(self) -> None:
        for fd in (*self.held, *(handle.fd for handle in self.opened)):
            os.close(fd)
        self.opened.clear()

    def manifest(self) -> dict[str, Any]:
        paths = {key: {"path": str(source.path)} for key, source in self.there.items()}
        files = {path: shape.manifest() for path, shape in self.shapes.items()}
        return {"regionfs": 1, "sources": paths, "files": files}

    # steps

    def open(self) -> None:
        """Keep a file open; what it shows is compared at once, or with later reads."""
        path = self.chance.choice(sorted(self.shapes))
        if (handle := self._open(path)) is None:
            return
        self.opened.append(handle)
        if self.chance.random() < 0.5:
            self._compare(handle, 0, handle.size)
        if len(self.opened) > 12:
            self.shut()

    def compare(self) -> None:
        """A new open shows all of the file as it is now."""
        path = self.chance.choice(sorted(self.shapes))
        if (handle := self._open(path)) is not None:
            try:
                self._compare(handle, 0, handle.size)
            finally:
                os.close(handle.fd)

    def read(self) -> None:
        """Through an old handle, from the page cache or past it."""
        if not self.opened:
            return
        handle = self.chance.choice(self.opened)
        if self.chance.random() < 0.5:
            os.posix_fadvise(handle.fd, 0, 0, os.POSIX_FADV_DONTNEED)
        start = self.chance.randrange(handle.size)
        self._compare(handle, start, self.chance.randrange(1, handle.size - start + 1))

    def write(self) -> None:
        """Through a handle, old or new; then somebody else is asked."""
        writers = [handle for handle in self.opened if handle.writable]
        if not writers:
            return
        handle = self.chance.choice(writers)
        piece = self.chance.choice([piece for piece in handle.pieces if piece.writable])
        start = self.chance.randrange(piece.start, piece.end)
        data = self.chance.randbytes(self.chance.randrange(1, min(piece.end - start, 3000) + 1))
        self._note(f"write {handle.path} ({handle.shape.kind}) at {start}, {len(data)} bytes")
        try:
            assert len(data) == os.pwrite(handle.fd, data, start)
        except OSError as error:
            self._excuse(error, handle)
            return
        assert piece.source is not None
        piece.source.write(piece.offset + start - piece.start, data)
        self.checks += 1
        self.read()

    def change(self) -> None:
        """Somebody writes to a source."""
        key = self.chance.choice(sorted(self.there))
        source, offset = self.there[key], self.chance.randrange(SIZE - 1)
        data = self.chance.randbytes(self.chance.randrange(1, min(5000, SIZE - offset)))
        self.moment += 1
        self._note(f"change {key} at {offset}, {len(data)} bytes")
        fd = os.open(source.path, os.O_RDWR)
        try:
            os.pwrite(fd, data, offset)
            if source.device:
                os.fsync(fd)
        finally:
            os.close(fd)
        source.change(self.moment, offset, data)

    def replace(self) -> None:
        """Another file takes a source's path: what uses it cannot be opened until a reload."""
        key = self.chance.choice(self.keys)
        self.moment += 1
        self._note(f"replace {key}")
        new = self.directory / "new"
        self.there[key] = self._new_source(new)
        self.there[key].path = new.rename(self.directory / key)

    def shut(self) -> None:
        """Close a handle."""
        if self.opened:
            handle = self.opened.pop(self.chance.randrange(len(self.opened)))
            self._note(f"close {handle.path} ({handle.shape.kind})")
            os.close(handle.fd)
            oldest = min((handle.moment for handle in self.opened), default=self.moment)
            for source in {*self.there.values(), *self.bound.values()}:
                source.forget(oldest)

    def edit(self) -> None:
        """Another manifest: files change, come, go, or stay; the caller has it read, and then calls loaded()."""
        for path in PATHS:
            if self.chance.random() < 0.3:
                self.shapes.pop(path, None)
                if self.chance.random() < 0.7:
                    self._put(path)
        if not self.shapes:
            self._put("a")
        files = (f"{path}: {shape.kind} {shape.declared}" for path, shape in self.shapes.items())
        self._note("reload " + ", ".join(files))

    def orphan(self) -> None:
        """The server dies. The pages of old composed files are out of reach for the next one."""
        for handle in self.opened:
            if handle.mode == "composed":
                for piece in handle.pieces:
                    if piece.source is not None:
                        handle.orphaned.setdefault(piece.source, piece.source.writes)

    def loaded(self) -> None:
        """The manifest was read."""
        self.bound = dict(self.there)

    # inside

    def _put(self, path: str) -> None:
        if fits(path, {*self.shapes}):
            self.shapes[path] = random_shape(self.chance, self.keys, sorted(self.devices))

    def _new_source(self, path: Path) -> Source:
        contents = self.chance.randbytes(SIZE)
        path.write_bytes(contents)
        self.held.append(os.open(path, os.O_RDONLY))
        return Source(path, contents, self.moment)

    def _open(self, path: str) -> Opened | None:
        """None when it fails, as it must."""
        shape = self.shapes[path]
        replaced = [key for key in sorted(shape.sources) if self.bound[key] is not self.there[key]]
        writable = shape.writable and self.chance.random() < 0.7
        self._note(f"open {path} ({shape.kind}{', to write' if writable else ''})")
        try:
            fd = os.open(self.root / path, os.O_RDWR if writable else os.O_RDONLY)
        except OSError as error:
            assert replaced, f"{error}: nothing was replaced"
            assert error.errno == errno.EIO, error
            return None
        handle = Opened(fd, path, shape, shape.pieces(self.bound), self.moment, writable, os.fstat(fd).st_ino,
                        os.getxattr(fd, "user.regionfs.mode").decode())
        try:
            assert not replaced, f"{path} opens, though {replaced} were replaced"
            assert handle.size == os.fstat(fd).st_size
            for other in self.opened:
                same = (other.path, other.pieces) == (handle.path, handle.pieces)
                assert same or other.ino != handle.ino, f"{path} and the old {other.path} are one inode"
        except BaseException:
            os.close(fd)
            raise
        return handle

    def _compare(self, handle: Opened, start: int, length: int) -> None:
        self._note(f"read {handle.path} ({handle.shape.kind}, open since {handle.moment}) at {start}, {length} bytes")
        try:
            found = os.pread(handle.fd, length, start)
        except OSError as error:
            self._excuse(error, handle)
            return
        self.checks += 1
        if len(found) < length:  # the good bytes before one that a new server cannot reach
            lost = {piece.start for piece in handle.pieces if piece.source not in (None, *self.there.values())}
            assert start + len(found) in lost, f"{len(found)} of {length} bytes"
            length = len(found)
        for piece in handle.pieces:
            first, last = max(start, piece.start), min(start + length, piece.end)
            if first < last:
                _check(piece, first, found[first - start:last - start], handle)

    def _excuse(self, error: OSError, handle: Opened) -> None:
        """EIO is right for who shows a file that is not at its path any more, for a new server cannot reach it."""
        lost = {piece.source for piece in handle.pieces} - {None, *self.there.values()}
        assert lost, f"{error}: nothing was replaced"
        assert error.errno == errno.EIO, error

    def _note(self, step: str) -> None:
        self.steps.append(f"{self.moment}: {step}")


def _check(piece: Piece, first: int, found: bytes, handle: Opened) -> None:
    if piece.source is None:
        assert not any(found), "a hole shows data"
        return
    if handle.orphaned.get(piece.source, piece.source.writes) != piece.source.writes:
        return
    at = piece.offset + first - piece.start
    allowed = [contents[at:at + len(found)] for contents in piece.source.since(handle.moment)]
    if found == allowed[0]:
        return
    wrong = [index for index, byte in enumerate(found) if byte not in {contents[index] for contents in allowed}]
    assert not wrong, (f"{handle.path} ({handle.shape.kind}): {len(wrong)} bytes from {first + wrong[0]} are wrong, "
                       f"{piece.source.path.name} at {at + wrong[0]}; {len(allowed)} versions")
