"""YAML text -> nodes with places. The only reader of YAML; of the schema it knows nothing but the depth.

A manifest uses a plain part of YAML: mappings, lists and scalars. Anchors, aliases, tags, merge keys,
duplicate keys and further documents are problems. Nodes are built here from the parser's events rather
than composed by PyYAML, so that a bomb ends at the first event that goes too deep, and so that scalars
stay text: what `010` or `yes` means is for the reader of a field to judge, not for YAML 1.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import yaml

from regionfs.manifest.report import Reporter, child, clip

MAX_DEPTH = 6           # the document, files, one file, its regions, one region, its data
MAX_NODES = 4_000_000   # bounds memory (about 1 GB); half a million regions
TOO_DEEP = f"nested deeper than the {MAX_DEPTH} levels of a manifest"
#: libyaml 0.2.6 ends at 1000 levels, which it may find ahead of the events: then only this is known
LIBYAML_TOO_DEEP = "exceeded maximum nesting depth"

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_UNPRINTABLE = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_RESOLVERS = yaml.SafeLoader.yaml_implicit_resolvers
_MEANINGS = {"int": "a number", "float": "a number", "bool": "true or false", "null": "no value",
             "timestamp": "a date", "merge": "a merge key", "value": "a default key"}


class Text(NamedTuple):
    """A scalar as written. `plain` when it stood without quotes."""

    text: str
    plain: bool
    line: int
    column: int


class List(NamedTuple):
    """A sequence."""

    items: list[Node]
    line: int
    column: int


class Map(NamedTuple):
    """A mapping; each entry holds the key's own node and the value."""

    entries: dict[str, tuple[Text, Node]]
    line: int
    column: int


Node = Text | List | Map


def parse(data: bytes, report: Reporter, *, bounded: bool = True) -> Map:
    """The manifest's top mapping. Raises ManifestError where the text cannot be read on.

    `bounded` keeps the number of nodes below MAX_NODES. Problems that leave the rest readable are noted
    in `report`.
    """
    _check_text(data, report)
    return _Builder(data, report, MAX_NODES if bounded else None).document()


def misread(text: str) -> str | None:
    """What a YAML reader takes the plain scalar `text` for when it is not a string: "a number", or None."""
    for tag, pattern in (*_RESOLVERS.get(text[:1], ()), *_RESOLVERS.get(None, ())):
        if pattern.match(text):
            return _MEANINGS[tag.rpartition(":")[2]]
    return None


def _check_text(data: bytes, report: Reporter) -> None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[:error.start].decode("utf-8")
        byte = f"0x{data[error.start]:02x}"
        raise report.fatal(*_place(before), f"not text: byte {byte} is not UTF-8") from None
    if match := _UNPRINTABLE.search(text, 1 if text.startswith("\ufeff") else 0):
        raise report.fatal(*_place(text[:match.start()]), f"not text: the character U+{ord(match[0]):04X}")


def _place(before: str) -> tuple[int, int]:
    """Line and column that follow `before`."""
    return before.count("\n") + 1, len(before) - before.rfind("\n")


class _Builder:
    """Walks the parser's events once; `_trail` is the way to the node under construction."""

    def __init__(self, data: bytes, report: Reporter, limit: int | None) -> None:
        self._events: Iterator[yaml.Event] = yaml.parse(data, Loader=_LOADER)
        self._report = report
        self._limit = limit
        self._count = 0
        self._trail: list[str | int] = []
        self._words: dict[str, str] = {}  # keys repeat in every region: one string each

    def document(self) -> Map:
        try:
            return self._document()
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
            message = f"not YAML: {error.problem or error.context}"
            raise self._report.fatal(line, column, TOO_DEEP if error.problem == LIBYAML_TOO_DEEP else message) from None
        except yaml.YAMLError as error:
            raise self._report.fatal(1, 1, f"not YAML: {str(error).splitlines()[0]}") from None

    def _document(self) -> Map:
        next(self._events)  # the stream's start
        start = next(self._events)
        if not isinstance(start, yaml.DocumentStartEvent):
            raise self._report.fatal(1, 1, "the manifest is empty; it begins with regionfs: 1")
        if start.tags:
            raise self._report.fatal(*_mark(start), "the directive %TAG is not allowed")
        first = next(self._events)
        node = self._node(first, 1)
        next(self._events)  # the document's end
        after = next(self._events)
        if isinstance(after, yaml.DocumentStartEvent):
            raise self._report.fatal(*_mark(after), "a second document; a manifest is one")
        if not isinstance(node, Map):
            what = "a list" if isinstance(node, List) else "a single value"
            if isinstance(node, Text) and node.plain and not node.text:
                what = "empty"
            raise self._report.fatal(*_mark(first), f"the manifest is {what}; it is a mapping that begins "
                                                    "with regionfs: 1")
        return node

    def _node(self, event: yaml.Event, depth: int) -> Node:
        line, column = _mark(event)
        self._count += 1
        if self._count == self._limit:
            raise self._report.fatal(line, column, f"more than {self._limit} values")
        # almost all events
        if isinstance(event, yaml.ScalarEvent) and event.anchor is None and event.tag is None:
            return Text(event.value, not event.style, line, column)
        if isinstance(event, yaml.AliasEvent):
            alias = clip(event.anchor or "")
            self._problem(event, f"the alias *{alias} is not allowed; write the value out")
            alias_node = Text("", False, line, column)
            self._report.silence(alias_node)
            return alias_node
        assert isinstance(event, yaml.ScalarEvent | yaml.CollectionStartEvent)
        if event.anchor is not None:
            self._problem(event, f"the anchor &{clip(event.anchor)} is not allowed; write the value out")
        if event.tag is not None:
            tag = clip(event.tag.replace("tag:yaml.org,2002:", "!!"))
            self._problem(event, f"the tag {tag} is not allowed")
        if isinstance(event, yaml.ScalarEvent):
            return Text(event.value, not event.style, line, column)
        if depth > MAX_DEPTH:
            raise self._report.fatal(line, column, TOO_DEEP, self._path())
        if isinstance(event, yaml.SequenceStartEvent):
            return List(self._items(depth), line, column)
        return Map(self._entries(depth), line, column)

    def _items(self, depth: int) -> list[Node]:
        items: list[Node] = []
        self._trail.append(0)
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            self._trail[-1] = len(items)
            items.append(self._node(event, depth + 1))
        self._trail.pop()
        return items

    def _entries(self, depth: int) -> dict[str, tuple[Text, Node]]:
        entries: dict[str, tuple[Text, Node]] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            if not isinstance(key, Text):
                self._problem(event, "a key is a single word, not a list or a mapping")
                self._node(next(self._events), depth + 1)
                continue
            name = self._words.setdefault(key.text, key.text)
            self._trail.append(name)
            if name in entries:
                self._problem(event, f"given twice; first on line {entries[name][0].line}")
            value = self._node(next(self._events), depth + 1)
            if key.plain and name == "<<":
                self._problem(event, "merge keys are not allowed; write the keys out")
                self._report.silence(key)
                self._report.silence(value)
            self._trail.pop()
            entries.setdefault(name, (key, value))
        return entries

    def _problem(self, event: yaml.Event, message: str) -> None:
        line, column = _mark(event)
        self._report.problem(Text("", False, line, column), self._path(), message)

    def _path(self) -> str:
        path = ""
        for step in self._trail:
            path = f"{path}[{step}]" if isinstance(step, int) else child(path, step)
        return path


def _mark(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    assert mark is not None
    return mark.line + 1, mark.column + 1
