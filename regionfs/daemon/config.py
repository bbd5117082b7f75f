"""What a daemon is told: how to mount and to serve."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

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
    nonempty: bool = False
    verbose: bool = False
