"""`regionfs flatten`: a composite file becomes a real file, whole or not at all.

Knows names, the bar and the endings: what may be replaced, what a signal or a full disk leaves (nothing),
what a person is told. The bytes are moved by regionfs.flatten.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from regionfs.cli.common import (
    examples,
    file_argument,
    find_file,
    json_option,
    load_manifest,
    manifest_argument,
    print_json,
    say,
    whole_map,
)
from regionfs.errors import RegionfsError, SourceError, UsageError
from regionfs.printable import printable

if TYPE_CHECKING:
    from regionfs.flatten import Flattening, Progress, Tally
    from regionfs.manifest.schema import FileSpec, Manifest
    from regionfs.regions import RegionMap
    from regionfs.source import Sources


@click.command(epilog=examples("regionfs flatten disk.yaml vm/disk.img disk.raw --verify",
                               "regionfs flatten rescue.yaml disk.img disk.raw --errors zero"))
@manifest_argument
@file_argument()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--verify", is_flag=True, help="Read OUT back and compare it with the sources before it gets its name.")
@click.option("--errors", type=click.Choice(["refuse", "zero"]), default="refuse", show_default=True,
              help="What becomes of error regions.")
@click.option("--force", is_flag=True, help="Replace OUT.")
@json_option
def flatten(manifest: Path, file: str, out: Path, verify: bool, errors: str, force: bool, as_json: bool) -> None:
    """Make a real file OUT of the composite FILE; nothing is mounted.

    Where OUT's file system can share blocks with a source (Btrfs, XFS, bcachefs), it does, and those bytes take
    neither time nor room. Holes stay holes. OUT appears when it is complete; an interrupt or a full disk leaves
    nothing. With - for OUT the bytes go to stdout.
    """
    from regionfs.cli.export import STDOUT, check_target, replacing
    from regionfs.flatten import Flattening, first_error, without_errors
    from regionfs.source import Sources
    loaded = load_manifest(manifest)
    spec = find_file(loaded, file)
    with Sources(loaded) as sources:
        regions = whole_map(spec, lambda key: sources.facts(key).size)
        if errors == "zero":
            regions = without_errors(regions)
        elif (index := first_error(regions)) is not None:
            raise RegionfsError(f"{spec.path}: region {index}, at byte {regions.starts[index]}, is an error "
                                "region; --errors zero writes zeros there")
        if out == STDOUT:
            _stream(regions, sources, spec, verify or as_json)
            return
        parts = [manifest, *(source.path for source in loaded.sources.values())]
        check_target(out, parts, force)
        _check_place(out, loaded, spec, sources)
        with replacing(out) as stream:
            flattening = Flattening(regions, sources, stream.fileno())
            _perform(flattening, spec, out, verify)
            check_target(out, parts, force)  # someone may have made one since
    if as_json:
        print_json({"size": regions.size, **asdict(flattening.tally)})
    else:
        say(_summary(out, regions, flattening.tally, verify), err=True)


def _stream(regions: RegionMap, sources: Sources, file: FileSpec, more: bool) -> None:
    """The bytes to a pipe, which has no holes and cannot be read again."""
    from regionfs.cli.cat import write_out
    if more:
        raise UsageError("stdout has the file's bytes only: --verify and --json need a file OUT")
    if sys.stdout.isatty():
        raise UsageError("a disk is not for a terminal; send it to a file or a pipe")
    write_out(regions, sources, file, 0, regions.size)


def _check_place(out: Path, manifest: Manifest, file: FileSpec, sources: Sources) -> None:
    """Refuse a directory whose file system lies on a source."""
    from regionfs.beneath import lies_on
    directory = out.absolute().parent
    for key in file.sources:
        if lies_on(directory, sources.facts(key)):
            raise UsageError(f"{directory} lies on {manifest.sources[key].path}, which {file.path} is made of; "
                             "writing there would change it")


def _perform(flattening: Flattening, file: FileSpec, out: Path, verify: bool) -> None:
    """Write, compare, and see that no source changed meanwhile. Every failure names a file and a reason."""
    sources = flattening.sources
    before = [sources.look(key).stamp for key in file.sources]
    total = flattening.total()
    try:
        with _named(file.path), _bar(out.name, total) as progress:
            flattening.write(progress)
    except OSError as error:
        raise RegionfsError(f"{out}: {error.strerror or error}; nothing of it was kept") from error
    if verify:
        with _named(str(out)), _bar(f"{out.name}: verifying", total) as progress:
            flattening.verify(progress)
    if before != [sources.look(key).stamp for key in file.sources]:
        raise SourceError(f"a source of {file.path} changed while it was copied; nothing of {out} was kept")


def _summary(out: Path, regions: RegionMap, tally: Tally, verify: bool) -> str:
    from regionfs.units import human_size
    ways = {"shared with the sources": tally.shared, "copied by the kernel": tally.copied,
            "read and written": tally.written, "holes": regions.size - tally.shared - tally.copied - tally.written}
    told = ", ".join(f"{human_size(count)} {way}" for way, count in ways.items() if count)
    return f"{out}: {human_size(regions.size)}" + (f" ({told})" if told else "") + (", verified" if verify else "")


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Errors of the block begin with `what`."""
    try:
        yield
    except RegionfsError as error:
        raise type(error)(f"{what}: {error}") from error


@contextmanager
def _bar(label: str, total: int) -> Iterator[Progress]:
    """A progress bar with rate and time left when stderr is a terminal, else nothing."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
    from rich.text import Text

    from regionfs.units import human_size

    class Rate(ProgressColumn):
        """In the units of the rest; rich's own column counts in powers of 1000."""

        def render(self, task: Task) -> Text:
            return Text(f"{human_size(int(task.speed))}/s" if task.speed else "")

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(binary_units=True), Rate(),
               TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task(printable(label), total=total)
        yield lambda count: display.advance(task, count)

