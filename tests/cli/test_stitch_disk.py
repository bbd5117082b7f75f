"""A stitched disk with real file systems: the system's own tools find nothing wrong with it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from tests.harness import REGIONFS, Mount

MIB = 2**20
LoopDevice = Callable[..., AbstractContextManager[Path]]


def tool(*words: object) -> str:
    """Run a tool of the system; what it printed."""
    done = subprocess.run(list(map(str, words)), check=False, text=True, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=60)
    assert 0 == done.returncode, f"{words}: {done.stdout}"
    return done.stdout


@pytest.fixture(params=[512, 4096])
def sector(request: pytest.FixtureRequest) -> int:
    """Bytes of a sector."""
    return int(request.param)


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Real files: a small one, one of several clusters, one in a directory."""
    tree = tmp_path / "tree"
    (tree / "boot").mkdir(parents=True)
    (tree / "hello.txt").write_text("hello\n")
    (tree / "blob").write_bytes(os.urandom(300_001))
    (tree / "boot" / "vmlinuz").write_bytes(os.urandom(70_000))
    return tree


@pytest.fixture
def disk(tmp_path: Path, files: Path, sector: int) -> Path:
    """The plain file that a stitched manifest of a vfat and an ext4 image is assembled to."""
    esp, root, disk = (tmp_path / name for name in ("esp.img", "root.img", "disk.img"))
    for path, size in ((esp, 40 * MIB + 12_288), (root, 16 * MIB)):
        path.touch()
        os.truncate(path, size)
    tool("mkfs.vfat", "-S", sector, esp)
    tool("mcopy", "-s", "-i", esp, *sorted(files.iterdir()), "::/")
    tool("mkfs.ext4", "-q", "-b", 4096, "-d", files, root)
    tool(REGIONFS, "stitch", tmp_path / "disk.yaml", "--disk", "vm/disk.img", "--gpt",
         "--part", f"{esp}:type=esp,name=EFI", "--part", f"{root}:type=linux-root,rw,size=24MiB",
         "--size", "100MiB", "--sector-size", sector)
    with disk.open("wb") as out:
        subprocess.run([REGIONFS, "cat", tmp_path / "disk.yaml", "vm/disk.img"], stdout=out, check=True, timeout=60)
    return disk


@contextmanager
def partitions(device: Path) -> Iterator[list[Path]]:
    """The device's partitions, found by `losetup -P`; by partx where this kernel reads no tables itself."""
    def found() -> list[Path]:
        return sorted(Path("/sys/class/block", device.name).glob(f"{device.name}p*"))
    by_hand = not found()
    if by_hand:
        tool("partx", "--add", device)
    try:
        yield found()
    finally:
        if by_hand:
            tool("partx", "--delete", device)


@contextmanager
def mounted(device: Path, directory: Path, options: str = "ro") -> Iterator[Path]:
    """`device` mounted; a vfat copied out by mtools where this kernel cannot mount one."""
    directory.mkdir()
    kind = tool("blkid", "-p", "-o", "value", "-s", "TYPE", device).strip()
    if kind == "vfat" and "vfat" not in Path("/proc/filesystems").read_text():
        tool("mcopy", "-s", "-i", device, "::/*", directory)
        yield directory
        return
    tool("mount", "-o", options, device, directory)
    try:
        yield directory
    finally:
        tool("umount", directory)


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below, by its path."""
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_size_is_as_asked(disk: Path) -> None:
    """To the byte."""
    assert 100 * MIB == disk.stat().st_size


def test_table_is_clean(disk: Path, sector: int, loop_device: LoopDevice) -> None:
    """sfdisk --verify and sgdisk -v, at the sector size of the device."""
    with loop_device(disk, "--sector-size", str(sector)) as device:
        assert "No errors detected." in tool("sfdisk", "--verify", device)
        verdict = tool("sgdisk", "-v", device)
    assert "No problems found." in verdict
    assert [] == [word for word in ("Problem", "Warning", "corrupt") if word in verdict]


def test_partitions_hold_the_file_systems(
    disk: Path, files: Path, sector: int, tmp_path: Path, loop_device: LoopDevice,
) -> None:
    """Both partitions appear in their places, both file systems are clean, mount, and have every byte."""
    with loop_device(disk, "-P", "--sector-size", str(sector)) as device, partitions(device) as found:
        numbers = [tuple(int((part / name).read_text()) for name in ("start", "size")) for part in found]
        assert [(2048, 81944), (86016, 49152)] == numbers  # in units of 512, whatever the sector
        nodes = [Path("/dev", part.name) for part in found]
        tool("fsck.vfat", "-n", nodes[0])
        tool("fsck.ext4", "-f", "-n", nodes[1])
        for number, node in enumerate(nodes):
            with mounted(node, tmp_path / f"mnt{number}") as directory:
                assert contents(files) == contents(directory)


def test_root_is_written_through_the_mount(
    disk: Path, files: Path, sector: int, tmp_path: Path, loop_device: LoopDevice, mount: Callable[..., Mount],
) -> None:
    """The composite file is a disk: its root file system is changed in place, and the image is clean and has it."""
    with mount((tmp_path / "disk.yaml").read_text()) as composite:
        image = composite.path / "vm" / "disk.img"
        assert disk.stat().st_size == image.stat().st_size
        with (loop_device(image, "-P", "--sector-size", str(sector)) as device, partitions(device) as found,
              mounted(Path("/dev", found[1].name), tmp_path / "root", "rw") as root):
            assert contents(files) == contents(root)
            (root / "new").write_text("written\n")
    tool("fsck.ext4", "-f", "-n", tmp_path / "root.img")
    assert tool("debugfs", "-R", "cat new", tmp_path / "root.img").endswith("written\n")
