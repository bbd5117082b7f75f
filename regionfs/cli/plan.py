"""`regionfs plan`: the planner's answer to one request, as the file system would use it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from regionfs.cli.common import (
    NOTHING,
    SIZE,
    access,
    examples,
    file_argument,
    find_file,
    json_option,
    load_manifest,
    manifest_argument,
    print_json,
    say,
    table,
    whole_map,
)

if TYPE_CHECKING:
    from regionfs.plan import Mapping

HEADER = ("offset", "length", "kind", "access", "address", "source")


@click.command(epilog=examples("regionfs plan disk.yaml vm/disk.img 1MiB 64KiB",
                               "regionfs plan --write --json disk.yaml vm/disk.img 2048s 8s"))
@manifest_argument
@file_argument()
@click.argument("offset", type=SIZE)
@click.argument("length", type=SIZE)
@click.option("--write", is_flag=True, help="Plan a write: rw regions, up to the first byte that is not.")
@json_option
def plan(manifest: Path, file: str, offset: int, length: int, write: bool, as_json: bool) -> None:
    """Show where the LENGTH bytes at OFFSET of FILE lie.

    Mappings tile the request in order; a read ends at the end of the file, a write where rw ground does.
    """
    from regionfs.manifest.inspect import inspect_source
    from regionfs.plan import plan_read, plan_write
    loaded = load_manifest(manifest)
    regions = whole_map(find_file(loaded, file), lambda key: inspect_source(loaded.sources[key].path).size)
    mappings = list((plan_write if write else plan_read)(regions, offset, length))
    if as_json:
        print_json({"mappings": [_values(mapping) for mapping in mappings]})
        return
    for line in table(HEADER, map(_row, mappings)):
        say(line)
    done = sum(mapping.length for mapping in mappings)
    if done < length:
        say(_shortage(file, offset, done, length, regions.size, write), err=True)


def _values(mapping: Mapping) -> dict[str, Any]:
    from regionfs.regions import Kind
    placed = mapping.kind in (Kind.SOURCE, Kind.DATA)
    return {"offset": mapping.offset, "length": mapping.length, "kind": str(mapping.kind),
            "access": access(mapping.writable), "address": mapping.address if placed else None,
            "source": mapping.source or None}


def _row(mapping: Mapping) -> tuple[str, ...]:
    return tuple(NOTHING if value is None else str(value) for value in _values(mapping).values())


def _shortage(file: str, offset: int, done: int, length: int, size: int, write: bool) -> str:
    end = offset + done
    if write and not done:
        return f"regionfs: {file}: byte {offset} is in no rw region: the write fails with EROFS"
    if write:
        return f"regionfs: {file}: rw ground ends at {end}: the write is short, {done} of {length} bytes"
    return f"regionfs: {file} ends at {size}: the read is short, {done} of {length} bytes"
