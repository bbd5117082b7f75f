"""`regionfs show`: what a manifest's files are made of, and how each would be served.

Joins the map, the picture of it and the mode chosen on this machine, for a terminal or as JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from regionfs.cli.common import (
    NOTHING,
    TABLE_BLOCK,
    access,
    emit,
    examples,
    file_argument,
    find_file,
    json_option,
    load_manifest,
    manifest_argument,
    say,
    table,
    whole_map,
)
from regionfs.cli.sectors import warnings
from regionfs.errors import UsageError
from regionfs.printable import printable
from regionfs.regions import Kind, Region, RegionMap
from regionfs.units import format_size, human_size

if TYPE_CHECKING:
    from rich.console import Console

    from regionfs.manifest.schema import FileSpec, Manifest
    from regionfs.modes.choose import Choice

MANY_REGIONS = 100  # more are shortened
SHOWN = 40          # of each end of a shortened map
MANY_FILES = 20     # more are listed without their maps
MOST_PICTURED = 500  # files that a browser is asked to draw on one page

HEADER = ("#", "start", "length", "kind", "access", "source", "offset")


class Shown(NamedTuple):
    """One composite file as it would be mounted here and now."""

    path: str
    regions: RegionMap
    choice: Choice


@click.command(epilog=examples("regionfs show disk.yaml", "regionfs show disk.yaml vm/disk.img --all",
                               "regionfs show disk.yaml --html disk.html"))
@manifest_argument
@file_argument(required=False)
@click.option("--all", "show_all", is_flag=True, help="Show every region of every file.")
@click.option("--svg", type=click.Path(path_type=Path), metavar="F", help="Draw the maps into the SVG document F.")
@click.option("--html", type=click.Path(path_type=Path), metavar="F", help="Draw the maps into the web page F.")
@json_option
def show(manifest: Path, file: str | None, show_all: bool, svg: Path | None, html: Path | None,
         as_json: bool) -> None:
    """Show what the files of MANIFEST, or only FILE, are made of.

    For each file its size, the mode that would serve it on this machine and why, a picture of its map to
    scale, and its regions. In the picture a letter is a source, a capital where it is rw.

    --svg and --html write the same to a file instead, to be zoomed and walked through in a browser: by mouse, touch
    or keyboard, light or dark, without anything from elsewhere.
    """
    loaded = load_manifest(manifest)
    files = [find_file(loaded, file)] if file is not None else list(loaded.files.values())
    shown = _look(loaded, files)
    for line in warnings(loaded, files):
        say(f"warning: {line}", err=True)
    for out, kind in ((svg, "svg"), (html, "html")):
        if out is not None:
            _write_picture(out, kind, loaded, shown)
    if as_json:
        _print_json(shown)
    elif svg is not None or html is not None:
        return
    elif len(shown) > MANY_FILES and not show_all:
        _print_list(shown)
    else:
        _print_maps(shown, show_all)


def _look(manifest: Manifest, files: Iterable[FileSpec]) -> list[Shown]:
    from regionfs.modes.choose import choose_all
    from regionfs.modes.probe import probe
    from regionfs.source import inspect_sources
    facts = inspect_sources(manifest)
    choices = choose_all(manifest, facts, probe())
    return [Shown(file.path, whole_map(file, lambda key: facts[key].size), choices[file.path])
            for file in files]


def _write_picture(out: Path, kind: str, manifest: Manifest, shown: list[Shown]) -> None:
    from regionfs.cli.export import check_target, replacing
    from regionfs.cli.pictures.content import Pictured, page
    from regionfs.cli.pictures.svg import document
    if len(shown) > MOST_PICTURED:
        raise UsageError(f"{len(shown)} files are too many for one picture, which takes {MOST_PICTURED}; name a FILE")
    check_target(out, [manifest.path, *(spec.path for spec in manifest.sources.values())], force=True)
    pictured = [Pictured(item.path, item.regions, str(item.choice.mode), item.choice.reason) for item in shown]
    with replacing(out) as stream:
        stream.write((document if kind == "svg" else page)(manifest.path.name, pictured).encode("utf-8", "replace"))


def _print_json(shown: Iterable[Shown]) -> None:
    """A region a line: a million of them pass without being held together."""
    import json
    emit('{"files": {')
    for number, item in enumerate(shown):
        about = {"size": item.regions.size, "mode": str(item.choice.mode), "reason": item.choice.reason}
        head = json.dumps(about).removesuffix("}")
        emit(f'{"," if number else ""}\n{json.dumps(item.path)}: {head}, "regions": [')
        lines = iter(json.dumps(_values(region)) for region in item.regions)
        separator = "\n"
        while block := ",\n".join(islice(lines, TABLE_BLOCK)):
            emit(separator + block)
            separator = ",\n"
        emit("]}")
    emit("}}\n")


def _values(region: Region) -> dict[str, Any]:
    in_source = region.kind is Kind.SOURCE
    return {"start": region.start, "length": region.length, "kind": str(region.kind),
            "access": access(region.writable), "source": region.source if in_source else None,
            "offset": region.offset if in_source else None}


def _print_list(shown: list[Shown]) -> None:
    rows = ((item.path, format_size(item.regions.size), str(len(item.regions)), item.choice.mode,
             item.choice.reason) for item in shown)
    for line in table(("file", "size", "regions", "mode", "reason"), rows):
        say(line)
    say(f"{len(shown)} files; name one to see its regions, or say --all")


def _print_maps(shown: list[Shown], show_all: bool) -> None:
    from rich.console import Console
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    for number, item in enumerate(shown):
        if number:
            console.print()
        size = item.regions.size
        console.print(printable(f"{item.path}  {human_size(size)} ({size} bytes)"), style="bold")
        console.print(printable(str(item.choice)))
        _print_picture(console, item.regions)
        for line in _region_lines(item.regions, show_all):
            say(line)


def _print_picture(console: Console, regions: RegionMap) -> None:
    from rich.text import Text

    from regionfs.cli.picture import draw, style
    picture = draw(regions, min(console.width, 160))
    for begin, cells in picture.bars:
        bar = Text(f"{begin:>10} |")
        for glyph in cells:
            bar.append(glyph, style(glyph))
        console.print(bar.append("|"))
    for glyph, meaning in picture.legend:
        console.print(Text(f"{'':10}  ").append(glyph, style(glyph)).append(f" {printable(meaning)}"))
    if picture.bars:
        crowd = f" and shows what fills most of it, of {len(regions)} regions" if picture.crowded else ""
        console.print(f"{'':10}  a cell is {human_size(picture.cell)}{crowd}")


def _region_lines(regions: RegionMap, show_all: bool) -> Iterator[str]:
    count = len(regions)
    if show_all or count <= MANY_REGIONS:
        yield from table(HEADER, _rows(regions, range(count)))
        return
    ends = chain(range(SHOWN), range(count - SHOWN, count))
    lines = table(HEADER, _rows(regions, ends))
    for number, line in enumerate(lines):
        if number == SHOWN + 1:
            yield f"... {count - 2 * SHOWN} regions left out; --all shows them"
        yield line


def _rows(regions: RegionMap, indexes: Iterable[int]) -> Iterator[tuple[str, ...]]:
    for index in indexes:
        region = regions[index]
        in_source = region.kind is Kind.SOURCE
        yield (str(index), format_size(region.start), format_size(region.length), region.kind,
               access(region.writable), region.source or NOTHING,
               format_size(region.offset) if in_source else NOTHING)
