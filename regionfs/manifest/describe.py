"""Manifest -> plain data and YAML text that load reads back to an equal value.

The inverse of load: everything it worked out (places, lengths, what covers what) is written explicitly,
region by region, and nothing else is left to defaults but the permissions. Regions that came from a table stay
there, whatever their number: what is written names the table.
"""

from __future__ import annotations

import base64
from pathlib import Path

import yaml

from regionfs.manifest.body import Whole
from regionfs.manifest.schema import VERSION, FileSpec, Manifest, SourceSpec
from regionfs.regions import Kind, Region
from regionfs.units import format_size

HEX_LIMIT = 64  # bytes; what is longer is shorter in base64

_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
_WIDTH = 2**20  # characters; one region, one line
_SIZES = frozenset({"size", "start", "length", "offset"})


def describe(manifest: Manifest) -> dict[str, object]:
    """Plain data of the shape in docs/contract.md section 3: sizes as int, bytes as hex or base64."""
    sources = {spec.key: _source(spec, manifest.path.parent) for spec in manifest.sources.values() if spec.named}
    files = {file.path: _file(file, manifest.path.parent) for file in manifest.files.values()}
    return {"regionfs": VERSION, **({"sources": sources} if sources else {}), "files": files}


def dump(manifest: Manifest) -> str:
    """YAML text of `describe`, with sizes in the units people use where those are exact."""
    text: str = yaml.dump(_readable(describe(manifest)), Dumper=_DUMPER, sort_keys=False, allow_unicode=True,
                          width=_WIDTH, default_flow_style=None)
    return text


def _source(spec: SourceSpec, directory: Path) -> dict[str, object]:
    return {"path": _relative(spec.path, directory), **({} if spec.size is None else {"size": spec.size}),
            **({"loop": True} if spec.loop else {})}


def _relative(path: Path, directory: Path) -> str:
    return str(path.relative_to(directory) if path.is_relative_to(directory) else path)


def _file(file: FileSpec, directory: Path) -> dict[str, object]:
    if isinstance(file.body, Whole):
        return {"whole": file.body.source, "access": _access(file.writable)}
    mode = {} if file.mode is None else {"mode": f"{file.mode:04o}"}
    regions = ([_region(region) for region in file.regions] if file.table is None else
               {"table": _relative(file.table, directory)})
    return {"size": file.regions.size, **mode, "regions": regions}


def _region(region: Region) -> dict[str, object]:
    place: dict[str, object] = {"start": region.start, "length": region.length}
    match region.kind:
        case Kind.SOURCE:
            return {**place, "source": region.source, "offset": region.offset, "access": _access(region.writable)}
        case Kind.DATA:
            return {**place, "data": _data(region.data), **({"offset": region.offset} if region.offset else {})}
        case _:
            return {**place, str(region.kind): True}


def _data(data: bytes) -> dict[str, str]:
    return {"hex": data.hex()} if len(data) <= HEX_LIMIT else {"base64": base64.b64encode(data).decode()}


def _access(writable: bool) -> str:
    return "rw" if writable else "ro"


def _readable(value: object, key: str = "") -> object:
    if isinstance(value, dict):
        return {name: _readable(item, name) for name, item in value.items()}
    if isinstance(value, list):
        return [_readable(item) for item in value]
    if key in _SIZES and isinstance(value, int):
        text = format_size(value)
        return value if text.isdigit() else text
    return value
