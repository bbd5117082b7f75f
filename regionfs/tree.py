"""The tree that a manifest defines: directories appear by themselves, inode numbers come from paths.

The one place that assigns inode numbers. They are also the node ids of the FUSE protocol, so a new
server needs nothing from the old one to understand the kernel's requests.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b

from regionfs.manifest.schema import FileSpec, Manifest
from regionfs.modes.choose import Choice, Mode

ROOT = 1  # the protocol's node id of the root


@dataclass(slots=True, eq=False)
class Counters:
    """What was asked of one file; reads and writes are those that the daemon served."""

    opens: dict[Mode, int] = field(default_factory=lambda: dict.fromkeys(Mode, 0))
    reads: int = 0
    read_bytes: int = 0
    writes: int = 0
    write_bytes: int = 0


@dataclass(slots=True, eq=False)
class FileNode:
    """A composite file in the tree."""

    ino: int
    spec: FileSpec
    choice: Choice
    counters: Counters = field(default_factory=Counters)
    cached: object = None  # the identities of its sources that the kernel's page cache was filled from
    renewals: int = 0      # how often it got a new inode number
    trouble: str = ""      # the log line its last failed open wrote; said once


@dataclass(slots=True, eq=False)
class Directory:
    """A directory of the tree; it exists because a file's path names it."""

    ino: int
    parent: int
    children: dict[bytes, FileNode | Directory] = field(default_factory=dict)


Node = FileNode | Directory


class Tree:
    """Nodes by inode number and by name."""

    def __init__(self, manifest: Manifest, choices: Mapping[str, Choice]) -> None:
        self.root = Directory(ROOT, ROOT)
        self.nodes: dict[int, Node] = {ROOT: self.root}
        self.files: dict[str, FileNode] = {}
        for path, spec in manifest.files.items():
            self._add(path, spec, choices[path])

    def directories(self) -> Iterator[Directory]:
        """Every directory, the root first."""
        return (node for node in self.nodes.values() if isinstance(node, Directory))

    def renew(self, node: FileNode) -> None:
        """Give a file another inode number; open handles keep the old one."""
        node.renewals += 1
        node.ino = self._inode(f"{node.spec.path}\0{node.renewals}")
        self.nodes[node.ino] = node

    def _add(self, path: str, spec: FileSpec, choice: Choice) -> None:
        parts = path.split("/")
        directory = self.root
        for depth, part in enumerate(parts[:-1], 1):
            name = os.fsencode(part)
            child = directory.children.get(name)
            if child is None:
                child = Directory(self._inode("/".join(parts[:depth])), directory.ino)
                self.nodes[child.ino] = directory.children[name] = child
            assert isinstance(child, Directory), f"{path}: the manifest lets a file be a directory"
            directory = child
        node = FileNode(self._inode(path), spec, choice)
        self.nodes[node.ino] = directory.children[os.fsencode(parts[-1])] = node
        self.files[path] = node

    def _inode(self, path: str) -> int:
        """A number from the path alone, the same in every process; 63 bits, never the root's."""
        salt = 0
        while True:
            digest = blake2b(os.fsencode(path), digest_size=8, salt=salt.to_bytes(8, "little")).digest()
            number = int.from_bytes(digest, "little") >> 1
            if number > ROOT and number not in self.nodes:
                return number
            salt += 1
