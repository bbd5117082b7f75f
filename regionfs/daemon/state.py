"""What a server must know of its predecessors: which manifest is served, and which old maps live on.

A restarted server must show the very same inodes, also when the manifest's text has changed since
or a source is gone. So every manifest that was loaded is kept resolved, with the facts of its
sources, as a layer in the private runtime directory; a small index says which of them counts and
what inode numbers go with it. Written by rename: a reader sees the old or the new.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from regionfs.descriptors import Pool, limit
from regionfs.errors import MountError
from regionfs.fs import FileSystem
from regionfs.manifest.inspect import SourceFacts
from regionfs.manifest.schema import Manifest
from regionfs.modes.choose import Choice, Mode
from regionfs.source import Sources
from regionfs.tree import FileNode, Tree


class Layer(NamedTuple):
    """One loaded manifest and what its sources were then."""

    manifest: Manifest
    facts: dict[str, SourceFacts]
    loaded: int  # ns since the epoch


@dataclass(slots=True)
class Index:
    """Which layers make the tree; generations as FileNode has them."""

    current: int = 0
    generation: int = 0                                       # the highest that was given
    generations: dict[str, int] = field(default_factory=dict)  # path -> generation, where it is not 0
    retired: list[tuple[int, str, int]] = field(default_factory=list)  # (layer, path, generation)


class Store:
    """Layers and index of one mount, as files beside `stem` (a path without suffix)."""

    def __init__(self, stem: Path) -> None:
        self._stem = stem
        self._sources: dict[int, Sources] = {}  # layer -> its open sources
        self._pool = Pool(limit())
        self.index = Index()

    def load(self) -> Layer | None:
        """The current layer of a predecessor; None when there was none."""
        try:
            self.index = pickle.loads(self._path("index").read_bytes())
        except FileNotFoundError:
            return None
        except Exception as error:  # a damaged pickle may raise anything
            raise _unreadable(self._path("index"), error) from error
        return self.layer(self.index.current)

    def begin(self, manifest: Manifest, generation: int) -> None:
        """Without a predecessor: every file's inode number is of this generation."""
        self.index = Index(generation=generation, generations=dict.fromkeys(manifest.files, generation))

    def layer(self, number: int) -> Layer:
        """One layer, read back."""
        path = self._path(f"layer-{number}")
        try:
            layer: Layer = pickle.loads(path.read_bytes())
        except Exception as error:
            raise _unreadable(path, error) from error
        return layer

    def add(self, layer: Layer) -> int:
        """Write a layer; its number. It does not count before the index names it."""
        number = max((int(path.suffix.removeprefix(".layer-")) for path in self._layers()), default=-1) + 1
        self._write(f"layer-{number}", layer)
        return number

    def sources(self, number: int, layer: Layer) -> Sources:
        """The layer's sources, opened as needed."""
        if number not in self._sources:
            self._sources[number] = Sources(layer.manifest, layer.facts, self._pool)
        return self._sources[number]

    def revive(self, fs: FileSystem) -> None:
        """Give the handles that predecessors left open the maps they were opened with."""
        layers: dict[int, Layer] = {}
        for number, path, generation in self.index.retired:
            layer = layers.setdefault(number, self.layer(number)) if number not in layers else layers[number]
            choice = Choice(Mode.USERSPACE, "its map was replaced; open handles keep it")
            fs.tree.revive(layer.manifest.files[path], choice, self.sources(number, layer), generation)
        if not fs.sweep() and self.index.retired:  # the kernel may have forgotten some while no server ran
            fs.share()

    def record(self, tree: Tree, current: int | None = None) -> None:
        """Write the index for a tree, and drop layers that nothing needs any more."""
        numbers = {sources: number for number, sources in self._sources.items()}
        if current is not None:
            self.index.current = current
        files = tree.files.items()
        retired = [node for node in tree.retired() if isinstance(node, FileNode)]
        self.index.generations = {path: node.generation for path, node in files if node.generation}
        self.index.retired = [(numbers[node.sources], node.spec.path, node.generation) for node in retired]
        self._write("index", self.index)
        needed = {self.index.current, *(number for number, _, _ in self.index.retired)}
        for path in self._layers():
            if int(path.suffix.removeprefix(".layer-")) not in needed:
                path.unlink(missing_ok=True)
        self._forget_sources(tree)

    def remove(self) -> None:
        """Delete every file of this store."""
        for path in (*self._layers(), self._path("index")):
            path.unlink(missing_ok=True)

    def _forget_sources(self, tree: Tree) -> None:
        """Close sources that no node uses; a call that is under way on one keeps what it needs."""
        used = {id(node.sources) for node in list(tree.nodes.values()) if isinstance(node, FileNode)}
        for number, sources in list(self._sources.items()):
            if id(sources) not in used and number != self.index.current:
                self._sources.pop(number).close()

    def _layers(self) -> list[Path]:
        return list(self._stem.parent.glob(f"{self._stem.name}.layer-*"))

    def _path(self, suffix: str) -> Path:
        return self._stem.with_name(f"{self._stem.name}.{suffix}")

    def _write(self, suffix: str, value: object) -> None:
        path = self._path(suffix)
        new = self._path(suffix + ".new")
        new.touch(0o600)
        with new.open("wb") as stream:
            pickle.dump(value, stream, pickle.HIGHEST_PROTOCOL)
        new.replace(path)


def _unreadable(path: Path, error: Exception) -> MountError:
    return MountError(f"{path}, where the last server left its state, cannot be read ({error}); "
                      "regionfs reload begins anew")
