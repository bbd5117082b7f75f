"""Reading through a mount is no use of the sources: access times stay, on a file system that notes every read."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import ENGINES, Mount, loop_device
from tests.mounted.kernel import require

pytestmark = [pytest.mark.mounted, pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts ext4")]

LONG_AGO = 1_000_000_000  # seconds since the epoch
FILES: dict[str, object] = {"passthrough": {"whole": "src/a.img"},
         "composed": {"regions": [{"source": "src/a.img", "offset": 4096}, {"source": "src/a.img", "length": 4096}]},
         "userspace": {"regions": [{"source": "src/a.img", "offset": 1}]}}


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Path]:
    """A file of a strictatime file system."""
    (tmp_path / "src").mkdir()
    with open(tmp_path / "disk", "wb") as disk:
        disk.truncate(16 << 20)
    subprocess.run(["mkfs.ext4", "-q", tmp_path / "disk"], check=True)
    with loop_device(tmp_path / "disk") as device:
        subprocess.run(["mount", "-o", "strictatime", device, tmp_path / "src"], check=True)
        try:
            path = tmp_path / "src/a.img"
            path.write_bytes(os.urandom(3 * 4096))
            yield path
        finally:
            subprocess.run(["umount", tmp_path / "src"], check=True)


def moved_by(path: Path, source: Path, flags: int = 0) -> bool:
    """Whether reading all of `path` moves the source's access time."""
    os.utime(source, (LONG_AGO, LONG_AGO))
    fd = os.open(path, os.O_RDONLY | flags)
    try:
        assert len(os.pread(fd, 1 << 20, 0)) > 4096
    finally:
        os.close(fd)
    return source.stat().st_atime != LONG_AGO


@pytest.mark.parametrize("engine", ENGINES)
def test_userspace(tmp_path: Path, source: Path, engine: str) -> None:
    """It stays, by either engine."""
    with Mount(tmp_path, {"f": FILES["userspace"]}, engine=engine) as mount:
        assert [False, False] == [moved_by(mount.path / "f", source) for _ in range(2)]


def test_composed(tmp_path: Path, source: Path) -> None:
    """It stays, though it is the kernel that opens and reads the source."""
    require("composed")
    with Mount(tmp_path, {"f": FILES["composed"]}) as mount:
        assert "composed" == mount.status()["files"]["f"]["mode"]
        assert [False, False] == [moved_by(mount.path / "f", source) for _ in range(2)]
        assert (0, 0) == mount.served("f")


def test_passthrough(tmp_path: Path, source: Path) -> None:
    """It is that of the file itself: the kernel reads it as its reader opened it, O_NOATIME included."""
    require("passthrough")
    with Mount(tmp_path, {"f": FILES["passthrough"]}) as mount:
        assert [True, False] == [moved_by(mount.path / "f", source, flags) for flags in (0, os.O_NOATIME)]
        assert (0, 0) == mount.served("f")
