"""A directory with two sources, entered; manifests in it are called disk.yaml."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness import PROJECT

EXAMPLES = PROJECT / "manifests"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """a.img of 4096 bytes, b.img of 8192, empty.img."""
    for name, size in (("a.img", 4096), ("b.img", 8192), ("empty.img", 0)):
        (tmp_path / name).write_bytes(bytes([ord(name[0])]) * size)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of manifests/ with the sources its script makes."""
    copy = tmp_path_factory.mktemp("examples")
    for path in EXAMPLES.glob("*.yaml"):
        shutil.copy(path, copy)
    subprocess.run([EXAMPLES / "make-sources", copy], check=True)
    return copy
