"""The text of a new manifest, for people: a region on a line, with a comment above it where it helps.

dump writes what a program worked out; this writes what a person would have written. Knows the style,
not what the files are.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from regionfs.manifest.describe import HEX_LIMIT
from regionfs.manifest.edit_draft import Value
from regionfs.manifest.edit_words import flow_mapping, scalar
from regionfs.manifest.schema import VERSION
from regionfs.units import format_size


@dataclass(frozen=True, slots=True)
class Row:
    """A region to write."""

    fields: Mapping[str, Value]
    comment: str = ""


@dataclass(frozen=True, slots=True)
class NewFile:
    """A composite file to write. `size` in bytes."""

    path: str
    size: int
    rows: Sequence[Row]
    comment: str = ""


def compose(files: Iterable[NewFile], comments: Iterable[str]) -> str:
    """The whole text; `comments` are its first lines."""
    lines = [*(f"# {_one_line(comment)}" for comment in comments), f"regionfs: {VERSION}", "files:"]
    for file in files:
        if file.comment:
            lines.append(f"  # {_one_line(file.comment)}")
        lines += [f"  {scalar(file.path)}:", f"    size: {format_size(file.size)}", "    regions:"]
        for row in file.rows:
            if row.comment:
                lines.append(f"      # {_one_line(row.comment)}")
            lines.append(f"      - {flow_mapping(row.fields)}")
    return "\n".join(lines) + "\n"


def source_fields(start: int, length: int, source: str, *, offset: int = 0, writable: bool = False) -> dict[str, Value]:
    """A region of a source. Start and length are stated, so that a piece that grew shifts nothing."""
    return {"start": format_size(start), "length": format_size(length), "source": source,
            **({"offset": format_size(offset)} if offset else {}), **({"access": "rw"} if writable else {})}


def data_fields(start: int, data: bytes) -> dict[str, Value]:
    """A region of inline bytes."""
    value = {"hex": data.hex()} if len(data) <= HEX_LIMIT else {"base64": base64.b64encode(data).decode()}
    return {"start": format_size(start), "data": value}


def source_path(path: Path, manifest: Path) -> str:
    """`path` as the manifest at `manifest` says it: relative to its directory, but absolute in /dev."""
    absolute = Path(os.path.realpath(path.parent)) / path.name
    if absolute.is_relative_to("/dev"):
        return str(absolute)
    return os.path.relpath(absolute, os.path.realpath(manifest.parent))


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in text)
