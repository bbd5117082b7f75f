"""Random sequences of edits against rows of bytes, and what edits must never touch.

The oracle holds each declared region as a list with one cell per byte, in the order of the text.
It knows the contract of `regionfs map` and nothing of the code that edits.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from regionfs.errors import RegionfsError
from regionfs.manifest.edit import Edited, edit_text
from regionfs.manifest.edit_draft import Change, Value
from regionfs.manifest.edit_ops import (
    add,
    assign,
    cut,
    insert,
    merge,
    move,
    remove,
    resize,
    resize_file,
    split,
)
from regionfs.manifest.schema import FileSpec
from regionfs.plan import plan_read
from regionfs.regions import Kind

SIZES = {"a": 300, "b": 450, "c": 64}
BYTES = bytes(range(65, 85))
STEPS = 8
Cell = tuple[str, int, bool] | int | str | None  # source byte, data byte, "E", hole, nothing


class InvalidError(Exception):
    """The contract refuses this edit."""


@dataclass
class Row:
    """One declared region."""

    start: int
    cells: list[Cell]
    over: bool = False

    @property
    def end(self) -> int:
        return self.start + len(self.cells)


@dataclass
class Model:
    """What the file must be. `stated`: its size is written."""

    rows: list[Row] = field(default_factory=list)
    size: int = 0
    stated: bool = True

    def cells(self) -> list[Cell]:
        out: list[Cell] = [0] * self.size
        for row in self.rows:
            out[row.start:row.end] = row.cells
        return out

    def settle(self) -> None:
        """Refuse what the manifest refuses, and follow the end of a file without a size."""
        end = max((row.end for row in self.rows), default=0)
        if not self.stated:
            self.size = max(self.size, end)
        if end > self.size:
            raise InvalidError
        for index, row in enumerate(self.rows):
            for below in self.rows[:index]:
                if not row.over and row.start < below.end and below.start < row.end:
                    raise InvalidError


def source_cells(rng: random.Random) -> tuple[dict[str, Value], list[Cell]]:
    """A random kind: fields without a start, and what they show."""
    kind = rng.choice(("source", "source", "source", "data", "hole", "error"))
    if kind in ("hole", "error"):
        length = rng.randint(1, 60)
        return {"length": str(length), kind: "true"}, [0 if kind == "hole" else "E"] * length
    name = rng.choice("abc")
    size = SIZES[name] if kind == "source" else len(BYTES)
    offset = rng.choice((0, 0, rng.randrange(size)))
    length = rng.choice((size - offset, rng.randint(1, min(80, size - offset))))
    writable = kind == "source" and rng.random() < 0.2
    fields: dict[str, Value] = {}
    if length != size - offset or rng.random() < 0.3:
        fields["length"] = rng.choice((str(length), hex(length)))
    fields[kind] = name if kind == "source" else data_value(rng)
    if offset:
        fields["offset"] = str(offset)
    if writable:
        fields["access"] = "rw"
    cells = [(name, at, writable) if kind == "source" else BYTES[at] for at in range(offset, offset + length)]
    return fields, cells


def data_value(rng: random.Random) -> dict[str, str]:
    return rng.choice(({"hex": BYTES.hex()}, {"text": BYTES.decode()}, {"base64": "QUJDREVGR0hJSktMTU5PUFFSU1Q="}))


# -- the text -------------------------------------------------------------------------------------------

HEAD = "# top\nregionfs: 1   # version\n\nfiles:\n  other: {whole: a}    # kept\n"
TAIL = "  # after\n  'last one':\n    regions: [ {source:   b} ]   # odd   spacing\n# end\n"


def flow(fields: dict[str, Value], quote: str = "") -> str:
    def shown(key: str, value: Value) -> str:
        if isinstance(value, dict):
            return flow(value, quote)
        quoted = quote or ('"' if key in ("hex", "base64", "text") else "")
        bare = value == "true" or (value.isdecimal() and key != "hex")
        return value if bare else f"{quoted}{value}{quoted}"
    return "{" + ", ".join(f"{quote}{key}{quote}: {shown(key, value)}" for key, value in fields.items()) + "}"


def block(fields: dict[str, Value], indent: str) -> str:
    lines = []
    for key, value in fields.items():
        if isinstance(value, dict):
            lines.append(f"{key}:\n{indent}  {flow(value)[1:-1]}")
        else:
            lines.append(f"{key}: {value}")
    return f"\n{indent}".join(lines)


def write(rng: random.Random, model: Model, items: list[dict[str, Value]]) -> str:
    style = rng.choice(("flow items", "block items", "mixed", "flow list", "lines of a flow list", "json"))
    size = f"    size: {model.size}  # bytes\n" if model.stated else ""
    if style in ("flow list", "json"):
        quote = '"' if style == "json" else ""
        body = f"    regions: [{', '.join(flow(item, quote) for item in items)}]\n"
    elif style == "lines of a flow list":
        rows = "".join(f"      {flow(item)}, # r{n}\n      # keep {n}\n" for n, item in enumerate(items))
        body = f"    regions: [\n{rows}    ]\n"
    else:
        rows = ""
        for number, item in enumerate(items):
            in_flow = style == "flow items" or (style == "mixed" and rng.random() < 0.5)
            shown = flow(item) if in_flow else block(item, " " * 9)
            rows += f"      # keep {number}\n      -  {shown} # r{number}\n"
        body = f"    regions:  # list\n{rows}" if items else "    regions: []\n"
    text = f"{HEAD}  f:\n{size}{body}{TAIL}"
    return text.replace("\n", "\r\n") if rng.random() < 0.1 else text


def first(rng: random.Random) -> tuple[Model, str]:
    """A random file and its text."""
    model, items, pos = Model(stated=rng.random() < 0.6), [], 0
    for _ in range(rng.randint(0, 6)):
        fields, cells = source_cells(rng)
        way = rng.choice(("start", "follow", "align"))
        if way == "start":
            pos += rng.randint(0, 40)
            fields = {"start": str(pos), **fields}
        elif way == "align":
            align = rng.choice((8, 32))
            pos = -(-pos // align) * align
            fields = {**fields, "align": str(align)}
        model.rows.append(Row(pos, cells))
        items.append(fields)
        pos += len(cells)
    model.size = pos + rng.choice((0, 100)) * model.stated
    return model, write(rng, model, items)


# -- the edits: a change, and the same on the model ---------------------------------------------------------


def named(rng: random.Random, model: Model) -> tuple[str, int]:
    """A region by a start that only it has."""
    starts = [row.start for row in model.rows]
    index = rng.choice([at for at, start in enumerate(starts) if starts.count(start) == 1])
    return rng.choice((f"@{starts[index]}", f"regions[{index}]")), index


def do_add(rng: random.Random, model: Model) -> Change:
    fields, cells = source_cells(rng)
    over = rng.random() < 0.4
    start = rng.randint(0, model.size + 20)
    if over:
        fields["over"] = "true"
    place = 1 + max((at for at, row in enumerate(model.rows) if row.start < start + len(cells)), default=-1)
    model.rows.insert(place, Row(start, cells, over))
    return add({"start": str(start), **fields})


def do_append(rng: random.Random, model: Model) -> Change:
    fields, cells = source_cells(rng)
    model.rows.append(Row(model.rows[-1].end, cells))
    return add(fields)


def do_remove(rng: random.Random, model: Model) -> Change:
    name, index = named(rng, model)
    del model.rows[index]
    return remove([name])


def do_move(rng: random.Random, model: Model) -> Change:
    name, index = named(rng, model)
    model.rows[index].start = start = rng.randint(0, model.size)
    return move(name, start)


def do_assign(rng: random.Random, model: Model) -> Change:
    name, index = named(rng, model)
    fields, cells = source_cells(rng)
    kind = next(key for key in ("source", "data", "hole", "error") if key in fields)
    row = model.rows[index]
    if kind in ("source", "data"):
        row.cells = cells
        keys: dict[str, Value | None] = {**fields, "length": str(len(cells)), "offset": fields.get("offset", "0"),
                                         **({"access": fields.get("access", "ro")} if kind == "source" else {})}
    else:
        row.cells, keys = [cells[0]] * len(row.cells), {kind: "true"}
    return assign(name, keys)


def do_split(rng: random.Random, model: Model) -> Change:
    position = rng.randrange(model.size)
    index = max((at for at, row in enumerate(model.rows) if row.start <= position < row.end), default=None)
    if index is None or model.rows[index].start == position:
        raise InvalidError(split([position]))
    row = model.rows[index]
    at = position - row.start
    model.rows[index:index + 1] = [Row(row.start, row.cells[:at], row.over), Row(position, row.cells[at:], row.over)]
    return split([position])


def take_out(model: Model, start: int, end: int) -> None:
    rows = []
    for row in model.rows:
        left, right = max(start - row.start, 0), max(end - row.start, 0)
        rows += [Row(row.start, row.cells[:left], row.over), Row(max(row.start, end), row.cells[right:], row.over)]
    model.rows = [row for row in rows if row.cells]


def do_cut(rng: random.Random, model: Model) -> Change:
    start = rng.randrange(model.size)
    length = rng.randint(1, min(120, model.size - start))
    close = rng.random() < 0.5
    take_out(model, start, start + length)
    if close:
        model.size -= length
        for row in model.rows:
            row.start -= length if row.start >= start + length else 0
    return cut(start, length, close=close)


def do_insert(rng: random.Random, model: Model) -> Change:
    start = rng.randint(0, model.size)
    fields, cells = source_cells(rng)
    if rng.random() < 0.3:
        fields, cells = {"length": "17"}, [None] * 17
    rows, place = [], 0
    for row in model.rows:
        at = max(start - row.start, 0)
        rows += [part for part in (Row(row.start, row.cells[:at], row.over),) if part.cells]
        place = len(rows) if row.start < start else place
        rows += [part for part in (Row(max(row.start, start) + len(cells), row.cells[at:], row.over),) if part.cells]
    if cells[0] is not None:
        rows.insert(place, Row(start, cells))
    model.rows, model.size = rows, model.size + len(cells)
    return insert(start, fields)


def do_shrink(rng: random.Random, model: Model) -> Change:
    name, index = named(rng, model)
    row = model.rows[index]
    last = row.end == model.size
    length = rng.randint(1, len(row.cells))
    row.cells = row.cells[:length]
    if last and not model.stated:
        model.size = max(row.end for row in model.rows)
    return resize(name, length)


def do_resize_file(rng: random.Random, model: Model) -> Change:
    model.size, model.stated = rng.randint(0, model.size + 100), True
    return resize_file(model.size)


def do_merge(rng: random.Random, model: Model) -> Change:
    return merge()


OPS = (do_add, do_add, do_append, do_remove, do_move, do_assign, do_split, do_split, do_cut, do_cut, do_insert,
       do_insert, do_shrink, do_resize_file, do_merge)


# -- the comparison -------------------------------------------------------------------------------------------


def shown(file: FileSpec) -> list[Cell]:
    """The file as the planner gives it, one cell per byte."""
    out: list[Cell] = []
    for mapping in plan_read(file.regions, 0, file.regions.size):
        places = range(mapping.address, mapping.address + mapping.length)
        match mapping.kind:
            case Kind.SOURCE:
                out += [(mapping.source, at, mapping.writable) for at in places]
            case Kind.DATA:
                out += [mapping.data[at] for at in places]
            case Kind.HOLE:
                out += [0] * mapping.length
            case Kind.ERROR:
                out += ["E"] * mapping.length
    return out


def comments(text: str) -> list[str]:
    """Comments that have a line for themselves."""
    return re.findall(r"^ *(# .*?)\r?$", text, re.MULTILINE)


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Where the text would be; the sources are there."""
    for name, size in SIZES.items():
        (tmp_path / name).write_bytes(bytes(size))
    return tmp_path / "m.yaml"


@pytest.mark.parametrize("seed", range(400))
def test_random_edits(manifest: Path, seed: int) -> None:
    """After each step the map equals the oracle, or both refuse; comments and other files stay as they were."""
    rng = random.Random(seed)
    model, text = first(rng)
    for _ in range(STEPS):
        rows = [Row(row.start, list(row.cells), row.over) for row in model.rows]
        trial = Model(rows, model.size, model.stated)
        usable = [op for op in OPS if not (not rows and op in (do_append, do_remove, do_move, do_assign, do_shrink))
                  and (model.size or op not in (do_split, do_cut))]
        try:
            op = rng.choice(usable)
            change = op(rng, trial)
            trial.settle()
        except InvalidError as refused:
            if refused.args:
                change = refused.args[0]
            with pytest.raises(RegionfsError):
                edit_text(text, manifest, "f", change)
            continue
        except IndexError:  # no region has a start of its own
            continue
        edited = edit_text(text, manifest, "f", change)
        if op is do_merge:
            trial.rows = merged(trial.rows)
            assert model.cells() == trial.cells()
        assert trial.cells() == shown(edited.after), f"{op.__name__}\n{text}\n{edited.new}"
        check_untouched(edited)
        model, text = trial, edited.new
        model.stated = model.stated or re.search(r"^ {4}size:", text, re.MULTILINE) is not None


def merged(rows: list[Row]) -> list[Row]:
    """Rows that go on in each other joined, by the order of their starts; each stays at the first's place."""
    kept = list(rows)
    order = sorted(range(len(rows)), key=lambda at: rows[at].start)
    head = order[0] if order else 0
    gone = set()
    for at in order[1:]:
        between = rows[min(head, at) + 1:max(head, at)]
        crossed = any(row.start < rows[at].end and rows[at].start < row.end for row in between)
        if goes_on(kept[head], kept[at]) and not crossed:
            kept[head] = Row(kept[head].start, kept[head].cells + kept[at].cells, kept[head].over)
            gone.add(at)
        else:
            head = at
    return [row for at, row in enumerate(kept) if at not in gone]


def goes_on(first_row: Row, second: Row) -> bool:
    last, next_ = first_row.cells[-1], second.cells[0]
    if first_row.end != second.start or first_row.over != second.over or type(last) is not type(next_):
        return False
    if isinstance(last, tuple) and isinstance(next_, tuple):
        return (last[0], last[1] + 1, last[2]) == next_
    if isinstance(last, int) and isinstance(next_, int) and last:
        return last + 1 == next_  # BYTES go up by one
    return last == next_


def check_untouched(edited: Edited) -> None:
    """Everything around the file, and every comment line in it."""
    newline = "\r\n" if "\r\n" in edited.old else "\n"
    head, tail = HEAD.replace("\n", newline), TAIL.replace("\n", newline)
    assert (head, tail) == (edited.new[:len(head)], edited.new[-len(tail):])
    assert comments(edited.old) == comments(edited.new)
    assert ("\n" in edited.new.replace("\r\n", "")) == ("\n" in edited.old.replace("\r\n", ""))
