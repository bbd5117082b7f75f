"""What a daemon is told: how to mount and to serve; as JSON between its processes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from regionfs.modes.choose import DEFAULT_ORDER, Mode
from regionfs.wire.options import MountOptions

ENGINES = ("auto", "native", "pyfuse3")


@dataclass(frozen=True, slots=True)
class MountConfig:
    """One mount as the command line asked for it."""

    manifest: Path               # absolute
    mountpoint: Path             # absolute, resolved
    options: MountOptions = field(default_factory=MountOptions)
    engine: str = "auto"
    modes: tuple[Mode, ...] = DEFAULT_ORDER
    verbose: bool = False

    def to_json(self) -> str:
        """A line of text."""
        values = asdict(self)
        return json.dumps({**values, "manifest": str(self.manifest), "mountpoint": str(self.mountpoint)})

    @staticmethod
    def from_json(text: str) -> MountConfig:
        """The inverse of to_json."""
        values: dict[str, Any] = json.loads(text)
        return MountConfig(Path(values["manifest"]), Path(values["mountpoint"]), MountOptions(**values["options"]),
                           values["engine"], tuple(Mode(mode) for mode in values["modes"]), values["verbose"])

    @property
    def wants_backing(self) -> bool:
        """True when a mode is allowed that registers backing files."""
        return Mode.PASSTHROUGH in self.modes or Mode.COMPOSED in self.modes

    @property
    def wants_iomap(self) -> bool:
        """True when the kernel may be told mappings."""
        return Mode.IOMAP in self.modes

    def with_manifest(self, path: Path) -> MountConfig:
        """The same mount of another manifest."""
        return replace(self, manifest=path)
