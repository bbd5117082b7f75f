"""Servers that are killed under a mount that stays, and what one mount needs to show every mode.

Knows the holder's process and its child, never what they say to each other.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.harness import Mount

TORTURE = bool(os.environ.get("REGIONFS_TORTURE"))  # the full form: `make torture`

MIB = 1 << 20
SIZE = 2 * MIB  # of each file below

MODES = {"pass.bin": "passthrough", "comp.bin": "composed", "user.bin": "userspace"}
FILES: dict[str, Any] = {
    "pass.bin": {"whole": "pass.img", "access": "rw"},
    "comp.bin": {"regions": [{"source": "comp-1.img"}, {"source": "comp-2.img"}]},
    "user.bin": {"regions": [{"source": "user-1.img", "access": "rw"}, {"source": "user-2.img", "access": "rw"}]},
}


def make_sources(directory: Path) -> dict[str, bytes]:
    """Every source of FILES, and what the files show."""
    shown = {name: pattern(SIZE, index) for index, name in enumerate(FILES)}
    (directory / "pass.img").write_bytes(shown["pass.bin"])
    for name in ("comp", "user"):
        (directory / f"{name}-1.img").write_bytes(shown[f"{name}.bin"][:SIZE // 2])
        (directory / f"{name}-2.img").write_bytes(shown[f"{name}.bin"][SIZE // 2:])
    return shown


def pattern(length: int, seed: int) -> bytes:
    """Bytes of which each 8 say where they are."""
    return b"".join((seed << 56 | position).to_bytes(8, "big") for position in range(0, length, 8))


class Lives:
    """The servers of one mount, one after the other."""

    def __init__(self, mount: Mount) -> None:
        status = mount.status()
        self.holder = int(status["holder_pid"])
        self._killed: int | None = None

    def now(self) -> int | None:
        """The process that serves or is about to; None between two."""
        children = Path(f"/proc/{self.holder}/task/{self.holder}/children").read_text().split()
        return int(children[0]) if children else None

    def kill(self) -> float:
        """SIGKILL the server, whatever it does just then, as soon as there is another than the one killed last.

        Returns the time of that.
        """
        pid = None
        while pid in (None, self._killed):
            pid = self.now()
        assert pid is not None
        self._killed = pid
        killed = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        return killed


def eventually(happens: Callable[[], bool], seconds: float = 15) -> None:
    """Wait until `happens` says true; nobody tells, so it is asked again and again."""
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, f"{happens} did not become true in {seconds} s"
        time.sleep(0.01)
