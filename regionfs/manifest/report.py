"""Problems of one manifest, gathered with their place. Knows the forms of a place, not what is wrong."""

from __future__ import annotations

import re
from typing import Protocol

from regionfs.errors import ManifestError, Problem
from regionfs.printable import printable

MAX_PROBLEMS = 1000  # after which the rest is noise

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")


class Placed(Protocol):
    """Anything with a line and a column that count from 1."""

    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


class Reporter:
    """Collects problems in any order; `finish` raises them in the order of the text."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._problems: list[tuple[tuple[int, ...], Problem]] = []  # with their place in the whole
        self._within: tuple[int, ...] = ()
        self._silent: set[tuple[int, int]] = set()

    def below(self, place: Placed, file: str) -> Reporter:
        """For a file that is read because of what stands at `place`: its problems come among ours, there."""
        inner = Reporter(file)
        inner._problems = self._problems
        inner._within = (*self._within, place.line, place.column)
        return inner

    @property
    def count(self) -> int:
        """Problems so far."""
        return len(self._problems)

    def problem(self, place: Placed, path: str, message: str) -> None:
        """Note one problem. Raises ManifestError when there are too many to be of use."""
        if (place.line, place.column) in self._silent:
            return
        self._problems.append(((*self._within, place.line, place.column),
                               Problem(self.file, place.line, place.column, path, message)))
        if len(self._problems) == MAX_PROBLEMS:
            raise ManifestError([*self._sorted(), Problem(
                self.file, place.line, place.column, "", f"stopped after {MAX_PROBLEMS} problems")])

    def silence(self, place: Placed) -> None:
        """Say nothing more about this place: what stands there is not what was written."""
        self._silent.add((place.line, place.column))

    def fatal(self, line: int, column: int, message: str, path: str = "") -> ManifestError:
        """The error to raise when nothing after this place can be read."""
        return ManifestError([*self._sorted(), Problem(self.file, line, column, path, message)])

    def finish(self) -> None:
        """Raise ManifestError if there was any problem."""
        if self._problems:
            raise ManifestError(self._sorted())

    def _sorted(self) -> list[Problem]:
        return [problem for _, problem in sorted(self._problems, key=lambda entry: entry[0])]


def child(path: str, key: str) -> str:
    """The path of what lies under `key`: 'files["vm/disk.img"]', 'sources.root'."""
    if not _WORD.fullmatch(key):
        shown = printable(_cut(key).replace("\\", "\\\\"))
        return f"{path}['{shown}']" if '"' in shown else f'{path}["{shown}"]'
    return f"{path}.{clip(key)}" if path else clip(key)


def clip(text: str) -> str:
    """`text` for a message: one line, at most 60 characters."""
    return printable(_cut(text))


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."
