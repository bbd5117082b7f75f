"""Unmounting and mounting where a file system is mounted elsewhere too, or others have mounted something."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from regionfs.daemon import runtime
from regionfs.wire import mounts
from tests.harness import NOBODY, Mount, User, wait_readable
from tests.mounted.conftest import opened

native = pytest.mark.parametrize("engine", ["native"], indirect=True)  # pyfuse3 does not reload
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="mounts by mount(8), which is root's")


@pytest.fixture
def mounted(mount: Callable[..., Mount], tmp_path: Path) -> Iterator[Mount]:
    """A mount of one rw file."""
    (tmp_path / "s.img").write_bytes(b"s" * 8192)
    made = mount({"f": {"whole": "s.img", "access": "rw"}}).mount()
    yield made
    if made.mounted:
        made.unmount()


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, timeout=20)


@contextmanager
def also_mounted(*command: str | Path, at: Path) -> Iterator[Path]:
    """Something that mount(8) mounts at a directory; ended if it is still there."""
    below = mounts.top(at)
    if below is None:
        at.mkdir(exist_ok=True)
    run("mount", *command, at)
    try:
        yield at
    finally:
        if mounts.top(at) != below:
            run("umount", "--lazy", at)


@contextmanager
def namespace() -> Iterator[int]:
    """A process with a private copy of the mount namespace; its pid."""
    with subprocess.Popen(["unshare", "-m", "--propagation", "private", "sh", "-c", "echo begun; exec sleep 300"],
                          stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.kill()


def assert_next_mount_serves(mounted: Mount, words: str) -> None:
    """After an unmount that said `words`: what was written is safe, and the directory takes another mount at once."""
    with opened(mounted.path / "f", os.O_WRONLY) as fd:
        os.pwrite(fd, b"written", 0)
    done = mounted.user.regionfs("umount", mounted.path)
    assert (0, None) == (done.returncode, mounts.top(mounted.path))
    assert words in done.stderr
    with Mount(mounted.path.parent, mounted.manifest.read_text(), engine=mounted.engine) as again:
        assert b"written" == (again.path / "f").read_bytes()[:7]


@root_only
def test_umount_with_a_bind_mount(mounted: Mount, tmp_path: Path) -> None:
    """It returns and says where the file system lives on; a new mount does not meet it."""
    with also_mounted("--bind", mounted.path, at=tmp_path / "bind") as bind:
        assert_next_mount_serves(mounted, f"stays in use, by {bind}\n")
        assert b"written" == (bind / "f").read_bytes()[:7]
    mounted.ended()


@root_only
def test_umount_with_a_copy_of_the_namespace(mounted: Mount) -> None:
    """A container or a service that has one is named."""
    with namespace() as pid:
        words = f"stays in use, by {mounted.path} in the mount namespace of process {pid} (sleep)\n"
        assert_next_mount_serves(mounted, words)
    mounted.ended()


def test_mounting_after_a_lazy_umount(mounted: Mount) -> None:
    """Files that are still open go on; the directory takes another mount at once; both end on their own."""
    with opened(mounted.path / "f", os.O_RDWR) as fd:
        assert 0 == mounted.user.regionfs("umount", "--lazy", mounted.path).returncode
        with Mount(mounted.path.parent, mounted.manifest.read_text(), engine=mounted.engine) as again:
            assert b"s" * 9 == (again.path / "f").read_bytes()[:9]
            assert 3 == os.pwrite(fd, b"old", 0)
        assert b"old" == os.pread(fd, 3, 0)
    mounted.ended()


@root_only
def test_the_bind_mount_is_a_name_of_the_mount(mounted: Mount, tmp_path: Path) -> None:
    """status and umount know it; umount of one leaves the other."""
    with also_mounted("--bind", mounted.path, at=tmp_path / "bind") as bind:
        assert str(mounted.path) in mounted.user.regionfs("status", bind).stdout
        done = mounted.user.regionfs("umount", bind)
        assert (0, True) == (done.returncode, done.stderr.endswith(f"stays in use, by {mounted.path}\n"))
    assert b"s" == (mounted.path / "f").read_bytes()[:1]


@root_only
def test_a_strangers_mount_on_top_stays(mounted: Mount) -> None:
    """umount, a second mount and SIGTERM leave it alone, and say what it is."""
    with also_mounted("-t", "tmpfs", "stranger", at=mounted.path):
        refused = [mounted.user.regionfs("umount", mounted.path),
                   mounted.user.regionfs("mount", mounted.manifest, mounted.path)]
        assert [1, 1] == [done.returncode for done in refused]
        assert all("tmpfs (stranger)" in done.stderr for done in refused)
        os.kill(mounted.status()["holder_pid"], signal.SIGTERM)
        assert mounted.status()["pid"] is not None
        assert "stranger" == getattr(mounts.top(mounted.path), "source", None)
    assert b"s" == (mounted.path / "f").read_bytes()[:1]


@root_only
def test_a_moved_mount_ends_where_it_is(mounted: Mount, tmp_path: Path) -> None:
    """SIGTERM unmounts what the daemon mounted, and not what has taken its place."""
    with also_mounted("-t", "tmpfs", "ground", at=tmp_path / "ground") as ground:
        run("mount", "--make-private", ground)
        for name in ("a", "b"):
            (ground / name).mkdir()
        other = Mount(ground, {"f": {"whole": str(tmp_path / "s.img")}}, name="a").mount()
        run("mount", "--move", ground / "a", ground / "b")
        with also_mounted("-t", "tmpfs", "stranger", at=ground / "a"):
            os.kill(other.status()["holder_pid"], signal.SIGTERM)
            for descriptor in other._processes.values():
                assert wait_readable(descriptor)
            assert "stranger" == getattr(mounts.top(ground / "a"), "source", None)
        assert None is mounts.top(ground / "b")
        other.ended()


def test_a_mount_of_another_runtime_directory_stays(ordinary_user: User) -> None:
    """The same user without XDG_RUNTIME_DIR, or with another one: mount refuses, umount unmounts and says so."""
    directory = ordinary_user.new_directory()
    ordinary_user.write(directory / "s.img", b"s" * 4096)
    other = ordinary_user.with_environment(XDG_RUNTIME_DIR=str(ordinary_user.new_directory()))
    with Mount(directory, {"f": {"whole": "s.img"}}, user=ordinary_user) as mounted:
        before = mounts.find(mounted.path)
        done = other.regionfs("mount", mounted.manifest, mounted.path)
        assert (1, True, before) == (done.returncode, "mounted there already" in done.stderr, mounts.find(mounted.path))
        done = other.regionfs("umount", mounted.path)
        assert (0, True) == (done.returncode, "was not waited for" in done.stderr)
        mounted.ended()


@root_only
def test_another_users_mount_stays(ordinary_user: User) -> None:
    """Root cannot look into it, and does not take it for dead."""
    directory = ordinary_user.new_directory()
    ordinary_user.write(directory / "s.img", b"s" * 4096)
    with Mount(directory, {"f": {"whole": "s.img"}}, user=ordinary_user) as mounted:
        before = mounts.find(mounted.path)
        done = User().regionfs("mount", mounted.manifest, mounted.path)
        assert (1, True, before) == (done.returncode, f"by user {NOBODY}" in done.stderr, mounts.find(mounted.path))
        assert "does not answer" not in done.stderr
        assert ordinary_user.run("cat", mounted.path / "f").stdout


def test_two_mounts_at_once_are_one(mounted: Mount) -> None:
    """The claim of a mount point is taken before anything is mounted."""
    mounted.unmount()
    _, lock = runtime.claim(mounted.path, mounted.manifest)
    try:
        done = mounted.user.regionfs("mount", mounted.manifest, mounted.path)
        assert (1, True) == (done.returncode, "is mounted already" in done.stderr)
    finally:
        os.close(lock)
        runtime.clean(mounted.path)


@root_only
@native
@pytest.mark.parametrize("what", ["source", "table", "inline", "manifest"])
def test_reload_refuses_what_it_serves_itself(mounted: Mount, tmp_path: Path, what: str) -> None:
    """Through a bind mount of the mount, by a link: named, and not touched; the mount goes on."""
    served = mounted.status()["files"]["f"]["reads"]
    (tmp_path / "link").symlink_to(tmp_path / "bind" / "f")
    link = "link"
    files: dict[str, Any] = {"source": {"whole": link}, "table": {"regions": {"table": link}}, "manifest": {},
                             "inline": {"regions": [{"data": {"file": link}}]}}
    with also_mounted("--bind", mounted.path, at=tmp_path / "bind"):
        mounted.write_manifest({"g": files[what]})
        manifest = tmp_path / "link" if what == "manifest" else mounted.manifest
        done = mounted.user.regionfs("reload", mounted.path, manifest)
        assert (3, True) == (done.returncode, f"inside this very mount, of {mounted.path}" in done.stderr), done.stderr
        assert (served, ["f"]) == (mounted.status()["files"]["f"]["reads"], [*mounted.status()["files"]])


@native
def test_reload_of_a_fifo_fails_at_once(mounted: Mount) -> None:
    """The manifest has become one; afterwards everything goes on."""
    text = mounted.manifest.read_text()
    mounted.manifest.unlink()
    os.mkfifo(mounted.manifest)
    assert 3 == mounted.user.regionfs("reload", mounted.path).returncode
    mounted.manifest.unlink()
    mounted.manifest.write_text(text)
    assert 0 == mounted.user.regionfs("reload", mounted.path).returncode
