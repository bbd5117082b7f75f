"""The EROFS writer: block and chunk, the chunk index, the bytes, and what erofs-utils thinks of them."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from regionfs.errors import SourceError
from regionfs.modes.erofs import Layout, assemble, layout
from regionfs.modes.geometry import measure
from regionfs.plan import plan_read
from regionfs.regions import Kind, Region, RegionMap

KIB, MIB, GIB, TIB = 1 << 10, 1 << 20, 1 << 30, 1 << 40


def source(start: int, length: int, key: str = "a", offset: int = 0) -> Region:
    return Region(start, start + length, Kind.SOURCE, key, shift=offset - start)


def data(start: int, content: bytes) -> Region:
    return Region(start, start + len(content), Kind.DATA, shift=-start, data=content)


def described(*regions: Region, size: int | None = None) -> Layout:
    whole = RegionMap(regions[-1].end if size is None else size, regions)
    return layout(whole, measure(whole))


def chunks(image: Layout) -> list[tuple[int, int]]:
    """(device, start block) of every chunk."""
    return [(entry >> 16 & 0xFFFF, entry >> 32) for entry in image.index]


HOLE = (0, 0xFFFFFFFF)

# (block, chunk, index bytes, copied bytes), size, regions
GEOMETRIES: Sequence[tuple[tuple[int, int, int, int], int, Sequence[Region]]] = [
    ((4096, 4096, 8, 0), 4096, [source(0, 4096)]),
    ((4096, 4096, 16, 0), 8192, [source(0, 4096, offset=4096), source(4096, 4096)]),
    ((512, 1024, 16, 0), 1536, [source(0, 1024, offset=512), source(1024, 512)]),
    ((1024, 1024, 16, 0), 2048, [source(0, 1024, offset=1024), source(1024, 1024)]),
    ((2048, 2048, 8, 0), 2048, [source(0, 2048, offset=2048)]),
    # starts inside a block: only their agreement with the source counts
    ((4096, 4096, 8, 4096), 700, [source(0, 100), source(100, 600, "b", 100)]),
    # a tail that ends inside a block is copied, whatever lies behind it in the source
    ((4096, 4096, 16, 4096), 5000, [source(0, 5000)]),
    # borders on large steps allow large chunks
    ((4096, GIB, 32, 0), 4 * GIB, [source(0, GIB), source(2 * GIB, GIB, "b")]),
    # one border inside a large file: a chunk is copied where that is cheaper than a fine index
    ((4096, 64 * KIB, 128 * KIB, 64 * KIB), GIB, [data(0, b"GPT"), source(MIB, GIB - MIB, offset=0)]),
]


@pytest.mark.parametrize(("expected", "size", "regions"), GEOMETRIES)
def test_geometry(expected: tuple[int, int, int, int], size: int, regions: Sequence[Region]) -> None:
    """The largest block that fits and the cheapest chunk."""
    found = measure(RegionMap(size, regions))
    assert expected == (found.block, found.chunk, found.index, found.copied)
    assert "" == found.objection


def test_no_block_fits() -> None:
    """A start and an offset that differ modulo 512 fit no block."""
    found = measure(RegionMap(512, [source(0, 512, offset=100)]))
    assert (0, "a region's start and source offset differ modulo 512") == (found.block, found.objection)


def test_an_error_region_fits_no_image() -> None:
    """EROFS has no blocks that fail."""
    assert "it has an error region" == measure(RegionMap(512, [Region(0, 512, Kind.ERROR)])).objection


def test_chunks_point_into_the_sources() -> None:
    """Each chunk of one run is a block of its source; holes and mixed chunks are told apart."""
    image = described(source(0, 8192, "a", 4096), source(12288, 4000, "b"), source(16288, 4192, "a", 16288))
    assert (4096, 4096, ("a", "b")) == (image.block, image.chunk, image.devices)
    spare = image.data // 4096
    assert [(1, 1), (1, 2), HOLE, (0, spare), (1, 4)] == chunks(image)
    assert ((12288, 4096),) == image.copied
    assert (5, 0) == image.blocks


def test_neighbours_that_go_on_are_one_run() -> None:
    """A border where the source goes on as well is none."""
    image = described(source(0, 700), source(700, 4096 - 700, offset=700))
    assert ([(1, 0)], ()) == (chunks(image), image.copied)


def test_the_copied_tail_is_shorter_than_a_chunk() -> None:
    """The last chunk takes the blocks that the file has."""
    image = described(source(0, 1024, offset=0), source(1024, 700, "b", 0))
    assert 512 <= image.block and image.copied[-1][0] + image.copied[-1][1] == 1724
    pieces = list(assemble(image, lambda offset, length: bytes([7]) * length))
    assert 0 == sum(map(len, pieces)) % image.block
    assert image.data + sum(-(-length // image.block) * image.block for _, length in image.copied) == sum(
        map(len, pieces))


def test_golden_bytes() -> None:
    """A small image, byte by byte, as fs/erofs/erofs_fs.h lays it out."""
    image = described(source(0, 4096, "a", 4096), data(4096, b"x" * 10), source(8192, 4096, "b"))
    written = b"".join(assemble(image, lambda offset, length: b"x" * 10 + bytes(length - 10)))
    root, file = 1408, 1536
    expected = {
        0: bytes(1024).hex(),
        1024: "e2e1f5e0 00000000 00000000 0c 00 2c00 0200000000000000"  # magic .. blkszbits .. root nid, inos
              "0000000000000000 00000000 02000000 00000000 00000000"    # times, blocks, meta_blkaddr, xattrs
              "00000000000000000000000000000000 726567696f6e66730000000000000000"  # uuid, "regionfs"
              "0c000000 0000 0200 0900 00 00 00000000 0000000000000000 00",  # incompat, 2 devices from slot 9
        1152 + 64: "02000000 00000000",  # device 1: blocks, mapped_blkaddr
        1280 + 64: "01000000 00000000",  # device 2
        # root: extended and inline, 040555, 40 bytes, no block; then ".", ".." and "f"
        root: "0500 0000 6d41 0000 2800000000000000 ffffffff 01000000 00000000 00000000"
              "0000000000000000 00000000 02000000" + "00" * 16,
        root + 64: "2c00000000000000 2400 02 00  2c00000000000000 2500 02 00  3000000000000000 2700 01 00"
                   "2e 2e2e 66",
        # f: extended and chunk-based, 0100444, 12288 bytes, chunk indexes of 4096 << 0
        file: "0900 0000 2481 0000 0030000000000000 20000000 02000000 00000000 00000000"
              "0000000000000000 00000000 01000000" + "00" * 16,
        file + 64: "0000 0100 01000000  0000 0000 01000000  0000 0200 00000000",  # a block 1, copied, b block 0
        4096: "78" * 10 + "00" * 4086,
    }
    for where, text in expected.items():
        wanted = bytes.fromhex(re.sub(r"\s", "", text))
        assert wanted.hex() == written[where:where + len(wanted)].hex(), f"at {where}"
    assert 8192 == len(written)


def test_a_short_read_is_an_error() -> None:
    """Bytes that the caller cannot give are not made up."""
    image = described(data(0, b"x" * 10), source(4096, 4096))
    with pytest.raises(SourceError, match="only 3 of 4096 bytes at 0 of the composite file"):
        list(assemble(image, lambda offset, length: b"xyz"))


def random_map(rng: Random, block: int, contents: dict[str, bytes], holes: bool) -> RegionMap:
    """Regions on `block`-byte borders, the last one with a tail."""
    regions: list[Region] = []
    end = 0
    for _ in range(rng.randint(1, 12)):
        key = rng.choice(list(contents))
        start = end + block * rng.randint(0, 2) * holes
        offset = block * rng.randrange(len(contents[key]) // block)
        length = min(block * rng.randint(1, 8), len(contents[key]) - offset)
        regions.append(source(start, length, key, offset))
        end = -(-(start + length) // block) * block if holes else start + length // block * block
        if not holes and length % block:
            break
    return RegionMap(regions[-1].end, regions)


class Image:
    """An image file beside its sources, for the tools of erofs-utils."""

    def __init__(self, directory: Path, regions: RegionMap, contents: dict[str, bytes]) -> None:
        self.directory, self.regions, self.contents = directory, regions, contents
        self.layout = layout(regions, measure(regions))
        self.path = directory / "image"
        self.path.write_bytes(b"".join(assemble(self.layout, self.read)))
        for key, content in contents.items():
            (directory / key).write_bytes(content)

    def read(self, offset: int, length: int) -> bytes:
        """Bytes of the composite file."""
        return b"".join(self.contents[part.source][part.address:part.address + part.length]
                        if part.source else bytes(part.length)
                        for part in plan_read(self.regions, offset, length))

    def run(self, tool: str, *options: str) -> tuple[int, str, str]:
        """Exit status, stdout and stderr of a tool of erofs-utils."""
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed: erofs-utils")
        devices = [f"--device={self.directory / key}" for key in self.layout.devices]
        done = subprocess.run([tool, *devices, *options, self.path], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr


# 4096-byte blocks only: fsck.erofs and dump.erofs 1.5, Debian's, know no smaller ones
@pytest.mark.parametrize("seed", range(20))
def test_fsck_extracts_the_file(tmp_path: Path, seed: int) -> None:
    """fsck.erofs accepts the image, and what it extracts by itself is the composite file."""
    rng = Random(seed)
    contents = {key: rng.randbytes(rng.randint(4096, 60_000)) for key in "abc"[:rng.randint(1, 3)]}
    # version 1.5 leaves holes out of what it extracts
    image = Image(tmp_path, random_map(rng, 4096, contents, holes=False), contents)
    status, _, complaints = image.run("fsck.erofs", f"--extract={tmp_path / 'out'}")
    assert (0, "") == (status, complaints)
    assert image.read(0, image.regions.size) == (tmp_path / "out" / "f").read_bytes()


@pytest.mark.parametrize("seed", range(20))
def test_fsck_accepts_holes(tmp_path: Path, seed: int) -> None:
    """fsck.erofs finds no errors in an image with holes and a copied tail."""
    rng = Random(f"holes {seed}")
    contents = {key: rng.randbytes(rng.randint(4096, 60_000)) for key in "abc"[:rng.randint(1, 3)]}
    image = Image(tmp_path, random_map(rng, 4096, contents, holes=True), contents)
    assert (0, "") == image.run("fsck.erofs")[::2]


def test_dump_reads_what_was_written(tmp_path: Path) -> None:
    """dump.erofs sees the features and the extents (offset, length, address, device) of the layout."""
    contents = {"a": bytes(20_000), "b": bytes(9000)}
    regions = RegionMap(4 * 4096, [source(0, 8192, "a", 4096), source(8192, 8192, "b")])
    image = Image(tmp_path, regions, contents)
    _, found, _ = image.run("dump.erofs", "-s")
    assert re.search(r"Filesystem features: +chunked_file device_table", found)
    _, found, complaints = image.run("dump.erofs", "-e", "--path=/f")
    assert "" == complaints
    extents = re.findall(r"(\d+)\.\. +\d+ \| +(\d+) : +(\d+)\.\. +\d+ \| +\d+  # device (\d+)", found)
    assert [(0, 8192, 4096, 1), (8192, 8192, 0, 2)] == [tuple(map(int, extent)) for extent in extents]
