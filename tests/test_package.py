"""The package as a stranger gets it: built as sdist and wheel, installed where nothing of the checkout is."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from regionfs import __version__
from tests.harness import PROJECT
from tests.test_readme import run_tour

OUTSIDE = ("lib/systemd/system/regionfs@.service", "lib/tmpfiles.d/regionfs.conf",
           "share/man/man1/regionfs.1", "share/man/man5/regionfs-manifest.5",
           "share/bash-completion/completions/regionfs", "share/zsh/site-functions/_regionfs",
           "share/fish/vendor_completions.d/regionfs.fish")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with an sdist of this tree, and a wheel made of that sdist alone."""
    target = tmp_path_factory.mktemp("built")
    subprocess.run([sys.executable, "-m", "build", "--outdir", target, PROJECT], check=True, timeout=240,
                   stdout=subprocess.DEVNULL)
    return target


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel and what it depends on."""
    place = tmp_path_factory.mktemp("installed") / "venv"
    wheel, = built.glob("*.whl")
    subprocess.run([sys.executable, "-m", "venv", place], check=True, timeout=120)
    subprocess.run([place / "bin" / "pip", "install", "--quiet", "--disable-pip-version-check", wheel], check=True,
                   timeout=240)
    return place


@pytest.mark.timeout(300)
def test_the_version_stands_in_one_place(built: Path) -> None:
    """The files' names have the package's own version, and no second one is written down."""
    names = sorted(path.name for path in built.iterdir())
    assert [True, True] == [name.startswith(f"regionfs-{__version__}") for name in names], names
    assert __version__ not in (PROJECT / "pyproject.toml").read_text()


@pytest.mark.timeout(300)
def test_what_is_in_them(built: Path) -> None:
    """The wheel has the manual, the completions, the unit and the mark of types; the sdist all that tests need."""
    wheel, = built.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "regionfs/py.typed" in names
    for path in OUTSIDE:
        assert any(name.endswith(f".data/data/{path}") for name in names), path
    sdist, = built.glob("*.tar.gz")
    inside = {name.partition("/")[2] for name in tarfile.open(sdist).getnames()}
    for path in ("regionfs/serve/loop/loop.h", "tests/conftest.py", "docs/manual/regionfs.1.md", "Makefile",
                 "scripts/setup", "manifests/disk.yaml", "demo/tour.py"):
        assert path in inside


@pytest.mark.timeout(300)
def test_commands_of_the_wheel(installed: Path, tmp_path: Path) -> None:
    """The command runs from the environment; its files lie below the prefix."""
    done = subprocess.run([installed / "bin" / "regionfs", "--version"], cwd=tmp_path, capture_output=True, text=True,
                          check=True, timeout=60)
    assert __version__ in done.stdout
    assert [] == [path for path in OUTSIDE if not (installed / path).stat().st_size]
    where = subprocess.run([installed / "bin" / "python", "-c", "import regionfs; print(regionfs.__file__)"],
                           cwd=tmp_path, capture_output=True, text=True, check=True, timeout=60).stdout
    assert Path(where.strip()).is_relative_to(installed)


@pytest.mark.mounted
@pytest.mark.timeout(300)
def test_the_tour_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    """The README's five minutes, with nothing of the checkout at hand."""
    path = f"{installed / 'bin'}{os.pathsep}{os.environ['PATH']}"
    assert "hello from the first file" in run_tour(tmp_path, path)
