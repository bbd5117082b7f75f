"""What the next server must know of a mount's inode numbers: who has which, and which were ever given. Pure.

An inode number comes from a path and a generation (tree). Generations are taken from one counter, whoever
needs one: a reload for the files that it adds or changes, a renewal for one file. None is given twice while
the mount lives, so a number that the kernel may still hold never comes to mean another map.

A reload makes a snapshot: the manifest as it was loaded, its sources, modes and generations, kept under the
number that the reload took. The index is the little that has changed since. A file with a name is always that
of the newest snapshot, also if the reload left it alone, for then both say the same. One that loses its name
stays that of the snapshot which was the newest just then. So the snapshots that are needed follow from
the files that live. Each change is a new index; whoever makes it writes it down before anybody sees it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace

VERSION = 1
_MAGIC = "regionfs index"


@dataclass(frozen=True, slots=True)
class Kept:
    """A file without a name, which handles may be open on."""

    snapshot: int       # where its map and its sources stand
    path: str
    generation: int
    fallback: str = ""  # why it is served in userspace, if its snapshot has another mode


@dataclass(frozen=True, slots=True)
class Index:
    """The state since the newest snapshot."""

    snapshot: int = 0  # the newest one's number
    given: int = 0     # the highest generation that was ever given, for a snapshot or a file
    renewed: Mapping[str, int] = field(default_factory=dict)    # path -> generation, where it is not the snapshot's
    fallbacks: Mapping[str, str] = field(default_factory=dict)  # path -> why it is in userspace, likewise
    retired: tuple[Kept, ...] = ()
    directories: tuple[str, ...] = ()  # paths of those that are gone and that somebody may stand in
    told: bool = True  # the kernel knows that it has to look up the names which the newest snapshot changed

    @staticmethod
    def begin(generation: int) -> Index:
        """Of a mount, or one that knows nothing of its past: all numbers are of this generation."""
        return Index(generation, generation)

    @property
    def needed(self) -> frozenset[int]:
        """Numbers of the snapshots that some file needs."""
        return frozenset({self.snapshot, *(kept.snapshot for kept in self.retired)})

    def renew(self, path: str, generation: int) -> Index:
        """A file gets the generation `given` of the result; the one it had lives on without a name."""
        kept = Kept(self.snapshot, path, generation, self.fallbacks.get(path, ""))
        return replace(self, given=self.given + 1, renewed={**self.renewed, path: self.given + 1},
                       retired=(*self.retired, kept))

    def reload(self, nameless: Iterable[tuple[str, int]], directories: Iterable[str]) -> Index:
        """A new snapshot, `given` of the result, with (path, generation) of all files that have no name then."""
        known = {(kept.path, kept.generation): kept for kept in self.retired}
        retired = tuple(
            known.get((path, generation)) or Kept(self.snapshot, path, generation, self.fallbacks.get(path, ""))
            for path, generation in nameless)
        return Index(self.given + 1, self.given + 1, retired=retired, directories=tuple(directories),
                     told=False)

    def fall_back(self, whom: Mapping[str, int], why: str) -> Index:
        """Files, by path and generation, go to userspace, with a name or without."""
        retired = tuple(replace(kept, fallback=why) if whom.get(kept.path) == kept.generation else kept
                        for kept in self.retired)
        nameless = {kept.path for kept in retired if whom.get(kept.path) == kept.generation}
        named = dict.fromkeys((path for path in whom if path not in nameless), why)
        return replace(self, fallbacks={**self.fallbacks, **named}, retired=retired)

    def forget(self, files: Iterable[tuple[str, int]], directories: Iterable[str]) -> Index:
        """Nobody holds these nameless ones any more."""
        gone, left = set(files), set(directories)
        return replace(self, retired=tuple(kept for kept in self.retired if (kept.path, kept.generation) not in gone),
                       directories=tuple(path for path in self.directories if path not in left))

    def to_json(self) -> str:
        """As text, with its version."""
        return json.dumps({_MAGIC: VERSION, **asdict(self)})

    @staticmethod
    def from_json(text: str | bytes) -> Index:
        """The inverse of to_json. ValueError with a sentence when it is none, or of another version."""
        values = json.loads(text)
        if not isinstance(values, dict) or _MAGIC not in values:
            raise ValueError("it is no index of regionfs")
        if (version := values.pop(_MAGIC)) != VERSION:
            raise ValueError(f"it is of version {version}, this regionfs reads {VERSION}")
        return Index(**{**values, "retired": tuple(Kept(**kept) for kept in values["retired"]),
                        "directories": tuple(values["directories"])})
