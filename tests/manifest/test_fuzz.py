"""The loader under 100,000 damaged manifests: a Manifest or a ManifestError, nothing else.

Each batch is numbered; `-k 'batch and 7'` runs one again. The inputs are the examples, changed by bytes,
by lines and by words that YAML or the schema has a meaning for.
"""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

import pytest

from regionfs.errors import ManifestError
from regionfs.manifest.describe import dump
from regionfs.manifest.load import loads

BATCHES, INPUTS = 20, 5_000

WORDS = [word.encode() for word in (
    "regionfs: 1", "sources:", "files:", "regions:", "whole:", "source:", "data:", "hole: true", "error: true",
    "over: true", "over: false", "access: rw", "align: 7", "start: 0", "length: 1", "offset: 1", "size: 1GiB",
    'mode: "0644"', "hex: ff", "base64: AA==", "text: x", "file: sources/fifo", "sources/esp.img", "sources/none",
    "sources/fifo", "sources", "0", "-1", "010", "0o17", "1_000", "1e3", "1:30", "9223372036854775807",
    "9223372036854775808", "0xffffffffffffffffffff", "1.5", ".inf", ".nan", "yes", "null", "~", "true", "''", '""',
    "&a ", "*a", "!!str ", "!x ", "<<: ", "<<: *a", "---\n", "...\n", "%YAML 1.1\n", "? ", "- ",
    "[", "]", "{", "}",
    ", ", ": ", "|\n", ">-\n", "'", '"', "\\", "\\0", "\\ud800", "#", "\n", "\r\n", "\t", "  ", "\0", "\ufeff",
    "\u2028", "\x85", "é", "..", "../", "/", "a/b", "@", "`", "[" * 50, "{a: " * 50, "- " * 50)]
WORDS += [b"\xff", b"\xc3", b"\xed\xa0\x80"]


@pytest.fixture(scope="module")
def place(examples: Path) -> Path:
    """The examples' directory with a FIFO among the sources, at which a careless open would hang."""
    fifo = examples / "sources" / "fifo"
    if not fifo.exists():
        os.mkfifo(fifo)
    return examples


def damage(rng: Random, data: bytes) -> bytes:
    """`data` after one to four changes."""
    for _ in range(rng.randint(1, 4)):
        at, other = rng.randrange(len(data) + 1), rng.randrange(len(data) + 1)
        start, end = min(at, other), min(max(at, other), min(at, other) + 40)
        lines = data.splitlines(keepends=True)
        match rng.randrange(7):
            case 0:
                data = data[:at] + rng.choice(WORDS) + data[at:]
            case 1:
                data = data[:start] + rng.choice(WORDS) + data[end:]
            case 2:
                data = data[:start] + data[end:]
            case 3:
                data = data[:at] + bytes([rng.randrange(256)]) + data[at + 1:]
            case 4:
                data = data[:at] + data[start:end] + data[at:]
            case 5 if lines:
                lines.insert(rng.randrange(len(lines)), rng.choice(lines))
                data = b"".join(lines)
            case _:
                words = data.split(b" ")
                words[rng.randrange(len(words))] = rng.choice(WORDS)
                data = b" ".join(words)
    return data


@pytest.mark.timeout(120)
@pytest.mark.parametrize("batch", range(BATCHES))
def test_damaged_examples(place: Path, batch: int) -> None:
    """A damaged manifest loads, and then can be dumped and loaded again, or it says what is wrong and where."""
    rng = Random(batch)
    texts = [path.read_bytes() for path in sorted(place.glob("*.yaml"))]
    path = place / "fuzz.yaml"
    loaded = 0
    for number in range(INPUTS):
        data = damage(rng, rng.choice(texts))
        try:
            manifest = loads(data, path)
        except ManifestError as error:
            assert error.problems and all(problem.line > 0 and problem.column > 0 for problem in error.problems)
        except Exception as error:
            raise AssertionError(f"batch {batch}, input {number}: {data!r}") from error
        else:
            loaded += 1
            if loaded % 20 == 0:
                assert manifest == loads(dump(manifest), path), f"batch {batch}, input {number}: {data!r}"
    assert 0 < loaded < INPUTS
