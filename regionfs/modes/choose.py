"""Which mode serves a composite file, and why: pure and total.

Joins what the file's shape allows (shapes) with what the machine can do (probe finds out). Does not know
how a mode is done. A mode either fits or objects with a sentence for people; where userspace is what is
left, its reason is the objection of the mode that the file's shape suggests.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from regionfs.errors import RegionfsError, UsageError
from regionfs.manifest.inspect import SourceFacts
from regionfs.manifest.schema import FileSpec, Manifest
from regionfs.modes import shapes
from regionfs.modes.iomap import Candidate, granularity, settle


class Mode(StrEnum):
    """How the bytes of one composite file travel."""

    PASSTHROUGH = "passthrough"  # the kernel reads and writes the one source
    COMPOSED = "composed"        # the kernel reads a detached EROFS over the sources
    IOMAP = "iomap"              # the kernel asks for mappings and does the I/O
    USERSPACE = "userspace"      # the daemon moves the bytes


DEFAULT_ORDER = (Mode.IOMAP, Mode.PASSTHROUGH, Mode.COMPOSED, Mode.USERSPACE)


@dataclass(frozen=True, slots=True)
class Ability:
    """Whether this machine can do a mode, why (not), and what would help."""

    available: bool
    reason: str
    remedy: str = ""  # empty when available


@dataclass(frozen=True, slots=True)
class Kernel:
    """The abilities of the machine and this process, by mode; userspace needs none."""

    passthrough: Ability
    composed: Ability
    iomap: Ability


@dataclass(frozen=True, slots=True)
class Choice:
    """The mode of one file; `reason` is a sentence without the mode's name, str() puts it in front."""

    mode: Mode
    reason: str

    def __str__(self) -> str:
        return f"{self.mode}: {self.reason}"


class ModeError(RegionfsError):
    """No allowed mode fits these files; `refused` holds each file's reason."""

    exit_status: ClassVar[int] = 1

    def __init__(self, allowed: Sequence[Mode], refused: Mapping[str, str]) -> None:
        modes = ",".join(allowed)
        lines = [f"{path}: no mode of {modes} can serve it: {why}" for path, why in refused.items()]
        super().__init__("\n".join(lines))
        self.refused = dict(refused)


def choose_all(manifest: Manifest, facts: Mapping[str, SourceFacts], kernel: Kernel,
               allowed: Sequence[Mode] = DEFAULT_ORDER) -> dict[str, Choice]:
    """Every file's mode, by path. Raises ModeError with all files that no allowed mode fits.

    `facts` is keyed as Manifest.sources; a source that could not be inspected is left out of it.
    """
    neighbours = shapes.Neighbours.of(manifest.files.values(), facts)
    choices = {path: choose(file, facts, kernel, allowed, neighbours)
               for path, file in manifest.files.items()}
    mapped = [_candidate(manifest.files[path], facts) for path, choice in choices.items() if choice.mode is Mode.IOMAP]
    choices |= {path: Choice(Mode.USERSPACE, why) for path, why in settle(mapped).items()}
    refused = {path: choice.reason for path, choice in choices.items() if choice.mode not in allowed}
    if refused:
        raise ModeError(allowed, refused)
    return choices


def choose(file: FileSpec, facts: Mapping[str, SourceFacts], kernel: Kernel,
           allowed: Sequence[Mode] = DEFAULT_ORDER, neighbours: shapes.Neighbours | None = None) -> Choice:
    """The first mode of `allowed` that fits, else userspace, whether allowed or not: choose_all objects.

    `neighbours` describes the whole mount; without it the file is taken to be the only one.
    """
    neighbours = neighbours if neighbours is not None else shapes.Neighbours.of([file], facts)
    objections: dict[Mode, str] = {}
    for mode in allowed:
        if mode is Mode.USERSPACE:
            break
        objections[mode] = _objection(mode, file, facts, kernel, neighbours)
        if not objections[mode]:
            return Choice(mode, _praise(mode, file))
    suggested = _suggested(file, facts)
    if suggested in objections:
        return Choice(Mode.USERSPACE, objections[suggested])
    if Mode.USERSPACE not in allowed:  # choose_all refuses the file: every mode that was asked for says why
        return Choice(Mode.USERSPACE, "; ".join(objections.values()))
    if suggested in allowed:
        return Choice(Mode.USERSPACE, f"userspace comes before {suggested} in the modes asked for")
    return Choice(Mode.USERSPACE, f"{suggested} is not among the modes asked for")


def parse_modes(text: str) -> tuple[Mode, ...]:
    """"passthrough,userspace" -> the modes to try, in order. Raises UsageError."""
    modes: list[Mode] = []
    for word in text.split(","):
        name = word.strip().lower()
        if name not in list(Mode):
            from difflib import get_close_matches  # only for a message

            near = get_close_matches(name, list(Mode), 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"--modes {text!r}: {name!r} is not one of {', '.join(Mode)}{hint}")
        if name in modes:
            raise UsageError(f"--modes {text!r}: {name} stands twice")
        modes.append(Mode(name))
    return tuple(modes)


def _candidate(file: FileSpec, facts: Mapping[str, SourceFacts]) -> Candidate:
    found = [facts[key] for key in file.sources]
    regions = file.body.as_map(found[0].size)
    return Candidate(file.path, regions.size, granularity(regions), max(one.sector for one in found),
                     frozenset(one.identity for one in found))


def _suggested(file: FileSpec, facts: Mapping[str, SourceFacts]) -> Mode:
    """The kernel mode that the file's shape asks for."""
    kinds = {str(facts[key].kind) for key in file.sources if key in facts}
    if kinds == {"block"}:
        return Mode.IOMAP
    return Mode.PASSTHROUGH if shapes.single(file, facts) is not None else Mode.COMPOSED


def _objection(mode: Mode, file: FileSpec, facts: Mapping[str, SourceFacts], kernel: Kernel,
               neighbours: shapes.Neighbours) -> str:
    """Why `mode` cannot serve `file`; empty when it can. The file comes before the machine."""
    if lost := next((key for key in file.sources if key not in facts), None):
        return f"{lost} could not be inspected"
    shape = _SHAPES[mode](file, facts, neighbours)
    if shape:
        return shape
    ability: Ability = getattr(kernel, mode)
    return "" if ability.available else ability.reason


_SHAPES: dict[Mode, Callable[[FileSpec, Mapping[str, SourceFacts], shapes.Neighbours], str]] = {
    Mode.PASSTHROUGH: shapes.passthrough,
    Mode.COMPOSED: shapes.composed,
    Mode.IOMAP: shapes.iomap,
}


def _praise(mode: Mode, file: FileSpec) -> str:
    """Why `mode` fits, as a sentence."""
    if mode is Mode.PASSTHROUGH:
        return f"it is the whole of {file.sources[0]}"
    count = file.body.count
    regions = f"{count} region{'s' * (count != 1)}"
    if mode is Mode.IOMAP:
        return f"{regions} on block devices, all on block borders"
    return f"{regions}, read-only, on regular files"


