"""What each edit means, as a change of a draft: pure, no text and no file.

No edit but insert, a closing cut and resize changes the place of anything it does not name, and the
file's size changes only with those, or where a region is put past the end of a file whose size is
not stated.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from regionfs.errors import UsageError
from regionfs.manifest.edit_draft import Change, Declared, Draft, Value
from regionfs.manifest.region import KINDS
from regionfs.units import MAX_OFFSET, format_size, parse_size


def add(fields: Mapping[str, Value]) -> Change:
    """A new region where nothing lies, or over what lies there when it says over."""
    def change(draft: Draft) -> Draft:
        last = draft.regions[-1].region.end if draft.regions else 0
        new = draft.resolve(fields, last)
        place = len(draft.regions)
        if "start" in fields:
            place = 1 + max((index for index, one in enumerate(draft.regions)
                             if one.region.start < new.region.end), default=-1)
        return replace(draft, regions=(*draft.regions[:place], new, *draft.regions[place:])).grown()
    return change


def remove(names: Sequence[str]) -> Change:
    """Without these regions; what they covered shows again, and where nothing was is a hole."""
    def change(draft: Draft) -> Draft:
        gone = {draft.find(name) for name in names}
        return replace(draft, regions=tuple(one for index, one in enumerate(draft.regions) if index not in gone))
    return change


def assign(name: str, keys: Mapping[str, Value | None]) -> Change:
    """Other values for keys of a region; None takes the key away. A new kind replaces the old one."""
    def change(draft: Draft) -> Draft:
        old = draft.regions[index := draft.find(name)]
        fields: dict[str, Value] = dict(old.fields)
        kinds = {key for key in KINDS if keys.get(key) is not None}
        if kinds and old.region.kind not in kinds:
            for key in (old.region.kind, "offset", "access"):
                fields.pop(key, None)
            if "length" not in fields and kinds <= {"hole", "error"}:
                fields["length"] = format_size(old.region.length)
        fields.update({key: value for key, value in keys.items() if value is not None})
        for key, value in keys.items():
            if value is None and fields.pop(key, None) is None:
                raise UsageError(f"{draft.label(index)} has no {key}")
        placed = fields
        if not {"start", "align"} & set(keys):
            placed = {**{key: fields[key] for key in fields if key != "align"}, "start": str(old.region.start)}
        before = draft.regions[index - 1].region.end if index else 0
        new = replace(draft.resolve(placed, before), fields=fields, item=old.item)
        return _with(draft, index, new).grown()
    return change


def move(name: str, start: int) -> Change:
    """The region at another start; nothing else moves."""
    def change(draft: Draft) -> Draft:
        index = draft.find(name)
        _check_end(start + draft.regions[index].region.length)
        return _with(draft, index, draft.regions[index].moved(start)).grown()
    return change


def split(positions: Iterable[int]) -> Change:
    """A border at each position, inside the region that shows there."""
    def change(draft: Draft) -> Draft:
        for position in positions:
            index = draft.at(position)
            if index is None:
                raise UsageError(f"no region at {format_size(position)}; there is nothing to split")
            one = draft.regions[index]
            if one.region.start == position:
                raise UsageError(f"{draft.label(index)} starts there already")
            draft = _with(draft, index, one.clip(0, position), one.clip(position, one.region.end))
        return draft
    return change


def cut(start: int, length: int, *, close: bool = False) -> Change:
    """Nothing in [start, start + length); with `close`, what follows moves up and the file shrinks."""
    def change(draft: Draft) -> Draft:
        end = start + length
        if length <= 0 or end > draft.size:
            raise UsageError(f"[{start}, {end}) is empty or ends after the file, which has {draft.size} bytes")
        kept = []
        for one in draft.regions:
            if one.region.start < start:
                kept.append(one.clip(0, start))
            if one.region.end > end:
                rest = one.clip(end, one.region.end)
                kept.append(rest.moved(rest.region.start - length) if close else rest)
        return replace(draft, regions=tuple(kept), size=draft.size - length * close)
    return change


def insert(place: str | int, fields: Mapping[str, Value]) -> Change:
    """A new region, or room when only a length is given, at `place`, written so; what follows moves down."""
    start = parse_size(place)

    def change(draft: Draft) -> Draft:
        if start > draft.size:
            raise UsageError(f"{start} is after the file's end at {draft.size}; add puts a region there")
        room = set(fields) == {"length"}
        new = draft.resolve({**fields, "start": str(place), **({"hole": "true"} if room else {})}, 0)
        length = new.region.length
        _check_end(draft.size + length)
        moved, index = [], 0
        for one in draft.regions:
            if one.region.start < start:
                moved.append(one.clip(0, start))
                index = len(moved)
            if one.region.end > start:
                rest = one.clip(start, one.region.end)
                moved.append(rest.moved(rest.region.start + length))
        if not room:
            moved.insert(index, new)
        return replace(draft, regions=tuple(moved), size=draft.size + length)
    return change


def resize(name: str, length: int) -> Change:
    """The region with another length; nothing moves. The file ends with its last region if not stated."""
    def change(draft: Draft) -> Draft:
        old = draft.regions[index := draft.find(name)]
        _check_end(old.region.start + length)
        new = draft.resolve({**{key: value for key, value in old.fields.items() if key != "align"},
                             "start": str(old.region.start), "length": str(length)}, 0)
        draft = _with(draft, index, replace(new, fields=old.fields, tail=old.tail, item=old.item))
        if not draft.stated and old.region.end == draft.size:
            draft = replace(draft, size=0)
        return draft.grown()
    return change


def resize_file(size: int) -> Change:
    """The file with another size; regions stay as they are."""
    def change(draft: Draft) -> Draft:
        for index, one in enumerate(draft.regions):
            if one.region.end > size:
                raise UsageError(f"{draft.label(index)} would reach past a size of {size}; "
                                 "cut or resize it first")
        return replace(draft, size=size, stated=True)
    return change


def merge(names: Sequence[str] = ()) -> Change:
    """One region of those that go on in each other; of all that do when none is named."""
    def change(draft: Draft) -> Draft:
        chosen = sorted({draft.find(name) for name in names} if names else range(len(draft.regions)),
                        key=lambda index: draft.regions[index].region.start)
        kept, gone = list(draft.regions), set()
        head = before = chosen[0] if chosen else 0
        for index in chosen[1:]:
            if _goes_on(kept[head], kept[index]) and not _crossed(draft.regions, head, index):
                kept[head] = replace(kept[head], region=replace(kept[head].region, end=kept[index].region.end))
                gone.add(index)
            elif names:
                raise UsageError(f"{draft.label(index)} does not go on where {draft.label(before)} ends, in the file "
                                 "and in its source, with nothing between their layers")
            else:
                head = index
            before = index
        return replace(draft, regions=tuple(one for index, one in enumerate(kept) if index not in gone))
    return change


def _goes_on(first: Declared, second: Declared) -> bool:
    return second.region.continues(first.region) and first.over == second.over


def _crossed(regions: Sequence[Declared], head: int, index: int) -> bool:
    """True when another lies over or under `index` in a way that its joining `head` would turn round."""
    one = regions[index]
    between = regions[min(head, index) + 1:max(head, index)]
    return any((other.over or one.over) and other.region.start < one.region.end
               and one.region.start < other.region.end for other in between)


def _with(draft: Draft, index: int, *new: Declared) -> Draft:
    return replace(draft, regions=(*draft.regions[:index], *new, *draft.regions[index + 1:]))


def _check_end(end: int) -> None:
    if end > MAX_OFFSET:
        raise UsageError(f"it would end at {end}, after {MAX_OFFSET}")
