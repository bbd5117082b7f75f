"""What a daemon is told: how to mount and to serve; as JSON between its processes."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from regionfs.daemon.logs import LEVELS
from regionfs.errors import UsageError
from regionfs.modes.choose import DEFAULT_ORDER, Mode, parse_modes
from regionfs.modes.probe import probe_iomap
from regionfs.wire.mounts import settle
from regionfs.wire.options import MountOptions, parse_options
from regionfs.wire.session import Wanted

POLL, LONGEST_POLL = 50, 1000  # microseconds
ENGINES = ("auto", "native", "pyfuse3")
OWN = ("engine", "modes", "confine", "log_level", "poll")  # options of mount that are not mount(2)'s


@dataclass(frozen=True, slots=True)
class MountConfig:
    """One mount as the command line asked for it."""

    manifest: Path               # absolute
    mountpoint: Path             # absolute, resolved
    options: MountOptions = field(default_factory=MountOptions)
    engine: str = "auto"
    modes: tuple[Mode, ...] = DEFAULT_ORDER
    confine: Path | None = None  # absolute, resolved: sources lie beneath it
    log_level: str = "info"
    poll: int = POLL             # microseconds that a server stays awake for the next request
    generation: int = 0          # of the inode numbers that a server without predecessors gives
    number: int = 0              # of the mount among those of its mount point, see runtime.stem_of
    device: int = 0              # st_dev of the mount, once there is one

    @staticmethod
    def from_options(manifest: Path, directory: Path, text: str) -> MountConfig:
        """The mount that `-o text` asks for; modes are parted by colons there. Raises UsageError."""
        path = manifest.absolute()
        options = parse_options(text, own=OWN, fsname=str(path))
        own, modes = options.own, options.own.get("modes")
        return MountConfig(
            path, settle(directory), replace(options, own={}),
            engine=_one_of(ENGINES, "engine", own.get("engine", "auto")),
            modes=DEFAULT_ORDER if modes is None else parse_modes(modes.replace(":", ",")),
            confine=_directory(own["confine"]) if "confine" in own else None,
            log_level=_one_of(LEVELS, "log_level", own.get("log_level", "info")),
            poll=_microseconds(own.get("poll", str(POLL))))

    def to_json(self) -> str:
        """A line of text."""
        return json.dumps(asdict(self), default=str)

    @staticmethod
    def from_json(text: str) -> MountConfig:
        """The inverse of to_json."""
        values: dict[str, Any] = json.loads(text)
        confine = values["confine"]
        return MountConfig(Path(values["manifest"]), Path(values["mountpoint"]), MountOptions(**values["options"]),
                           values["engine"], tuple(Mode(mode) for mode in values["modes"]),
                           None if confine is None else Path(confine), values["log_level"],
                           values.get("poll", POLL), values["generation"],  # a holder may be older than poll=
                           values.get("number", 0), values.get("device", 0))

    @property
    def name(self) -> tuple[Path, int]:
        """What the runtime directory knows the mount by."""
        return self.mountpoint, self.number

    @property
    def wants_backing(self) -> bool:
        """True when a mode is allowed that registers backing files."""
        return Mode.PASSTHROUGH in self.modes or Mode.COMPOSED in self.modes

    @property
    def wants_iomap(self) -> bool:
        """True when the kernel may be told mappings."""
        return Mode.IOMAP in self.modes

    def wanted(self) -> Wanted:
        """What to ask the kernel for at INIT; iomap only where its own ioctl says that it is there."""
        return Wanted(max_write=self.options.max_read, passthrough=self.wants_backing,
                      iomap=self.wants_iomap and probe_iomap().available)

    def begin_anew(self, manifest: Path, generation: int) -> MountConfig:
        """The same mount of another manifest, for a server that knows nothing of those before it."""
        return replace(self, manifest=manifest, generation=generation)

    def with_manifest(self, path: Path) -> MountConfig:
        """The same mount of another manifest."""
        return replace(self, manifest=path)


def _one_of(known: tuple[str, ...], name: str, value: str) -> str:
    if value not in known:
        raise UsageError(f"{name}={value}: known are {', '.join(known)}")
    return value


def _directory(value: str) -> Path:
    path = Path(value).resolve()
    if not value or not path.is_dir():
        raise UsageError(f"confine={value}: give the directory that sources must lie in")
    return path


def _microseconds(value: str) -> int:
    if not value.isascii() or not value.isdigit() or len(value) > 4 or int(value) > LONGEST_POLL:
        raise UsageError(f"poll={value}: give microseconds, up to {LONGEST_POLL}")
    return int(value)
