"""Two mounts that write the same bytes of a source: whoever mounts or reloads the second is told."""

from pathlib import Path

import pytest

from tests.harness import ENGINES, Mount

pytestmark = pytest.mark.mounted


def region(offset: int, length: int, access: str = "rw") -> dict[str, object]:
    """A file of one region."""
    return {"regions": [{"source": "a.img", "offset": offset, "length": length, "access": access}]}


@pytest.fixture
def first(tmp_path: Path) -> Mount:
    (tmp_path / "a.img").write_bytes(bytes(8192))
    return Mount(tmp_path, {"one": region(0, 4096)}, name="first")


def second(tmp_path: Path, file: dict[str, object], engine: str = "native") -> Mount:
    mount = Mount(tmp_path, {"two": file}, name="second", engine=engine)
    mount.path.mkdir()
    return mount


@pytest.mark.parametrize("engine", ENGINES)
def test_mount(tmp_path: Path, first: Mount, engine: str) -> None:
    """The command names the source, the other mount and its file; status of both says it as long as both live."""
    told = f"{tmp_path / 'a.img'} is written by two here and by one of the mount on {first.path}: "
    mount = second(tmp_path, {"whole": "a.img", "access": "rw"}, engine)
    with first:
        done = mount.user.regionfs("mount", mount.manifest, mount.path, "--engine", engine)
        try:
            assert (0, True) == (done.returncode, done.stderr.startswith(f"warning: {told}")), done.stderr
            assert any(note.startswith(told) for note in mount.status()["notes"])
            assert any("by two of the mount" in note for note in first.status()["notes"])
        finally:
            mount.unmount()
        assert not any("two" in note for note in first.status()["notes"])


@pytest.mark.parametrize("file", [region(4096, 4096), region(0, 4096, "ro")], ids=["other range", "read only"])
def test_no_rivals(tmp_path: Path, first: Mount, file: dict[str, object]) -> None:
    """Another range of a source, or one that is only read, is nobody's business."""
    mount = second(tmp_path, file)
    with first, mount:
        assert "a.img" not in "".join([*first.status()["notes"], *mount.status()["notes"]])


def test_reload(tmp_path: Path, first: Mount) -> None:
    """A reload that begins to write what another mount writes warns, and so does its --dry-run."""
    mount = second(tmp_path, region(4096, 4096))
    with first, mount:
        mount.write_manifest({"two": region(4095, 4096)})
        for words in ("--dry-run",), ():
            done = mount.user.regionfs("reload", mount.path, *words)
            assert (0, 1) == (done.returncode, done.stderr.count(f"of the mount on {first.path}")), done.stderr
        mount.write_manifest({"two": region(4096, 4096)})
        assert "" == mount.user.regionfs("reload", mount.path).stderr
