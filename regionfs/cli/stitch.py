"""`regionfs stitch`: new manifests out of partition images, pieces of a file, or a partitioned disk.

Joins disk, formats and manifest, which do not know each other. Nothing is written until the new
manifest has been checked by load.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from regionfs.cli.common import SIZE, emit, examples, quiet_option, say
from regionfs.cli.export import STDOUT
from regionfs.cli.mounted import tell_written
from regionfs.errors import ManifestError, RegionfsError, UsageError

if TYPE_CHECKING:
    from regionfs.manifest.edit_new import NewFile
    from regionfs.manifest.schema import Manifest

SHOWN = 3  # files that are named when they are written

_PATH = click.Path(path_type=Path)
_DISK_OPTIONS = ("gpt", "mbr", "part", "size", "align", "boot_code", "seed", "raw")


class _Recorded(click.Command):
    """Keeps its words, which become a comment in the manifest."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta["words"] = list(args)
        return super().parse_args(ctx, args)


@click.command(cls=_Recorded, epilog=examples(
    "regionfs stitch disk.yaml --disk vm/disk.img --gpt --part esp.img:type=esp,name=EFI \\",
    "    --part root.img:type=linux-root,rw --size 8GiB",
    "regionfs stitch data.yaml --file data.bin --concat a.bin b.bin c.bin",
    "regionfs stitch image.yaml --split-set image.001",
    "regionfs stitch parts.yaml --from-disk disk.img"))
@click.argument("out", type=_PATH)
@click.argument("pieces", metavar="[PIECE...]", nargs=-1, type=_PATH)
@click.option("--disk", metavar="PATH", help="Make a disk of that path in the mount out of partition images.")
@click.option("--gpt", is_flag=True, help="With --disk: a GPT (the default).")
@click.option("--mbr", is_flag=True, help="With --disk: an MBR, at most 4 partitions.")
@click.option("--part", metavar="IMAGE[:KEY=VALUE,...]", multiple=True,
              help="With --disk: a partition. Keys: type (a name, a GUID or an MBR byte), name, size, start, uuid, "
                   "attrs (joined by +), rw, bootable.")
@click.option("--size", type=SIZE, help="With --disk: its size; default: as small as possible.")
@click.option("--sector-size", type=click.Choice(["512", "4096"]), help="Of the disk; default 512.")
@click.option("--align", type=SIZE, help="With --disk: of the partitions' starts; default 1MiB.")
@click.option("--raw", is_flag=True, help="With --disk: take images as they are, also those that look like qcow2, "
                                            "Android sparse, gzip or such.")
@click.option("--boot-code", type=_PATH, help="With --disk: take the first 440 bytes of this file into sector 0.")
@click.option("--seed", help="With --disk: the text all ids are made from; default: the disk's path.")
@click.option("--file", "file", metavar="PATH", help="With --concat and --split-set: the file's path in the mount.")
@click.option("--concat", is_flag=True, help="Make a file out of the PIECEs, in this order.")
@click.option("--split-set", type=_PATH, metavar="PIECE", help="Make a file out of all pieces of the set.")
@click.option("--from-disk", type=_PATH, metavar="DISK", help="Make a file of each partition.")
@click.option("--rw", is_flag=True, help="With --concat, --split-set and --from-disk: writes go to the pieces.")
@click.option("--force", is_flag=True, help="Replace OUT.")
@quiet_option
def stitch(out: Path, force: bool, quiet: bool, **options: Any) -> None:
    """Write the manifest OUT: a disk out of partition images, a file out of pieces, or partitions out of a disk.

    Paths in it are relative to its directory. The same command gives the same bytes: disk and partition
    ids are made from --seed. With - for OUT the manifest goes to stdout.

    Types: esp, linux, linux-root, swap, lvm, raid, bios-boot, ...
    """
    from regionfs.manifest.edit_new import compose
    from regionfs.manifest.edit_save import create
    from regionfs.manifest.load import loads
    from regionfs.manifest.told import contents, counted
    chosen = [name for name in _WAYS if options[name]]
    if len(chosen) != 1:
        raise UsageError(f"stitch makes one thing: one of {', '.join(map(_option, _WAYS))}; "
                         f"here {' and '.join(map(_option, chosen)) or 'none'}")
    way, takes = _WAYS[chosen[0]]
    given = (name for name, value in options.items() if value not in (None, False, (), ""))
    if foreign := [name for name in given if name not in takes and name != chosen[0]]:
        raise UsageError(f"{_option(chosen[0])} takes no {' and '.join(map(_option, foreign))}")
    if out != STDOUT and not force and out.is_symlink() | out.exists():
        raise UsageError(f"{out} exists; --force replaces it")
    files = way(out, options)
    text = compose(files, [f"Made by: regionfs stitch {shlex.join(click.get_current_context().meta['words'])}"])
    try:
        manifest = loads(text, out)
    except ManifestError as error:
        raise error.of(str(out)) from None
    for source in manifest.sources.values():
        if out.exists() and out.samefile(source.path):
            raise UsageError(f"{out} is one of the sources; a manifest in its place would destroy it")
    if out == STDOUT:
        emit(text)
        return
    create(out, text, force=force)
    tell_written(out, f"{', '.join(_shown(manifest))}; {counted(contents(manifest))}", quiet=quiet)


def _shown(manifest: Manifest) -> Iterator[str]:
    """The first of its files, each with its size."""
    from regionfs.units import human_size
    for file in islice(manifest.files.values(), SHOWN):
        yield f"{file.path} ({human_size(file.regions.size)})"
    if len(manifest.files) > SHOWN:
        yield "..."


def _disk(out: Path, options: dict[str, Any]) -> list[NewFile]:
    from regionfs.disk.layout import lay_out
    from regionfs.disk.spec import read_part
    from regionfs.disk.stitch import disk_file
    from regionfs.disk.table import BOOT_CODE, synthesise
    if options["gpt"] and options["mbr"]:
        raise UsageError("a disk has a --gpt or an --mbr, not both")
    parts = [read_part(word, out) for word in options["part"]]
    if not options["raw"]:
        _refuse_containers(options["part"])
    layout = lay_out(parts, label="mbr" if options["mbr"] else "gpt", sector=int(options["sector_size"] or 512),
                     align=2**20 if options["align"] is None else options["align"], size=options["size"],
                     seed=options["disk"] if options["seed"] is None else options["seed"])
    code = b""
    if options["boot_code"]:
        with options["boot_code"].open("rb") as file:
            code = file.read(BOOT_CODE)
    return [disk_file(options["disk"], layout, *synthesise(layout, code))]


def _refuse_containers(words: Sequence[str]) -> None:
    """Nobody wants the bytes of a qcow2 on a disk, or nearly nobody."""
    from regionfs.disk.spec import split_part
    from regionfs.formats.fit import container_at
    for word in words:
        image, _ = split_part(word)
        if found := container_at(image):
            raise UsageError(f"--part {word}: {found.advice(image)}; --raw takes its bytes as they are")


def _concat(out: Path, options: dict[str, Any]) -> list[NewFile]:
    if not options["file"]:
        raise UsageError("--concat needs --file, the file's path in the mount")
    if not options["pieces"]:
        raise UsageError("--concat needs pieces: regionfs stitch OUT --file PATH --concat PIECE...")
    return [_joined(options["file"], options["pieces"], out, options["rw"])]


def _split_set(out: Path, options: dict[str, Any]) -> list[NewFile]:
    from regionfs.formats.split import read
    from regionfs.formats.values import Foreign
    path = options["split_set"].absolute()
    imported = read(Foreign(path, b"", out.absolute(), options["file"] or ""))
    for note in imported.notes:
        say(note, err=True)
    ((name, file),) = imported.manifest.files.items()
    return [_joined(name, [imported.manifest.sources[key].path for key in file.sources], out, options["rw"])]


def _from_disk(out: Path, options: dict[str, Any]) -> list[NewFile]:
    from regionfs.cli.partitions import table_of
    from regionfs.disk.stitch import partition_files
    from regionfs.manifest.edit_new import source_path
    from regionfs.manifest.inspect import inspect_source
    disk: Path = options["from_disk"]
    size = inspect_source(disk).size
    table = table_of(disk, int(options["sector_size"]) if options["sector_size"] else None)
    if table.is_cut(size):
        say(f"{disk} was cut short: what is missing of a partition is an error region and fails with EIO", err=True)
    base = options["file"] or disk.name.split(".", 1)[0]
    files = list(partition_files(table, size, source_path(disk, out), base, writable=options["rw"]))
    if not files:
        raise RegionfsError(f"{disk} has a partition table without partitions")
    return files


_Way = Callable[[Path, dict[str, Any]], "list[NewFile]"]
_WAYS: dict[str, tuple[_Way, Sequence[str]]] = {
    "disk": (_disk, (*_DISK_OPTIONS, "sector_size")),
    "concat": (_concat, ("file", "pieces", "rw")),
    "split_set": (_split_set, ("file", "rw")),
    "from_disk": (_from_disk, ("file", "rw", "sector_size")),
}


def _joined(name: str, pieces: Sequence[Path], out: Path, writable: bool) -> NewFile:
    from regionfs.manifest.edit_new import NewFile, Row, source_fields, source_path
    from regionfs.manifest.inspect import inspect_source
    rows, pos = [], 0
    for piece in pieces:
        length = inspect_source(piece, writable=writable).size
        if not length:
            raise UsageError(f"{piece} is empty; leave it out")
        rows.append(Row(source_fields(pos, length, source_path(piece, out), writable=writable)))
        pos += length
    return NewFile(name, pos, rows)


def _option(name: str) -> str:
    return "PIECE" if name == "pieces" else f"--{name.replace('_', '-')}"
