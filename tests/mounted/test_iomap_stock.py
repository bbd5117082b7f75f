"""The maps that iomap serves, on this machine's own kernel: mounted, read, written; status says which mode and why.

Where the kernel has no fuse-iomap they are userspace files with that reason, and behave the same.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from random import Random
from typing import Any

import pytest

from regionfs.modes.probe import probe_iomap
from tests.harness import Mount
from tests.iomap_cases import Case, random_case
from tests.worker import Worker

MAPS, OPERATIONS = (2, 3, 4), 40  # seeds of a map with ro and rw regions, a striped one, a whole device
SECTORS = {"512": (512, 40 * 512), "4096": (4096, 12 * 4096)}


@pytest.mark.parametrize("sectors", SECTORS)
def test_the_same_maps(mount: Callable[..., Mount], tmp_path: Path, engine: str, worker: Worker, sectors: str,
                       loop_device: Callable[..., AbstractContextManager[Path]]) -> None:
    """Reads and writes through the mount equal the oracle, untouched bytes too."""
    sector, size = SECTORS[sectors]
    with ExitStack() as stack:
        devices = []
        for name in "ab":
            (tmp_path / name).write_bytes(bytes(size))
            device = stack.enter_context(loop_device(tmp_path / name, "--sector-size", str(sector)))
            devices.append((device, size, sector))
        for seed in MAPS:
            case = random_case(seed, devices)
            for source in case.sources:
                source.put()
            with mount(case.text) as mounted:
                entry = mounted.status()["files"][case.path]
                assert expected_mode(engine) == (entry["mode"], entry["reason"])
                use(worker, mounted.path / case.path, case)
            for source in case.sources:
                assert source.contents == source.get(), f"{source.key} of\n{case.text}"


def use(worker: Worker, path: Path, case: Case) -> None:
    """Reads and writes at random, then the whole file."""
    rng, size = Random(1), case.model.size
    for _ in range(OPERATIONS):
        offset, data = rng.randrange(size + 100), rng.randbytes(rng.choice((1, 700, 5000)))
        write = rng.random() < 0.5
        call = ("pwrite", path, offset, data) if write else ("pread", path, offset, len(data))
        known = outcome(case.model.write, offset, data) if write else case.model.read(offset, len(data))
        result, = worker.run([call])
        actual = errno.errorcode[result.errno or 0] if isinstance(result, OSError) else result
        assert known == actual, f"{call[0]} at {offset} of\n{case.text}"
    assert [case.model.read(0, size)] == worker.run([("pread", path, 0, size)]), case.text


def expected_mode(engine: str) -> tuple[str, str]:
    """What status shall say of a file on block devices here."""
    found = probe_iomap()
    if engine == "pyfuse3":
        return "userspace", "the pyfuse3 engine serves in userspace only"
    assert not found.available, "this kernel has fuse-iomap: extend this test to its counters"
    return "userspace", found.reason


def test_the_reason_here() -> None:
    """On an upstream kernel the reason is that it has no fuse-iomap, not that this one is old."""
    if not Path("/sys/module/fuse/parameters/enable_iomap").exists():
        assert "this kernel has no fuse-iomap" == probe_iomap().reason


def test_a_loop_that_helps_nobody_is_not_attached(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """`loop: true` where the kernel has no fuse-iomap: the file is served as the regular file that it is."""
    (tmp_path / "image").write_bytes(b"z" * 4096)
    text = "regionfs: 1\nsources: {x: {path: image, loop: true}}\nfiles:\n  f: {whole: x}\n"
    attached = {entry.parent.parent.name for entry in Path("/sys/block").glob("loop*/loop/backing_file")}
    with mount(text) as mounted:
        assert b"z" * 4096 == (mounted.path / "f").read_bytes()
        now = {entry.parent.parent.name for entry in Path("/sys/block").glob("loop*/loop/backing_file")
               if entry.read_text().startswith(str(tmp_path))}
        assert set() == now - attached


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """The result, or the name of its errno."""
    try:
        return call(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
