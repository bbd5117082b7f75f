"""What format readers and writers take and give, and how a manifest is drafted from foreign paths.

A side file is described as a region map over the sources of the manifest: whoever may do I/O copies
it. What a format cannot say about the bytes raises FormatError with the region named; what it cannot
say about access becomes a note for people. Knows no format.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from regionfs.errors import RegionfsError
from regionfs.manifest.body import Mapped, Whole
from regionfs.manifest.schema import FileSpec, Manifest, SourceSpec
from regionfs.printable import is_utf8, shown_bytes
from regionfs.regions import Kind, Region, RegionMap
from regionfs.units import MAX_OFFSET

SECTOR = 512  # bytes; the unit of VMDK and device-mapper


class FormatError(RegionfsError):
    """A foreign file is not what its format says, or the format cannot say what is asked."""


class UnfitError(FormatError):
    """A foreign map is right in itself, but the sources here are not those it speaks of."""

    exit_status = 3  # as for a manifest whose sources do not fit

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self._lines = tuple(problems)

    @property
    def lines(self) -> tuple[str, ...]:
        """A line for each source."""
        return self._lines


@dataclass(frozen=True, slots=True)
class Foreign:
    """A foreign map to read. All paths are absolute."""

    path: Path                  # where it came from; relative paths in it are below its directory
    content: bytes
    manifest: Path              # where the manifest will be written
    name: str = ""              # of the composite file; "" leaves it to the reader
    source: Path | None = None  # the image a map speaks of, for formats that do not say


@dataclass(frozen=True, slots=True)
class Sum:
    """Bytes [start, end) of a source have this checksum, says `place`."""

    start: int
    end: int
    kind: str    # a name that hashlib knows
    digest: str  # hex, lower case
    place: str


@dataclass(frozen=True, slots=True)
class Claim:
    """What a foreign map says of one source. Who opens files compares (see fit)."""

    end: int = 0             # bytes that regions reach to
    place: str = ""          # the one that reaches so far, for messages
    rw_place: str = ""       # the first one that writes, "" where none does
    size: int | None = None  # bytes that the map speaks of in all
    exact: bool = False      # a file of another size is another image; else a larger one is told only
    raw: bool = False        # another program would look for a container in it
    sums: tuple[Sum, ...] = ()


@dataclass(frozen=True, slots=True)
class Imported:
    """What a reader gives. Notes are sentences for people; claims are by source key."""

    manifest: Manifest
    notes: tuple[str, ...] = ()
    claims: Mapping[str, Claim] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Composite:
    """A composite file to write down. `regions` is never None here: `whole` is one region."""

    manifest: Manifest
    path: str             # inside the mount
    regions: RegionMap
    out: Path             # absolute; the foreign file's place
    devices: frozenset[str] = frozenset()  # keys of sources that are block devices

    def source(self, key: str) -> Path:
        """The absolute path of a source. Raises FormatError for one that no text can hold."""
        path = self.manifest.sources[key].path
        self.check_text(path)
        return path

    def written(self, path: Path) -> str:
        """`path` as the foreign file should say it: relative where it lies below the foreign file's directory.

        Raises FormatError when that is not UTF-8.
        """
        here = self.out.parent
        name = path.relative_to(here) if path.is_relative_to(here) and ".." not in path.parts else path
        self.check_text(name)
        return str(name)

    def check_text(self, path: Path) -> None:
        """Raise FormatError for a path that no text can hold."""
        if not is_utf8(str(path)):
            raise FormatError(f'files["{self.path}"]: {shown_bytes(str(path))} is not UTF-8, which a foreign '
                              "map must be")

    def place(self, offset: int) -> str:
        """Name the region that byte `offset` lies in, for messages."""
        index = self.regions.first_after(offset)
        if index < len(self.regions) and self.regions.starts[index] <= offset:
            return f'files["{self.path}"].regions[{index}] [{self.regions.starts[index]}, {self.regions.ends[index]})'
        return f'files["{self.path}"]: the hole at {offset}'


@dataclass(frozen=True, slots=True)
class SideFile:
    """A file that goes next to an export: its bytes are those of `regions` over the manifest's sources."""

    path: Path
    regions: RegionMap


@dataclass(frozen=True, slots=True)
class Exported:
    """What a writer gives. Notes are sentences or command lines for people."""

    content: bytes
    side: SideFile | None = None
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Draft:
    """A manifest in the making; paths come as the foreign file writes them."""

    foreign: Foreign
    sources: dict[str, SourceSpec] = field(default_factory=dict)
    files: dict[str, FileSpec] = field(default_factory=dict)
    claims: dict[str, Claim] = field(default_factory=dict)

    def source(self, written: str | Path) -> str:
        """The key of the source at `written`, which is relative to the foreign file's directory.

        One file has one key: without `.` and `..`, relative where it lies below the manifest or was
        written relative to it, else absolute.
        """
        if not str(written) or "\0" in str(written):
            raise FormatError(f"{self.foreign.path}: {str(written)!r} cannot be a path in a manifest")
        here, beside = _plain(self.foreign.manifest.parent), _plain(self.foreign.path.parent)
        path = _plain(beside / written)
        if path.is_relative_to(here):
            key = str(path.relative_to(here))
        elif here == beside and not Path(written).is_absolute():
            key = os.path.relpath(path, os.path.realpath(here))
        else:
            key = str(path)
        if not is_utf8(key):
            raise FormatError(f"{self.foreign.path}: {shown_bytes(key)} cannot be a path in a manifest, which must "
                              "be UTF-8")
        self.sources.setdefault(key, SourceSpec(key, here / key))
        return key

    def take(self, region: Region, place: str) -> Region:
        """`region`, with its source asked for all its bytes by `place`."""
        if region.kind is not Kind.SOURCE:
            return region
        old, end = self.claims.get(region.source, Claim()), region.offset + region.length
        if end > old.end:
            old = self.claims[region.source] = replace(old, end=end, place=place)
        if region.writable and not old.rw_place:
            self.claims[region.source] = replace(old, rw_place=place)
        return region

    def claim(self, key: str, place: str, **more: Any) -> None:
        """Note what else `place` says of a source: fields of Claim."""
        old = self.claims.get(key, Claim())
        self.claims[key] = replace(old, place=old.place or place, **more)

    def named_source(self) -> str:
        """The key of the image the caller named. Raises FormatError when none was."""
        if self.foreign.source is None:
            raise FormatError(f"{self.foreign.path}: the format does not say which image it maps; "
                              "name it with --source PATH")
        return self.source(self.foreign.source)

    def add(self, name: str, size: int, regions: Iterable[Region]) -> None:
        """Add the composite file `name` of `size` bytes."""
        if not 0 <= size <= MAX_OFFSET:
            raise FormatError(f"{self.foreign.path}: {name} would have {size} bytes; the limit is 2^63 - 1")
        self._put(FileSpec(name, Mapped(RegionMap(size, regions))))

    def add_whole(self, name: str, source: str) -> None:
        """Add the composite file `name` that is the whole of a source, ro."""
        self._put(FileSpec(name, Whole(source)))

    def _put(self, file: FileSpec) -> None:
        if file.path in self.files:
            raise FormatError(f"{self.foreign.path}: two files would be named {file.path!r}")
        if not is_utf8(file.path):
            raise FormatError(f"{self.foreign.path}: {shown_bytes(file.path)} cannot be a path in a manifest, "
                              "which must be UTF-8")
        self.files[file.path] = file

    def default_name(self) -> str:
        """What the caller named the composite file, else a name after the foreign file's."""
        stem = self.foreign.path.name.split(".", 1)[0]
        return self.foreign.name or f"{stem or 'disk'}.img"

    def done(self, *notes: str) -> Imported:
        """The manifest, with the sources that files use."""
        claims = {key: claim for key, claim in self.claims.items() if key in self.sources}
        return Imported(Manifest(self.foreign.manifest, self.sources, self.files), notes, claims)


def _plain(path: Path) -> Path:
    """`path` without `..`, which goes up from where a symbolic link leads."""
    if ".." not in path.parts:
        return path
    return Path(os.path.realpath(path)) if path.name == ".." else Path(os.path.realpath(path.parent), path.name)


def tiles(regions: RegionMap) -> Iterator[Region]:
    """The whole file in order: gaps as hole regions, and neighbours that go on as one."""
    last: Region | None = None
    for region in _gapless(regions):
        if last is not None and region.continues(last):
            last = Region(last.start, region.end, last.kind, last.source, last.shift, last.writable, last.data)
            continue
        if last is not None:
            yield last
        last = region
    if last is not None:
        yield last


def _gapless(regions: RegionMap) -> Iterator[Region]:
    pos = 0
    for region in regions:
        if pos < region.start:
            yield Region(pos, region.start, Kind.HOLE)
        yield region
        pos = region.end
    if pos < regions.size:
        yield Region(pos, regions.size, Kind.HOLE)
