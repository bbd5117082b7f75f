"""Where a server leaves what its successor must know: snapshots of loaded manifests, and the index over them.

A restarted server must show the very same inodes in the very same modes, also when the manifest's text has
changed since or a source is gone. So every manifest that was loaded is kept resolved, with what was found out
about it, as a snapshot in the private runtime directory; the index (regionfs.index) says what has changed
since, and which snapshots count. Written by rename: a reader sees the old or the new.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from regionfs.descriptors import Pool, limit
from regionfs.errors import MountError
from regionfs.fs import FileSystem
from regionfs.index import Index
from regionfs.manifest.inspect import SourceFacts
from regionfs.manifest.schema import Manifest
from regionfs.modes.choose import Choice, Mode
from regionfs.source import Sources
from regionfs.tree import NO_RECORD, FileNode, Since, Tree

_HEADER = b"regionfs snapshot 2\n"  # its last word is the version


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One loaded manifest, what its sources were then, and how its files are served."""

    manifest: Manifest
    facts: dict[str, SourceFacts]
    loaded: int                 # ns since the epoch
    choices: dict[str, Choice] = field(default_factory=dict)
    generations: dict[str, int] = field(default_factory=dict)  # of its files, where not 0
    since: dict[str, Since] = field(default_factory=dict)      # as history.read says


class Store:
    """Snapshots and index of one mount, as files beside `stem` (a path without suffix)."""

    def __init__(self, stem: Path, changed: Callable[[Path], None] = lambda path: None) -> None:
        """`changed` is called after each file that was written or removed."""
        self._changed = changed
        self._stem = stem
        self._sources: dict[int, Sources] = {}  # snapshot -> its open sources
        self._pool = Pool(limit())
        self._needed: frozenset[int] | None = None  # snapshots that the index written last needs

    def load(self) -> tuple[Index, Snapshot] | None:
        """What a predecessor served; None when there was none. MountError when that cannot be read."""
        path = self._path("index")
        try:
            index = Index.from_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise _unreadable(path, error) from error
        return index, self.snapshot(index.snapshot)

    def snapshot(self, number: int) -> Snapshot:
        """One snapshot, read back. MountError."""
        path = self._path(f"snapshot-{number}")
        try:
            found = path.read_bytes()
            if not found.startswith(_HEADER):
                raise ValueError(f"it does not begin with {_HEADER.decode().strip()!r}")
            snapshot: Snapshot = pickle.loads(memoryview(found)[len(_HEADER):])
        except Exception as error:  # a damaged pickle may raise anything
            raise _unreadable(path, error) from error
        return snapshot

    def add(self, number: int, snapshot: Snapshot) -> None:
        """Write a snapshot. It does not count before an index names it. OSError."""
        self._write(f"snapshot-{number}", _HEADER + pickle.dumps(snapshot, pickle.HIGHEST_PROTOCOL))

    def write(self, index: Index) -> None:
        """Write the index, and clear(). OSError, and then the old one counts."""
        self._write("index", index.to_json().encode())
        if index.needed != self._needed:
            self._needed = index.needed
            self.clear(index)

    def clear(self, index: Index) -> None:
        """Remove snapshots that an index does not need."""
        needed = {self._path(f"snapshot-{number}") for number in index.needed}
        for path in self._stem.parent.glob(f"{self._stem.name}.snapshot-*"):
            if path not in needed:
                path.unlink(missing_ok=True)
                self._changed(path)

    def sources(self, number: int, snapshot: Snapshot) -> Sources:
        """The snapshot's sources, opened as needed."""
        if number not in self._sources:
            self._sources[number] = Sources(snapshot.manifest, snapshot.facts, self._pool)
        return self._sources[number]

    def revive(self, fs: FileSystem) -> None:
        """Give the handles that predecessors left open the maps and modes that they were opened with."""
        snapshots: dict[int, Snapshot] = {}
        for kept in fs.index.retired:
            if kept.snapshot not in snapshots:
                snapshots[kept.snapshot] = self.snapshot(kept.snapshot)
            found = snapshots[kept.snapshot]
            choice = Choice(Mode.USERSPACE, kept.fallback) if kept.fallback else found.choices[kept.path]
            fs.tree.revive(found.manifest.files[kept.path], choice, self.sources(kept.snapshot, found), kept.generation,
                           found.since.get(kept.path, NO_RECORD))
        for path in fs.index.directories:
            fs.tree.revive_directory(path)
        if fs.index.retired or fs.index.directories:
            fs.share()
            fs.sweep()  # the kernel may have forgotten some while no server ran

    def close_unused(self, tree: Tree) -> None:
        """Close sources that no node uses; a call that is under way on one keeps what it needs."""
        used = {id(node.sources) for node in list(tree.nodes.values()) if isinstance(node, FileNode)}
        for number, sources in list(self._sources.items()):
            if id(sources) not in used:
                self._sources.pop(number).close()

    def _path(self, suffix: str) -> Path:
        return self._stem.with_name(f"{self._stem.name}.{suffix}")

    def _write(self, suffix: str, value: bytes) -> None:
        path, new = self._path(suffix), self._path(suffix + ".new")
        try:
            new.touch(0o600)
            new.write_bytes(value)
            new.replace(path)
        except OSError:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise
        self._changed(path)


def _unreadable(path: Path, error: Exception) -> MountError:
    return MountError(f"{path}, where the last server left its state, cannot be read ({error}); "
                      "regionfs reload begins anew")
