"""What the tests of formats share: manifests in a directory, both commands, and maps to compare."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

from click.testing import CliRunner, Result
from hypothesis import strategies as st

from regionfs.cli.export import composite_of
from regionfs.cli.main import cli
from regionfs.formats.table import FORMATS
from regionfs.formats.values import Composite, Exported, Foreign, FormatError, Imported, tiles
from regionfs.manifest.body import Mapped
from regionfs.manifest.load import load
from regionfs.manifest.schema import FileSpec, Manifest
from regionfs.regions import Region
from tests.cases import manifest_text, random_case


def regionfs(*arguments: object, stdin: bytes = b"") -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], input=stdin)


def run(*command: object) -> str:
    """Run a real tool; its output."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    return done.stdout


def put(path: Path, size: int, seed: int = 0) -> bytes:
    """Write `size` random bytes to `path`."""
    path.write_bytes(data := Random(seed).randbytes(size))
    return data


def put_manifest(directory: Path, regions: list[dict[str, Any]], **keys: Any) -> Path:
    """A manifest of one composite file, disk.img. JSON is YAML."""
    path = directory / "m.yaml"
    path.write_text(json.dumps({"regionfs": 1, "files": {"disk.img": {**keys, "regions": regions}}}))
    return path


def random_manifest(directory: Path, seed: int) -> tuple[Path, str, bytes]:
    """A random map of whole sectors without bad areas: its manifest, its file and its bytes."""
    case = random_case(seed, directory, "any" if seed % 2 else "aligned512")
    case.put()
    file = case.files[0]
    size = -(-file.model.size // 512) * 512
    text = manifest_text([case]).replace("error: true", "hole: true").splitlines()
    lines = [line for line in text if not line.startswith("    size:")]
    at = lines.index(f"  {file.path}:") + 1
    path = directory / "m.yaml"
    path.write_text("\n".join([*lines[:at], f"    size: {size}", *lines[at:]]) + "\n")
    data = bytes(0 if store is None else store[index] for store, index, _, _ in file.model.bytes)
    return path, file.path, data.ljust(size, b"\0")


def composite(path: Path, out: Path, file: str = "disk.img") -> Composite:
    """What a writer is given for a file of the manifest at `path`."""
    manifest = load(path)
    return composite_of(manifest, manifest.files[file], out)


def exported(name: str, path: Path, out: Path, file: str = "disk.img") -> Exported:
    """A writer's answer."""
    write = FORMATS[name].write
    assert write is not None
    return write(composite(path, out, file))


def imported(name: str, content: str | bytes, directory: Path, /, **keys: Any) -> Imported:
    """A reader's answer to `content`, for a manifest in the same directory."""
    data = content.encode() if isinstance(content, str) else content
    return FORMATS[name].read(Foreign(directory / "in.map", data, directory / "m.yaml", **keys))


def faults(read: Callable[[], Imported], *, valid: bool = False) -> list[str]:
    """What is wrong with a reader's answer: a map in which every byte has one place, or a FormatError that says where.

    `valid`: it has to be a map. Other exceptions come through.
    """
    try:
        manifest = read().manifest
    except FormatError as error:
        place, _, reason = str(error).partition(": ")
        if valid:
            return [f"refused: {error}"]
        return [] if "/" in place and reason else [f"a message without place or reason: {error}"]
    if valid and not manifest.files:
        return ["no file"]
    return [fault for name, file in manifest.files.items() for fault in _faults(name, file, manifest)]


def _faults(name: str, file: FileSpec, manifest: Manifest) -> Iterator[str]:
    if name != file.path:
        yield f"{name} is called {file.path}"
    yield from (f"{name}: no source {key}" for key in file.sources if key not in manifest.sources)
    pos = 0
    for tile in tiles(file.body.as_map(0)):
        if tile.start != pos:
            yield f"{name}: [{tile.start}, {tile.end}) follows {pos}"
        pos = tile.end
    if isinstance(file.body, Mapped) and pos != file.regions.size:
        yield f"{name}: tiles end at {pos}, the file at {file.regions.size}"


def nearly(text: str, words: Sequence[str]) -> st.SearchStrategy[str]:
    """`text` as it is, or with up to three of its words, or the signs between them, replaced or left out."""
    pieces = dict(enumerate(re.findall(r"\w+|\W", text)))
    edits = st.dictionaries(st.sampled_from(list(pieces)), st.sampled_from(("", *words)), max_size=3)
    return edits.map(lambda chosen: "".join((pieces | chosen).values()))


def resolved(manifest: Manifest, file: str = "disk.img", *, access: bool = True) -> list[tuple[Any, ...]]:
    """The map without words: tiles with the real paths of their sources."""
    regions = manifest.files[file].regions
    assert regions is not None
    return [(tile.start, tile.end, tile.kind, *_origin(manifest, tile), tile.writable and access)
            for tile in tiles(regions)]


def _origin(manifest: Manifest, tile: Region) -> tuple[Any, ...]:
    if tile.source:
        return manifest.sources[tile.source].path.resolve(), tile.offset
    return (tile.data[tile.offset:tile.offset + tile.length],) if tile.data else ()
