"""Errors on their way from one process to another: what a person reads, and the exit status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from regionfs.errors import ManifestError, MountError, Problem, RegionfsError, UsageError

ROOM = 30_000  # characters of problems: what is described fits into one message of link


def describe(error: BaseException) -> dict[str, Any]:
    """`error` as plain values; of very many problems the first, and how many there are."""
    if isinstance(error, ManifestError):
        told = _first(error.problems)
        return {"error": str(ManifestError(told)), "problems": [asdict(problem) for problem in told]}
    status = error.exit_status if isinstance(error, RegionfsError) else MountError.exit_status
    return {"error": str(error) or type(error).__name__, "exit_status": status}


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
        room -= len(str(problem))
        if room < 0:
            more = f"... and {len(problems) - len(told)} more problems; regionfs check lists them all"
            told.append(Problem(problem.file, problem.line, problem.column, "", more))
            break
        told.append(problem)
    return told
