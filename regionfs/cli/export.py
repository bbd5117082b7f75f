"""`regionfs export`: a composite file's map in a foreign format, with the side file it needs.

Knows what may be replaced. The formats describe; this module reads sources and writes.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from regionfs.appear import appearing
from regionfs.cli.common import examples, file_argument, find_file, load_manifest, manifest_argument, say, whole_map
from regionfs.errors import SourceError, UsageError
from regionfs.formats.table import FORMATS, find
from regionfs.printable import printable

if TYPE_CHECKING:
    from regionfs.formats.values import Composite, SideFile
    from regionfs.manifest.schema import FileSpec, Manifest

STDOUT = Path("-")


def formats_help(*, writers: bool) -> str:
    """The table of formats as paragraphs of a help page."""
    rows = [row for row in FORMATS.values() if row.write or not writers]
    return "\n\n".join(f"{row.name}: {row.summary} {row.limits}" for row in rows)


@click.command(help=f"""Write the map of FILE in a foreign FORMAT.

What a format cannot say about the bytes is an error that names the region; what it cannot say about
access is a note on stderr. Bytes that no source holds in the format's unit go into a side file next to
OUT, named OUT.side.

{formats_help(writers=True)}
""", epilog=examples(
    "regionfs export vmdk disk.yaml vm/disk.img -o disk.vmdk",
    "qemu-img convert -O raw disk.vmdk disk.raw",
))
@click.argument("format_name", metavar="FORMAT",
                type=click.Choice([row.name for row in FORMATS.values() if row.write]))
@manifest_argument
@file_argument()
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), required=True, metavar="OUT",
              help="The file to write; - for stdout, where the format needs no side file.")
@click.option("--force", is_flag=True, help="Replace OUT and its side file.")
def export(format_name: str, manifest: Path, file: str, out: Path, force: bool) -> None:
    """Write the map of FILE in a foreign FORMAT."""
    loaded = load_manifest(manifest)
    composite = composite_of(loaded, find_file(loaded, file), out.absolute())
    write = find(format_name).write
    assert write is not None
    exported = write(composite)
    if out == STDOUT:
        if exported.side:
            raise UsageError(f"{format_name} needs a side file next to its own; write to a file with -o FILE")
        sys.stdout.buffer.write(exported.content)
    else:
        parts = [manifest, *(spec.path for spec in loaded.sources.values())]
        check_target(out, parts, force)
        if exported.side:
            check_target(exported.side.path, parts, force)
        # both are complete before either has its name
        with replacing(out) as stream:
            stream.write(exported.content)
            if exported.side:
                copy_side(loaded, exported.side)
    for note in exported.notes:
        say(note, err=True)


def composite_of(manifest: Manifest, file: FileSpec, out: Path) -> Composite:
    """What a writer needs to know of `file`; a `whole` file is as large as its source is now."""
    from regionfs.formats.values import Composite
    from regionfs.manifest.inspect import inspect_source
    facts = {key: inspect_source(manifest.sources[key].path) for key in file.sources}
    return Composite(manifest, file.path, whole_map(file, lambda key: facts[key].size), out,
                     frozenset(key for key, fact in facts.items() if fact.kind == "block"))


def check_target(path: Path, parts: Iterable[Path], force: bool) -> None:
    """Refuse to replace a file without `force`; even with it, devices and `parts`, which the result is made of.

    `-` is stdout, and replaces nothing.
    """
    if path == STDOUT:
        return
    if not path.absolute().parent.is_dir():
        raise UsageError(f"{path.parent} is not a directory; {path.name} cannot be written there")
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is not a regular file; nothing else is replaced")
    for part in parts:
        if path.exists() and part.exists() and path.samefile(part):
            raise UsageError(f"{path} is what the result is made of; write somewhere else")
    if os.path.lexists(path) and not force:
        raise UsageError(f"{path} exists; --force replaces it")


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A stream whose bytes become `path` when the block ends well: the old file or the new, never a part.

    Signals that end a process end the block first. `-` is stdout, which gets the bytes as they come.
    """
    if path == STDOUT:
        yield sys.stdout.buffer
        return
    with ends_on_signals(), appearing(path, replace=True) as fd, open(fd, "wb", closefd=False) as stream:
        yield stream


@contextmanager
def ends_on_signals() -> Iterator[None]:
    """SIGTERM and SIGHUP unwind like SIGINT, so that nothing unfinished is left."""
    def end(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)
    before: dict[int, Callable[..., Any] | int | None] = {
        number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)
        if signal.getsignal(number) is signal.SIG_DFL}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def copy_side(manifest: Manifest, side: SideFile) -> None:
    """Write the side file, holes kept. Raises SourceError when a source is not what was loaded."""
    from regionfs.flatten import Flattening
    from regionfs.source import Sources
    with Sources(manifest) as sources, replacing(side.path) as stream:
        before = [sources.look(key).stamp for key in side.regions.names]
        flattening = Flattening(side.regions, sources, stream.fileno())
        with click.progressbar(length=flattening.total(), label=printable(side.path.name), file=sys.stderr,
                               hidden=not sys.stderr.isatty()) as bar:
            flattening.write(bar.update)
        if before != [sources.look(key).stamp for key in side.regions.names]:
            raise SourceError(f"a source changed while {side.path.name} was copied from it; try again")

