"""What mount, umount, reload and upgrade say of what they changed, and what the others know of it then."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.harness import ENGINES, Mount

pytestmark = pytest.mark.mounted

FILES = {"plain": {"whole": "a.img"},
         "odd": {"regions": [{"source": "a.img", "offset": 1, "length": 7}, {"data": {"text": "x"}}]}}


@pytest.fixture
def mount(tmp_path: Path) -> Mount:
    (tmp_path / "a.img").write_bytes(bytes(4096))
    (tmp_path / "mnt").mkdir()
    return Mount(tmp_path, FILES)


@pytest.mark.parametrize("engine", ENGINES)
def test_mount_and_umount(mount: Mount, engine: str) -> None:
    """A line on stderr each, with how many files go which way; nothing on stdout."""
    user, modes = mount.user, "userspace"
    done = user.regionfs("mount", mount.manifest, mount.path, "--engine", engine, "--modes", modes)
    assert (0, "", f"mounted {mount.manifest} on {mount.path}: 2 files, 2 userspace\n") == (
        done.returncode, done.stdout, done.stderr)
    done = user.regionfs("umount", mount.path)
    assert (0, "", f"unmounted {mount.path}\n") == (done.returncode, done.stdout, done.stderr)


def test_quiet(mount: Mount) -> None:
    """With -q none of them says anything, unless something is wrong."""
    user = mount.user
    commands = [("mount", "-q", mount.manifest, mount.path), ("upgrade", "-q", mount.path),
                ("umount", "-q", mount.path)]
    assert [(0, "", "")] * 3 == [(done.returncode, done.stdout, done.stderr)
                                 for done in (user.regionfs(*command) for command in commands)]
    assert 1 == user.regionfs("umount", "-q", mount.path).returncode


def test_upgrade(mount: Mount) -> None:
    """It says which installation serves the mount from now on."""
    with mount:
        done = mount.user.regionfs("upgrade", mount.path)
        assert (0, "") == (done.returncode, done.stdout)
        assert done.stderr.startswith(f"{mount.path} is served by regionfs ")


def test_options_in_several_places(mount: Mount) -> None:
    """`-o a -o b` is `-o a,b`, as for mount(8)."""
    mount.options = ("-o", "ro", "-o", "noexec", "-o", "modes=userspace")
    with mount:
        flags = os.statvfs(mount.path).f_flag
        assert (os.ST_RDONLY, os.ST_NOEXEC) == (flags & os.ST_RDONLY, flags & os.ST_NOEXEC)
        assert {"userspace"} == {file["mode"] for file in mount.status()["files"].values()}


@pytest.mark.parametrize("name", ["b.yaml", "a-name-that-is-much-longer-than-that-of-the-first-one.yaml"])
def test_another_manifest_at_reload(mount: Mount, tmp_path: Path, name: str) -> None:
    """Who looks for mounts of a manifest finds the one that is shown, also once the daemon was killed."""
    other = tmp_path / name
    with mount:
        other.write_bytes(mount.manifest.read_bytes())
        assert 0 == mount.user.regionfs("reload", mount.path, other).returncode
        told = mount.user.regionfs("map", "add", other, "odd", "text=more").stderr
        assert f"{mount.path} shows the manifest as it was until: regionfs reload {mount.path}\n" in told
        told = mount.user.regionfs("map", "add", mount.manifest, "odd", "text=more").stderr
        assert "shows the manifest as it was" not in told
        mount.kill()
        status, = json.loads(mount.user.regionfs("status", mount.path, "--json").stdout)["mounts"]
        assert str(other) == status["manifest"]
        assert 0 == mount.user.regionfs("umount", mount.path).returncode


def test_a_killed_server_knows_the_manifest_of_the_reload(mount: Mount, tmp_path: Path) -> None:
    """Its successor serves that one, and status says so."""
    other = tmp_path / "other.yaml"
    with mount:
        other.write_bytes(mount.manifest.read_bytes())
        assert 0 == mount.user.regionfs("reload", mount.path, other).returncode
        os.kill(mount.status()["pid"], signal.SIGKILL)
        assert (b"\0" * 7 + b"x", str(other)) == ((mount.path / "odd").read_bytes(), mount.status()["manifest"])


