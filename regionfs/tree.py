"""The tree that a manifest defines: directories appear by themselves, inode numbers come from paths.

The one place that makes inode numbers. They are also the node ids of the FUSE protocol, so a new server
needs paths and generations (index) to understand the kernel's requests, and nothing else.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from regionfs.content import Content, content_of
from regionfs.digest import blake2b
from regionfs.manifest.schema import FileSpec, Manifest
from regionfs.modes.choose import Choice, Mode
from regionfs.sharing import Shown
from regionfs.source import Sources

ROOT = 1  # the protocol's node id of the root


@dataclass(slots=True, eq=False)
class Counters:
    """What was asked of one file; reads and writes are those that the daemon served."""

    opens: dict[Mode, int] = field(default_factory=lambda: dict.fromkeys(Mode, 0))
    reads: int = 0
    read_bytes: int = 0
    writes: int = 0
    write_bytes: int = 0

    def add(self, opens: int, backed: int, reads: int, read_bytes: int, writes: int, write_bytes: int) -> None:
        """Count what was served elsewhere: `opens` in userspace, `backed` ones in passthrough."""
        self.opens[Mode.USERSPACE] += opens
        self.opens[Mode.PASSTHROUGH] += backed
        self.reads += reads
        self.read_bytes += read_bytes
        self.writes += writes
        self.write_bytes += write_bytes


class Since(NamedTuple):
    """Since when an entry of the manifest is what it is, in ns since the epoch; 0 where only its sources count.

    Edits that follow each other within a second are `shown` a second apart, so that whoever compares seconds sees them
    all: then `shown` lies ahead of `seen`, when the edit was seen. What happens to a source after that happened later.
    """

    shown: int = 0
    seen: int = 0  # by the clock of file systems

    def latest(self, stamp: int) -> int:
        """What stat(2) tells of the entry and of a source with this time stamp."""
        return stamp if stamp >= self.seen else self.shown


NO_RECORD = Since()
_telling = threading.Lock()  # one for all files: it is held for a few instructions


@dataclass(slots=True, eq=False)
class Told:
    """What stat(2) has told of a `whole` file's source: size and times that the kernel may still hold.

    Answers and opens run in threads that overtake each other. Each answer is noted here before it is sent, and an
    open begins before it looks at the source: so either the open finds the answer, or the answer is not kept. What the
    compiled loop may tell again and again is noted once, before it is taught: an open has it hidden before it looks,
    and what was noted after the open began stays noted.
    """

    facts: tuple[int, ...] | None = None  # in all answers since the kernel forgot: None without any, () if they differ
    opens: int = 0    # that have begun
    answers: int = 0  # that were noted

    def keep(self, facts: tuple[int, ...], opens: int) -> bool:
        """Note an answer; False when any open began since `opens` was read, before the source: it must not be kept."""
        with _telling:
            if self.opens != opens:
                return False
            self.answers += 1
            self.facts = facts if self.facts in (None, facts) else ()
            return True

    def unknown(self) -> None:
        """Another server gave the answers."""
        self.facts = ()

    def begin_open(self) -> int:
        """An open is about to look at the source. How many answers were noted until now, for forgotten()."""
        with _telling:
            self.opens += 1
            return self.answers

    def wrong(self, facts: tuple[int, ...]) -> bool:
        """Whether the kernel may hold something else than these facts."""
        with _telling:
            return self.facts not in (None, facts)

    def forgotten(self, answers: int) -> None:
        """The kernel was told to forget by an open that began when there were so many answers."""
        with _telling:
            self.facts = None if self.answers == answers else ()


@dataclass(slots=True, eq=False)
class FileNode:
    """A composite file in the tree, or one that an open handle keeps after the tree has let go of it."""

    ino: int
    spec: FileSpec
    choice: Choice
    sources: Sources
    generation: int = 0    # of its inode number: raised whenever the file's handles part from those before
    counters: Counters = field(default_factory=Counters)
    cached: object = None  # the stamps of its sources that the kernel's page cache was filled from
    filled: bool = False   # the kernel's page cache may hold bytes of it
    allocated: tuple[object, int] | None = None  # (facts of its sources, 512-byte units with data)
    told: Told = field(default_factory=Told)
    trouble: str = ""      # the log line its last failed open wrote; said once
    since: Since = NO_RECORD  # of its entry in the manifest
    content: Content = field(init=False)
    _digest: bytes = b""

    def __post_init__(self) -> None:
        self.content = content_of(self.spec, self.sources)

    @property
    def digest(self) -> bytes:
        """Of its map: equal only for files that show the same ranges of the same source keys."""
        if not self._digest:
            self._digest = self.spec.body.digest
        return self._digest

    def shown(self) -> Shown:
        """The file as far as sharing is concerned."""
        return Shown(self.ino, self.spec, {key: self.sources.facts(key).identity for key in self.spec.sources})

    def fill(self, stamps: object) -> None:
        """The kernel dropped its pages; new ones come from sources of these `stamps`, None when they hide a change."""
        self.cached, self.filled = stamps, True


@dataclass(slots=True, eq=False)
class Directory:
    """A directory of the tree; it exists because a file's path names it."""

    ino: int
    parent: int
    path: str  # "" for the root
    since: Since = NO_RECORD  # of its names
    children: dict[bytes, FileNode | Directory] = field(default_factory=dict)
    _entries: list[tuple[bytes, int, int]] | None = None

    def entries(self) -> list[tuple[bytes, int, int]]:
        """(name, inode, type bits) of the children; the same list until one changes, for it is read piece by piece."""
        if self._entries is None:
            self._entries = [(name, node.ino, stat.S_IFDIR if isinstance(node, Directory) else stat.S_IFREG)
                             for name, node in self.children.items()]
        return self._entries

    @property
    def links(self) -> int:
        """As stat shows them: its name, its own ".", and the ".." of each directory in it."""
        return 2 + sum(kind == stat.S_IFDIR for _, _, kind in self.entries())

    def put(self, name: bytes, node: FileNode | Directory) -> None:
        """Name a child."""
        self.children[name] = node
        self._entries = None


Node = FileNode | Directory


class Tree:
    """Nodes by inode number and by name. Nodes that have no name any more stay by number until forgotten."""

    def __init__(self, manifest: Manifest, choices: Mapping[str, Choice], sources: Sources,
                 generations: Mapping[str, int] | None = None, since: Mapping[str, Since] | None = None) -> None:
        """`since`: of paths, a directory's with a slash behind, the `since` of their nodes."""
        self._since = since or {}
        self.nodes: dict[int, Node] = {ROOT: Directory(ROOT, ROOT, "", self._since.get("/", NO_RECORD))}
        self.files: dict[str, FileNode] = {}
        self._retired: set[int] = set()  # inode numbers of nodes without a name
        for path, spec in manifest.files.items():
            generation = generations.get(path, 0) if generations else 0
            self._add(FileNode(self._inode(path, generation), spec, choices[path], sources, generation,
                               since=self._since.get(path, NO_RECORD)))

    def place(self, node: FileNode) -> tuple[int, bytes] | None:
        """Directory and name that lead to a file; None when it has none any more."""
        if self.files.get(node.spec.path) is not node:
            return None
        *above, name = os.fsencode(node.spec.path).split(b"/")
        directory = self.nodes[ROOT]
        for part in above:
            assert isinstance(directory, Directory)
            directory = directory.children[part]
        return directory.ino, name

    def renewed(self, node: FileNode, generation: int) -> FileNode:
        """The node that gives a file the number of another generation, once renew() has put it in place."""
        return replace(node, ino=self._inode(node.spec.path, generation), generation=generation, cached=None,
                       filled=False, told=Told())

    def renew(self, new: FileNode) -> None:
        """Let the name lead to a renewed() node; open handles keep the one it had."""
        self._retired.add(self.files[new.spec.path].ino)
        self._add(new)

    def revive(self, spec: FileSpec, choice: Choice, sources: Sources, generation: int,
               since: Since = NO_RECORD) -> FileNode:
        """A nameless file from before this process, for the handles that are open on it."""
        node = FileNode(self._inode(spec.path, generation), spec, choice, sources, generation, since=since)
        self.retire(node)
        return node

    def revive_directory(self, path: str) -> None:
        """A directory that is gone, for whoever stands in it."""
        self.retire(Directory(self._inode(path + "/"), ROOT, path))

    def keep(self, node: FileNode) -> None:
        """Put a node in place of the new one of its path: the file is what it was."""
        del self.nodes[self.files[node.spec.path].ino]
        self._add(node)

    def retire(self, node: Node) -> None:
        """Keep a nameless node for the handles that are open on it; nothing is in a directory that is gone."""
        gone = Directory(node.ino, node.parent, node.path, node.since) if isinstance(node, Directory) else node
        self.nodes[node.ino] = gone
        self._retired.add(node.ino)

    def retired(self) -> list[Node]:
        """Nodes without a name in the tree."""
        return [self.nodes[ino] for ino in list(self._retired)]

    def is_retired(self, ino: int) -> bool:
        """True for a node without a name in the tree."""
        return ino in self._retired

    def drop(self, ino: int) -> None:
        """Let go of a retired node: the kernel has forgotten it."""
        self._retired.discard(ino)
        del self.nodes[ino]

    def shown(self) -> Iterator[Shown]:
        """All files, as far as sharing is concerned."""
        for node in list(self.nodes.values()):
            if isinstance(node, FileNode):
                yield node.shown()

    def _add(self, node: FileNode) -> None:
        path = node.spec.path
        parts = path.split("/")
        directory = self.nodes[ROOT]
        assert isinstance(directory, Directory)
        for depth, part in enumerate(parts[:-1], 1):
            name = os.fsencode(part)
            child = directory.children.get(name)
            if child is None:
                above = "/".join(parts[:depth])
                # the slash: a file of that path may have lived before
                since = self._since.get(above + "/", NO_RECORD)
                child = Directory(self._inode(above + "/"), directory.ino, above, since)
                self.nodes[child.ino] = child
                directory.put(name, child)
            assert isinstance(child, Directory), f"{path}: the manifest lets a file be a directory"
            directory = child
        self.nodes[node.ino] = node
        directory.put(os.fsencode(parts[-1]), node)
        self.files[path] = node

    def _inode(self, path: str, generation: int = 0) -> int:
        """A number from path and generation alone, the same in every process; 63 bits, never the root's.

        A path's generation is given once, so nobody has the number.
        """
        text = os.fsencode(f"{path}\0{generation}" if generation else path)
        number = int.from_bytes(blake2b(text, digest_size=8).digest(), "little") >> 1
        assert number > ROOT, f"{path}: generation {generation} has no number"
        assert number not in self.nodes, f"{path}: the inode number of generation {generation} is known already"
        return number
