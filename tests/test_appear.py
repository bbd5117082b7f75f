"""New files: whole or not at all, and nothing left of those that were never finished."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from regionfs import appear
from regionfs.appear import PREFIX, appearing

WRITER = """
import os, sys
from pathlib import Path
from regionfs import appear
if sys.argv[2] == "named":
    appear._DESCRIPTORS = Path("/nonexistent")
with appear.appearing(Path(sys.argv[1]), replace=True) as fd:
    os.write(fd, b"unfinished")
    print("writing", flush=True)
    sys.stdin.read()
"""


@pytest.fixture(params=["unnamed", "named"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With unnamed files, and as where there are none: without /proc nothing can name one."""
    if request.param == "named":
        monkeypatch.setattr(appear, "_DESCRIPTORS", Path("/nonexistent"))
    return str(request.param)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_file_appears_when_it_is_complete(way: str, tmp_path: Path) -> None:
    """With the permissions of any new file, and under no name of its own before."""
    out = tmp_path / "out"
    before = os.umask(0o027)
    try:
        with appearing(out, replace=False) as fd:
            os.write(fd, b"bytes")
            assert [] == [name for name in names(tmp_path) if not name.startswith(PREFIX)]
            assert (way == "named") == bool(names(tmp_path))
    finally:
        os.umask(before)
    assert (["out"], b"bytes", 0o640) == (names(tmp_path), out.read_bytes(), out.stat().st_mode & 0o777)


def test_what_is_there_is_replaced_or_stays(way: str, tmp_path: Path) -> None:
    """As its maker says; a symbolic link is replaced, not what it leads to."""
    (tmp_path / "real").write_text("real")
    (tmp_path / "out").symlink_to("real")
    with pytest.raises(FileExistsError), appearing(tmp_path / "out", replace=False) as fd:
        os.write(fd, b"new")
    assert (["out", "real"], "real") == (names(tmp_path), (tmp_path / "out").read_text())
    with appearing(tmp_path / "out", replace=True) as fd:
        os.write(fd, b"new")
    assert (["out", "real"], "new", "real") == (names(tmp_path), (tmp_path / "out").read_text(),
                                                (tmp_path / "real").read_text())


def test_a_failure_leaves_nothing(way: str, tmp_path: Path) -> None:
    """Whatever is raised in the block."""
    with pytest.raises(KeyboardInterrupt), appearing(tmp_path / "out", replace=True):
        raise KeyboardInterrupt
    assert [] == names(tmp_path)


def test_a_name_as_long_as_names_may_be(way: str, tmp_path: Path) -> None:
    """What is unfinished has a shorter one."""
    with appearing(tmp_path / ("n" * 255), replace=True):
        pass
    assert ["n" * 255] == names(tmp_path)


def test_what_a_kill_leaves_is_removed_by_the_next(way: str, tmp_path: Path) -> None:
    """And only that: what others write meanwhile, and files of people, stay."""
    (tmp_path / f"{PREFIX}directory").mkdir()
    with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path / "out", way], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE) as killed:
        assert killed.stdout
        assert b"writing\n" == killed.stdout.readline()
        with appearing(tmp_path / "other", replace=True):
            assert (3 if way == "named" else 1) == len(names(tmp_path))
        living = [name for name in names(tmp_path) if name not in ("other", f"{PREFIX}directory")]
        assert (way == "named") == bool(living)
        killed.kill()
        killed.wait(30)
    assert living == [name for name in names(tmp_path) if name not in ("other", f"{PREFIX}directory")]
    with appearing(tmp_path / "other", replace=True):
        assert set() == set(names(tmp_path)) & set(living)
    assert [f"{PREFIX}directory", "other"] == names(tmp_path)
