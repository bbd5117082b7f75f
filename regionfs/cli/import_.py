"""`regionfs import`: a foreign map becomes a manifest that loads.

Knows where foreign bytes come from (a file, a pipe, a partition table) and that nothing is replaced
before its successor was checked. The formats read.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from regionfs.cli.common import examples, quiet_option, say
from regionfs.cli.export import STDOUT, check_target, formats_help
from regionfs.cli.mounted import tell_written
from regionfs.cli.partitions import as_json, dump_as_json, table_of
from regionfs.errors import ManifestError, RegionfsError, UsageError
from regionfs.formats.sfdisk import is_dump
from regionfs.formats.table import FORMATS, HEAD, Format, find, guess

if TYPE_CHECKING:
    from typing import IO

    from regionfs.formats.values import Imported
    from regionfs.manifest.schema import Manifest

STDIN = Path("-")


@click.command(name="import", help=f"""Make a manifest of the foreign map IN.

FORMAT auto looks at IN to find out; IN - reads stdin. Relative paths in IN are below its directory.
The result is checked as `regionfs check` does before it replaces anything.

{formats_help(writers=False)}
""", epilog=examples(
    "regionfs import auto disk.vmdk -o disk.yaml",
    "qemu-img map --output=json disk.raw | regionfs import qemu-map - -o disk.yaml --source disk.raw",
    "regionfs import ddrescue rescue.map -o rescue.yaml --source rescue.img",
))
@click.argument("format_name", metavar="FORMAT", type=click.Choice(["auto", *FORMATS]))
@click.argument("foreign", metavar="IN", type=click.Path(path_type=Path))
@click.option("-o", "--output", "out", type=click.Path(path_type=Path), required=True, metavar="MANIFEST",
              help="The manifest to write; - for stdout.")
@click.option("--file", "name", default="", metavar="PATH",
              help="The composite file's path inside the mount; a directory where the format gives several.")
@click.option("--source", type=click.Path(path_type=Path), metavar="PATH",
              help="The image that IN maps, for formats that do not say.")
@click.option("--ro", "read_only", is_flag=True, help="Make every region ro, whatever IN says.")
@click.option("--raw", is_flag=True, help="Take images as they are, also those that look like qcow2, gzip or such.")
@click.option("--no-verify", is_flag=True, help="Do not read the image to compare it with checksums in IN.")
@click.option("--force", is_flag=True, help="Replace MANIFEST.")
@quiet_option
def import_(format_name: str, foreign: Path, out: Path, name: str, source: Path | None, read_only: bool,
            raw: bool, no_verify: bool, force: bool, quiet: bool) -> None:
    """Make a manifest of the foreign map IN."""
    from regionfs.formats.fit import check_fit
    from regionfs.formats.values import Foreign
    from regionfs.manifest.describe import dump
    from regionfs.manifest.edit_save import create
    from regionfs.manifest.load import loads
    from regionfs.manifest.told import contents, counted
    piped = foreign == STDIN or foreign.is_fifo()
    place = Path.cwd() / "stdin" if piped else foreign.absolute()
    row, content = _fetch(format_name, foreign)
    manifest = Path.cwd() / "stdout.yaml" if out == STDOUT else out.absolute()
    imported: Imported = row.read(Foreign(place, content, manifest, name.strip("/"),
                                          source.absolute() if source else None))
    notes = check_fit(imported, read_only=read_only, raw=raw, verify=not no_verify)
    text = dump(_read_only(imported.manifest) if read_only else imported.manifest)
    try:
        loads(text, manifest)
    except ManifestError as error:
        raise error.of(str(place)) from None
    if out == STDOUT:
        sys.stdout.buffer.write(text.encode())
    else:
        check_target(manifest, [place, *(spec.path for spec in imported.manifest.sources.values())], force)
        create(manifest, text, force=force)
        tell_written(out, counted(contents(imported.manifest)), quiet=quiet)
    for note in (*imported.notes, *notes):
        say(note, err=True)


def _read_only(manifest: Manifest) -> Manifest:
    return replace(manifest, files={path: replace(file, body=file.body.read_only())
                                    for path, file in manifest.files.items()})


def _fetch(format_name: str, foreign: Path) -> tuple[Format, bytes]:
    """The format and the content its reader wants."""
    if format_name != "auto" and find(format_name).input == "path":
        return find(format_name), b""
    with sys.stdin.buffer if foreign == STDIN else open(foreign, "rb") as stream:
        head = _read(stream, HEAD)
        if not head and (foreign == STDIN or format_name != "auto"):
            raise RegionfsError(f"{'stdin' if foreign == STDIN else foreign} is empty; there is no map to import")
        row = guess(head, foreign) if format_name == "auto" else find(format_name)
        if row.input == "path":
            return row, b""
        if row.input == "disk" and b"\0" in head:
            if not foreign.is_file() and not foreign.is_block_device():
                raise UsageError(f"{foreign}: a disk is an image file or a block device; sfdisk --json may be piped")
            return row, as_json(table_of(foreign), str(foreign.absolute()))
        content = head + _read_all(stream, foreign)
        return row, dump_as_json(content, foreign) if row.input == "disk" and is_dump(head) else content


def _read(stream: IO[bytes], count: int) -> bytes:
    found = b""
    while len(found) < count and (part := stream.read(count - len(found))):
        found += part
    return found


def _read_all(stream: IO[bytes], foreign: Path) -> bytes:
    from regionfs.formats.text import MAX_CONTENT
    rest = _read(stream, MAX_CONTENT - HEAD + 1)
    if len(rest) > MAX_CONTENT - HEAD:
        raise RegionfsError(f"{foreign} is larger than {MAX_CONTENT} bytes, the limit of a foreign map")
    return rest
