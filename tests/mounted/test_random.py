"""Random maps, mounted on each engine and used from another process, against the byte oracle.

Every operation runs on the mount and on the models in the same order; afterwards every source must
hold what the models say, so a byte changed outside rw regions shows.
"""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.cases import FLAVOURS, Case, Composite, manifest_text, random_case
from tests.harness import Mount, User
from tests.oracle import Model, Source
from tests.worker import Worker

PAGE = 4096
MOUNTS = {"any": range(18), "any-2": range(18, 36), "aligned512": range(8), "aligned4096": range(8),
          "aliasing": range(14)}
DEVICE_SEEDS = range(10_000, 10_014)
OPERATIONS = 40  # of one composite file, reads and writes mixed
READ_ONLY = "EROFS" if os.geteuid() == 0 else "EACCES"  # its mode 0444 stops all but root before

pytestmark = pytest.mark.both_paths

Step = tuple[tuple[Any, ...], Any]  # the worker's call, what must come of it


@pytest.mark.parametrize("name", MOUNTS)
def test_random_maps(mount: Callable[..., Mount], tmp_path: Path, engine: str, name: str) -> None:
    """Reads, writes, mappings, seeks and sendfile of many maps in one mount equal the oracle."""
    flavour = name.removesuffix("-2")
    exercise(mount, engine, [random_case(seed, tmp_path, flavour) for seed in MOUNTS[name]])


def test_random_maps_over_a_block_device(mount: Callable[..., Mount], tmp_path: Path, engine: str,
                                         loop_device: Callable[..., AbstractContextManager[Path]]) -> None:
    """The same with one loop block device that many of the maps read and write."""
    backing, contents = tmp_path / "backing", bytearray(Random(1).randbytes(40 * 512))
    backing.write_bytes(contents)
    with loop_device(backing) as path:
        device = Source("device", path, contents, device=True)
        exercise(mount, engine, [random_case(seed, tmp_path, "any", device) for seed in DEVICE_SEEDS])


@pytest.mark.parametrize("flavour", ["aligned512", "aligned4096", "aliasing"])
def test_random_maps_without_kernel_modes(mount: Callable[..., Mount], tmp_path: Path, engine: str,
                                          flavour: str) -> None:
    """What would be passthrough or composed, served by the daemon: nobody can tell."""
    cases = [random_case(seed, tmp_path, flavour) for seed in range(100, 108)]
    exercise(partial(mount, options=("--modes", "userspace")), engine, cases)


def test_random_maps_of_an_ordinary_user(ordinary_user: User, engine: str, fast: bool) -> None:
    """Mounted and used without privileges, through fusermount3."""
    assert ordinary_user.directory
    directory = Path(tempfile.mkdtemp(dir=ordinary_user.directory))
    cases = [random_case(seed, directory, flavour) for flavour in FLAVOURS for seed in range(200, 204)]
    for case in cases:
        case.put()
    for path in (directory, *directory.iterdir()):
        if owner := ordinary_user.process.get("user"):
            os.chown(path, owner, owner)
    worker = partial(Worker, ordinary_user.python, **ordinary_user.process)
    exercise(partial(Mount, directory, engine=engine, user=ordinary_user, fast=fast), engine, cases, worker, "EACCES")


def exercise(mount: Callable[..., Mount], engine: str, cases: list[Case],
             start_worker: Callable[[], Worker] = Worker, read_only: str = READ_ONLY) -> None:
    """Mount the files of all cases at once, use them in random order, compare every source.

    `read_only` is the errno of opening a file without rw regions for writing.
    """
    rng = Random(cases[0].seed)
    for case in cases:
        case.put()
    files = [file for case in cases for file in case.files]
    with mount(manifest_text(cases)) as mounted, start_worker() as worker:
        for file in files:
            perform(worker, seeks(mounted.path / file.path, file.model, engine, rng), file)
        handles = {file.path: worker.open(mounted.path / file.path) for file in files}
        for _ in range(OPERATIONS):
            for file in rng.sample(files, len(files)):
                target = rng.choice((mounted.path / file.path, handles[file.path]))
                perform(worker, steps(mounted.path / file.path, target, file, engine, rng, read_only), file)
        for file in files:
            perform(worker, whole_file(mounted.path / file.path, file.model, engine), file)
    for source in {source.path: source for case in cases for source in case.sources}.values():
        assert source.contents == source.get(), f"{source.key} differs"


def perform(worker: Worker, planned: Iterable[Step], file: Composite) -> None:
    """Run the calls in the worker; each result, or its errno, is what was expected."""
    planned = list(planned)
    results = worker.run([call for call, _ in planned])
    for (call, expected), result in zip(planned, results, strict=True):
        actual = errno.errorcode[result.errno or 0] if isinstance(result, OSError) else result
        if expected != actual:
            pytest.fail(f"{call[0]} {call[2:]} {difference(expected, actual)} of\n{file.text}")


def difference(expected: Any, actual: Any) -> str:
    """Where two strings of bytes differ first, or the two values."""
    if isinstance(expected, bytes) and isinstance(actual, bytes) and len(expected) == len(actual):
        first = next((n for n in range(len(expected)) if expected[n] != actual[n]), len(expected))
        return f"differs first at {first}: {expected[first:first + 8]!r} is {actual[first:first + 8]!r}"
    return f"is {actual!r:.100} instead of {expected!r:.100}"


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """The model's result, or the name of its errno."""
    try:
        return call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]


def seeks(path: Path, model: Model, engine: str, rng: Random) -> Iterable[Step]:
    """SEEK_DATA and SEEK_HOLE; pyfuse3 has none, so there the kernel calls all bytes data."""
    holes = model.is_hole() if engine == "native" else [False] * model.size
    for offset in {0, model.size - 1, model.size, *(rng.randrange(model.size) for _ in range(4))}:
        yield ("lseek_data", path, offset), outcome(model.seek, offset, os.SEEK_DATA, holes)
        yield ("lseek_hole", path, offset), outcome(model.seek, offset, os.SEEK_HOLE, holes)


def whole_file(path: Path, model: Model, engine: str) -> Iterable[Step]:
    """Every byte of the file, and every bad one's error, in as few reads as those allow."""
    offset = 0
    while offset < model.size:
        expected = outcome(model.read, offset, model.size - offset)
        yield ("pread", path, offset, unlike_pages(model.size - offset, engine)), expected
        if isinstance(expected, bytes):
            offset += len(expected)
        else:
            offset = next((n for n in range(offset, model.size) if model.bytes[n][0] is not None), model.size)
    yield ("pread", path, model.size, 100), b""


def unlike_pages(length: int, engine: str) -> int:
    """A length that no page has: pyfuse3 takes reads of whole pages for those of a mapping, and these
    get EIO for any bad byte in them, as the README says."""
    return length + (engine == "pyfuse3" and length % PAGE == 0)


def steps(path: Path, target: Path | int, file: Composite, engine: str, rng: Random,
          read_only: str) -> Iterable[Step]:
    """One random operation; the models change as it is planned."""
    model = file.model
    operation = rng.choice(("pread", "pread", "sendfile", "map", "pwrite", "pwrite", "mmap_write"))
    if operation == "map":
        offset, length = rng.randrange(model.size), rng.choice((1, 4096, rng.randint(1, 20_000)))
        if good_pages(model, offset, length):
            yield ("mmap_read", target, offset, length, False), outcome(model.read, offset, length)
            if engine == "native":  # the README: pyfuse3 cannot map uncached files shared
                yield ("mmap_read", target, offset, length, True), outcome(model.read, offset, length)
    elif operation == "pwrite":
        offset, data = place(model, rng), rng.randbytes(rng.choice((1, 512, 4096, rng.randint(1, 9000))))
        yield ("pwrite", path, offset, data), outcome(model.write, offset, data) if model.grounds else read_only
    elif operation == "mmap_write" and engine == "native" and model.grounds:
        start, end = rng.choice(model.grounds)
        offset = rng.randrange(start, end)
        data = rng.randbytes(min(rng.choice((1, 300, 4096)), end - offset))
        if good_pages(model, offset, len(data)) and shown_once(model, offset, len(data)):
            model.write(offset, data)
            yield ("mmap_write", path, offset, data), None
    elif operation in ("pread", "sendfile"):
        offset = rng.randrange(model.size + 2)
        length = unlike_pages(rng.choice((1, 512, 4096, rng.randint(1, 65_536))), engine)
        read = model.read if operation == "pread" else partial(paged_read, model)
        yield (operation, target, offset, length), outcome(read, offset, length)


def paged_read(model: Model, offset: int, length: int) -> bytes:
    """What splice(2) can give: the kernel takes it from whole pages, and a page with a bad byte is bad."""
    good = model.read(offset, length)
    while good and not good_pages(model, offset, len(good)):
        last_page = (offset + len(good) - 1) // PAGE * PAGE
        good = good[:max(last_page - offset, 0)]
    if not good and model.bytes[offset:offset + length]:
        raise OSError(errno.EIO, "a page with a bad byte")
    return good


def place(model: Model, rng: Random) -> int:
    """Where a write may begin: mostly at or near a border of rw ground."""
    if model.grounds and rng.random() < 0.8:
        start, end = rng.choice(model.grounds)
        return max(rng.choice((start, end, rng.randrange(start, end))) + rng.choice((-1, 0, 0, 1)), 0)
    return rng.randrange(model.size + 2)


def pages(model: Model, offset: int, length: int) -> range:
    """Every byte of the pages that hold the range."""
    return range(offset // PAGE * PAGE, min(-(-(offset + length) // PAGE) * PAGE, model.size))


def good_pages(model: Model, offset: int, length: int) -> bool:
    """No bad byte in the pages, which would be a SIGBUS."""
    return all(model.bytes[n][0] is not None for n in pages(model, offset, length))


def shown_once(model: Model, offset: int, length: int) -> bool:
    """No byte of a source twice in the pages, where the older copy could be written back last."""
    places = [(id(store), index) for store, index, source, _ in
              (model.bytes[n] for n in pages(model, offset, length)) if source is not None]
    return len(places) == len(set(places))
