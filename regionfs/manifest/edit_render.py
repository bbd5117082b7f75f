"""A draft -> the new text: only the spans that must change are replaced.

First each region's fields are settled: a place, length or offset that is implied and still true
stays unwritten, any other is written in the units that stand there. Then the fields are compared
with those in the text, and the differences become replacements of spans. A new region is written in
the style, flow or block, of its neighbours. Nothing here knows what an edit meant.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from regionfs.manifest import edit_text as places
from regionfs.manifest.edit_ops import Draft, Value
from regionfs.manifest.edit_text import MapText, after_line, line_start
from regionfs.manifest.parse import misread
from regionfs.manifest.region import KEYS
from regionfs.regions import Kind
from regionfs.units import align_up, format_size, parse_size

_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./+-]*(?: [A-Za-z0-9_./+-]+)*")
_COMMA = re.compile(r"(?:\s|#[^\n]*\n)*,")         # after an item of a flow list
_TAIL = re.compile(r"[ \t]*(?:#[^\n]*)?\r?\n")   # nothing more on the line
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_VERBATIM = {"start", "length", "offset", "align", "size", "hole", "error", "over", "access"}
_ORDER = {key: rank for rank, key in enumerate((*KEYS, "size", "mode", "regions"))}


class Replacement(NamedTuple):
    """[start, end) of the text becomes `text`. Sorted, an insertion comes before a removal beside it."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class _Settled:
    """A region as it will be written; `item` is the one it changes, None when it is new."""

    fields: dict[str, Value]
    item: int | None


def render(old: MapText, draft: Draft) -> str:
    """The whole new text."""
    settled = list(_settle(draft))
    changes = [*_size_change(old, draft), *_field_changes(old, settled)]
    changes += _flow_list(old, settled) if old.flow else _block_list(old, settled)
    return _apply(old, changes)


def scalar(text: str) -> str:
    """`text` as a YAML string: plain where every reader takes it for a string, else in double quotes."""
    if _PLAIN.fullmatch(text) and misread(text) is None:
        return text
    return '"' + "".join(_escaped(letter) for letter in text) + '"'


def flow_mapping(fields: Mapping[str, Value], *, quoted: bool = False) -> str:
    """`fields` as {key: value}; keys in quotes where `quoted`, as JSON wants them."""
    return "{" + ", ".join(_pair(key, value, quoted) for key, value in fields.items()) + "}"


def _escaped(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    return letter if letter.isprintable() else f"\\U{ord(letter):08x}"


def _pair(key: str, value: Value, quoted: bool) -> str:
    word = f'"{key}"' if quoted else key
    return f"{word}: {_value(key, value, quoted)}"


def _value(key: str, value: Value, quoted: bool) -> str:
    if isinstance(value, dict):
        return flow_mapping(value, quoted=quoted)
    if key not in _VERBATIM:
        return scalar(value) if not quoted else '"' + scalar(value).strip('"') + '"'
    return value if not quoted or value.isdecimal() or value == "true" else f'"{value}"'


def _settle(draft: Draft) -> Iterator[_Settled]:
    pos, seen = 0, set()
    for one in draft.regions:
        fields, region = dict(one.fields), one.region
        # a place that is not written must still follow from what stands before
        implied = align_up(pos, parse_size(str(fields["align"]))) if "align" in fields else pos
        copy = one.item is None or one.item in seen
        if "start" in fields or region.start != implied:
            fields.pop("align", None)
            _state(fields, "start", region.start)
        if "length" in fields or one.tail != region.offset + region.length:
            _state(fields, "length", region.length)
        if region.kind in (Kind.SOURCE, Kind.DATA) and ("offset" in fields or region.offset):
            _state(fields, "offset", region.offset)
        if one.item is not None:
            seen.add(one.item)
        yield _Settled({key: fields[key] for key in sorted(fields, key=_ORDER.__getitem__)} if copy else fields,
                       None if copy else one.item)
        pos = region.end


def _state(fields: dict[str, Value], key: str, value: int) -> None:
    """Write `value`, in the manner of what stood there, unless that says it already."""
    old = fields.get(key)
    if not isinstance(old, str):
        fields[key] = format_size(value)
    elif parse_size(old) != value:
        fields[key] = _like(old, value)


def _like(old: str, value: int) -> str:
    if old.startswith("0x"):
        return hex(value)
    if old.endswith("s") and value % 512 == 0:
        return f"{value // 512}s"
    return str(value) if old.isdecimal() and old != "0" else format_size(value)


def _size_change(old: MapText, draft: Draft) -> list[Replacement]:
    written = old.file.fields.get("size")
    end = max((one.region.end for one in draft.regions), default=0)
    fields: dict[str, Value] = {key: field.value for key, field in old.file.fields.items()}
    if written is not None or draft.size != end:
        _state(fields, "size", draft.size)
    return _mapping_changes(old, old.file, fields)


def _field_changes(old: MapText, settled: Iterable[_Settled]) -> Iterator[Replacement]:
    for one in settled:
        if one.item is not None:
            yield from _mapping_changes(old, old.items[one.item], one.fields)


def _mapping_changes(old: MapText, mapping: places.Mapping, fields: Mapping[str, Value]) -> list[Replacement]:
    quoted = _quotes(old, mapping)
    present = mapping.fields
    changes = [Replacement(field.start, _trimmed(old.text, field), _value(key, fields[key], quoted))
               for key, field in present.items() if key in fields and fields[key] != field.value]
    kept = [key for key in present if key in fields]
    if not kept:  # nothing to hold on to
        return [Replacement(mapping.start, _trimmed(old.text, mapping), _written(old, mapping, fields))]
    for key in sorted(set(fields) - set(present), key=_ORDER.__getitem__):
        changes.append(_added(old, mapping, kept, _pair(key, fields[key], quoted), _ORDER[key]))
    for gone, run in groupby(present, key=lambda key: key not in fields):
        if gone:
            changes.append(_dropped(old, mapping, list(run)))
    return changes


def _added(old: MapText, mapping: places.Mapping, kept: Sequence[str], pair: str, rank: int) -> Replacement:
    after = next((key for key in kept if _ORDER[key] > rank), None)
    if mapping.flow:
        at = mapping.fields[kept[-1]].end if after is None else mapping.fields[after].key
        return Replacement(at, at, f", {pair}" if after is None else f"{pair}, ")
    indent = " " * _column(old.text, mapping.fields[next(iter(mapping.fields))].key)
    if after is not None:
        at = mapping.fields[after].key
        return Replacement(at, at, f"{pair}{old.newline}{indent}")
    last = mapping.fields[kept[-1]]
    at = after_line(old.text, last.end)
    return Replacement(at, at, f"{indent}{pair}{old.newline}")


def _dropped(old: MapText, mapping: places.Mapping, run: Sequence[str]) -> Replacement:
    keys = list(mapping.fields)
    first, last = mapping.fields[run[0]], mapping.fields[run[-1]]
    place, rest = keys.index(run[0]), keys[keys.index(run[-1]) + 1:]
    if rest and (mapping.flow or place == 0):
        return Replacement(first.key, mapping.fields[rest[0]].key, "")
    if mapping.flow:
        return Replacement(mapping.fields[keys[place - 1]].end, last.end, "")
    return Replacement(line_start(old.text, first.key), after_line(old.text, last.end), "")


def _trimmed(text: str, field: places.Field | places.Mapping) -> int:
    """The end of a value without the line breaks that a literal block takes along."""
    end = field.end
    while end > field.start and text[end - 1].isspace():
        end -= 1
    return end


def _block_list(old: MapText, settled: Sequence[_Settled]) -> Iterator[Replacement]:
    kept = {one.item for one in settled}
    for index, item in enumerate(old.items):
        if index not in kept:
            yield Replacement(line_start(old.text, item.dash), after_line(old.text, item.end), "")
    if not settled and old.items:
        colon = old.text.index(":", old.file.fields["regions"].key) + 1
        yield Replacement(colon, colon, " []")
    at = line_start(old.text, old.items[0].dash) if old.items else 0
    for one in settled:
        if one.item is not None:
            at = after_line(old.text, old.items[one.item].end)
        else:
            yield Replacement(at, at, _block_item(old, one.fields))


def _block_item(old: MapText, fields: Mapping[str, Value]) -> str:
    near = old.items[0]
    dash = " " * _column(old.text, near.dash)
    gap = " " * max(1, _column(old.text, near.start) - len(dash) - 1)
    return f"{dash}-{gap}{_written(old, near, fields)}{old.newline}"


def _written(old: MapText, near: places.Mapping, fields: Mapping[str, Value]) -> str:
    """`fields` in the style of the region `near`, and where that stands."""
    if near.flow:
        return flow_mapping(fields, quoted=_quotes(old, near))
    indent = " " * _column(old.text, near.start)
    return f"{old.newline}{indent}".join(_pair(key, value, False) for key, value in fields.items())


def _flow_list(old: MapText, settled: Sequence[_Settled]) -> Iterator[Replacement]:
    kept = [one.item for one in settled if one.item is not None]
    quoted = _quotes(old, old.items[0] if old.items else old.file)
    if not kept and settled:
        yield _whole_list(old, settled, quoted)
        return
    for gone, run in groupby(range(len(old.items)), key=lambda index: index not in kept):
        if gone:
            yield from _dropped_items(old, list(run))
    for anchor, new in groupby(_anchored(settled), key=lambda pair: pair[0]):
        yield from _added_items(old, anchor, kept[0], [flow_mapping(fields, quoted=quoted) for _, fields in new])


def _anchored(settled: Sequence[_Settled]) -> Iterator[tuple[int | None, Mapping[str, Value]]]:
    """New regions, each with the kept item that it follows."""
    anchor = None
    for one in settled:
        if one.item is not None:
            anchor = one.item
        else:
            yield anchor, one.fields


def _added_items(old: MapText, anchor: int | None, first: int, texts: list[str]) -> Iterator[Replacement]:
    start = old.items[first if anchor is None else anchor].start
    indent = old.text[line_start(old.text, start):start]
    own_lines = not indent.strip()
    between = f",{old.newline}{indent}" if own_lines else ", "
    if anchor is None:
        yield Replacement(start, start, between.join((*texts, "")))
        return
    end = old.items[anchor].end
    comma = _COMMA.match(old.text, end)
    tail = _TAIL.match(old.text, comma.end() if comma else end) if own_lines else None
    if tail is None:
        yield Replacement(end, end, between.join(("", *texts)))
        return
    if comma is None:
        yield Replacement(end, end, ",")
    yield Replacement(tail.end(), tail.end(),
                      f"{indent}{between.join(texts)}{',' if comma else ''}{old.newline}")


def _whole_list(old: MapText, settled: Sequence[_Settled], quoted: bool) -> Replacement:
    field = old.file.fields["regions"]
    texts = [flow_mapping(one.fields, quoted=quoted) for one in settled]
    if not old.items and "#" in old.text[field.start:field.end]:
        return Replacement(field.start + 1, field.start + 1, ", ".join(texts))
    if old.items or old.file.flow:
        return Replacement(field.start, field.end, f"[{', '.join(texts)}]")
    indent = old.newline + " " * (_column(old.text, field.key) + 2) + "- "
    colon = old.text.index(":", field.key) + 1
    return Replacement(colon, field.end, indent + indent.join(texts))


def _dropped_items(old: MapText, run: Sequence[int]) -> Iterator[Replacement]:
    text, first, last = old.text, old.items[run[0]], old.items[run[-1]]
    lines = [_own_lines(old, old.items[index]) for index in run]
    comma = _COMMA.match(text, last.end)
    begin, end = first.start, comma.end() if comma else last.end
    if all(lines):
        yield from filter(None, lines)
    elif run[0] and run[-1] == len(old.items) - 1:
        yield Replacement(old.items[run[0] - 1].end, last.end, "")
    else:
        while text[end] in " \t":
            end += 1
        while text[end] in "\r\n" and text[begin - 1] in " \t":
            begin -= 1
        yield Replacement(begin, end, "")


def _own_lines(old: MapText, item: places.Mapping) -> Replacement | None:
    """The removal of the lines that an item of a flow list has for itself."""
    begin = line_start(old.text, item.start)
    comma = _COMMA.match(old.text, item.end)
    tail = _TAIL.match(old.text, comma.end() if comma else item.end)
    return Replacement(begin, tail.end(), "") if tail and not old.text[begin:item.start].strip() else None


def _quotes(old: MapText, mapping: places.Mapping) -> bool:
    return mapping.flow and any(old.text[field.key] == '"' for field in mapping.fields.values())


def _column(text: str, index: int) -> int:
    return index - line_start(text, index)


def _apply(old: MapText, changes: Iterable[Replacement]) -> str:
    parts, pos = [""], 0
    for change in sorted(changes, key=lambda change: (change.start, change.end)):
        parts += [part for part in (old.text[pos:change.start],) if part]
        if change.start == len(old.text) and change.text.endswith(old.newline) and not parts[-1].endswith("\n"):
            # a line after a last line that has no end
            parts.append(old.newline + change.text.removesuffix(old.newline))
        elif change.text:
            parts.append(change.text)
        pos = change.end
    return "".join((*parts, old.text[pos:]))
