"""Random maps, loaded from YAML, planned and executed, against the byte oracle. Nothing is mounted."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from regionfs import execute, extents
from regionfs.manifest.body import Mapped
from regionfs.manifest.load import load
from regionfs.regions import RegionMap
from regionfs.source import Sources
from tests.cases import FLAVOURS, Case, Composite, manifest_text, random_case
from tests.harness import loop_device
from tests.oracle import Model, Source

CHUNK = 50  # cases of one test
CASES = {"any": 1200, "aligned512": 250, "aligned4096": 250, "aliasing": 300}
DEVICE_CASES = 400  # of them over a loop device too, with seeds of their own


def chunks(count: int) -> range:
    """First seeds of the tests that run `count` cases."""
    return range(0, count, CHUNK)


@pytest.mark.parametrize(("flavour", "first"), [(flavour, first) for flavour in FLAVOURS
                                                for first in chunks(CASES[flavour])])
def test_maps_over_files(tmp_path: Path, flavour: str, first: int) -> None:
    """Reads, seeks, writes and the sources afterwards equal the oracle, byte by byte."""
    for seed in range(first, first + CHUNK):
        check(random_case(seed, tmp_path, flavour))


@pytest.fixture(scope="module")
def device(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Source]:
    """One loop block device for all cases."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("no permission to attach a loop device")
    backing = tmp_path_factory.mktemp("loop") / "backing"
    size = 40 * 512
    backing.write_bytes(bytes(size))
    with loop_device(backing) as path:
        yield Source("device", path, bytearray(size), device=True)


@pytest.mark.parametrize("first", chunks(DEVICE_CASES))
def test_maps_over_a_block_device(tmp_path: Path, device: Source, first: int) -> None:
    """The same with a loop block device among the sources, read and written through the device."""
    for seed in range(10_000 + first, 10_000 + first + CHUNK):
        device.contents[:] = Random(seed).randbytes(len(device.contents))
        check(random_case(seed, tmp_path, "any", device))


def check(case: Case) -> None:
    """Everything about one case."""
    case.put()
    path = case.directory / f"{case.flavour}-{case.seed}.yaml"
    path.write_text(manifest_text([case]))
    manifest = load(path)
    rng = Random(case.seed)
    with Sources(manifest) as sources:
        bodies = {file.path: manifest.files[file.path].body for file in case.files}
        maps = {path: body.regions if isinstance(body, Mapped) else None for path, body in bodies.items()}
        for file in case.files:
            check_unchanged(maps[file.path], sources, file, rng)
        for _ in range(20):
            file = rng.choice(case.files)
            write_both(maps[file.path], sources, file.model, rng)
        for file in case.files:
            check_bytes(maps[file.path], sources, file.model)
    for source in case.sources:
        assert source.contents == source.get(), f"seed {case.seed}: {source.key}"


def check_unchanged(regions: RegionMap | None, sources: Sources, file: Composite, rng: Random) -> None:
    """Size, every byte, random reads and the holes of a file that nobody wrote to."""
    if regions is None:
        assert file.whole
        return
    assert file.model.size == regions.size
    check_bytes(regions, sources, file.model)
    for _ in range(10):
        check_read(regions, sources, file.model, rng.randrange(file.model.size + 2), rng.randrange(1, 6000))
    holes = file.model.is_hole()
    for offset in [0, file.model.size - 1, *(rng.randrange(file.model.size) for _ in range(3))]:
        for whence, seek in (os.SEEK_DATA, extents.seek_data), (os.SEEK_HOLE, extents.seek_hole):
            expected = attempt(file.model.seek, offset, whence, holes)
            assert expected == attempt(seek, regions, sources, offset), f"{file.path} at {offset}"


def check_bytes(regions: RegionMap | None, sources: Sources, model: Model) -> None:
    """Every byte, in as few reads as the bad ones allow."""
    if regions is None:
        return
    offset = 0
    while offset < model.size:
        offset += check_read(regions, sources, model, offset, model.size - offset)


def check_read(regions: RegionMap, sources: Sources, model: Model, offset: int, length: int) -> int:
    """One read; returns how many bytes were settled by it: those read, or the bad ones."""
    buffer = bytearray(b"\xff" * length)  # what a hole does not overwrite shows
    actual = attempt(execute.read_into, regions, sources, offset, memoryview(buffer))
    expected = attempt(model.read, offset, length)
    assert expected == (bytes(buffer[:actual]) if isinstance(actual, int) else actual)
    if expected == "EIO":
        return next((n for n, byte in enumerate(model.bytes[offset:]) if byte[0] is not None), model.size)
    return len(expected)


def write_both(regions: RegionMap | None, sources: Sources, model: Model, rng: Random) -> None:
    """One write into the file and into its model; both go in as far, or fail alike."""
    if regions is None:
        return
    if model.grounds and rng.random() < 0.8:
        start, end = rng.choice(model.grounds)
        offset = max(rng.choice((start, end, rng.randrange(start, end))) + rng.choice((-1, 0, 0, 1)), 0)
    else:
        offset = rng.randrange(model.size + 2)
    data = rng.randbytes(rng.choice((0, 1, 2, 511, 4096, rng.randint(1, 300), rng.randint(1, 9000))))
    expected = attempt(model.write, offset, data)
    assert expected == attempt(execute.write_from, regions, sources, offset, memoryview(data))


def attempt(call: Callable[..., Any], *arguments: Any) -> Any:
    """The call's result, or the name of the errno of its OSError."""
    try:
        return call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
