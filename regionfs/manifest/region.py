"""Region nodes of one file -> a RegionMap. Knows the rules of placing: start, length, align, over.

A region without `start` follows the one before it in the text. After a region with a problem that
place is unknown, and what follows without a `start` is checked as far as it goes.
"""

from __future__ import annotations

from typing import NamedTuple

from regionfs.manifest.inline import InlineReader
from regionfs.manifest.layers import find_overlaps, flatten, is_flat
from regionfs.manifest.parse import List, Node
from regionfs.manifest.report import Reporter
from regionfs.manifest.sources import SourceTable
from regionfs.manifest.values import describe_node, knows_all, read_access, read_flag, read_map, read_size
from regionfs.regions import Kind, Region, RegionMap
from regionfs.units import MAX_OFFSET, align_up

KINDS = tuple(str(kind) for kind in Kind)
KEYS = ("start", "length", *KINDS, "offset", "access", "align", "over")


class Layer(NamedTuple):
    """A placed region and whether it may lie over others."""

    region: Region
    over: bool
    number: int  # in the list of regions
    node: Node


class Extent(NamedTuple):
    """What a region shows, before it has a place."""

    kind: Kind
    length: int
    offset: int = 0
    source: str = ""
    writable: bool = False
    data: bytes = b""

    def at(self, start: int) -> Region:
        shift = self.offset - start if self.kind in (Kind.SOURCE, Kind.DATA) else 0
        return Region(start, start + self.length, self.kind, self.source, shift, self.writable, self.data)


class RegionReader:
    """Reads the regions of one composite file."""

    def __init__(self, report: Reporter, sources: SourceTable, inline: InlineReader, path: str) -> None:
        self._report = report
        self._sources = sources
        self._inline = inline
        self._path = path                # of the list of regions
        self._next: int | None = 0       # where a region without start lies; None: unknown

    def read(self, node: Node, size_node: Node | None, size_path: str) -> RegionMap | None:
        """The region map; `size_node` is the file's `size`. None after a problem."""
        layers: list[Layer] = []
        if isinstance(node, List):
            layers = self.layers(node)
            self._check_overlaps(layers)
        else:
            self._report.problem(node, self._path, f"a list is wanted here, found {describe_node(node)}")
        end = max((layer.region.end for layer in layers), default=0)
        size = read_total(self._report, size_node, size_path, end)
        if size is None or not isinstance(node, List) or len(layers) < len(node.items):
            return None
        return RegionMap(size, flatten([layer.region for layer in layers]))

    def layers(self, node: List) -> list[Layer]:
        """The regions as declared, in the order of the text, without those that have a problem."""
        return [layer for index, item in enumerate(node.items) if (layer := self._layer(item, index))]

    def _layer(self, node: Node, index: int) -> Layer | None:
        path = f"{self._path}[{index}]"
        fields = read_map(self._report, node, path, KEYS)
        start, self._next = self._next, None
        if fields is None:
            return None
        extent = self._extent(fields, node, path)
        over = read_flag(self._report, fields["over"], f"{path}.over") if "over" in fields else False
        if "start" in fields:
            start = read_size(self._report, fields["start"], f"{path}.start")
            if "align" in fields:
                self._report.problem(fields["align"], f"{path}.align",
                                     "a region with a start has no align")
        elif "align" in fields:
            align = read_size(self._report, fields["align"], f"{path}.align", least=1)
            start = align_up(start, align) if start is not None and align is not None else None
        if extent is None or start is None:
            return None
        if start + extent.length > MAX_OFFSET:
            self._report.problem(node, path, f"it would end at {start + extent.length}, after {MAX_OFFSET}")
            return None
        self._next = start + extent.length
        return None if over is None else Layer(extent.at(start), over, index, node)

    def _extent(self, fields: dict[str, Node], node: Node, path: str) -> Extent | None:
        kinds = [kind for kind in KINDS if kind in fields]
        length: int | None = None
        offset: int | None = 0
        if "length" in fields:
            length = read_size(self._report, fields["length"], f"{path}.length", least=1)
        if "offset" in fields:
            offset = read_size(self._report, fields["offset"], f"{path}.offset")
        if not kinds and not knows_all(node, fields):
            return None
        if len(kinds) != 1:
            self._report.problem(node, path, f"a region has exactly one of {', '.join(KINDS)}; "
                                             f"here {' and '.join(kinds) or 'none'}")
            return None
        kind = Kind(kinds[0])
        wrong = [key for key in ("access", "offset") if key in fields and not _takes(kind, key)]
        for key in wrong:
            self._report.problem(fields[key], f"{path}.{key}", f"a region of kind {kind} has no {key}")
        if kind in (Kind.HOLE, Kind.ERROR):
            return self._empty(kind, fields, node, path, length)
        extent = self._stored(kind, fields, path)
        if extent is None or wrong or offset is None or ("length" in fields and length is None):
            return None
        return self._cut(extent, offset, length, fields, path)

    def _empty(self, kind: Kind, fields: dict[str, Node], node: Node, path: str,
               length: int | None) -> Extent | None:
        value = read_flag(self._report, fields[kind], f"{path}.{kind}")
        if value is False:
            self._report.problem(fields[kind], f"{path}.{kind}", "write true, or leave the region out")
        if "length" not in fields:
            self._report.problem(node, path, f"a region of kind {kind} needs a length")
        return Extent(kind, length) if value and length is not None else None

    def _stored(self, kind: Kind, fields: dict[str, Node], path: str) -> Extent | None:
        """The whole of the source or of the data; a length of 0 is possible."""
        if kind is Kind.DATA:
            data = self._inline.read(fields["data"], f"{path}.data")
            return None if data is None else Extent(kind, len(data), data=data)
        source = self._sources.use(fields["source"], f"{path}.source")
        access: bool | None = False
        if "access" in fields:
            access = read_access(self._report, fields["access"], f"{path}.access")
        if source is None or access is None:
            return None
        if access and not self._sources.check_writable(source, fields["access"], f"{path}.access"):
            return None
        return Extent(kind, self._sources.size(source), source=source, writable=access)

    def _cut(self, whole: Extent, offset: int, length: int | None, fields: dict[str, Node],
             path: str) -> Extent | None:
        name = whole.source or "the data"
        if offset >= whole.length:
            key = "offset" if "offset" in fields else whole.kind
            message = f"{offset} is at or past the end of {name} ({whole.length})"
            self._report.problem(fields[key], f"{path}.{key}", message if offset else f"{name} is empty")
            return None
        if length is None:
            length = whole.length - offset
        elif offset + length > whole.length:
            self._report.problem(fields["length"], f"{path}.length",
                                 f"{offset + length} reaches past the end of {name} ({whole.length})")
            return None
        return whole._replace(offset=offset, length=length)

    def _check_overlaps(self, layers: list[Layer]) -> None:
        regions = [layer.region for layer in layers]
        if is_flat(regions):
            return
        for later, earlier in find_overlaps(regions, [layer.over for layer in layers]):
            mine, other = regions[later], regions[earlier]
            self._report.problem(
                layers[later].node, f"{self._path}[{layers[later].number}]",
                f"[{mine.start}, {mine.end}) overlaps regions[{layers[earlier].number}] "
                f"[{other.start}, {other.end}); say over: true to cover it")


def read_total(report: Reporter, node: Node | None, path: str, end: int) -> int | None:
    """A file's size: what `node` says, which is not less than `end`, where its regions end; that where it is None."""
    if node is None:
        return end
    size = read_size(report, node, path)
    if size is not None and size < end:
        report.problem(node, path, f"{size} is less than {end}, where the regions end")
        return None
    return size


def _takes(kind: Kind, key: str) -> bool:
    return kind is Kind.SOURCE or (kind is Kind.DATA and key == "offset")
