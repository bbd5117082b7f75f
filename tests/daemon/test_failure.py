"""Errors between processes: the same class, the same words, and never more than a message holds."""

import json

from regionfs.daemon import failure
from regionfs.daemon.link import LIMIT
from regionfs.errors import ManifestError, MountError, Problem, UsageError


def test_an_error_arrives_as_what_it_was() -> None:
    """Class, exit status and words survive the way."""
    for error in (MountError("no"), UsageError("what?"), ManifestError([Problem("a.yaml", 1, 2, "files", "bad")])):
        found = failure.revive(json.loads(json.dumps(failure.describe(error))))
        assert (type(error), str(error), error.exit_status) == (type(found), str(found), found.exit_status)


def test_thousands_of_problems_fit_into_one_message() -> None:
    """The first ones are told, and how many there are besides."""
    problems = [Problem("a.yaml", line, 1, f"files.f{line}", "nothing there " * 10) for line in range(5000)]
    described = failure.describe(ManifestError(problems))
    assert len(json.dumps({"failed": described})) < LIMIT
    told = described["problems"]
    assert f"... and {5000 - len(told) + 1} more problems; regionfs check lists them all" == told[-1]["message"]


def test_wide_characters_fit_too() -> None:
    """JSON writes twelve bytes for some: of problems and of a long word alike."""
    problems = [Problem("a.yaml", line, 1, "files", "\U0001f4a3" * 50) for line in range(500)]
    for error in (ManifestError(problems), MountError("\U0001f4a3" * 100_000)):
        assert len(json.dumps({"failed": failure.describe(error)})) < LIMIT
