"""Sources beneath one directory only, whatever is renamed and linked meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from regionfs.errors import ManifestError, SourceError
from regionfs.manifest.inspect import inspect_source
from regionfs.manifest.load import load
from regionfs.source import Sources

RACES = 10_000
SWAP = Path(__file__).with_name("swap.py")


@pytest.fixture
def ground(tmp_path: Path) -> Path:
    """DIR with a file in it, beside a secret and a directory of secrets."""
    directory = tmp_path.resolve() / "ground"
    (directory / "sub").mkdir(parents=True)
    outside = directory.parent / "outside"
    outside.mkdir()
    for path in (outside / "a.img", directory.parent / "secret"):
        path.write_bytes(b"SECRET" * 100)
    for path in (directory / "a.img", directory / "sub" / "a.img"):
        path.write_bytes(b"public" * 100)
    return directory


def refusal(path: Path, ground: Path) -> str:
    with pytest.raises(SourceError) as refused:
        inspect_source(path, confine=ground)
    return str(refused.value)


def test_a_file_beneath_is_reached(ground: Path) -> None:
    """What lies beneath DIR is the same source with and without the door."""
    path = ground / "sub" / ".." / "sub" / "a.img"
    assert inspect_source(path) == inspect_source(path, writable=True, confine=ground)


@pytest.mark.parametrize("target", ["../../secret", "a.img", "../a.img"])
def test_symlinks_are_refused(ground: Path, target: str) -> None:
    """No symbolic link is followed, wherever it leads."""
    (ground / "sub" / "link").symlink_to(target)
    assert "goes through a symbolic link" in refusal(ground / "sub" / "link", ground)


def test_a_linked_directory_is_refused(ground: Path) -> None:
    """Nor one in the middle of the path."""
    (ground / "door").symlink_to("../outside")
    assert "goes through a symbolic link" in refusal(ground / "door" / "a.img", ground)


@pytest.mark.parametrize("path", ["../secret", "sub/../../secret", "sub/../../ground/a.img"])
def test_dotdot_cannot_leave(ground: Path, path: str) -> None:
    """Not even to come back."""
    assert f"leads out of {ground}" in refusal(ground / path, ground)


def test_other_paths_are_refused(ground: Path) -> None:
    """An absolute path elsewhere, however it is spelt."""
    assert f"lies outside {ground}" in refusal(ground.parent / "secret", ground)
    assert f"lies outside {ground}" in refusal(Path(f"/proc/self/root{ground}/a.img"), ground)


def test_magic_links_are_refused() -> None:
    """/proc/self/exe and its like lead anywhere."""
    assert "goes through a symbolic link" in refusal(Path("/proc/self/exe"), Path("/proc"))


def test_mounts_are_refused(ground: Path) -> None:
    """What is mounted beneath DIR is not beneath it."""
    if os.geteuid() != 0:
        pytest.skip("a bind mount needs root")
    subprocess.run(["mount", "--bind", ground.parent / "outside", ground / "sub"], check=True)
    try:
        assert "into another mount" in refusal(ground / "sub" / "a.img", ground)
    finally:
        subprocess.run(["umount", ground / "sub"], check=True)


@pytest.mark.parametrize("line", [
    "x: {whole: ../secret}",
    "x: {regions: [{source: ../secret}]}",
    "x: {regions: [{data: {file: ../secret}}]}",
])
def test_a_manifest_cannot_name_what_lies_outside(ground: Path, line: str) -> None:
    """Sources and inline files alike."""
    manifest = ground / "m.yaml"
    manifest.write_text(f"regionfs: 1\nfiles:\n  {line}\n")
    assert 1 == len(load(manifest).files)
    with pytest.raises(ManifestError, match=f"leads out of {ground}"):
        load(manifest, confine=ground)


@contextmanager
def swapping(one: Path, other: Path) -> Iterator[None]:
    """Another process exchanges two names as fast as it can."""
    with subprocess.Popen([sys.executable, SWAP, one, other], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout
            process.stdout.readline()
            yield
        finally:
            process.kill()


def race(ground: Path, name: str, confine: Path | None) -> tuple[int, int, int]:
    """Load, look and open again and again: how often it (served, refused, gave the secret away)."""
    (ground / "m.yaml").write_text(f"regionfs: 1\nfiles:\n  x: {{whole: {name}, access: rw}}\n")
    manifest = load(ground / "m.yaml")
    served = refused = stolen = 0
    for _ in range(RACES):
        try:
            found = type(manifest)(manifest.path, manifest.sources, manifest.files, confine)
            with Sources(found) as sources:
                key, = found.sources
                content = os.pread(sources.fd(key), 600, 0)
                stolen += b"SECRET" in content or b"SECRET" in _read_looked_at(sources, key, ground)
                served += 1
        except (SourceError, OSError):
            refused += 1
    return served, refused, stolen


def _read_looked_at(sources: Sources, key: str, ground: Path) -> bytes:
    """The bytes of the file that look() was given the facts of, told by its inode."""
    secrets = {(ground.parent / name).stat().st_ino for name in ("secret", "outside/a.img")}
    return b"SECRET" if sources.look(key).inode in secrets else b""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["a.img", "sub/a.img"], ids=["file", "directory"])
def test_symlink_swap_race(ground: Path, name: str) -> None:
    """10,000 opens while a file, or its directory, is exchanged for a link outside: nothing gets out."""
    (ground / "link").symlink_to("../outside" if "/" in name else "../secret")
    with swapping(ground / "link", ground / name.split("/")[0]):
        served, refused, stolen = race(ground, name, ground)
    assert (RACES, 0) == (served + refused, stolen)
    assert min(served, refused) > RACES // 100, f"no race: {served} served, {refused} refused"


@pytest.mark.timeout(300)
def test_the_race_is_one(ground: Path) -> None:
    """Without the door the same race gives the secret away: the test above tests something."""
    (ground / "link").symlink_to("../secret")
    with swapping(ground / "link", ground / "a.img"):
        _, _, stolen = race(ground, "a.img", None)
    assert stolen > 0


def test_what_was_reached_is_held(ground: Path) -> None:
    """Within the block the name may go elsewhere, the file stays the one that was found."""
    from regionfs.manifest.confine import reach
    with reach(ground / "a.img", ground) as here:
        shutil.move(ground / "a.img", ground / "gone")
        (ground / "a.img").symlink_to("../secret")
        assert b"public" == here.read_bytes()[:6]
