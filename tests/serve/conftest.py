"""Files behind a device. The compiled loop is built wherever these tests run: without it they fail and say so."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serve.device import World, on_disk, served_from

PAGE = 4096
SIZE = 8 * PAGE  # of each source
MANY = 600       # pieces, more than the loop takes

# disk.img, in pages: 0 inline, 1-2 ro, 3-4 rw a, 5-6 rw b, 7 hole, 8 error, 9 a gap at the end
FILES: dict[str, Any] = {
    "disk.img": {"size": 10 * PAGE, "regions": [
        {"start": 0, "data": {"text": "H" * PAGE}},
        {"source": "r.img", "length": 2 * PAGE},
        {"source": "a.img", "length": 2 * PAGE, "access": "rw"},
        {"source": "b.img", "length": 2 * PAGE, "access": "rw"},
        {"length": PAGE, "hole": True},
        {"length": PAGE, "error": True},
    ]},
    "ro.bin": {"regions": [{"source": "r.img"}]},
    "whole.bin": {"whole": "w.img", "access": "rw"},
    "twice.bin": {"regions": [{"source": "t.img", "access": "rw"}, {"source": "t.img"}]},
    "shred.bin": {"regions": [{"source": "s.img", "offset": n * 2, "length": 1} for n in range(MANY)]},
    "piece.bin": {"regions": [{"source": "s.img", "offset": n, "length": 1} for n in range(MANY)]},
}
DISK_RW, DISK_B, DISK_HOLE, DISK_ERROR, DISK_TAIL = 3 * PAGE, 5 * PAGE, 7 * PAGE, 8 * PAGE, 9 * PAGE


@pytest.fixture
def sources(tmp_path: Path) -> Iterator[Path]:
    """The directory of the sources of FILES, each full of its own letter, on a disk."""
    with on_disk(tmp_path) as directory:
        for name in "rabwts":
            (directory / f"{name}.img").write_bytes(name.encode() * SIZE)
        yield directory


@pytest.fixture
def world(sources: Path) -> Iterator[World]:
    """FILES behind a device; nothing is known yet."""
    with served_from(sources, FILES) as made:
        yield made


@pytest.fixture(autouse=True)
def _built() -> None:
    if os.environ.get("REGIONFS_FAST") == "0":
        pytest.skip("REGIONFS_FAST=0 turns the fast path off")
    try:
        import regionfs.serve._fast  # noqa: F401
    except ImportError as error:
        pytest.fail(f"the fast path is not there ({error}); build it: python setup.py build_ext --inplace")
