"""Errors on their way from one process to another: what a person reads, and the exit status."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from regionfs.errors import ManifestError, MountError, Problem, RegionfsError, UsageError

_WIDEST = 12   # bytes that JSON may take for a character
ROOM = 30_000  # bytes of JSON of problems, told twice, or of another error: it fits into one message of link


def describe(error: BaseException) -> dict[str, Any]:
    """`error` as plain values; of very many problems the first, and how many there are."""
    if isinstance(error, ManifestError):
        told = _first(error.problems)
        return {"error": str(ManifestError(told)), "problems": [asdict(problem) for problem in told]}
    status = error.exit_status if isinstance(error, RegionfsError) else MountError.exit_status
    text = str(error) or type(error).__name__
    return {"error": text if _room(text) <= ROOM else text[:ROOM // _WIDEST] + "...", "exit_status": status}


def revive(described: dict[str, Any]) -> RegionfsError:
    """The error that describe() described, of the class that has its exit status."""
    if "problems" in described:
        return ManifestError([Problem(**problem) for problem in described["problems"]])
    if described.get("exit_status") == UsageError.exit_status:
        return UsageError(described["error"])
    return MountError(described["error"])


def for_log(described: dict[str, Any]) -> str:
    """The error in a line that quotes nothing of a manifest."""
    problems = described.get("problems")
    if not problems:
        return str(described["error"])
    file, line, count = problems[0]["file"], problems[0]["line"], len(problems)
    found = f"{count} problems, the first" if count > 1 else "a problem"
    return f"{file}: {found} in line {line}; see regionfs check {file}"


def _first(problems: Sequence[Problem]) -> list[Problem]:
    told: list[Problem] = []
    room = ROOM
    for problem in problems:
        room -= _room(str(problem))
        if room < 0:
            more = f"... and {len(problems) - len(told)} more problems; regionfs check lists them all"
            told.append(Problem(problem.file, problem.line, problem.column, "", more))
            break
        told.append(problem)
    return told


def _room(text: str) -> int:
    """Bytes that a text takes as JSON."""
    return len(json.dumps(text))
