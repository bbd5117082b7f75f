"""A table's bytes -> lines and cells: CSV, plain or gzip, in blocks. Knows the form, not what a cell means.

A row is one line: a cell in quotes may hold commas, but no line break. Empty lines count, and say nothing.
"""

from __future__ import annotations

import csv
import zlib
from collections.abc import Callable, Iterator, Sequence
from itertools import compress
from typing import BinaryIO, NamedTuple

from regionfs.manifest.parse import Text
from regionfs.manifest.report import Reporter, clip
from regionfs.manifest.values import nearest

MAX_LINES = 1 << 24    # bounds memory (about 700 MB) and the time that a bomb can take
LINE_LIMIT = 1 << 16   # bytes
_PIECE = 1 << 18       # bytes of text in a block
_GZIP = b"\x1f\x8b"    # RFC 1952


class Block(NamedTuple):
    """Lines of a table and their cells."""

    numbers: Sequence[int]  # of the lines, counting from 1
    lines: Sequence[str]
    rows: Sequence[Sequence[str]]

    def cell(self, row: int, index: int) -> Text:
        """A cell with its place, as the readers of values take it."""
        line, column = self.lines[row], 0
        for _ in range(index):
            column = _after_cell(line, column)
        cells = self.rows[row]
        return Text(cells[index] if index < len(cells) else "", False, self.numbers[row], column + 1)

    def without(self, first: int) -> Block:
        """The block without its first lines."""
        return Block(self.numbers[first:], self.lines[first:], self.rows[first:])


def read_blocks(stream: BinaryIO, name: str, report: Reporter, limit: int | None = MAX_LINES) -> Iterator[Block]:
    """The table's lines in order, at least one. What makes the rest unreadable is a problem, and the end.

    `stream` is read from its beginning; `name` ends in .gz, or the bytes begin as gzip does, where it is that.
    `limit` bounds the lines.
    """
    magic = stream.read(len(_GZIP))
    stream.seek(0)
    read = stream.read
    if name.endswith(".gz") or magic == _GZIP:
        import gzip
        read = gzip.GzipFile(fileobj=stream).read
    for done, piece in _pieces(read, report):
        if limit is not None and done + piece.count(b"\n") > limit:
            raise report.fatal(limit + 1, 1, f"more than {limit} lines")
        block = _block(piece, done, report)
        if block.rows:
            yield block


def read_header(report: Reporter, block: Block, known: Sequence[str]) -> dict[str, int] | None:
    """Column -> index of its cell, from the first line. None after a problem: nothing can be read then."""
    order: dict[str, int] = {}
    before = report.count
    for index, name in enumerate(block.rows[0]):
        place = block.cell(0, index)
        if name in order:
            report.problem(place, "", f"the header names {clip(name)} twice")
        elif name not in known:
            near = nearest(name, known)
            hint = f"did you mean {near}?" if near else f"known are {', '.join(known)}"
            report.problem(place, "", f"'{clip(name)}' is no column; {hint}")
        order.setdefault(name, index)
    return order if report.count == before else None


def of_one_width(report: Reporter, block: Block, width: int) -> Block:
    """The rows that have a cell for every column; others are reported."""
    if set(map(len, block.rows)) <= {width}:
        return block
    right = [len(cells) == width for cells in block.rows]
    for row, is_right in enumerate(right):
        if not is_right:
            count = len(block.rows[row])
            report.problem(block.cell(row, 0), "", f"{count} cell{'s' * (count != 1)}; the header has {width}")
    numbers, lines, rows = block
    return Block(list(compress(numbers, right)), list(compress(lines, right)), list(compress(rows, right)))


def _pieces(read: Callable[[int], bytes], report: Reporter) -> Iterator[tuple[int, bytes]]:
    """Lines, each with its end, and how many came before them."""
    done, held = 0, b""
    while True:
        try:
            data = read(_PIECE)
        except (EOFError, zlib.error) as error:
            raise report.fatal(done + 1, 1, f"the gzip data are damaged: {error}") from None
        except OSError as error:
            if error.errno is not None:
                raise
            raise report.fatal(done + 1, 1, f"not gzip: {error}") from None
        if not data:
            break
        if end := data.rfind(b"\n") + 1:
            piece, held = held + data[:end], data[end:]
            yield done, piece
            done += piece.count(b"\n")
        else:
            held += data
        if len(held) > LINE_LIMIT:
            raise report.fatal(done + 1, 1, f"a line of more than {LINE_LIMIT} bytes")
    if held:
        yield done, held + b"\n"


def _block(piece: bytes, done: int, report: Reporter) -> Block:
    """The lines of `piece`, which come after `done` others, without those that are empty."""
    try:
        text = piece.decode("utf-8-sig" if not done else "utf-8")
    except UnicodeDecodeError as error:
        before = piece[:error.start]
        raise report.fatal(done + 1 + before.count(b"\n"), error.start - before.rfind(b"\n"),
                           f"not text: byte 0x{piece[error.start]:02x} is not UTF-8") from None
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    lines = text.split("\n")
    lines.pop()
    numbers: Sequence[int] = range(done + 1, done + 1 + len(lines))
    if "" in lines:
        numbers = list(compress(numbers, lines))
        lines = list(filter(None, lines))
    if '"' not in text:
        return Block(numbers, lines, [line.split(",") for line in lines])
    return Block(numbers, lines, [_cells(line, number, report) for number, line in zip(numbers, lines, strict=True)])


def _cells(line: str, number: int, report: Reporter) -> list[str]:
    """The cells of a line, some of which may be in quotes."""
    if '"' not in line:
        return line.split(",")
    try:
        return next(csv.reader((line,), strict=True))
    except csv.Error as error:
        report.problem(Text("", False, number, 1), "", f"not CSV: {error}")
        report.silence(Text("", False, number, 1))  # and has no cells that could be counted
        return []


def _after_cell(line: str, column: int) -> int:
    """Where the cell after the one at `column` begins."""
    quoted = False
    for position in range(column, len(line)):
        if line[position] == '"':
            quoted = not quoted
        elif line[position] == "," and not quoted:
            return position + 1
    return len(line)
