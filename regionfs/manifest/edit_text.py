"""Where the parts of one file's region map stand in the text of a manifest.

Edits replace spans of the text and leave every other byte alone, because no YAML writer gives back
the spacing, quoting and comments it read. This module finds the spans, from the marks of PyYAML's
nodes, and changes nothing. All positions are indices into the text, spans half-open.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

import yaml

from regionfs.errors import UsageError
from regionfs.manifest.values import nearest

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Replacement(NamedTuple):
    """[start, end) of the text becomes `text`. Sorted, an insertion comes before a removal beside it."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Field:
    """One `key: value`. The value as text, or as a mapping of texts for `data`."""

    key: int    # where the key begins
    start: int  # the value's span
    end: int
    value: str | dict[str, str]


@dataclass(frozen=True, slots=True)
class Mapping:
    """A mapping: a file or a region."""

    start: int
    end: int   # of its content, without what follows on the last line
    flow: bool  # {a: 1} rather than lines
    fields: dict[str, Field]
    dash: int = -1  # of a region in a block list: where its '-' stands


@dataclass(frozen=True, slots=True)
class MapText:
    """One composite file in the text. `items` are its regions as written, in order."""

    text: str
    file: Mapping
    items: tuple[Mapping, ...]
    flow: bool  # the list of regions is [ ... ]

    @property
    def newline(self) -> str:
        """The line ending in use."""
        return "\r\n" if "\r\n" in self.text else "\n"


def find_map(text: str, file: str) -> MapText:
    """Find `files[file]` in the text of a valid manifest.

    Raises UsageError when there is no such file, or it shows the whole of a source and has no map, or its map
    stands in a table.
    """
    root = yaml.compose(text, Loader=_LOADER)
    assert root is not None
    files = _pairs(_pairs(root)["files"])
    if file not in files:
        near = nearest(file, list(files))
        raise UsageError(f"no file {file!r} in the manifest" + (f"; did you mean {near!r}?" if near else ""))
    mapping = _mapping(text, files[file])
    if "whole" in mapping.fields:
        raise UsageError(f"{file} shows the whole of a source and has no region map; "
                         "give it size and regions instead of whole")
    regions = _pairs(files[file]).get("regions")
    if isinstance(regions, yaml.MappingNode):
        table = _pairs(regions)["table"].value
        raise UsageError(f"the regions of {file} stand in the table {table}, which map does not edit: change its rows, "
                         "then let check look at them")
    if not isinstance(regions, yaml.SequenceNode):
        return MapText(text, mapping, (), False)
    flow = _is_flow(regions)
    items = [_mapping(text, node) for node in regions.value] if flow else _items(text, regions)
    return MapText(text, mapping, tuple(items), flow)


def line_start(text: str, index: int) -> int:
    """Where the line that holds `index` begins."""
    return text.rfind("\n", 0, index) + 1


def line_end(text: str, index: int) -> int:
    """One past the line break of the line that holds `index`."""
    found = text.find("\n", index)
    return len(text) if found < 0 else found + 1


def after_line(text: str, end: int) -> int:
    """Where the line after a content's `end` begins; a literal block ends there already."""
    return end if text[end - 1] == "\n" else line_end(text, end)


def trimmed(text: str, field: Field | Mapping) -> int:
    """The end of a value without the line breaks that a literal block takes along."""
    end = field.end
    while end > field.start and text[end - 1].isspace():
        end -= 1
    return end


def column(text: str, index: int) -> int:
    """How many characters stand before `index` on its line."""
    return index - line_start(text, index)


def _pairs(node: yaml.Node) -> dict[str, yaml.Node]:
    return {key.value: value for key, value in node.value}


def _mapping(text: str, node: yaml.Node, dash: int = -1) -> Mapping:
    fields = {key.value: Field(key.start_mark.index, value.start_mark.index, _content_end(text, value),
                               _plain_value(value))
              for key, value in node.value}
    return Mapping(node.start_mark.index, _content_end(text, node), _is_flow(node), fields, dash)


def _items(text: str, regions: yaml.SequenceNode) -> list[Mapping]:
    column = regions.start_mark.column
    dashes = re.compile(rf"^ {{{column}}}-(?=\s)", re.MULTILINE)
    pos, items = line_start(text, regions.start_mark.index), []
    for node in regions.value:
        found = dashes.search(text, pos)
        assert found is not None, f"a region without a dash at {pos}"
        items.append(_mapping(text, node, found.end() - 1))
        pos = items[-1].end
    return items


def _content_end(text: str, node: yaml.Node) -> int:
    """The end of what the node says; a block collection's own mark is where the next thing begins."""
    if isinstance(node, yaml.ScalarNode) or _is_flow(node):
        return int(node.end_mark.index)
    last = node.value[-1]
    return _content_end(text, last[1] if isinstance(last, tuple) else last)


def _is_flow(node: yaml.Node) -> bool:
    return isinstance(node, yaml.CollectionNode) and bool(node.flow_style)


def _plain_value(node: yaml.Node) -> str | dict[str, str]:
    if isinstance(node, yaml.MappingNode):
        return {key.value: value.value for key, value in node.value}
    return node.value if isinstance(node.value, str) else ""
