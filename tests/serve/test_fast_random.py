"""Random maps, read and written through the compiled loop, against the byte oracle. Nothing is mounted."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from regionfs import execute
from regionfs.manifest.body import Mapped, Whole
from regionfs.tree import FileNode
from tests.cases import FLAVOURS, Case, Composite, manifest_text, random_case
from tests.oracle import HOLE
from tests.serve.device import Handed, World, on_disk, open_to_write, served
from tests.test_random_maps import attempt

CHUNK = 100  # cases of one test
CASES = {"any": 1200, "aligned512": 250, "aligned4096": 250, "aliasing": 300}
FIRST = 20_000  # seeds that no other test has


@pytest.mark.parametrize(("flavour", "first"), [(flavour, first) for flavour in FLAVOURS
                                                for first in range(FIRST, FIRST + CASES[flavour], CHUNK)])
def test_what_the_loop_answers(tmp_path: Path, flavour: str, first: int) -> None:
    """Known ranges are read and written as execute and the oracle do it; the rest is handed over."""
    answered = [0, 0]
    with on_disk(tmp_path) as directory:
        for seed in range(first, min(first + CHUNK, FIRST + CASES[flavour])):
            for index, count in enumerate(check(random_case(seed, directory, flavour))):
                answered[index] += count
    assert answered[0] > CHUNK, "the loop answers most READs"
    assert answered[1] or flavour.startswith("aligned"), "and WRITEs where there is rw ground"


def check(case: Case) -> tuple[int, int]:
    """Everything about one case; how many READs and WRITEs the loop has answered."""
    case.put()
    path = case.directory / f"{case.flavour}-{case.seed}.yaml"
    path.write_text(manifest_text([case]))
    rng = Random(case.seed)
    reads = writes = 0
    with served(path) as world:
        for file in rng.choices(case.files, k=8):
            reads += check_read(world, file, rng)
        for file in rng.choices(case.files, k=12):
            writes += check_write(world, file, rng)
        for file in case.files:
            reads += check_read(world, file, rng)
        world.device.fast.count()
        counted = [world.fs.tree.files[file.path].counters for file in case.files]
        assert (reads, writes) == (sum(each.reads for each in counted), sum(each.writes for each in counted))
    for source in case.sources:
        assert source.contents == source.get(), f"seed {case.seed}: {source.key}"
    return reads, writes


def check_read(world: World, file: Composite, rng: Random) -> bool:
    """A READ, as far as Python can do it, taught and done again; whether the loop answered."""
    model, node = file.model, world.fs.tree.files[file.path]
    offset, count = rng.randrange(model.size + 2), rng.choice((0, 1, 512, 4096, rng.randrange(1, 70_000)))
    expected = attempt(model.read, offset, count)
    buffer = memoryview(bytearray(b"\xff" * count))
    done = attempt(read_into, node, offset, buffer)
    assert expected == (bytes(buffer[:done]) if isinstance(done, int) else done)
    world.device.fast.learn(node.ino, offset, count)
    actual = world.device.read(node.ino, offset, count)
    if plain(file, offset, count):
        assert expected == actual, f"{file.text}\n{offset} {count}"
        return True
    assert isinstance(actual, Handed)
    return False


def read_into(node: FileNode, offset: int, buffer: memoryview) -> int:
    body = node.spec.body
    if isinstance(body, Whole):
        return execute.read_whole(node.sources, body.source, offset, buffer)
    return execute.read_into(body.regions, node.sources, offset, buffer)


def plain(file: Composite, offset: int, count: int) -> bool:
    """True for a READ that the loop answers: bytes of sources and holes only, and at least one of them."""
    if count == 0 or (offset >= file.model.size and not file.whole):
        return False
    return not any(byte[2] is None and byte is not HOLE for byte in file.model.bytes[offset:offset + count])


def check_write(world: World, file: Composite, rng: Random) -> bool:
    """A WRITE, taught and done by the loop, or as Python does it; whether the loop answered."""
    model, node = file.model, world.fs.tree.files[file.path]
    if model.grounds and rng.random() < 0.9:
        start, end = rng.choice(model.grounds)
        offset = max(rng.choice((start, rng.randrange(start, end))) + rng.choice((-1, 0, 0, 0)), 0)
        count = rng.choice((end - offset, end - offset + 1, rng.randint(1, end - offset)))
    else:
        offset, count = rng.randrange(model.size + 2), rng.choice((0, 1, 512, rng.randint(1, 9000)))
    data = rng.randbytes(count)
    open_to_write(node)
    world.device.fast.learn(node.ino, offset, count)
    actual = world.device.write(node.ino, offset, data, flags=os.O_WRONLY)
    expected = attempt(model.write, offset, data)
    if node.spec.writable and not world.fs.shares_writes(node.ino) and expected == count > 0:
        assert expected == actual, f"{file.text}\n{offset} {count}"
        return True
    assert isinstance(actual, Handed), f"{file.text}\n{offset} {count}"
    if isinstance(node.spec.body, Mapped):  # nothing of it was done, or all of it can be done again
        assert expected == attempt(execute.write_from, node.spec.regions, node.sources, offset, memoryview(data))
    return False
