"""Saving a manifest: killed at any point, from two sides at once, through links, with its owner and mode."""

from __future__ import annotations

import os
import random
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from regionfs.errors import RegionfsError, UsageError
from regionfs.manifest.edit_save import create, locked
from regionfs.manifest.load import load
from tests.harness import REGIONFS

TEXT = "regionfs: 1\nfiles:\n  f:\n    size: 1MiB\n    regions:\n    - {start: 0, source: a}\n"
KILLS = 60
FILLER = "# " + "x" * 98 + "\n"
EDITS = """
import sys
from regionfs.cli.main import cli
print("ready", flush=True)
while True:
    for start in ("512KiB", "0"):
        cli.main(["map", "move", sys.argv[1], "f", "0", start], standalone_mode=False)
"""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """One region of 1 KiB in a file of 1 MiB."""
    (tmp_path / "a").write_bytes(bytes(1024))
    path = tmp_path / "m.yaml"
    path.write_text(TEXT)
    return path


def names(directory: Path) -> list[str]:
    """Everything in it, sorted."""
    return sorted(path.name for path in directory.iterdir())


@contextmanager
def running(*command: object) -> Iterator[subprocess.Popen[str]]:
    """A process that printed its first line; gone at the end."""
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert "ready\n" == process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.wait(30)
        process.stdout.close()


@pytest.mark.parametrize("seed", range(KILLS))
def test_kill_leaves_old_or_new(manifest: Path, seed: int) -> None:
    """Every other kill is at a random time, the rest as soon as there is something half written."""
    old = (TEXT + FILLER * 10_000).encode()
    new = old.replace(b"start: 0", b"start: 512KiB")
    manifest.write_bytes(old)
    temporary = manifest.with_name(".m.yaml.regionfs-edit")
    with running(sys.executable, "-c", EDITS, manifest) as process:
        limit = time.monotonic() + (random.Random(seed).uniform(0, 0.3) if seed % 2 else 30)
        while time.monotonic() < limit and (seed % 2 or not temporary.exists()):
            select.select([], [], [], 0.0005 if seed % 2 else 0)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
    assert manifest.read_bytes() in (old, new)
    subprocess.run([REGIONFS, "map", "move", manifest, "f", "0", "512KiB"], check=True, timeout=30)
    assert (new, ["a", "m.yaml"]) == (manifest.read_bytes(), names(manifest.parent))


def test_concurrent_edits_all_arrive(manifest: Path) -> None:
    """Two shells with 20 edits each: 40 borders, and nothing else."""
    loop = 'for at in "$@"; do "$0" map split m.yaml f "$at" 2>/dev/null || exit 1; done'
    sides = [subprocess.Popen(["sh", "-c", loop, REGIONFS, *map(str, range(first, first + 200, 10))],
                              cwd=manifest.parent) for first in (5, 10)]
    assert [0, 0] == [side.wait(120) for side in sides]
    regions = load(manifest).files["f"].regions
    assert regions is not None
    borders = sorted([*range(5, 205, 10), *range(10, 210, 10)])
    assert [0, *borders] == list(regions.starts)
    assert ["a", "m.yaml"] == names(manifest.parent)


def test_who_waited_sees_the_other_edit(manifest: Path) -> None:
    """The lock of a replaced inode is worth nothing: the waiting editor looks the name up again."""
    code = ("import sys; from pathlib import Path; from regionfs.manifest.edit_save import locked\n"
            "with locked(Path(sys.argv[1]), lambda: print('ready', flush=True)) as held: sys.stdout.write(held.read())")
    with ExitStack() as stack:
        with locked(manifest) as held:
            waiting = stack.enter_context(running(sys.executable, "-c", code, manifest))
            held.replace("# the other's\n" + TEXT)
        assert waiting.stdout is not None
        assert "# the other's\n" + TEXT == waiting.stdout.read()


def test_symlink_stays(manifest: Path, tmp_path: Path) -> None:
    """What the link leads to is replaced, in its own directory."""
    link = tmp_path / "elsewhere" / "link.yaml"
    link.parent.mkdir()
    link.symlink_to(manifest)
    with locked(link) as held:
        held.replace("new\n")
    assert (True, "new\n", ["link.yaml"]) == (link.is_symlink(), manifest.read_text(), names(link.parent))


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o444])
def test_mode_stays(manifest: Path, mode: int) -> None:
    """The umask has no say."""
    manifest.chmod(mode)
    with locked(manifest) as held:
        held.replace("new\n")
    assert mode == manifest.stat().st_mode & 0o7777


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owner_stays(manifest: Path) -> None:
    """Root edits a user's manifest, and it is still the user's."""
    os.chown(manifest, 1234, 2345)
    with locked(manifest) as held:
        held.replace("new\n")
    assert (1234, 2345) == (manifest.stat().st_uid, manifest.stat().st_gid)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_foreign_owner_is_refused(manifest: Path) -> None:
    """Who may write the directory but not give files away is told so; the old text stays."""
    manifest.parent.chmod(0o777)
    for above in list(manifest.parents)[1:4]:
        above.chmod(above.stat().st_mode | 0o011)
    os.seteuid(65534)
    try:
        with locked(manifest) as held, pytest.raises(RegionfsError, match="belongs to 0:0"):
            held.replace("new\n")
    finally:
        os.seteuid(0)
    assert (TEXT, ["a", "m.yaml"]) == (manifest.read_text(), names(manifest.parent))


def test_extended_attributes_stay(manifest: Path) -> None:
    """Labels and ACLs are attributes."""
    try:
        os.setxattr(manifest, "user.note", b"mine")
    except OSError:
        pytest.skip("this file system has no user attributes")
    with locked(manifest) as held:
        held.replace("new\n")
    assert b"mine" == os.getxattr(manifest, "user.note")


def test_failed_write_leaves_the_old_text(manifest: Path) -> None:
    """A surrogate cannot be encoded: nothing is replaced, nothing left behind."""
    with locked(manifest) as held, pytest.raises(UnicodeEncodeError):
        held.replace("\udc80")
    assert (TEXT, ["a", "m.yaml"]) == (manifest.read_text(), names(manifest.parent))


def test_directory_is_refused(tmp_path: Path) -> None:
    """Nor a device, nor a pipe."""
    with pytest.raises(UsageError, match="is not a regular file"), locked(tmp_path):
        pass


def test_create_does_not_overwrite(manifest: Path) -> None:
    """Only --force replaces, and nothing is left behind."""
    with pytest.raises(UsageError, match=re.escape(f"{manifest} exists; --force replaces it")):
        create(manifest, "new\n")
    assert TEXT == manifest.read_text()
    create(manifest, "new\n", force=True)
    assert ("new\n", ["a", "m.yaml"]) == (manifest.read_text(), names(manifest.parent))


def test_create_follows_the_umask(tmp_path: Path) -> None:
    """As any program's new file."""
    before = os.umask(0o027)
    try:
        create(tmp_path / "n.yaml", "new\n")
    finally:
        os.umask(before)
    assert 0o640 == (tmp_path / "n.yaml").stat().st_mode & 0o7777
