"""A draft -> the new text: only the spans that must change are replaced.

First each region's fields are settled: a place, length or offset that is implied and still true
stays unwritten, any other is written in the units that stand there. Then the fields are compared
with those in the text, and the differences become replacements of spans. A new region is written in
the style, flow or block, of its neighbours. Nothing here knows what an edit meant.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

from regionfs.manifest import edit_text as places
from regionfs.manifest.edit_draft import Draft, Value
from regionfs.manifest.edit_list import Settled, list_changes
from regionfs.manifest.edit_text import MapText, Replacement, after_line, column, line_start, trimmed
from regionfs.manifest.edit_words import ORDER, pair, quotes, state, value_text, written
from regionfs.regions import Kind
from regionfs.units import align_up, parse_size


def render(old: MapText, draft: Draft) -> str:
    """The whole new text."""
    settled = list(_settle(draft))
    changes = [*_size_change(old, draft), *_field_changes(old, settled)]
    return _apply(old, [*changes, *list_changes(old, settled)])


def _settle(draft: Draft) -> Iterator[Settled]:
    pos, seen = 0, set()
    for one in draft.regions:
        fields, region = dict(one.fields), one.region
        # a place that is not written must still follow from what stands before
        implied = align_up(pos, parse_size(str(fields["align"]))) if "align" in fields else pos
        copy = one.item is None or one.item in seen
        if "start" in fields or region.start != implied:
            fields.pop("align", None)
            state(fields, "start", region.start)
        if "length" in fields or one.tail != region.offset + region.length:
            state(fields, "length", region.length)
        if region.kind in (Kind.SOURCE, Kind.DATA) and ("offset" in fields or region.offset):
            state(fields, "offset", region.offset)
        if one.item is not None:
            seen.add(one.item)
        yield Settled({key: fields[key] for key in sorted(fields, key=ORDER.__getitem__)} if copy else fields,
                      None if copy else one.item)
        pos = region.end


def _size_change(old: MapText, draft: Draft) -> list[Replacement]:
    end = max((one.region.end for one in draft.regions), default=0)
    fields: dict[str, Value] = {key: field.value for key, field in old.file.fields.items()}
    if "size" in fields or draft.size != end:
        state(fields, "size", draft.size)
    return _mapping_changes(old, old.file, fields)


def _field_changes(old: MapText, settled: Iterable[Settled]) -> Iterator[Replacement]:
    for one in settled:
        if one.item is not None:
            yield from _mapping_changes(old, old.items[one.item], one.fields)


def _mapping_changes(old: MapText, mapping: places.Mapping, fields: Mapping[str, Value]) -> list[Replacement]:
    quoted = quotes(old, mapping)
    present = mapping.fields
    changes = [Replacement(field.start, trimmed(old.text, field), value_text(key, fields[key], quoted))
               for key, field in present.items() if key in fields and fields[key] != field.value]
    kept = [key for key in present if key in fields]
    if not kept:  # nothing to hold on to
        return [Replacement(mapping.start, trimmed(old.text, mapping), written(old, mapping, fields))]
    for key in sorted(set(fields) - set(present), key=ORDER.__getitem__):
        changes.append(_added(old, mapping, kept, pair(key, fields[key], quoted), ORDER[key]))
    for gone, run in groupby(present, key=lambda key: key not in fields):
        if gone:
            changes.append(_dropped(old, mapping, list(run)))
    return changes


def _added(old: MapText, mapping: places.Mapping, kept: Sequence[str], text: str, rank: int) -> Replacement:
    after = next((key for key in kept if ORDER[key] > rank), None)
    if mapping.flow:
        at = mapping.fields[kept[-1]].end if after is None else mapping.fields[after].key
        return Replacement(at, at, f", {text}" if after is None else f"{text}, ")
    indent = " " * column(old.text, mapping.fields[next(iter(mapping.fields))].key)
    if after is not None:
        at = mapping.fields[after].key
        return Replacement(at, at, f"{text}{old.newline}{indent}")
    last = mapping.fields[kept[-1]]
    at = after_line(old.text, last.end)
    return Replacement(at, at, f"{indent}{text}{old.newline}")


def _dropped(old: MapText, mapping: places.Mapping, run: Sequence[str]) -> Replacement:
    keys = list(mapping.fields)
    first, last = mapping.fields[run[0]], mapping.fields[run[-1]]
    place, rest = keys.index(run[0]), keys[keys.index(run[-1]) + 1:]
    if rest and (mapping.flow or place == 0):
        return Replacement(first.key, mapping.fields[rest[0]].key, "")
    if mapping.flow:
        return Replacement(mapping.fields[keys[place - 1]].end, last.end, "")
    return Replacement(line_start(old.text, first.key), after_line(old.text, last.end), "")


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
