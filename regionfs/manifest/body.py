"""What the bytes of a composite file are: a region map of a fixed size, or the whole of one source. Pure.

Two kinds with one interface, so that who only asks need not know which it is. The I/O of each is regionfs.content.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from regionfs.regions import Kind, Region, RegionMap

_settle = object.__setattr__  # of a field of a frozen value, when it is made


def _follows() -> Any:
    """A field that follows from the others, and that every open asks for."""
    return field(init=False, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Mapped:
    """Bytes where a region map says; its size is fixed."""

    regions: RegionMap
    writable: bool = _follows()              # any region is rw
    sources: tuple[str, ...] = _follows()    # keys of the sources its bytes come from
    rw_sources: frozenset[str] = _follows()  # keys of the sources it may write to

    def __post_init__(self) -> None:
        _settle(self, "writable", self.regions.writable)
        _settle(self, "sources", tuple(self.regions.names))
        _settle(self, "rw_sources", self.regions.writable_names)

    @property
    def needs(self) -> Mapping[str, int]:
        """Bytes that each of them must have at least."""
        return self.regions.source_ends()

    @property
    def count(self) -> int:
        """How many regions people are told of."""
        return len(self.regions)

    @property
    def digest(self) -> bytes:
        """Equal only for what shows the same ranges of the same source keys."""
        return self.regions.digest()

    def has_unaligned_errors(self, block: int) -> bool:
        """True when an error region shares a `block` of bytes with others."""
        return self.regions.has_unaligned_errors(block)

    def as_map(self, size: int) -> RegionMap:
        """Its region map, whatever the `size`."""
        return self.regions

    def read_only(self) -> Mapped:
        """The same bytes without access to write."""
        return Mapped(RegionMap(self.regions.size, (replace(region, writable=False) for region in self.regions)))


@dataclass(frozen=True, slots=True)
class Whole:
    """All bytes of one source, whatever its size is."""

    source: str  # key in Manifest.sources
    writable: bool = False
    sources: tuple[str, ...] = _follows()    # keys of the sources its bytes come from
    rw_sources: frozenset[str] = _follows()  # keys of the sources it may write to

    def __post_init__(self) -> None:
        _settle(self, "sources", (self.source,))
        _settle(self, "rw_sources", frozenset(self.sources if self.writable else ()))

    @property
    def needs(self) -> Mapping[str, int]:
        """None: it follows the size of its source."""
        return {}

    @property
    def count(self) -> int:
        """How many regions people are told of."""
        return 1

    @property
    def digest(self) -> bytes:
        """Equal only for the whole of the same source key."""
        return os.fsencode(f"whole\0{self.source}")

    def has_unaligned_errors(self, block: int) -> bool:
        """Never: it has no error region."""
        return False

    def as_map(self, size: int) -> RegionMap:
        """One region over `size` bytes."""
        return RegionMap(size, [Region(0, size, Kind.SOURCE, self.source, 0, self.writable)] if size else [])

    def read_only(self) -> Whole:
        """The same bytes without access to write."""
        return Whole(self.source)


Body = Mapped | Whole
