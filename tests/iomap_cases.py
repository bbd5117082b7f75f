"""Random maps over block devices: the manifest's text, what the devices hold, and the oracle's model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

from tests.oracle import Declared, Model, Source

Devices = list[tuple[Path, int, int]]  # path, bytes, sector
FLAVOURS = ("ro", "rw", "mixed", "striped", "whole")


@dataclass
class Case:
    """One composite file over devices."""

    path: str
    body: str
    model: Model
    sources: list[Source]

    @property
    def text(self) -> str:
        """A manifest of this file alone."""
        named = "\n".join(f"  {source.key}: {source.path}" for source in self.sources)
        return f"regionfs: 1\nsources:\n{named}\nfiles:\n  {self.path}: {self.body}\n"


def random_case(seed: int, devices: Devices) -> Case:
    """Case number `seed` over `devices`."""
    rng, path = Random(seed), "dir/f"
    sources = [Source(f"d{number}", path, bytearray(rng.randbytes(size)), device=True)
               for number, (path, size, _) in enumerate(devices)]
    block = max(sector for _, _, sector in devices)
    block *= rng.choice((1, 1, 2)) if block < 4096 else 1
    flavour = FLAVOURS[seed % len(FLAVOURS)]
    if flavour == "whole":
        source = rng.choice(sources)
        model = Model(len(source.contents), [Declared(0, len(source.contents), "source", source, writable=True)])
        return Case(path, f"{{whole: {source.key}, access: rw}}", model, sources)
    striped = flavour == "striped"
    regions = _striped(rng, sources, block) if striped else _scattered(rng, sources, block, flavour)
    size = regions[-1].end + block * rng.choice((0, 0, 1, 3))
    body = f"\n    size: {size}\n    regions:\n" + "\n".join(map(_line, regions))
    return Case(path, body, Model(size, regions), sources)


def _striped(rng: Random, sources: list[Source], block: int) -> list[Declared]:
    """Chunk by chunk from one device after the other, all at one place: sectors that go on elsewhere."""
    chunk = block * rng.randint(1, 3)
    count = min(len(source.contents) for source in sources) // chunk
    return [Declared(number * chunk, chunk, "source", sources[number % len(sources)], number * chunk, writable=True)
            for number in range(min(count, rng.randint(2, 12)))]


def _scattered(rng: Random, sources: list[Source], block: int, flavour: str) -> list[Declared]:
    """Pieces of the devices in any order with gaps; where any is rw no byte of a device is shown twice."""
    pieces = [piece for source in sources for piece in _cut(rng, source, block)]
    rng.shuffle(pieces)
    if flavour == "ro":
        pieces += rng.sample(pieces, min(len(pieces), 3))
    regions, end = [], 0
    for source, offset, length in pieces[:rng.randint(1, 14)]:
        start = end + block * rng.choice((0, 0, 0, 1, 4))
        writable = flavour == "rw" or (flavour == "mixed" and rng.random() < 0.5)
        if rng.random() < 0.1:
            regions.append(Declared(start, length))
        else:
            regions.append(Declared(start, length, "source", source, offset, writable=writable))
        end = start + length
    if all(region.kind == "hole" for region in regions):
        regions.append(Declared(end, block, "source", sources[0], len(sources[0].contents) - block))
    return regions


def _cut(rng: Random, source: Source, block: int) -> list[tuple[Source, int, int]]:
    pieces, offset = [], 0
    while offset < len(source.contents) - block:
        length = min(block * rng.choice((1, 1, 2, 5)), len(source.contents) - block - offset)
        pieces.append((source, offset, length))
        offset += length
    return pieces


def _line(region: Declared) -> str:
    place = f"start: {region.start}, length: {region.length}"
    if region.source is None:
        return f"      - {{{place}, hole: true}}"
    access = "rw" if region.writable else "ro"
    return f"      - {{{place}, source: {region.source.key}, offset: {region.offset}, access: {access}}}"
