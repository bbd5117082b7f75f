"""A region map under edit: the regions as declared, each with its resolved place, and their names.

The order is the text's, so that `over` keeps its meaning. Whether a place is written or implied is
for the renderer; what an edit means is for edit_ops.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from regionfs.errors import UsageError
from regionfs.regions import Region
from regionfs.units import format_size, parse_size

FLAGS = ("hole", "error", "over")  # keys whose value is true

_NAME = re.compile(r"([0-9]{1,9})|regions\[([0-9]{1,9})\]")
Value = str | dict[str, str]
Change = Callable[["Draft"], "Draft"]


@dataclass(frozen=True, slots=True)
class Declared:
    """A region as the manifest declares it, and where that puts it."""

    region: Region
    fields: Mapping[str, Value]      # what is written, by key
    tail: int | None = None          # where in the source or data it ends when no length is written
    item: int | None = None          # its index in the text; a copy keeps it, a new one has none

    @property
    def over(self) -> bool:
        """True when it may cover others."""
        return self.fields.get("over") == "true"

    def clip(self, start: int, end: int) -> Declared:
        """The part inside [start, end)."""
        return replace(self, region=self.region.clip(start, end))

    def moved(self, start: int) -> Declared:
        """The same bytes at `start`."""
        return replace(self, region=self.region.moved(start))


Resolve = Callable[[Mapping[str, Value], int], Declared]


@dataclass(frozen=True, slots=True)
class Draft:
    """A region map under edit. `resolve` makes a Declared of fields and the end of what comes before."""

    regions: tuple[Declared, ...]
    size: int      # bytes
    stated: bool   # the size is written in the manifest
    shown: Sequence[int]  # starts of the regions that show, in order
    resolve: Resolve = field(compare=False)

    def find(self, name: str) -> int:
        """The index of the region that `name` means. Raises UsageError.

        "2" is the one that `regionfs show` lists with this number, "@1MiB" the one that starts there, and
        "regions[2]" the one that messages about the manifest call so: the third of the text. Both count from 0;
        they are the same region unless one covers another or the text is in another order.
        """
        if match := _NAME.fullmatch(name):
            number, item = (int(text) if text else None for text in match.groups())
            if item is not None and item < len(self.regions):
                return item
            if number is not None and number < len(self.shown):
                found = self.at(self.shown[number])
                assert found is not None, f"nothing shows at {self.shown[number]}"
                return found
            count = len(self.shown if item is None else self.regions)
            counted = f"they count from 0 to {count - 1}" if count else "there are none"
            raise UsageError(f"no {'region ' if item is None else ''}{name}; {counted}")
        if not name.startswith("@"):
            raise UsageError(f"{name!r} names no region; write its number in show, such as 2, or its start, "
                             "such as @1MiB")
        return self._starting(parse_size(name[1:]))

    def _starting(self, start: int) -> int:
        found = [index for index, one in enumerate(self.regions) if one.region.start == start]
        if len(found) == 1:
            return found[0]
        if found:
            names = " and ".join(f"regions[{index}]" for index in found)
            raise UsageError(f"{names} start at {format_size(start)}; write which")
        held = self.at(start)
        raise UsageError(f"no region starts at {format_size(start)}"
                         + ("" if held is None else f"; it lies in {self.label(held)}"))

    def label(self, index: int) -> str:
        """A region for people: 'regions[2] [1MiB, 64MiB)'."""
        region = self.regions[index].region
        return f"regions[{index}] [{format_size(region.start)}, {format_size(region.end)})"

    def at(self, position: int) -> int | None:
        """The index of the region that shows at `position`."""
        return next((index for index in reversed(range(len(self.regions)))
                     if self.regions[index].region.start <= position < self.regions[index].region.end), None)

    def grown(self) -> Draft:
        """With room for every region, where the size is not stated."""
        end = max((one.region.end for one in self.regions), default=0)
        return self if self.stated else replace(self, size=max(self.size, end))
