"""`regionfs check`: every problem of every manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """A manifest with two problems."""
    manifest = tmp_path / "bad.yaml"
    manifest.write_text("regionfs: 1\nfiles:\n  a: {whole: nowhere}\n  b: {whole: neither}\n")
    return manifest


def test_good_manifest_is_counted(run: Cli, disk: Path) -> None:
    """A `whole` file counts as one region."""
    result = run("check", disk)
    assert (0, f"{disk}: ok (2 files, 6 regions, 2 sources)\n", "") == (
        result.exit_code, result.stdout, result.stderr)


def test_one_bad_manifest_among_good_ones(run: Cli, disk: Path, bad: Path) -> None:
    """All are reported, and the exit status is 3."""
    result = run("check", bad, disk)
    assert (3, 1, 2) == (result.exit_code, len(result.stdout.splitlines()), len(result.stderr.splitlines()))


def test_missing_manifest_is_a_problem_like_others(run: Cli, disk: Path) -> None:
    """The manifests after it are still checked."""
    result = run("check", "missing.yaml", disk)
    assert 3 == result.exit_code
    assert result.stderr.startswith("missing.yaml:1:1: ")
    assert f"{disk}: ok" in result.stdout


def test_json(run: Cli, disk: Path, bad: Path) -> None:
    """Problems as values; a good manifest has none."""
    result = run("check", "--json", disk, bad)
    good, wrong = json.loads(result.stdout)["manifests"]
    assert (3, "") == (result.exit_code, result.stderr)
    assert {"manifest": str(disk), "ok": True, "files": 2, "regions": 6, "sources": 2, "problems": []} == good
    assert (str(bad), False, 2) == (wrong["manifest"], wrong["ok"], len(wrong["problems"]))
    assert {"file": str(bad), "line": 3, "path": "files.a.whole"}.items() <= wrong["problems"][0].items()
    assert {"file", "line", "column", "path", "message"} == wrong["problems"][0].keys()


def test_no_manifest_is_wrong_usage(run: Cli) -> None:
    """Exit status 2."""
    assert 2 == run("check").exit_code
