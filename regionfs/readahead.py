"""How far the kernel reads ahead on a mount: the knobs in /sys/class/bdi, which only root may turn.

New mounts of FUSE and of EROFS begin with 128 KiB. It decides how much is asked of a server or of the
sources at once, and how large the folios of the page cache become: random reads find large ones sooner.
"""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

BDI = Path("/sys/class/bdi")
READ_AHEAD_KIB = 4096  # bench/results: streaming through the page cache gains until here


def names() -> Set[str]:
    """Of everything that has a read-ahead now; empty where /sys shows none."""
    try:
        return {entry.name for entry in BDI.iterdir()}
    except OSError:
        return frozenset()


def raise_of(name: str, kib: int = READ_AHEAD_KIB) -> bool:
    """Let the kernel read ahead up to `kib` KiB; never lowers it. False when that is not allowed or not there."""
    knob = BDI / name / "read_ahead_kb"
    try:
        if int(knob.read_text()) < kib:
            knob.write_text(str(kib))
    except OSError:
        return False
    return True
