"""The table of formats: name, what a file of it looks like, its reader, its writer and its limits.

The command line lists and calls formats through this table and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from regionfs.errors import UsageError
from regionfs.formats import bmap, crosvm, ddrescue, dmsetup, filefrag, kerchunk, qemu_map, sfdisk, split, vmdk
from regionfs.formats.containers import container
from regionfs.formats.text import plain
from regionfs.formats.values import Composite, Exported, Foreign, FormatError, Imported

HEAD = 64 << 10  # bytes that are looked at to guess a format


class Format(NamedTuple):
    """One foreign format. `input` says what its reader wants: the text, a disk to look at, or only the path."""

    name: str
    summary: str
    sniff: Callable[[bytes, Path], bool]    # the first HEAD bytes and the path
    read: Callable[[Foreign], Imported]
    write: Callable[[Composite], Exported] | None = None
    limits: str = ""
    input: Literal["text", "disk", "path"] = "text"


FORMATS = {row.name: row for row in (
    Format("vmdk", "VMDK flat descriptor (monolithicFlat, twoGbMaxExtentFlat), import and export.",
           lambda head, path: vmdk.sniff(head), vmdk.read, vmdk.write,
           "Whole 512-byte sectors. Export: no error regions; access is not kept; holes, inline data and borders "
           "off a sector go into the side file."),
    Format("crosvm", "crosvm composite disk, import and export.",
           lambda head, path: crosvm.sniff(head), crosvm.read, crosvm.write,
           "Components are raw; others are refused. Export: no error regions; rw regions are multiples of 4096 bytes; "
           "holes and inline data go into the side file."),
    Format("qemu-map", "The output of qemu-img map --output=json, import and export.",
           lambda head, path: qemu_map.sniff(head), qemu_map.read, qemu_map.write,
           "Import: --source names the image's file, which QEMU leaves out. Export: no inline data, no error "
           "regions; access is not kept."),
    Format("kerchunk", "kerchunk references of version 0 or 1, import: a file per key.",
           lambda head, path: kerchunk.sniff(head), kerchunk.read, None,
           "Local files only, no templates; --file names the directory."),
    Format("bmap", "bmap 1.x and 2.x of bmaptool, import; --source names the image.",
           lambda head, path: bmap.sniff(head), bmap.read, None,
           "The image's size and the checksums of ranges are compared with it, but not kept."),
    Format("filefrag", "The output of filefrag -v, import; --source names the file system's device or image.",
           lambda head, path: filefrag.sniff(head), filefrag.read, None,
           "ext2, ext3, ext4 and XFS; no unknown, delayed, inline or encoded extents; not -X."),
    Format("ddrescue", "ddrescue mapfile, import; --source names the rescued image.",
           lambda head, path: ddrescue.sniff(head), ddrescue.read, None,
           "Whatever was not rescued becomes an error region. Another output position (-o) is taken from the command "
           "line in the mapfile."),
    Format("dmsetup", "device-mapper table of linear, zero and error targets, import and export.",
           lambda head, path: dmsetup.sniff(head), dmsetup.read, dmsetup.write,
           "Whole 512-byte sectors. Import: plain or concise; loop devices become their files. Export: files get "
           "loop devices, whose losetup lines are printed and stand in the table; access is one for the whole "
           "device; inline data and borders off a sector go into the side file."),
    Format("split", "Split set image.001, image.00, image_aa, xaa, image.part1, m-1-of-3.bin, import; IN is any piece.",
           lambda head, path: split.sniff(path), split.read, None,
           "Gaps are refused, pieces of unequal size warned about.", "path"),
    Format("gpt", "Disk with a GPT or MBR, or its sfdisk --json or --dump, import: a file per partition and per gap.",
           lambda head, path: sfdisk.sniff(head), sfdisk.read, None,
           "--file names their directory. No export: a composite disk is an image for sfdisk as it is.", "disk"),
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
    text = plain(head)
    for row in FORMATS.values():
        if row.sniff(text, path):
            return row
    if found := container(head):
        raise FormatError(f"{found.advice(path)}; then name it as a source")
    raise FormatError(f"{path}: no format fits; name one of {', '.join(FORMATS)}")
