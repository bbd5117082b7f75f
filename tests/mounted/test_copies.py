"""Programs that ask for holes copy random maps: what they write equals the file, and takes no more room than it should.

A few maps in every run; with REGIONFS_TORTURE=1 fifty of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.cases import FLAVOURS, Composite, manifest_text, random_case
from tests.faults.lives import TORTURE
from tests.harness import Mount
from tests.oracle import BLOCK

COUNT = 50 if TORTURE else 4
SECTOR = 512  # bytes; what disk tools round a file's size up to

Copy = Callable[[Path, Path], None]


def run(*command: str | os.PathLike[str], cwd: Path | None = None) -> str:
    """What it prints; it must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=cwd)
    assert 0 == done.returncode, f"{command}: {done.returncode} {done.stderr}"
    return done.stdout


def convert(*options: str) -> Copy:
    """qemu-img convert to a new raw file."""
    def copy(source: Path, target: Path) -> None:
        run("qemu-img", "convert", *options, "-f", "raw", "-O", "raw", source, target)
    return copy


def convert_onto_zeros(source: Path, target: Path) -> None:
    """qemu-img convert to a raw file that is there, and zero."""
    size = -(-source.stat().st_size // SECTOR) * SECTOR
    with target.open("wb") as made:
        made.truncate(size)
    run("qemu-img", "convert", "-n", "--target-is-zero", "-f", "raw", "-O", "raw", source, target)


def nbdcopy(*server: str) -> Copy:
    """nbdcopy from a server of one file."""
    def copy(source: Path, target: Path) -> None:
        run("nbdcopy", "--", "[", *(word.replace("FILE", str(source)) for word in server), "]", target)
    return copy


def cp(source: Path, target: Path) -> None:
    run("cp", "--sparse=always", source, target)


def cp_auto(source: Path, target: Path) -> None:
    run("cp", "--reflink=never", source, target)


def rsync(source: Path, target: Path) -> None:
    run("rsync", "-S", source, target)


def tar(source: Path, target: Path) -> None:
    """Through an archive that keeps holes."""
    archive, place = target.with_suffix(".tar"), target.with_suffix(".d")
    place.mkdir()
    run("tar", "-S", "-cf", archive, "-C", source.parent, source.name)
    run("tar", "-S", "-xf", archive, "-C", place)
    (place / source.name).replace(target)
    place.rmdir()


def bmaptool(source: Path, target: Path) -> None:
    """A map of the file's data blocks, then a copy by it. It wants to write beside the file: a link stands there."""
    link = target.with_suffix(".link")
    link.symlink_to(source)
    run("bmaptool", "create", "-o", target.with_suffix(".bmap"), link)
    link.unlink()
    run("bmaptool", "copy", "--bmap", target.with_suffix(".bmap"), source, target)


def ddrescue(source: Path, target: Path) -> None:
    run("ddrescue", "-q", "-S", source, target)


CACHES = ("none", "directsync", "writeback", "writethrough", "unsafe")
TOOLS: dict[str, tuple[Sequence[str], Copy]] = {
    "convert": (("qemu-img",), convert()),
    **{f"convert-{cache}": (("qemu-img",), convert("-T", cache)) for cache in CACHES},
    "convert-S0": (("qemu-img",), convert("-S", "0")),
    "convert-S4k": (("qemu-img",), convert("-S", "4k")),
    "convert-zeros": (("qemu-img",), convert_onto_zeros),
    "qemu-nbd": (("qemu-nbd", "nbdcopy"), nbdcopy("qemu-nbd", "-r", "-f", "raw", "FILE")),
    "nbdkit": (("nbdkit", "nbdcopy"), nbdcopy("nbdkit", "--exit-with-parent", "-r", "file", "FILE")),
    "cp": ((), cp), "cp-auto": ((), cp_auto), "tar": ((), tar), "rsync": (("rsync",), rsync),
    "bmaptool": (("bmaptool",), bmaptool), "ddrescue": (("ddrescue",), ddrescue),
}
WRITES_ALL = {"convert-S0", "ddrescue"}  # leaves no hole, or only where all that it read at once is zero
DIRECT = {"convert-none", "convert-directsync"}  # a last sector that is not whole cannot be read


@pytest.mark.timeout(1200)
def test_copies(mount: Callable[..., Mount], tmp_path: Path, engine: str) -> None:
    """Equal, but for a last sector that was filled up; and no larger than twice the blocks that hold data."""
    if missing := {name for needed, _ in TOOLS.values() for name in needed if shutil.which(name) is None}:
        pytest.skip(f"no {' '.join(sorted(missing))}")
    cases = [random_case(seed, tmp_path, FLAVOURS[seed % len(FLAVOURS)]) for seed in range(5000, 5000 + 3 * COUNT)]
    for case in cases:
        case.put()
    files = [file for case in cases for file in case.files if all(byte[0] is not None for byte in file.model.bytes)]
    with mount(manifest_text(cases)) as mounted:
        for tool, (_, copy) in TOOLS.items():
            able = [file for file in files if tool not in DIRECT or not file.model.size % SECTOR]
            for file in able[:COUNT]:
                target = tmp_path / f"{tool}-copy"
                copy(mounted.path / file.path, target)
                check(tool, file, target, sparse=engine == "native" and tool not in WRITES_ALL)
                target.unlink()


def check(tool: str, file: Composite, target: Path, *, sparse: bool) -> None:
    """The copy is right; with `sparse` also its room."""
    expected, got = file.model.read(0, file.model.size), target.read_bytes()
    assert expected + bytes(len(got) - len(expected)) == got, f"{tool}: {file.text}"
    assert len(got) - len(expected) < SECTOR
    if sparse:
        holes = file.model.is_hole()
        blocks = sum(not holes[at] for at in range(0, len(holes), BLOCK))
        least = max(blocks, 1)  # QEMU writes the first block of a file that it makes
        assert target.stat().st_blocks * 512 <= 2 * least * BLOCK, f"{tool}: {file.text}"


@pytest.mark.parametrize("engine", ["native"], indirect=True)
def test_what_tools_say_of_holes(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """nbdinfo --map through nbdkit, qemu-img map and xfs_io seek tell the same ranges, in whole blocks."""
    (tmp_path / "a").write_bytes(b"a" * 20_000)
    if shutil.which("nbdinfo") is None or shutil.which("nbdkit") is None:
        pytest.skip("no nbdinfo or nbdkit")
    data = [{"start": 446, "data": {"hex": "55aa"}}, {"start": 70_000, "source": "a", "length": 1000}]
    with mount({"f": {"size": 262_144, "regions": data}}) as mounted:
        path = mounted.path / "f"
        told = [(0, 4096), (69_632, 73_728)]
        lines = [line.split() for line in run(
            "nbdinfo", "--map", "--", "[", "nbdkit", "--exit-with-parent", "-r", "file", path, "]").splitlines()]
        assert told == [(int(line[0]), int(line[0]) + int(line[1])) for line in lines if line[2] == "0"]
        lines = [line.split() for line in run("qemu-img", "map", "-f", "raw", path).splitlines()[1:]]
        assert told == [(int(line[0], 16), int(line[0], 16) + int(line[1], 16)) for line in lines]
        lines = [line.split() for line in run("xfs_io", "-r", "-c", "seek -a -r 0", path).splitlines()]
        assert [(kind, at) for start, end in told for kind, at in (("DATA", start), ("HOLE", end))] == [
            (kind, int(at)) for kind, at in lines if kind in ("DATA", "HOLE")]
        assert 8 * 2 == path.stat().st_blocks
