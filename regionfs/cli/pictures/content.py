"""What a picture shows, as plain data; the page around it.

The data are JSON in the form that map.js reads: a row per region, [start, length, kind, source, offset, rw],
kind and source being indexes. Integers above 2^53 become strings, since JavaScript would round them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from regionfs import __version__
from regionfs.printable import printable
from regionfs.regions import ERROR, HOLE, Kind, RegionMap

KINDS = tuple(Kind)
HUES = (250, 150, 85, 315, 195, 60, 350, 120)  # of the first sources, in degrees; red is for errors
SCRIPTS = ("words.js", "below.js", "map.js", "page.js")
_EXACT = 2**53
# what would end a script element of HTML or XML is written as JSON can also write it
_ESCAPES = {ord("<"): "\\u003c", ord(">"): "\\u003e", ord("&"): "\\u0026"}


@dataclass(frozen=True, slots=True)
class Pictured:
    """One composite file as it would be mounted here and now."""

    path: str
    regions: RegionMap
    mode: str
    reason: str


def page(title: str, shown: Sequence[Pictured]) -> str:
    """A page of HTML that needs nothing else."""
    return template("page.html").substitute(
        title=escape(printable(title)), version=__version__, style=text("map.css"), script=script(),
        data=embedded(title, shown))


def embedded(title: str, shown: Sequence[Pictured]) -> str:
    """The data of a picture, fit for a script element of HTML or XML."""
    data = {"title": printable(title), "kinds": KINDS, "files": [_file(item) for item in shown]}
    return json.dumps(data, separators=(",", ":")).translate(_ESCAPES)


def hue(index: int) -> int:
    """The colour of a file's source, in degrees."""
    return HUES[index] if index < len(HUES) else round(40 + index * 137.508 % 320)


def script() -> str:
    """The script of a picture."""
    return '"use strict";\n(() => {\n' + "\n".join(map(text, SCRIPTS)) + "})();"


def template(name: str) -> Template:
    """A document with places for what differs."""
    return Template(text(name))


def text(name: str) -> str:
    """One of the files beside this module."""
    return files(__package__).joinpath(name).read_text("utf-8")


def _file(item: Pictured) -> dict[str, Any]:
    return {"path": printable(item.path), "size": _number(item.regions.size), "mode": item.mode,
            "reason": printable(item.reason), "sources": list(map(printable, item.regions.names)),
            "hues": [hue(index) for index in range(len(item.regions.names))],
            "regions": list(_rows(item.regions))}


def _rows(regions: RegionMap) -> Iterator[tuple[int | str, ...]]:
    kinds = {HOLE: KINDS.index(Kind.HOLE), ERROR: KINDS.index(Kind.ERROR)}
    data, source = KINDS.index(Kind.DATA), KINDS.index(Kind.SOURCE)
    for start, end, target, shift, writable in regions.rows():
        if target >= 0:
            yield _number(start), _number(end - start), source, target, _number(start + shift), writable
        else:
            yield _number(start), _number(end - start), kinds.get(target, data), 0, 0, 0


def _number(value: int) -> int | str:
    return value if value < _EXACT else str(value)
