"""Random maps by numbered seed: sources, the manifest's text and the oracle's models of one case.

A case writes YAML itself, in the many ways a person may (units, hex, starts and lengths left out,
sources by name or by path), so that the loader is under test too.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from tests.oracle import BLOCK, Declared, Model, Source

FLAVOURS = ("any", "aligned512", "aligned4096", "aliasing")
LARGEST = 64 * 1024  # bytes of a composite file


@dataclass
class Composite:
    """One composite file: its manifest text and its model."""

    path: str
    text: str
    model: Model
    whole: bool = False


@dataclass
class Case:
    """Sources and the composite files over them."""

    seed: int
    flavour: str
    directory: Path
    sources: list[Source] = field(default_factory=list)
    named: set[str] = field(default_factory=set)  # keys of sources that stand under `sources`
    files: list[Composite] = field(default_factory=list)

    def put(self) -> None:
        """Write every source."""
        for source in self.sources:
            source.put()


def manifest_text(cases: Iterable[Case]) -> str:
    """One manifest of all files of `cases`."""
    cases = list(cases)
    lines = ["regionfs: 1"]
    named = {source.key: source for case in cases for source in case.sources if source.key in case.named}
    if named:
        lines.append("sources:")
        lines += [f"  {key}: {{path: {json.dumps(str(source.path))}}}" for key, source in named.items()]
    lines.append("files:")
    lines += [file.text for case in cases for file in case.files]
    return "\n".join(lines) + "\n"


def random_case(seed: int, directory: Path, flavour: str = "any", device: Source | None = None) -> Case:
    """Case number `seed`; its sources lie in `directory`, and `device` is one more where given."""
    rng = Random(f"{flavour} {seed}")
    case = Case(seed, flavour, directory)
    for number in range(rng.randint(1, 2 if flavour == "aliasing" else 4)):
        key = f"{flavour}-{seed}-{number}"
        case.sources.append(Source(key, directory / f"{key}.img", _contents(rng)))
        if rng.random() < 0.7:
            case.named.add(key)
    if device is not None and flavour == "any" and rng.random() < 0.5:
        case.sources.append(device)
        case.named.add(device.key)
    count = rng.randint(2, 4) if flavour == "aliasing" else 1
    for number in range(count):
        case.files.append(_composite(rng, case, f"{flavour}/{seed}/{number}.bin"))
    if flavour == "aliasing":
        source = rng.choice(case.sources)
        model = Model(len(source.contents), [Declared(0, len(source.contents), "source", source)])
        path = f"{flavour}/{seed}/whole.bin"
        case.files.append(Composite(path, f"  {path}: {{whole: {_name(case, source)}}}", model, whole=True))
    return case


def _contents(rng: Random) -> bytearray:
    """Random bytes; in a third of the cases some whole blocks are zeros and will be holes."""
    size = rng.choice((1, 511, 512, 4096, rng.randint(1, 20_000), 16_384, 20_480))
    contents = bytearray(rng.randbytes(size))
    if rng.random() < 0.33:
        for start in range(0, len(contents), BLOCK):
            if rng.random() < 0.5:
                part = len(contents[start:start + BLOCK])
                contents[start:start + part] = bytes(part)
    return contents


def _composite(rng: Random, case: Case, path: str) -> Composite:
    limit = rng.choice((10, 100, 1000, 5000, 20_000, LARGEST))
    if case.flavour.startswith("aligned"):
        limit = rng.choice((20_000, LARGEST))
    lines: list[str] = []
    regions: list[Declared] = []
    end = 0
    for _ in range(rng.choice((1, 2, 5, 10, 20, 40))):
        region, text = _region(rng, case, regions, end, limit)
        if region.end <= limit:
            regions.append(region)
            lines.append(f"      - {{{text}}}")
            end = max(end, region.end)
    size = end
    if not end or rng.random() < 0.3:
        size += rng.choice((1, 511, 4096, rng.randint(1, 5000)))
    head = [f"  {path}:"]
    if size != end or rng.random() < 0.3:
        head.append(f"    size: {_number(rng, size)}")
    body = ["    regions:", *lines] if lines else ["    regions: []"]
    return Composite(path, "\n".join(head + body), Model(size, regions))


def _region(rng: Random, case: Case, before: list[Declared], end: int, limit: int) -> tuple[Declared, str]:
    """A region and its text. `end` is where the furthest one before it ends."""
    previous = before[-1].end if before else 0
    unit = {"aligned512": 512, "aligned4096": 4096}.get(case.flavour, 1)
    words: list[str] = []
    if before and rng.random() < 0.25:
        start = rng.randrange(0, end + 1) // unit * unit
        words.append(f"start: {_number(rng, start)}")
    elif previous == end and rng.random() < 0.5:
        align = rng.choice((1, 512, 4096, 3)) if unit == 1 else unit
        start = -(-previous // align) * align
        words += [f"align: {_number(rng, align)}"] if align > 1 else []
    else:
        gap = 0 if rng.random() < 0.5 else _length(rng)
        start = -(-(end + gap) // unit) * unit
        words.append(f"start: {_number(rng, start)}")
    make = {"hole": _hole, "error": _error, "data": _data, "source": _source}
    kinds = ["source"] * 6 + ["hole", "data"] + ["error"] * (case.flavour == "any")
    region, more = make[rng.choice(kinds)](rng, case, start, max(limit - start, 1), unit)
    words += more
    if any(region.start < other.end and other.start < region.end for other in before):
        words.append("over: true")
    rng.shuffle(words)
    return region, ", ".join(words)


def _hole(rng: Random, _case: Case, start: int, room: int, _unit: int) -> tuple[Declared, list[str]]:
    length = min(_length(rng), room)
    return Declared(start, length), ["hole: true", f"length: {_number(rng, length)}"]


def _error(rng: Random, _case: Case, start: int, room: int, _unit: int) -> tuple[Declared, list[str]]:
    length = min(_length(rng), room)
    return Declared(start, length, "error"), ["error: true", f"length: {_number(rng, length)}"]


def _data(rng: Random, case: Case, start: int, room: int, _unit: int) -> tuple[Declared, list[str]]:
    data = rng.randbytes(min(rng.choice((1, 17, 512, rng.randint(1, 700))), room))
    form = rng.choice(("hex", "base64", "text", "file"))
    if form == "text":
        data = base64.b32encode(data)[:len(data)]
        value = json.dumps(data.decode())
    elif form == "file":
        path = case.directory / f"{case.flavour}-{case.seed}-{start}-{rng.randrange(1 << 32)}.bin"
        path.write_bytes(data)
        value = json.dumps(str(path))
    else:
        value = json.dumps(data.hex() if form == "hex" else base64.b64encode(data).decode())
    words = [f"data: {{{form}: {value}}}"]
    words += [f"length: {_number(rng, len(data))}"] if rng.random() < 0.3 else []
    return Declared(start, len(data), "data", data=data), words


def _source(rng: Random, case: Case, start: int, room: int, unit: int) -> tuple[Declared, list[str]]:
    source = rng.choice(case.sources)
    size = len(source.contents)
    offset = 0 if rng.random() < 0.3 else rng.randrange(size) // unit * unit
    rest = size - offset
    length = min(rest, room) if rng.random() < 0.4 else min(_length(rng), rest, room)
    words = [f"source: {_name(case, source)}"]
    words += [f"offset: {_number(rng, offset)}"] if offset or rng.random() < 0.3 else []
    words += [f"length: {_number(rng, length)}"] if length != rest or rng.random() < 0.3 else []
    writable = case.flavour in ("any", "aliasing") and rng.random() < 0.4
    words += ["access: rw"] if writable else ["access: ro"] if rng.random() < 0.2 else []
    return Declared(start, length, "source", source, offset, writable=writable), words


def _name(case: Case, source: Source) -> str:
    """By name, or by path where it has none; relative or absolute, as the seed falls."""
    if source.key in case.named:
        return source.key
    return json.dumps(source.path.name if case.seed % 2 else str(source.path))


def _length(rng: Random) -> int:
    return rng.choice((1, 2, 7, 511, 512, 513, 4095, 4096, 4097, rng.randint(1, 100), rng.randint(1, 9000)))


def _number(rng: Random, value: int) -> str:
    forms = [str(value), hex(value), f'"{value}"']
    forms += [f"{value // 512}s"] if value % 512 == 0 else []
    forms += [f"{value // 1024}KiB"] if value % 1024 == 0 else []
    return rng.choice(forms)
