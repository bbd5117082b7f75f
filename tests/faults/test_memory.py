"""Opens, reads, writes, listings and closes, over and over: the daemon's memory and descriptors stay flat."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

import pytest

from tests.faults.lives import FILES, TORTURE, Lives, make_sources
from tests.harness import Mount
from tests.mounted.conftest import opened

pytestmark = [pytest.mark.mounted, pytest.mark.timeout(3600)]

ROUNDS = 200_000 if TORTURE else 1_000
PAGE = 4096


def usage(pid: int) -> tuple[int, int]:
    """(KiB of memory that are the process's own, descriptors)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    memory = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
    return memory, len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_memory_stays_flat(tmp_path: Path) -> None:
    """After a tenth of the rounds nothing grows any more."""
    make_sources(tmp_path)
    with Mount(tmp_path, FILES) as mount, mmap.mmap(-1, PAGE) as buffer:
        lives = Lives(mount)
        server = lives.now()
        assert server is not None

        def turn(number: int) -> None:
            for name in FILES:
                path = mount.path / name
                with opened(path) as fd:
                    os.preadv(fd, [buffer], number * PAGE % (1 << 20))
                path.stat()
            with opened(mount.path / "user.bin", os.O_RDWR | os.O_DIRECT) as fd:
                os.preadv(fd, [buffer], 0)
                os.pwritev(fd, [buffer], number * PAGE % (1 << 20))
            list(mount.path.iterdir())

        for number in range(ROUNDS // 10):
            turn(number)
        before, begun = (usage(lives.holder), usage(server)), time.monotonic()
        for number in range(ROUNDS):
            turn(number)
        after = usage(lives.holder), usage(server)
        print(f"\n{ROUNDS} rounds of 4 opens in {time.monotonic() - begun:.0f} s: KiB and descriptors of the holder "
              f"{before[0]} -> {after[0]}, of the server {before[1]} -> {after[1]}")
        for (memory, descriptors), (memory_now, descriptors_now) in zip(before, after, strict=True):
            assert memory_now - memory < 4096
            assert descriptors_now - descriptors <= 4
