"""What a manifest says, as values: sources, files and their region maps. No YAML here.

Everything is resolved: paths are absolute, lengths known, `over` and `align` worked out, so that two
manifests that mean the same are equal. load reads text into these, describe writes them as plain
data that load reads back to an equal value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from regionfs.errors import RegionError
from regionfs.manifest.body import Body, Mapped
from regionfs.regions import RegionMap

VERSION = 1
DEFAULT_MODE_RO = 0o444
DEFAULT_MODE_RW = 0o644


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A regular file or block device that bytes come from."""

    key: str                # its name under `sources`, or its path as written where it has none
    path: Path              # absolute, not resolved through symlinks
    size: int | None = None  # bytes; pinned: checked at every open
    named: bool = False     # declared under `sources`
    loop: bool = False      # a regular file that shall be served as a block device where that helps
    device: Path | None = field(default=None, compare=False)  # the loop device that was attached for it

    @property
    def place(self) -> Path:
        """Where its bytes are read and written."""
        return self.path if self.device is None else self.device


@dataclass(frozen=True, slots=True)
class FileSpec:
    """A composite file."""

    path: str                        # inside the mount, "vm/disk.img"
    body: Body                       # what its bytes are
    mode: int | None = None          # permission bits where the manifest pins them
    table: Path | None = field(default=None, compare=False)  # absolute; where its regions are written

    @property
    def writable(self) -> bool:
        """Any region is rw, or the whole."""
        return self.body.writable

    @property
    def sources(self) -> tuple[str, ...]:
        """Keys of the sources its bytes come from."""
        return self.body.sources

    @property
    def rw_sources(self) -> frozenset[str]:
        """Keys of the sources it may write to."""
        return self.body.rw_sources

    @property
    def needs(self) -> Mapping[str, int]:
        """Bytes that each of them must have at least; a file that is the whole of one follows its size."""
        return self.body.needs

    @property
    def regions(self) -> RegionMap:
        """The map of a file that has one. RegionError of a file that is the whole of a source."""
        if not isinstance(self.body, Mapped):
            raise RegionError(f"{self.path} is the whole of a source, it has no region map")
        return self.body.regions

    @property
    def permissions(self) -> int:
        """Permission bits of a fixed-size file."""
        if self.mode is not None:
            return self.mode
        return DEFAULT_MODE_RW if self.writable else DEFAULT_MODE_RO


@dataclass(frozen=True, slots=True)
class Manifest:
    """A valid manifest. `path` is the file it came from; relative paths are below its directory."""

    path: Path
    sources: dict[str, SourceSpec] = field(default_factory=dict)
    files: dict[str, FileSpec] = field(default_factory=dict)  # in the order of the text
    confine: Path | None = None  # absolute, resolved: sources are looked for beneath this directory only
    read_from: tuple[Path, ...] = field(default=(), compare=False)  # absolute; tables and files of inline data
