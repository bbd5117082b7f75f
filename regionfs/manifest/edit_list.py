"""Lists of regions in the text: lines go and come in a block list, items in a flow list.

Makes replacements of spans; comments on lines of their own stay whatever goes beside them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from regionfs.manifest import edit_text as places
from regionfs.manifest.edit_draft import Value
from regionfs.manifest.edit_text import MapText, Replacement, after_line, column, line_start
from regionfs.manifest.edit_words import flow_mapping, quotes, written

_COMMA = re.compile(r"(?:\s|#[^\n]*\n)*,")         # after an item of a flow list
_TAIL = re.compile(r"[ \t]*(?:#[^\n]*)?\r?\n")   # nothing more on the line


@dataclass(frozen=True, slots=True)
class Settled:
    """A region as it will be written; `item` is the one it changes, None when it is new."""

    fields: dict[str, Value]
    item: int | None


def list_changes(old: MapText, settled: Sequence[Settled]) -> Iterator[Replacement]:
    """What turns the list of regions in the text into `settled`, leaving kept regions alone."""
    return _flow_list(old, settled) if old.flow else _block_list(old, settled)


def _block_list(old: MapText, settled: Sequence[Settled]) -> Iterator[Replacement]:
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
    dash = " " * column(old.text, near.dash)
    gap = " " * max(1, column(old.text, near.start) - len(dash) - 1)
    return f"{dash}-{gap}{written(old, near, fields)}{old.newline}"


def _flow_list(old: MapText, settled: Sequence[Settled]) -> Iterator[Replacement]:
    kept = [one.item for one in settled if one.item is not None]
    quoted = quotes(old, old.items[0] if old.items else old.file)
    if not kept and settled:
        yield _whole_list(old, settled, quoted)
        return
    stays = set(kept)
    for gone, run in groupby(range(len(old.items)), key=lambda index: index not in stays):
        if gone:
            yield from _dropped_items(old, list(run))
    for anchor, new in groupby(_anchored(settled), key=lambda pair: pair[0]):
        yield from _added_items(old, anchor, kept[0], [flow_mapping(fields, quoted=quoted) for _, fields in new])


def _anchored(settled: Sequence[Settled]) -> Iterator[tuple[int | None, Mapping[str, Value]]]:
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


def _whole_list(old: MapText, settled: Sequence[Settled], quoted: bool) -> Replacement:
    field = old.file.fields["regions"]
    texts = [flow_mapping(one.fields, quoted=quoted) for one in settled]
    if not old.items and "#" in old.text[field.start:field.end]:
        return Replacement(field.start + 1, field.start + 1, ", ".join(texts))
    if old.items or old.file.flow:
        return Replacement(field.start, field.end, f"[{', '.join(texts)}]")
    indent = old.newline + " " * (column(old.text, field.key) + 2) + "- "
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
