"""Every error regionfs raises on purpose: each class knows its errno and its exit status.

Operations of the file system raise OSError with a positive errno, as the calls below them do;
the classes here are for what a person has to read.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from regionfs.printable import printable


class RegionfsError(Exception):
    """Something failed that was not the caller's wording: exit status 1."""

    errno: ClassVar[int] = errno.EIO
    exit_status: ClassVar[int] = 1

    @property
    def lines(self) -> tuple[str, ...]:
        """What a person reads; one line, except where a class says more."""
        return (str(self),)


class UsageError(RegionfsError):
    """The command line asks for something that makes no sense."""

    errno = errno.EINVAL
    exit_status = 2


class UnitError(RegionfsError):
    """A number or its unit is not one of those in docs/contract.md section 3."""

    errno = errno.EINVAL
    exit_status = 2


class RegionError(RegionfsError):
    """A region or region map that breaks its invariant."""

    errno = errno.EINVAL


class SourceError(RegionfsError):
    """A source vanished, shrank, changed its identity or is of a kind that cannot serve."""


class MountError(RegionfsError):
    """A mount could not be made or ended; the message says what to do."""


class ProtocolError(RegionfsError):
    """A message on the wire has the wrong length or contents."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a manifest, with its place (line and column count from 1; line 0: in no text that exists)."""

    file: str
    line: int
    column: int
    path: str  # 'files["vm/disk.img"].regions[2].length'; '' for the document itself
    message: str

    def __str__(self) -> str:
        """One line, whatever the names in it hold."""
        where = f"{self.file}:{self.line}:{self.column}: " if self.line else f"{self.file}: "
        return printable(where + (f"{self.path}: {self.message}" if self.path else self.message))


class EditError(RegionfsError):
    """An edit that was not made, because its result would not be valid; `reasons` holds why."""

    def __init__(self, message: str, reasons: Sequence[str]) -> None:
        self._lines = (f"{message}:", *(f"  {reason}" for reason in reasons))
        super().__init__("\n".join(self._lines))

    @property
    def lines(self) -> tuple[str, ...]:
        """A line for each reason."""
        return self._lines


class ManifestError(RegionfsError):
    """The manifest is invalid; `problems` holds every reason, in the order of the text."""

    errno = errno.EINVAL
    exit_status = 3

    def __init__(self, problems: Sequence[Problem]) -> None:
        super().__init__("\n".join(map(str, problems)))
        self.problems = tuple(problems)

    @property
    def lines(self) -> tuple[str, ...]:
        """A line for each problem."""
        return tuple(map(str, self.problems))

    def of(self, origin: str) -> ManifestError:
        """The same problems of a text that was never written: named after `origin`, without lines."""
        return ManifestError([replace(problem, file=origin, line=0) for problem in self.problems])
