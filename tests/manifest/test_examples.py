"""The examples in manifests/: each is small, says its idea, and loads."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from regionfs.manifest.describe import dump
from regionfs.manifest.load import load, loads
from tests.manifest.conftest import EXAMPLES

NAMES = sorted(path.name for path in EXAMPLES.glob("*.yaml"))


def test_there_are_examples() -> None:
    """At least eight."""
    assert len(NAMES) >= 8


@pytest.mark.parametrize("name", NAMES)
def test_example_loads(examples: Path, name: str) -> None:
    """An example is valid with the sources of make-sources, and so is what describe makes of it."""
    manifest = load(examples / name)
    assert manifest == loads(dump(manifest), manifest.path)


@pytest.mark.parametrize("name", NAMES)
def test_example_is_small_and_says_its_idea(name: str) -> None:
    """A comment on top, 20 lines at most."""
    lines = (EXAMPLES / name).read_text().splitlines()
    assert ("# ", True) == (lines[0][:2], len(lines) <= 20)


def test_every_source_is_used(examples: Path) -> None:
    """make-sources makes what the examples want and nothing else."""
    made = {f"sources/{path.name}" for path in (examples / "sources").iterdir() if path.name != ".gitignore"}
    texts = "".join((EXAMPLES / name).read_text() for name in NAMES)
    assert set() == {name for name in made if name not in texts}


def test_sources_are_ignored_by_git(examples: Path) -> None:
    """Who tries an example in a clone does not see its sources as changes."""
    subprocess.run(["git", "init", "--quiet", examples], check=True)
    found = subprocess.run(["git", "-C", examples, "status", "--short", "--untracked-files=all"], check=True,
                           text=True, stdout=subprocess.PIPE).stdout
    assert "sources/" not in found
