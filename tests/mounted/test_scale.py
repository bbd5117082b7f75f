"""A million regions and ten thousand files, mounted."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from tests.harness import Mount
from tests.mounted.conftest import opened
from tests.scale import CHUNK, mark, write_chunks, write_files

MILLION = 1_000_000
FILES = 10_000


@pytest.mark.timeout(300)
@pytest.mark.parametrize("modes", ["userspace", "composed,userspace"])
def test_a_million_regions(tmp_path: Path, modes: str) -> None:
    """Any offset shows its chunk, however the bytes travel; the server holds at most 64 bytes a region."""
    manifest = write_chunks(tmp_path, MILLION)
    random = Random(7)
    with Mount(tmp_path, manifest.read_text(), options=("--modes", modes)) as mount:
        status = mount.status()
        assert status["files"]["f"]["mode"] in modes.split(",")
        with opened(mount.path / "f") as fd:
            assert MILLION * CHUNK == os.fstat(fd).st_size
            for number in [0, MILLION - 1, *(random.randrange(MILLION) for _ in range(500))]:
                wanted = mark(number) + bytes(CHUNK - len(mark(number)))
                assert wanted == os.pread(fd, CHUNK, number * CHUNK)
            # across borders
            for number in (random.randrange(MILLION - 2) for _ in range(50)):
                read = os.pread(fd, 2 * CHUNK, number * CHUNK + 100)
                assert (mark(number + 1), mark(number + 2)) == (read[CHUNK - 100:][:20], read[2 * CHUNK - 100:][:20])
        assert _resident(status["pid"]) <= 40 * 2**20 + 64 * MILLION


@pytest.mark.timeout(300)
def test_ten_thousand_files(tmp_path: Path) -> None:
    """All found, each its own size and bytes; status has them all; a reload leaves nine thousand alone."""
    manifest = write_files(tmp_path, FILES)
    with Mount(tmp_path, manifest.read_text()) as mount:
        found = {path: path.stat().st_size for path in mount.path.rglob("*") if path.is_file()}
        assert FILES == len(found)
        assert {20: FILES * 9 // 10, 23: FILES // 10} == {
            size: list(found.values()).count(size) for size in set(found.values())}
        for number in Random(8).sample(range(FILES), 300):
            wanted = mark(number) + (b"end" if number % 10 == 0 else b"")
            assert wanted == (mount.path / f"d{number // 1000}/{number}").read_bytes()
        assert FILES == len(mount.status()["files"])
        mount.write_manifest(manifest.read_text().replace("text: end", "text: END"))
        done = mount.user.regionfs("reload", mount.path)
        assert 0 == done.returncode, done.stderr
        assert mark(10) + b"END" == (mount.path / "d0/10").read_bytes()


def _resident(pid: int) -> int:
    """Bytes."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS:"))) * 1024
