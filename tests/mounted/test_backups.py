"""Backup programs over a mount: they store what an edit of the manifest changed, and nothing where nothing changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Mount

COUNT, SIZE = 100, 40_000  # files, and bytes of each
EDITED = "dir7/file57"

pytestmark = pytest.mark.timeout(300)


def files() -> dict[str, Any]:
    """Ranges of one source in ten directories."""
    return {f"dir{number % 10}/file{number}": {"regions": [{"source": "a", "offset": number * SIZE, "length": SIZE}]}
            for number in range(COUNT)}


def edit(edited: dict[str, Any]) -> None:
    """One file shows other bytes of its source, as many as before."""
    edited[EDITED]["regions"][0]["offset"] = COUNT * SIZE


def run(*command: str | Path, env: Mapping[str, str], cwd: Path) -> str:
    """What it prints; it must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=cwd,
                          env={**os.environ, **env})
    assert 0 == done.returncode, done.stderr
    return done.stdout + done.stderr


def prepare(directory: Path, program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no {program}")
    (directory / "a").write_bytes(os.urandom((COUNT + 1) * SIZE))


def test_restic(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """Of 100 files one is edited: one is changed, its bytes are added. A remount adds no byte of data."""
    prepare(tmp_path, "restic")
    env = {"RESTIC_PASSWORD": "x", "RESTIC_CACHE_DIR": str(tmp_path / "cache"),
           "RESTIC_REPOSITORY": str(tmp_path / "r")}
    run("restic", "init", "-q", env=env, cwd=tmp_path)

    def backup(mounted: Mount) -> tuple[int, ...]:
        lines = run("restic", "backup", "--json", ".", env=env, cwd=mounted.path).splitlines()
        said = next(found for found in map(json.loads, lines) if found["message_type"] == "summary")
        return tuple(said[name] for name in ("files_new", "files_changed", "files_unmodified", "data_blobs"))

    edited = files()
    with mount(edited) as mounted:
        assert (COUNT, 0, 0) == backup(mounted)[:3]
    with mount(edited) as mounted:
        assert (0, 0, COUNT, 0) == backup(mounted)
    edit(edited)
    with mount(edited) as mounted:
        assert (0, 1, COUNT - 1, 1) == backup(mounted)
        assert (0, 0, COUNT, 0) == backup(mounted)
        expected = (mounted.path / EDITED).read_bytes()
    run("restic", "restore", "-q", "latest", "-t", tmp_path / "out", env=env, cwd=tmp_path)
    assert expected == (tmp_path / "out" / EDITED).read_bytes()


def test_borg(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """The same, by borg's own list of files that were added or modified.

    It never trusts the files that are as new as the newest one it saw, so that there is always a newer one.
    """
    prepare(tmp_path, "borg")
    env = {"BORG_BASE_DIR": str(tmp_path / "borg"), "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
           "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes"}
    run("borg", "init", "-e", "none", tmp_path / "r", env=env, cwd=tmp_path)

    def backup(mounted: Mount, name: str) -> set[str]:
        (tmp_path / "n").write_bytes(b"n")
        os.utime(tmp_path / "n", (4e9, 4e9))
        said = run("borg", "create", "--list", "--filter", "AMCE", f"{tmp_path / 'r'}::{name}", ".", env=env,
                   cwd=mounted.path)
        return {line.split(" ", 1)[1] for line in said.splitlines()} - {"newest"}

    (tmp_path / "n").touch()
    edited = files() | {"newest": {"whole": "n"}}
    with mount(edited) as mounted:
        assert COUNT == len(backup(mounted, "first"))
    with mount(edited) as mounted:
        assert set() == backup(mounted, "again")
    edit(edited)
    with mount(edited) as mounted:
        assert {EDITED} == backup(mounted, "edited")
        assert set() == backup(mounted, "and again")
        expected = (mounted.path / EDITED).read_bytes()
    (tmp_path / "out").mkdir()
    run("borg", "extract", f"{tmp_path / 'r'}::edited", EDITED, env=env, cwd=tmp_path / "out")
    assert expected == (tmp_path / "out" / EDITED).read_bytes()


def test_rsync(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """rsync -a, which looks at size and whole seconds, copies the edited file and no other."""
    prepare(tmp_path, "rsync")

    def copied(mounted: Mount) -> list[str]:
        lines = run("rsync", "-a", "--out-format=%o %n", f"{mounted.path}/", tmp_path / "copy", env={}, cwd=tmp_path)
        return [line.partition(" ")[2] for line in lines.splitlines() if not line.endswith("/")]

    edited = files()
    with mount(edited) as mounted:
        assert COUNT == len(copied(mounted))
    with mount(edited) as mounted:
        assert [] == copied(mounted)
    edit(edited)
    with mount(edited) as mounted:
        assert [EDITED] == copied(mounted)
        assert (mounted.path / EDITED).read_bytes() == (tmp_path / "copy" / EDITED).read_bytes()
