"""Reading a manifest again: all or nothing, what did not change stays what it is.

A file whose map, mode or source changed gets a new inode: handles that are open keep the old bytes,
new opens see the new. Unchanged files keep inode, cache and counters. Files that are gone vanish
from the tree, and live on for the handles that are open.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from regionfs.fs import FileSystem
from regionfs.manifest.inspect import SourceFacts
from regionfs.manifest.schema import Manifest
from regionfs.modes.choose import Choice
from regionfs.source import Sources
from regionfs.tree import Directory, FileNode, Since, Tree


class Difference(NamedTuple):
    """Paths by what a reload does to them, each in the manifest's order."""

    added: list[str]
    removed: list[str]
    changed: list[str]
    unchanged: list[str]

    def describe(self) -> dict[str, object]:
        """As plain values: the paths that are touched, and how many are not."""
        return {"added": self.added, "removed": self.removed, "changed": self.changed,
                "unchanged": len(self.unchanged)}


def compare(fs: FileSystem, manifest: Manifest, facts: Mapping[str, SourceFacts],
            choices: Mapping[str, Choice]) -> Difference:
    """What putting `manifest` in place would do."""
    old = fs.tree.files
    difference = Difference([], [path for path in old if path not in manifest.files], [], [])
    for path in manifest.files:
        if path not in old:
            difference.added.append(path)
        elif _same(old[path], manifest, path, facts, choices[path]):
            difference.unchanged.append(path)
        else:
            difference.changed.append(path)
    return difference


def build(fs: FileSystem, manifest: Manifest, sources: Sources, choices: Mapping[str, Choice],
          generations: Mapping[str, int], difference: Difference, since: Mapping[str, Since] | None = None) -> Tree:
    """The tree that is to take the place of the one served; what has no name in it is retired there.

    `since` as Tree has it.
    """
    old = fs.tree
    new = Tree(manifest, choices, sources, generations, since)
    for path in (*difference.added, *difference.changed):
        assert new.files[path].ino not in old.nodes, f"{path}: its new inode number is known already"
    for path in difference.unchanged:
        new.keep(old.files[path])
    for ino, node in list(old.nodes.items()):
        if ino not in new.nodes:
            new.retire(node)
    return new


def generations(fs: FileSystem, difference: Difference, given: int) -> dict[str, int]:
    """path -> generation in the next tree, where that is not 0; what is new or changed gets the one `given`."""
    same = {path: fs.tree.files[path].generation for path in difference.unchanged}
    return {path: generation for path, generation in same.items() if generation} | dict.fromkeys(
        (*difference.added, *difference.changed), given)


def _same(node: FileNode, manifest: Manifest, path: str, facts: Mapping[str, SourceFacts], choice: Choice) -> bool:
    spec = manifest.files[path]
    return node.spec == spec and node.choice.mode == choice.mode and all(
        node.sources.same(key, manifest.sources[key], facts[key]) for key in spec.sources)


def stale_names(old: Tree, new: Tree) -> list[tuple[int, bytes]]:
    """(directory inode, name) of what the kernel must look up again: another inode, or it came or went."""
    stale = []
    for ino, before in old.nodes.items():
        after = new.nodes.get(ino)
        if not isinstance(before, Directory) or not isinstance(after, Directory):
            continue
        for name in before.children.keys() | after.children.keys():
            mine, theirs = before.children.get(name), after.children.get(name)
            if mine is None or theirs is None or mine.ino != theirs.ino:
                stale.append((ino, name))
    return stale


def all_names(tree: Tree) -> list[tuple[int, bytes]]:
    """(directory inode, name) of all that the kernel may have looked up, before the last reload or after."""
    directories = [node for node in tree.nodes.values() if isinstance(node, Directory)]
    inodes = {directory.path: directory.ino for directory in directories}
    names = {(directory.ino, name) for directory in directories for name in directory.children}
    for node in tree.retired():
        above, _, name = (node.path if isinstance(node, Directory) else node.spec.path).rpartition("/")
        if above in inodes:
            names.add((inodes[above], os.fsencode(name)))
    return sorted(names)
