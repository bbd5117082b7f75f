"""The sources of one manifest: names and paths -> SourceSpec, each inspected once and blamed once.

A word after `source` or `whole` is a name where `sources` declares it, else a path. Knows nothing of
regions.
"""

from __future__ import annotations

from copy import copy
from pathlib import Path

from regionfs.errors import SourceError
from regionfs.manifest.inspect import SourceFacts, Way
from regionfs.manifest.parse import Map, Node, Text
from regionfs.manifest.report import Reporter, child
from regionfs.manifest.schema import SourceSpec
from regionfs.manifest.values import (
    describe_node,
    knows_all,
    nearest,
    read_flag,
    read_map,
    read_path,
    read_size,
    read_text,
)


class SourceTable:
    """Resolves what regions refer to. A source that fails is reported where it first appears."""

    def __init__(self, report: Reporter, directory: Path, way: Way) -> None:
        self._report = report
        self._directory = directory
        self._way = way
        self._facts: dict[str, SourceFacts | None] = {}
        self._pinned: dict[str, int] = {}  # what a source that failed should have: the rest is checked by that
        self._writable: dict[str, bool] = {}
        self.specs: dict[str, SourceSpec] = {}

    def telling(self, report: Reporter) -> SourceTable:
        """The same sources, for words in another file: its problems go to `report`."""
        other = copy(self)
        other._report = report
        return other

    def declare(self, node: Node) -> None:
        """Take in the `sources` mapping."""
        if not isinstance(node, Map):
            self._report.problem(node, "sources", f"names are wanted here, found {describe_node(node)}")
            return
        for name, (key, value) in node.entries.items():
            path = child("sources", name)
            if read_text(self._report, key, path, "a name") is None:
                continue
            if not name or "/" in name or "\0" in name:
                self._report.problem(key, path, "a source's name is a word without '/'")
            self._declare_one(name, value, path)

    def _declare_one(self, name: str, node: Node, path: str) -> None:
        self._facts[name] = None
        where, pin, loop = node, None, None
        if not isinstance(node, Text):
            fields = read_map(self._report, node, path, ("path", "size", "loop"))
            if fields is None:
                return
            if "path" not in fields:
                if knows_all(node, fields):
                    self._report.problem(node, path, "path is missing")
                return
            where, pin, loop = fields["path"], fields.get("size"), fields.get("loop")
            path = child(path, "path")
        written = read_path(self._report, where, path)
        size = None
        if pin is not None:
            size = read_size(self._report, pin, child(child("sources", name), "size"))
        wants_loop = False
        if loop is not None:
            wants_loop = bool(read_flag(self._report, loop, child(child("sources", name), "loop")))
        if written is None or (pin is not None and size is None):
            return
        spec = SourceSpec(name, self._directory / written, size, named=True, loop=wants_loop)
        self.specs[name] = spec
        facts = self._inspect(spec, where, path)
        if facts is not None and facts.kind == "block" and wants_loop:
            assert loop is not None
            self._report.problem(loop, child(child("sources", name), "loop"),
                                 f"{written} is a block device already; loop is for regular files")
        if facts is not None and size is not None and facts.size != size:
            assert pin is not None
            self._report.problem(pin, child(child("sources", name), "size"),
                                 f"{written} has {facts.size} bytes, not {size}")
            self._facts[name] = None
        if self._facts[name] is None and size is not None:
            self._pinned[name] = size

    def use(self, node: Node, path: str) -> str | None:
        """The key of the source that `node` names, or None if it cannot serve."""
        word = read_path(self._report, node, path)
        if word is None:
            return None
        if word not in self._facts:
            self.specs[word] = spec = SourceSpec(word, self._directory / word)
            self._inspect(spec, node, path)
        return word if self._facts[word] is not None or word in self._pinned else None

    def size(self, key: str) -> int:
        """Bytes of a source that `use` returned."""
        if key in self._pinned:
            return self._pinned[key]
        facts = self._facts[key]
        assert facts is not None
        return facts.size

    def check_writable(self, key: str, node: Node, path: str) -> bool:
        """Whether a source that `use` returned can be written; reported where it is first asked."""
        if key in self._pinned:  # reported
            return True
        if key not in self._writable:
            try:
                self._way.inspect(self.specs[key].path, writable=True)
                self._writable[key] = True
            except SourceError as error:
                self._report.problem(node, path, str(error))
                self._writable[key] = False
        return self._writable[key]

    def _inspect(self, spec: SourceSpec, node: Node, path: str) -> SourceFacts | None:
        try:
            self._facts[spec.key] = self._way.inspect(spec.path)
        except SourceError as error:
            self._facts[spec.key] = None
            names = [key for key, known in self.specs.items() if known.named]
            near = nearest(spec.key, names) if not spec.named and "/" not in spec.key else None
            hint = f"; did you mean the source {near}?" if near else ""
            self._report.problem(node, path, f"{error}{hint}")
        return self._facts[spec.key]
