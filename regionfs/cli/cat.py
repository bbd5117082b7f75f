"""`regionfs cat`: a composite file's bytes on stdout, by the executor and without a mount."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from regionfs.cli.common import (
    SIZE,
    examples,
    file_argument,
    find_file,
    load_manifest,
    manifest_argument,
    whole_map,
)
from regionfs.errors import RegionfsError

if TYPE_CHECKING:
    from regionfs.manifest.schema import FileSpec
    from regionfs.regions import RegionMap
    from regionfs.source import Sources

STEP = 1 << 20  # bytes read and written at once


@click.command(epilog=examples("regionfs cat disk.yaml vm/disk.img | sha256sum",
                               "regionfs cat disk.yaml vm/disk.img --offset 1MiB --length 512 | xxd"))
@manifest_argument
@file_argument()
@click.option("--offset", type=SIZE, default=0, help="Byte to begin at.")
@click.option("--length", type=SIZE, default=None, help="Bytes to write; default: all up to the end.")
def cat(manifest: Path, file: str, offset: int, length: int | None) -> None:
    """Write the bytes of FILE to stdout; nothing is mounted.

    Where bytes cannot be read, those before them are written and the exit status is 1.
    """
    from regionfs.source import Sources
    loaded = load_manifest(manifest)
    spec = find_file(loaded, file)
    with Sources(loaded) as sources:
        regions = whole_map(spec, lambda key: sources.facts(key).size)
        end = regions.size if length is None else min(offset + length, regions.size)
        write_out(regions, sources, spec, offset, end)


def write_out(regions: RegionMap, sources: Sources, file: FileSpec, offset: int, end: int) -> None:
    """Bytes [offset, end) to stdout; RegionfsError where they cannot be read, after those before."""
    from regionfs.execute import read_into
    buffer = memoryview(bytearray(max(min(STEP, end - offset), 0)))
    while offset < end:
        try:
            count = read_into(regions, sources, offset, buffer[:end - offset])
        except OSError as error:
            reason = error.strerror or str(error)
            raise RegionfsError(f"{file.path}: cannot read at byte {offset}: {reason}") from error
        sys.stdout.buffer.write(buffer[:count])
        offset += count
