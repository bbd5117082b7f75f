"""`regions: {table: chunks.csv}` -> columns: a region list that is too long for YAML.

The table is CSV with a header that names its columns, then a row for each region. A cell means what the key of a
region means; an empty cell, or a column that is not there, is its default. Rows may come in any order and are
source regions: what no row covers is a hole.

A block whose cells are plain numbers and known words is checked and taken column by column, at the speed of C;
any other goes row by row, where problems get their words. The second way decides what is right; the first only has
to notice when it does not know.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from itertools import accumulate, compress, islice
from operator import add, le, sub
from pathlib import Path
from typing import NamedTuple

from regionfs.errors import SourceError, UnitError
from regionfs.manifest.confine import reach
from regionfs.manifest.inspect import Way, open_at_once
from regionfs.manifest.parse import Map, Text
from regionfs.manifest.report import Reporter, child, clip
from regionfs.manifest.sources import SourceTable
from regionfs.manifest.table_text import MAX_LINES, Block, of_one_width, read_blocks, read_header
from regionfs.manifest.values import knows_all, read_access, read_map, read_path, read_size
from regionfs.regions import Columns
from regionfs.units import MAX_OFFSET, parse_size

COLUMNS = ("start", "length", "source", "offset", "access")

_LEADING_ZERO = re.compile(r"\n0[0-9]")
_ACCESS = {"", "ro", "rw"}
_DEFAULT, _BAD = -1, -2  # in a column of numbers: an empty cell, one that was reported
_MEMORY = 1000           # numbers with a unit that are remembered: lengths repeat


class Table(NamedTuple):
    """What a table says: regions in order of their place, over the sources `names`."""

    path: Path  # absolute
    names: tuple[str, ...]
    columns: Columns

    @property
    def end(self) -> int:
        """Where the last region ends."""
        return self.columns.ends[-1] if self.columns.ends else 0


class TableReader:
    """Reads the tables of one manifest."""

    def __init__(self, report: Reporter, sources: SourceTable, directory: Path, way: Way, *,
                 bounded: bool = True) -> None:
        self._report = report
        self._sources = sources
        self._directory = directory
        self._limit = MAX_LINES if bounded else None
        self._way = way

    def read(self, node: Map, path: str) -> Table | None:
        """The table that `node`, {table: FILE}, names. None after a problem."""
        fields = read_map(self._report, node, path, ("table",))
        if not fields:
            if knows_all(node, fields or {}):
                self._report.problem(node, path, "table is missing; regions are a list, or {table: FILE}")
            return None
        node_of_name, path = fields["table"], child(path, "table")
        written = read_path(self._report, node_of_name, path)
        if written is None:
            return None
        file = self._directory / written
        report = self._report.below(node_of_name, str(Path(self._report.file).parent / written))
        try:
            self._way.inspect(file)
            return self._read(file, report)
        except SourceError as error:
            self._report.problem(node_of_name, path, str(error))
        except OSError as error:
            self._report.problem(node_of_name, path, f"{written}: {error.strerror}")
        return None

    def _read(self, file: Path, report: Reporter) -> Table | None:
        before = report.count
        with reach(file, self._way.confine) as here, open(here, "rb", opener=open_at_once) as stream:
            blocks = read_blocks(stream, file.name, report, self._limit)
            if (first := next(blocks, None)) is None:
                report.problem(Text("", False, 1, 1), "", f"the table is empty; it begins with {','.join(COLUMNS)}")
                return None
            header = read_header(report, first, COLUMNS)
            if header is not None and "source" not in header:
                report.problem(first.cell(0, 0), "", "the header has no column source")
                return None
            if header is None:
                return None
            rows = _Rows(report, self._sources.telling(report), header)
            rows.take(first.without(1))
            for block in blocks:
                rows.take(block)
        columns = rows.finish()
        return Table(file, tuple(rows.names), columns) if report.count == before else None


class _Rows:
    """The rows of one table so far, in columns; what is wrong with others is reported."""

    def __init__(self, report: Reporter, sources: SourceTable, header: dict[str, int]) -> None:
        self._report = report
        self._sources = sources
        self._header = header                # column -> index of its cell
        self._columns = Columns.empty()
        self._lines = array("q")             # of the rows in _columns
        self._next: int | None = 0           # where a region without start lies; None: unknown
        self._targets: dict[str, int] = {}   # cell -> index of its name
        self._ends: list[int] = []           # of each name's source; -1 where it cannot serve
        self._asked: set[int] = set()        # names that were checked for writing
        self._sizes: dict[str, int] = {}     # numbers with a unit
        self.names: list[str] = []

    def take(self, block: Block) -> None:
        """Add the rows of a block."""
        given = len(block.rows)
        block = of_one_width(self._report, block, len(self._header))
        count = len(block.rows)
        if count < given:
            self._next = None
        if not count:
            return
        cells = dict(zip(self._header, zip(*block.rows, strict=True), strict=True))
        starts, lengths, offsets = (self._numbers(block, name, cells[name]) if name in cells else [_DEFAULT] * count
                                    for name in ("start", "length", "offset"))
        targets = self._sources_of(block, cells["source"])
        writable = self._access(block, cells["access"], targets) if "access" in cells else bytearray(count)
        if "offset" not in cells:
            offsets = [0] * count
        if not self._take_block(block, starts, lengths, offsets, targets, writable):
            for row in range(count):
                self._take_row(block, row, starts[row], lengths[row], offsets[row], targets[row], writable[row])

    def finish(self) -> Columns:
        """The columns, sorted by place; overlaps are reported."""
        columns = self._columns
        if not _ordered(columns.starts, columns.starts):
            order = sorted(range(len(columns.starts)), key=columns.starts.__getitem__)
            starts, ends, shifts, targets, self._lines = (
                array(column.typecode, map(column.__getitem__, order))
                for column in (columns.starts, columns.ends, columns.shifts, columns.targets, self._lines))
            columns = Columns(starts, ends, shifts, targets, bytearray(map(columns.writable.__getitem__, order)))
        if not _ordered(columns.ends, columns.starts):
            self._report_overlaps(columns)
        return columns

    # columns

    def _numbers(self, block: Block, name: str, cells: Sequence[str]) -> Sequence[int]:
        """Sizes, with _DEFAULT and _BAD."""
        if (digits := "".join(cells)).isdecimal() and digits.isascii():
            try:
                found = array("q", map(int, cells))
                if not _LEADING_ZERO.search("\n" + "\n".join(cells)):
                    return found
            except (ValueError, OverflowError):
                pass
        return [self._number(block, row, name, cell) for row, cell in enumerate(cells)]

    def _number(self, block: Block, row: int, name: str, cell: str) -> int:
        if not cell:
            return _DEFAULT
        if (known := self._sizes.get(cell)) is not None:
            return known
        try:
            value = parse_size(cell)
        except UnitError:
            read_size(self._report, block.cell(row, self._header[name]), name)  # says why
            return _BAD
        if len(self._sizes) < _MEMORY:
            self._sizes[cell] = value
        return value

    def _sources_of(self, block: Block, cells: Sequence[str]) -> array[int]:
        """Indices of names; each source is resolved where it first stands."""
        if new := set(cells) - self._targets.keys():
            for row, cell in enumerate(cells):
                if cell in new:
                    new.remove(cell)
                    key = self._sources.use(block.cell(row, self._header["source"]), "source")
                    self._targets[cell] = len(self.names)
                    self.names.append(cell)
                    self._ends.append(-1 if key is None else self._sources.size(key))
        return array("i", map(self._targets.__getitem__, cells))

    def _access(self, block: Block, cells: Sequence[str], targets: Sequence[int]) -> bytearray:
        """0 and 1; what was reported counts as ro."""
        words = set(cells)
        if not words <= _ACCESS:
            for row, cell in enumerate(cells):
                if cell not in _ACCESS:
                    read_access(self._report, block.cell(row, self._header["access"]), "access")
        found = bytearray(cell == "rw" for cell in cells) if "rw" in words else bytearray(len(cells))
        for target in sorted(set(compress(targets, found)) - self._asked):
            self._asked.add(target)
            if self._ends[target] >= 0:
                row = next(row for row, rw in enumerate(found) if rw and targets[row] == target)
                place = block.cell(row, self._header["access"])
                self._sources.check_writable(self.names[target], place, "access")
        return found

    def _take_block(self, block: Block, starts: Sequence[int], lengths: Sequence[int], offsets: Sequence[int],
                    targets: Sequence[int], writable: bytearray) -> bool:
        """Take rows of which nothing is missing, implied or wrong; False when there may be."""
        if min(lengths) < 1 or min(offsets) < 0:
            return False
        if "start" not in self._header and self._next is not None:
            starts = list(accumulate(lengths, initial=self._next))[:-1]
        if min(starts) < 0 or max(max(starts), max(offsets)) + max(lengths) > MAX_OFFSET:
            return False
        if not all(map(le, map(add, offsets, lengths), map(self._ends.__getitem__, targets))):
            return False
        columns = self._columns
        columns.starts.extend(starts)
        columns.ends.extend(map(add, starts, lengths))
        columns.shifts.extend(map(sub, offsets, starts))
        columns.targets.extend(targets)
        columns.writable.extend(writable)
        self._lines.extend(block.numbers)
        self._next = columns.ends[-1]
        return True

    # rows

    def _take_row(self, block: Block, row: int, start: int, length: int, offset: int, target: int, rw: int) -> None:
        place, self._next = self._next, None
        start = place if start == _DEFAULT and place is not None else start
        offset = 0 if offset == _DEFAULT else offset
        name, end = clip(self.names[target]), self._ends[target]
        if length == 0:
            self._say(block, row, "length", "0 is less than 1")
        elif length == _BAD or offset == _BAD or end < 0:
            return
        elif offset >= end:
            message = f"{offset} is at or past the end of {name} ({end})" if offset else f"{name} is empty"
            self._say(block, row, "offset" if offset else "source", message)
        elif offset + length > end:
            self._say(block, row, "length", f"{offset + length} reaches past the end of {name} ({end})")
        elif start >= 0:
            self._place(block, row, start, end - offset if length == _DEFAULT else length, offset, target, rw)

    def _place(self, block: Block, row: int, start: int, length: int, offset: int, target: int, rw: int) -> None:
        if start + length > MAX_OFFSET:
            self._say(block, row, "start", f"it would end at {start + length}, after {MAX_OFFSET}")
            return
        columns = self._columns
        columns.starts.append(start)
        columns.ends.append(start + length)
        columns.shifts.append(offset - start)
        columns.targets.append(target)
        columns.writable.append(rw)
        self._lines.append(block.numbers[row])
        self._next = start + length

    def _say(self, block: Block, row: int, name: str, message: str) -> None:
        """A problem with a cell, or with the row where the table has no such column."""
        self._report.problem(block.cell(row, self._header.get(name, 0)), name, message)

    def _report_overlaps(self, columns: Columns) -> None:
        furthest = 0         # the row so far that ends last
        blamed: set[int] = set()
        for index in range(1, len(columns.starts)):
            earlier, later = sorted((index, furthest), key=self._lines.__getitem__)
            if columns.starts[index] < columns.ends[furthest] and later not in blamed:
                blamed.add(later)
                self._report.problem(
                    Text("", False, self._lines[later], 1), "",
                    f"[{columns.starts[later]}, {columns.ends[later]}) overlaps line {self._lines[earlier]} "
                    f"[{columns.starts[earlier]}, {columns.ends[earlier]}); no row of a table covers another")
            if columns.ends[index] > columns.ends[furthest]:
                furthest = index


def _ordered(ends: array[int], starts: array[int]) -> bool:
    """True when each of `starts` is at or after the one of `ends` before it."""
    return all(map(le, ends, islice(starts, 1, None)))
