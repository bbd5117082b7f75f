"""What a holder that was killed leaves: status finds it, umount and the next mount clear it."""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from regionfs.daemon import runtime
from tests.harness import Mount, wait_readable
from tests.sweep import unmount_all

pytestmark = pytest.mark.mounted

Kill = Callable[[Mount], None]


def kill_all(mounted: Mount) -> None:
    """Holder and server at once."""
    mounted.kill()


def kill_holder(mounted: Mount) -> None:
    """The holder alone: the server flushes and follows it."""
    pids = mounted.status()
    with os.fdopen(os.pidfd_open(pids["pid"]), "rb", buffering=0) as server:
        os.kill(pids["holder_pid"], signal.SIGKILL)
        assert wait_readable(server.fileno())


@pytest.fixture(params=[kill_all, kill_holder])
def dead(request: pytest.FixtureRequest, tmp_path: Path, engine: str) -> Mount:
    """A mount whose holder is gone."""
    for name in ("a.img", "b.img"):
        (tmp_path / name).write_bytes(b"a" * 8192)
    files = {"whole": {"whole": "a.img", "access": "rw"},
             "composed": {"regions": [{"source": "b.img", "offset": 4096, "length": 4096}, {"source": "b.img"}]}}
    mounted = Mount(tmp_path, files, engine=engine).mount()
    (mounted.path / "composed").read_bytes()
    with (mounted.path / "whole").open("r+b") as file:
        file.write(b"b")
        os.fsync(file.fileno())
    request.param(mounted)
    return mounted


def files_of(mounted: Mount) -> list[str]:
    """What lies in the runtime directory for the mount, but for its log."""
    stem = runtime.stem_of(mounted.path)
    return sorted(path.suffix for path in stem.parent.glob(f"{stem.name}.*") if path.suffix != ".log")


def test_users_see_enotconn_and_no_loss(dead: Mount) -> None:
    """Not a hang; what an fsync had confirmed is there."""
    with pytest.raises(OSError) as failed:
        (dead.path / "whole").read_bytes()
    assert failed.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    assert b"b" == (dead.path.parent / "a.img").read_bytes()[:1]
    dead.unmount()


def test_status_finds_it(dead: Mount) -> None:
    """With what to do; alone and among all others."""
    for words in ([dead.path], []):
        done = dead.user.regionfs("status", *words, "--json")
        entry = next(entry for entry in json.loads(done.stdout)["mounts"] if entry["mountpoint"] == str(dead.path))
        said = f"its daemon died; clear it with regionfs umount {dead.path}"
        assert (None, None, said) == (entry["pid"], entry["holder_pid"], entry["trouble"])
    assert f'regionfs_mount_up{{mountpoint="{dead.path}"}} 0\n' in dead.user.regionfs("status", "--prometheus").stdout
    dead.unmount()


def test_umount_clears_it(dead: Mount) -> None:
    """Mount and files; then there is nothing to clear."""
    dead.unmount()
    assert ([], False) == (files_of(dead), dead.mounted)
    assert 1 == dead.user.regionfs("umount", dead.path).returncode


def test_the_next_mount_clears_it(dead: Mount) -> None:
    """And serves."""
    with dead:
        assert b"b" + b"a" * 4095 == (dead.path / "whole").read_bytes()[:4096]
        assert 1 == len([line for line in Path("/proc/self/mountinfo").read_text().splitlines()
                         if f" {dead.path} " in line])
    assert [] == files_of(dead)


def test_files_without_a_mount_are_cleared(dead: Mount) -> None:
    """Somebody has unmounted by hand."""
    unmount_all(dead.path)
    assert ".lock" in files_of(dead)
    dead.unmount()
    assert [] == files_of(dead)


def test_files_of_no_mount_are_swept(tmp_path: Path) -> None:
    """Layers that nobody announces, and logs a week old, go with the next mount; younger ones stay."""
    place = runtime.directory()
    ages = {"snapshot-0": 3600, "sock": 10, "log": 3600, "index.new": 3600}
    made = {suffix: place / f"0123456789abcdef.{suffix}" for suffix in ages}
    for suffix, path in (*made.items(), ("old log", place / "fedcba9876543210.log")):
        path.touch()
        age = ages.get(suffix, 8 * 24 * 3600)
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    (tmp_path / "a.img").write_bytes(b"a")
    with Mount(tmp_path, {"x": {"whole": "a.img"}}):
        left = {suffix for suffix, path in made.items() if path.exists()}
    for path in made.values():
        path.unlink(missing_ok=True)
    assert ({"sock", "log"}, False) == (left, (place / "fedcba9876543210.log").exists())
