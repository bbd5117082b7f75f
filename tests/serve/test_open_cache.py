"""An OPEN that may keep the page cache: only when the kernel surely dropped what it held before."""

from __future__ import annotations

import json
import os
from pathlib import Path

from regionfs.serve.backing import Backings
from regionfs.serve.handlers import Handlers
from regionfs.serve.ledger import Ledger
from regionfs.wire import abi, device
from regionfs.wire.abi import Opcode
from regionfs.wire.parse import Request, parse
from tests.faults.lives import eventually
from tests.serve.device import open_request, served

KEPT = abi.FOPEN_KEEP_CACHE


def test_an_open_while_another_one_drops_the_cache(tmp_path: Path) -> None:
    """It is not told to keep the old pages; the next one is told to keep the new ones."""
    source = tmp_path / "source.img"
    source.write_bytes(b"old" * 4096)
    manifest = tmp_path / "m.yaml"
    manifest.write_text(json.dumps({"regionfs": 1, "files": {
        "a.img": {"regions": [{"source": "source.img", "length": 4096}]}}}))
    with served(manifest) as world:
        dropped: list[int] = []
        meanwhile: list[int] = []

        def drop(ino: int) -> None:
            dropped.append(ino)
            if len(dropped) == 1:  # the kernel has not answered yet, and another process opens the file
                meanwhile.append(flags())

        backings = Backings(world.fs, device.Registry(-1), Ledger(tmp_path / "ledger"))
        handlers = Handlers(world.fs, backings, drop, lambda ino: None)

        def flags() -> int:
            message = open_request(world.ino("a.img"), os.O_RDONLY)
            request: Request = parse(memoryview(message), len(message))
            return int.from_bytes(handlers.table[Opcode.OPEN](request)[8:12], "little")

        def kept() -> bool:
            return flags() == KEPT

        assert (0, []) == (flags(), dropped), "the kernel holds nothing of a file that was never open"
        eventually(kept)  # time stamps settle
        dropped.clear()
        meanwhile.clear()
        source.write_bytes(b"new" * 4096)
        assert 0 == flags()
        assert [0] == meanwhile
        assert [world.ino("a.img")] * 2 == dropped
        eventually(kept)
