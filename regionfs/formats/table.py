"""The table of formats: name, what a file of it looks like, its reader, its writer and its limits.

The command line lists and calls formats through this table and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from regionfs.errors import UsageError
from regionfs.formats import bmap, crosvm, ddrescue, dmsetup, filefrag, qemu_map, sfdisk, split, vmdk
from regionfs.formats.values import Composite, Exported, Foreign, FormatError, Imported

HEAD = 64 << 10  # bytes that are looked at to guess a format


class Format(NamedTuple):
    """One foreign format. `input` says what its reader wants: the text, a disk to look at, or only the path."""

    name: str
    summary: str
    suffixes: str                           # for people
    sniff: Callable[[bytes, Path], bool]    # the first HEAD bytes and the path
    read: Callable[[Foreign], Imported]
    write: Callable[[Composite], Exported] | None = None
    limits: str = ""
    input: Literal["text", "disk", "path"] = "text"


FORMATS = {row.name: row for row in (
    Format("vmdk", "VMDK flat descriptor (monolithicFlat, twoGbMaxExtentFlat)", ".vmdk",
           lambda head, path: vmdk.sniff(head), vmdk.read, vmdk.write,
           "whole 512-byte sectors; export: no error regions, access is not kept, "
           "holes, inline data and borders off a sector go into a side file"),
    Format("dmsetup", "device-mapper table of linear, zero and error targets, plain or concise", ".table",
           lambda head, path: dmsetup.sniff(head), dmsetup.read, dmsetup.write,
           "whole 512-byte sectors; import: loop devices become their files; export: files get loop devices whose "
           "losetup lines are printed, access is one for the whole device, inline data and borders off a sector "
           "go into a side file"),
    Format("qemu-map", "the output of qemu-img map --output=json", ".json",
           lambda head, path: qemu_map.sniff(head), qemu_map.read, qemu_map.write,
           "import: --source names the image's file, which QEMU leaves out; export: no inline data, no error "
           "regions, access is not kept"),
    Format("crosvm", "crosvm composite disk", ".composite",
           lambda head, path: crosvm.sniff(head), crosvm.read, crosvm.write,
           "components are raw; export: no error regions, rw regions are multiples of 4096, holes and inline "
           "data go into a side file"),
    Format("bmap", "bmap 2.x of bmaptool; --source names the image", ".bmap",
           lambda head, path: bmap.sniff(head), bmap.read, None,
           "import only; the ranges' checksums are not kept"),
    Format("filefrag", "the output of filefrag -v; --source names the device or image of the file system", "",
           lambda head, path: filefrag.sniff(head), filefrag.read, None,
           "import only; ext4 and XFS; no unknown, delayed, inline, encoded or shared extents"),
    Format("ddrescue", "ddrescue mapfile; --source names the rescued image", ".map .mapfile .log",
           lambda head, path: ddrescue.sniff(head), ddrescue.read, None,
           "import only; whatever was not rescued becomes an error region"),
    Format("split", "split set image.001, image.00, image.aa or image.part1; IN is any piece", ".001 .aa .part1",
           lambda head, path: split.sniff(path), split.read, None,
           "import only; gaps are refused, pieces of unequal size warned about", "path"),
    Format("gpt", "disk with a GPT or MBR, or its sfdisk --json: a file per partition and gap", ".img .json",
           lambda head, path: sfdisk.sniff(head), sfdisk.read, None,
           "import only, a composite disk is an image for sfdisk already; --file names the directory", "disk"),
)}


def find(name: str) -> Format:
    """The format called `name`. Raises UsageError with the known ones."""
    if (row := FORMATS.get(name)) is None:
        raise UsageError(f"there is no format {name!r}; known are {', '.join(FORMATS)}")
    return row


def guess(head: bytes, path: Path) -> Format:
    """The first format that `path`, which begins with `head`, may be of: the table goes from sure to likely.

    Raises FormatError when none fits.
    """
    for row in FORMATS.values():
        if row.sniff(head, path):
            return row
    raise FormatError(f"{path}: no format fits; name one of {', '.join(FORMATS)}")
