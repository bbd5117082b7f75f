"""Edits of a region map in a manifest's text: read, change, check, save.

    with locked(path) as held:
        edited = edit_text(held.read(), path, "vm/disk.img", split([2**20]))
        held.replace(edited.new)

An edit is checked as a whole by load before anything is written, and everything outside the spans it
changes stays byte for byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from regionfs.errors import EditError, ManifestError, UsageError
from regionfs.manifest.edit_draft import FLAGS, Change, Declared, Draft, Value
from regionfs.manifest.edit_render import render
from regionfs.manifest.edit_text import MapText, find_map
from regionfs.manifest.inline import InlineReader
from regionfs.manifest.inspect import Way
from regionfs.manifest.load import loads
from regionfs.manifest.parse import List, Map, Node, Text, parse
from regionfs.manifest.region import Layer, RegionReader
from regionfs.manifest.report import Reporter
from regionfs.manifest.schema import FileSpec, Manifest
from regionfs.manifest.sources import SourceTable


@dataclass(frozen=True, slots=True)
class Edited:
    """One edit: the text and the file's map, before and after."""

    old: str
    new: str
    before: FileSpec
    after: FileSpec
    manifest: Manifest  # after


def edit_text(text: str, path: Path, file: str, change: Change) -> Edited:
    """`text`, the manifest at `path`, with `change` made to the map of `file`.

    Raises ManifestError when the text is not valid as it is, UsageError when the change makes no
    sense, EditError when its result would not be valid.
    """
    before = loads(text, path)
    bom = "\ufeff" if text.startswith("\ufeff") else ""
    body = text.removeprefix(bom)
    place = find_map(body, file)
    new = bom + render(place, change(_draft(body, path, file, place, before.files[file])))
    try:
        after = loads(new, path)
    except ManifestError as error:
        raise EditError(f"{path} was not changed; it would not be valid",
                        [f"{problem.path}: {problem.message}" for problem in error.problems]) from None
    return Edited(text, new, before.files[file], after.files[file], after)


def _draft(text: str, path: Path, file: str, place: MapText, spec: FileSpec) -> Draft:
    reader = _Reader(text, path, file)
    regions = tuple(_declared(layer, {key: field.value for key, field in item.fields.items()}, index)
                    for index, (layer, item) in enumerate(zip(reader.layers(), place.items, strict=True)))
    return Draft(regions, spec.regions.size, "size" in place.file.fields, spec.regions.starts, reader.resolve)


def _declared(layer: Layer, fields: Mapping[str, Value], item: int | None) -> Declared:
    region = layer.region
    return Declared(region, fields, None if "length" in fields else region.offset + region.length, item)


class _Reader:
    """Reads regions of one file by load's own rules, one at a time."""

    def __init__(self, text: str, path: Path, file: str) -> None:
        self._path = path
        self._root = parse(text.encode(), Reporter(str(path)))
        self._file = file

    def layers(self) -> list[Layer]:
        """The regions in the text, which is valid."""
        _, files = self._root.entries["files"]
        assert isinstance(files, Map)
        _, file = files.entries[self._file]
        assert isinstance(file, Map)
        _, regions = file.entries["regions"]
        assert isinstance(regions, List)
        return self._read(regions.items, Reporter(str(self._path)))

    def resolve(self, fields: Mapping[str, Value], before: int) -> Declared:
        """A new region of `fields` after one that ends at `before`. Raises UsageError."""
        report = Reporter(str(self._path))
        room = [_node({"hole": "true", "length": str(before)})] if before else []
        layers = self._read([*room, _node(fields)], report)
        try:
            report.finish()
        except ManifestError as error:
            raise UsageError("; ".join(f"{problem.path.partition('.')[2]}: {problem.message}".removeprefix(": ")
                                       for problem in error.problems)) from None
        return _declared(layers[-1], fields, None)

    def _read(self, items: list[Node], report: Reporter) -> list[Layer]:
        directory = self._path.absolute().parent
        sources = SourceTable(report, directory, Way())
        if "sources" in self._root.entries:
            sources.declare(self._root.entries["sources"][1])
        reader = RegionReader(report, sources, InlineReader(report, directory, Way()), "")
        return reader.layers(List(items, 1, 1))


def _node(fields: Mapping[str, Value]) -> Map:
    """`fields` as parse would give them; strings stand as if in quotes, flags do not."""
    return Map({key: (Text(key, True, 1, 1), _node(value) if isinstance(value, dict) else
                      Text(value, key in FLAGS, 1, 1)) for key, value in fields.items()}, 1, 1)
