"""What a source is from outside, and why it cannot serve."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from regionfs.errors import SourceError
from regionfs.manifest.inspect import inspect_open, inspect_source
from tests.manifest.conftest import ordinary

Loop = Callable[..., AbstractContextManager[Path]]


def refusal(path: Path, *, writable: bool = False) -> str:
    with pytest.raises(SourceError) as caught:
        inspect_source(path, writable=writable)
    return str(caught.value)


def test_regular_file(directory: Path) -> None:
    """A regular file is known by its inode and has the size stat gives."""
    status = (directory / "a.img").stat()
    facts = inspect_source(directory / "a.img")
    assert ("file", 4096, 0) == (facts.kind, facts.size, facts.rdev)
    assert (status.st_dev, status.st_ino) == facts.identity


def test_symlink_is_followed(directory: Path) -> None:
    """A symbolic link stands for what it leads to."""
    (directory / "link").symlink_to("a.img")
    assert inspect_source(directory / "a.img") == inspect_source(directory / "link")


def test_block_device(directory: Path, loop_device: Loop) -> None:
    """A block device has the size of its end and its number for identity."""
    with loop_device(directory / "b.img") as device:
        facts = inspect_source(device, writable=True)
        assert ("block", 8192, (device.stat().st_rdev,)) == (facts.kind, facts.size, facts.identity)


def test_read_only_block_device(directory: Path, loop_device: Loop) -> None:
    """A read-only device cannot be rw, though its node's permissions allow it."""
    with loop_device(directory / "b.img", "--read-only") as device:
        assert f"{device} cannot be written: the device is read-only" == refusal(device, writable=True)


def test_stamp_changes_with_a_write(directory: Path) -> None:
    """A write changes the stamp and not the identity."""
    before = inspect_source(directory / "a.img")
    with (directory / "a.img").open("ab") as file:
        file.write(b"more")
    after = inspect_source(directory / "a.img")
    assert (before.identity, True) == (after.identity, before.stamp != after.stamp)


def test_stamp_changes_with_replacement(directory: Path) -> None:
    """Another file of the same size under the same name has another identity."""
    before = inspect_source(directory / "a.img")
    (directory / "new").write_bytes(bytes(4096))
    (directory / "new").replace(directory / "a.img")
    assert before.identity != inspect_source(directory / "a.img").identity


def test_open_descriptor_gives_the_same_facts(directory: Path) -> None:
    """What was inspected by path and what was opened can be compared."""
    with (directory / "a.img").open("rb") as file:
        assert inspect_source(directory / "a.img") == inspect_open(file.fileno(), "a.img")


def test_open_descriptor_of_a_pipe() -> None:
    """A name that means a pipe by the time it is opened is refused."""
    reader, writer = os.pipe()
    with pytest.raises(SourceError, match="x is a FIFO; a source is"):
        inspect_open(reader, "x")
    os.close(reader)
    os.close(writer)


def test_missing(directory: Path) -> None:
    """A missing file is named."""
    assert f"{directory}/no.img does not exist" == refusal(directory / "no.img")


def test_dangling_symlink(directory: Path) -> None:
    """A symbolic link to nothing says where it leads."""
    (directory / "link").symlink_to("gone.img")
    expected = f"{directory}/link is a symbolic link to gone.img, which does not exist"
    assert expected == refusal(directory / "link")


def test_symlink_loop(directory: Path) -> None:
    """A symbolic link to itself ends."""
    (directory / "link").symlink_to("link")
    assert f"{directory}/link: Too many levels of symbolic links" == refusal(directory / "link")


def test_directory(directory: Path) -> None:
    """A directory cannot be a source."""
    assert f"{directory} is a directory; a source is a regular file or a block device" == refusal(directory)


def test_fifo_is_not_opened(directory: Path) -> None:
    """A FIFO without a writer would block an open; it is refused at once."""
    os.mkfifo(directory / "fifo")
    expected = f"{directory}/fifo is a FIFO; a source is a regular file or a block device"
    assert expected == refusal(directory / "fifo")


def test_socket(directory: Path) -> None:
    """A socket cannot be a source."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        expected = f"{directory}/socket is a socket; a source is a regular file or a block device"
        assert expected == refusal(directory / "socket")


def test_character_device() -> None:
    """A character device cannot be a source."""
    expected = "/dev/zero is a character device; a source is a regular file or a block device"
    assert expected == refusal(Path("/dev/zero"))


def test_file_as_directory(directory: Path) -> None:
    """A path through a regular file says so."""
    assert f"{directory}/a.img/x: Not a directory" == refusal(directory / "a.img" / "x")


def test_name_too_long(directory: Path) -> None:
    """A name longer than the file system's limit says so."""
    assert refusal(directory / ("x" * 300)).endswith("File name too long")


def test_nul_in_name() -> None:
    """A NUL cannot be in a path."""
    assert r"'/a\x00b' is not a path" == refusal(Path("/a\0b"))


def test_unreadable(open_directory: Path) -> None:
    """Permission to read is asked for with the effective user."""
    file = open_directory / "a.img"
    file.touch(mode=0o200)
    with ordinary():
        assert f"{file} cannot be read: permission denied" == refusal(file)


def test_unwritable(open_directory: Path) -> None:
    """Permission to write is asked for only where it is needed."""
    file = open_directory / "a.img"
    file.touch(mode=0o444)
    with ordinary():
        assert 0 == inspect_source(file).size
        assert f"{file} cannot be written: permission denied" == refusal(file, writable=True)


def test_unreachable(open_directory: Path) -> None:
    """A directory that cannot be entered says so."""
    (open_directory / "closed").mkdir(mode=0o000)
    with ordinary():
        assert f"{open_directory}/closed/x: Permission denied" == refusal(open_directory / "closed" / "x")


def test_read_only_file_system(open_directory: Path) -> None:
    """A file on a read-only file system cannot be rw, and that is the reason given."""
    if os.geteuid() != 0:
        pytest.skip("a read-only file system needs root to mount it")
    file = open_directory / "a.img"
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", open_directory], check=True)
    try:
        file.touch()
        subprocess.run(["mount", "-o", "remount,ro", open_directory], check=True)
        assert f"{file} cannot be written: its file system is read-only" == refusal(file, writable=True)
    finally:
        subprocess.run(["umount", open_directory], check=True)
