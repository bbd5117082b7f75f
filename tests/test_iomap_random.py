"""iomap on random maps over loop block devices: the kernel's side is played, the server is the real one.

Every reply is held against the kernel's rules, the I/O is done by the mappings that came, and what is read,
and every byte of every device afterwards, must be the oracle's.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.iomap_cases import Case, random_case
from tests.iomap_kernel import PAGE, IomapKernel
from tests.iomap_state import File
from tests.oracle import Model

LoopDevice = Callable[..., AbstractContextManager[Path]]

SECTORS = {"512": (512, 512), "4096": (4096, 4096), "both": (512, 4096)}
MAPS = 170         # of each
OPERATIONS = 15    # on each


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", SECTORS)
def test_random_maps(tmp_path: Path, loop_device: LoopDevice, name: str) -> None:
    """All rules held, contents and untouched bytes equal to the oracle, on 512- and 4096-byte sectors."""
    with ExitStack() as stack:
        devices = [_device(stack, loop_device, tmp_path / f"disk{number}", sector)
                   for number, sector in enumerate(SECTORS[name])]
        for seed in range(MAPS):
            case = random_case(seed, devices)
            exercise(case, tmp_path / "map.yaml", seed)


def _device(stack: ExitStack, loop_device: LoopDevice, path: Path, sector: int) -> tuple[Path, int, int]:
    size = 40 * 512 if sector == 512 else 7 * 4096
    path.write_bytes(bytes(size))
    return stack.enter_context(loop_device(path, "--sector-size", str(sector))), size, sector


def exercise(case: Case, manifest: Path, seed: int) -> None:
    """Use the file of one case in random ways and compare everything."""
    rng = Random(seed)
    for source in case.sources:
        source.put()
    manifest.write_text(case.text)
    with IomapKernel(manifest, seed=seed) as kernel:
        file = kernel.open("dir/f", os.O_RDWR if case.model.grounds else os.O_RDONLY)
        assert case.model.size == file.size
        for _ in range(OPERATIONS):
            name, expected, actual = step(kernel, file, case.model, rng)
            assert expected == actual, f"{name} of seed {seed}\n{case.text}"
            if rng.random() < 0.3:
                kernel.settle()
        kernel.fsync(file)
        file.blocks.clear()
        assert case.model.read(0, file.size) == kernel.read(file, 0, file.size), case.text
        kernel.close(file)
    for source in case.sources:
        assert source.contents == source.get(), f"{source.key} of seed {seed}\n{case.text}"


def step(kernel: IomapKernel, file: File, model: Model, rng: Random) -> tuple[str, Any, Any]:
    """One operation: its name, what the oracle says, what came of it."""
    offset, length = _place(model, rng), rng.choice((1, 700, 4096, rng.randint(1, 20_000)))
    data = rng.randbytes(length)
    start = offset // 4096 * 4096
    whole = data + bytes(-length % 4096)
    name = rng.choice(("read", "read", "write", "write", "direct_read", "direct_write", "map_write", "zero",
                       "unshare", "seek", "report", "fsync", "evict", "writeback"))
    if name == "read":
        return name, model.read(offset, length), kernel.read(file, offset, length)
    if name == "direct_read":
        return name, model.read(start, len(whole)), kernel.direct_read(file, start, len(whole))
    if not model.grounds and name in ("write", "direct_write", "map_write", "zero", "unshare"):
        return "open", "EROFS", outcome(kernel.open, "dir/f")
    match name:
        case "write":
            return name, outcome(model.write, offset, data), outcome(kernel.write, file, offset, data)
        case "direct_write":
            return name, outcome(model.write, start, whole), outcome(kernel.direct_write, file, start, whole)
        case "map_write":
            return _map_write(kernel, file, model, offset, data)
        case "zero":
            return _zero(kernel, file, model, offset, length)
        case "unshare":
            expected = None if _all_rw(model, offset, length) else "EROFS"
            return name, expected, outcome(kernel.unshare, file, offset, length)
        case "seek":
            whence = rng.choice((os.SEEK_DATA, os.SEEK_HOLE))
            holes = model.exact_holes()  # the kernel answers from mappings
            return name, outcome(model.seek, offset, whence, holes), outcome(kernel.seek, file, offset, whence)
        case "report":
            return name, _extents(model), _reported(kernel, file)
        case _:
            getattr(kernel, name)(file)
            return name, None, None


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """The result, or the name of its errno."""
    try:
        return call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def _place(model: Model, rng: Random) -> int:
    if model.grounds and rng.random() < 0.6:
        start, end = rng.choice(model.grounds)
        return max(rng.choice((start, end, rng.randrange(start, end))) + rng.choice((-1, 0, 0, 1)), 0)
    return rng.randrange(model.size + 5000)


def _all_rw(model: Model, offset: int, length: int) -> bool:
    places = model.bytes[offset:offset + length]
    return len(places) == length and all(byte[3] for byte in places)


def _map_write(kernel: IomapKernel, file: File, model: Model, offset: int, data: bytes) -> tuple[str, Any, Any]:
    first, last = offset // PAGE * PAGE, -(-(offset + len(data)) // PAGE) * PAGE
    data = data[:max(file.size - offset, 0)]
    if not data:
        return "map_write", None, None
    if not _all_rw(model, first, min(last, file.size) - first):
        return "map_write", "EROFS", outcome(kernel.map_write, file, offset, data)
    model.write(offset, data)
    return "map_write", None, outcome(kernel.map_write, file, offset, data)


def _zero(kernel: IomapKernel, file: File, model: Model, offset: int, length: int) -> tuple[str, Any, Any]:
    actual = outcome(kernel.zero, file, offset, length)
    expected = None if _all_rw(model, offset, length) else "EROFS"
    if any(byte[3] for byte in model.bytes[offset:offset + 1]):
        model.write(offset, bytes(length))
    return "zero", expected, actual


def _extents(model: Model) -> list[tuple[int, bool]]:
    """For every byte that begins a hole, or ends one: where, and whether it is one."""
    holes = [*model.exact_holes(), True]
    return [(n, holes[n]) for n in range(len(holes)) if n == 0 or holes[n] != holes[n - 1]]


def _reported(kernel: IomapKernel, file: File) -> list[tuple[int, bool]]:
    found: list[tuple[int, bool]] = []
    for io in kernel.report(file):
        hole = io.addr == 2**64 - 1
        if not found or found[-1][1] != hole:
            found.append((io.offset, hole))
    return found


