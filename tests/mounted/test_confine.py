"""A mount with --confine: what lies outside is never served, whatever is done beneath DIR meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import Mount
from tests.manifest.test_confine import swapping
from tests.worker import Worker

RACES = 10_000

MakeMount = Callable[..., Mount]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file beside DIR, which is tmp_path/ground with a.img in it."""
    (tmp_path / "ground").mkdir()
    (tmp_path / "ground" / "a.img").write_bytes(b"public" * 100)
    (tmp_path / "secret").write_bytes(b"SECRET" * 100)
    return tmp_path / "secret"


@pytest.mark.parametrize("place", ["secret", "ground/../secret", "ground/link"])
def test_a_mount_refuses_sources_outside(mount: MakeMount, secret: Path, place: str) -> None:
    """Exit status 3 with the place in the manifest, and no mount."""
    (secret.parent / "ground" / "link").symlink_to(secret)
    mounted = mount({"x": {"whole": place}}, options=["--confine", secret.parent / "ground"])
    mounted.path.mkdir()
    done = mounted.user.regionfs("mount", mounted.manifest, mounted.path, *mounted.options)
    assert (3, False) == (done.returncode, mounted.mounted)
    assert "sources are confined" in done.stderr


def test_a_reload_is_confined_too(secret: Path, mount: MakeMount) -> None:
    """A manifest that names the secret later changes nothing."""
    with mount({"x": {"whole": "ground/a.img"}}, options=["--confine", secret.parent / "ground"]) as mounted:
        if mounted.engine == "pyfuse3":
            return  # it cannot reload
        mounted.write_manifest({"x": {"whole": "secret"}})
        done = mounted.user.regionfs("reload", mounted.path)
        assert (3, b"public") == (done.returncode, (mounted.path / "x").read_bytes()[:6])


def test_a_source_that_became_a_link_fails(secret: Path, mount: MakeMount) -> None:
    """Opens fail with EIO, and go on once the file is back."""
    ground = secret.parent / "ground"
    with mount({"x": {"whole": "ground/a.img"}}, options=["--confine", ground]) as mounted:
        (ground / "a.img").rename(ground / "away")
        (ground / "a.img").symlink_to(secret)
        with pytest.raises(OSError, match="Input/output error"):
            (mounted.path / "x").read_bytes()
        (ground / "away").replace(ground / "a.img")
        assert b"public" == (mounted.path / "x").read_bytes()[:6]


@pytest.mark.timeout(240)
def test_symlink_swap_race_on_a_mount(secret: Path, mount: MakeMount, worker: Worker) -> None:
    """10,000 opens and reads while the source is exchanged for a link: its own bytes or EIO, nothing else."""
    ground = secret.parent / "ground"
    (ground / "link").symlink_to(secret)
    with mount({"x": {"whole": "ground/a.img"}}, options=["--confine", ground, "-q"]) as mounted:
        path = mounted.path / "x"
        with swapping(ground / "a.img", ground / "link"):
            results = worker.run([("pread", path, 0, 600)] * RACES)
    good = results.count(b"public" * 100)
    bad = [result for result in results if not isinstance(result, OSError) and result != b"public" * 100]
    assert (RACES, []) == (len(results), bad)
    assert min(good, RACES - good) > RACES // 100, f"no race: {good} of {RACES} served"
