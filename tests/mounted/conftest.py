"""The world of the mounted tests: one directory of sources, one manifest with a file of each kind."""

from __future__ import annotations

import base64
import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Mount

PAGE = 4096

# disk.img, in pages: 0 inline "H", 1-2 ro "r", 3-4 rw "a", 5-6 rw "b", 7 hole, 8 error, 9 hole
FILES: dict[str, Any] = {
    "disk.img": {"size": 10 * PAGE, "regions": [
        {"start": 0, "data": {"base64": base64.b64encode(b"H" * PAGE).decode()}},
        {"source": "ro.img"},
        {"source": "a.img", "access": "rw"},
        {"source": "b.img", "access": "rw"},
        {"start": 8 * PAGE, "length": PAGE, "error": True},
    ]},
    "ro.bin": {"regions": [{"source": "ro.img"}]},
    "bad.bin": {"regions": [{"source": "ro.img", "length": 100}, {"error": True, "length": 50},
                            {"source": "ro.img", "length": 100}]},
    "sparse.bin": {"size": "1MiB", "regions": [{"start": "64KiB", "source": "sparse.img"}]},
    "deep/er/whole.bin": {"whole": "whole.img", "access": "rw"},
    "deep/whole-ro.bin": {"whole": "whole.img"},
}


class World:
    """The mount of FILES and the sources below it."""

    def __init__(self, mount: Mount, sources: Path) -> None:
        self.mount, self.sources = mount, sources
        self.disk, self.ro, self.bad, self.sparse, self.whole, self.whole_ro = (
            mount.path / name for name in FILES)

    def source(self, name: str) -> bytes:
        """What a source holds, read beside the mount."""
        return (self.sources / name).read_bytes()


def make_sources(directory: Path) -> None:
    """Every source of FILES."""
    for name in ("ro", "a", "b"):
        (directory / f"{name}.img").write_bytes(name[0].encode() * 2 * PAGE)
    (directory / "whole.img").write_bytes(b"w" * 1000)
    with open(directory / "sparse.img", "wb") as sparse:  # data in its second block, holes around
        os.pwrite(sparse.fileno(), b"s" * PAGE, PAGE)
        sparse.truncate(4 * PAGE)


@pytest.fixture
def world(mount: Callable[..., Mount], tmp_path: Path) -> Iterator[World]:
    """FILES, mounted."""
    make_sources(tmp_path)
    with mount(FILES) as mounted:
        yield World(mounted, tmp_path)


@contextmanager
def opened(path: Path, flags: int = os.O_RDONLY) -> Iterator[int]:
    """A descriptor, closed at the end."""
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def syncfs(fd: int) -> None:
    """syncfs(2), which the os module does not have."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syncfs(fd):
        raise OSError(ctypes.get_errno(), "syncfs")
