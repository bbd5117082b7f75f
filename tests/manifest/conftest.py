"""A directory with two sources, entered; manifests in it are called disk.yaml."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.harness import NOBODY, PROJECT

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


@contextmanager
def ordinary() -> Iterator[None]:
    """This process without root's privileges."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_directory(session_directory: Path, request: pytest.FixtureRequest) -> Path:
    """A directory that every user can enter."""
    path = session_directory / request.node.name
    path.mkdir(mode=0o755)
    return path
