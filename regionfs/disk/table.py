"""Partition tables made by sfdisk, as bytes.

sfdisk writes the table on a sparse temporary file and the bytes are read back from its two ends.
sfdisk of util-linux 2.38 takes the sector size from the device, and for a plain file that is always
512; fdisk of the same package has `-b` and reads the same script (its command `I`), so other sector
sizes go through it and need neither a loop device nor root. What was written is read back and
compared with the layout: nothing is taken on trust.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from regionfs.disk.layout import ENTRY_SIZE, Layout
from regionfs.disk.read import Table, read_table
from regionfs.disk.tool import run_tool
from regionfs.errors import RegionfsError, UsageError
from regionfs.units import align_up

BOOT_CODE = 440  # bytes of sector 0 before the disk id


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a table at `start` of the disk: whole sectors, so that no reader meets a border inside one."""

    start: int
    data: bytes
    what: str


def script(layout: Layout) -> str:
    """The layout in sfdisk's script language (sfdisk(8), "Headers" and "Named-fields format")."""
    lines = [f"label: {'gpt' if layout.label == 'gpt' else 'dos'}", f"label-id: {layout.disk_id}", "unit: sectors"]
    if layout.label == "gpt":
        lines += [f"first-lba: {layout.first}", f"last-lba: {layout.last}"]
    lines.append("")
    for one in layout.placed:
        line = f"start={one.start}, size={one.sectors}, type={one.type}"
        if layout.label == "gpt":
            line += f", uuid={one.uuid}" + (f', name="{one.part.name}"' if one.part.name else "")
            attrs = [*one.part.attrs, *(["LegacyBIOSBootable"] if one.part.bootable else [])]
            line += f', attrs="{" ".join(dict.fromkeys(attrs))}"' if attrs else ""
        elif one.part.bootable:
            line += ", bootable"
        lines.append(line)
    return "\n".join(lines) + "\n"


def synthesise(layout: Layout, boot_code: bytes = b"") -> tuple[list[Piece], list[Piece]]:
    """The pieces of the primary table and of the backup (empty for MBR), in order.

    `boot_code` goes into the first 440 bytes of sector 0. Raises RegionfsError when the tool is
    missing, refuses, or wrote something other than the layout.
    """
    with tempfile.TemporaryDirectory(prefix="regionfs-stitch-") as place:
        disk = Path(place) / "disk.img"
        with disk.open("xb") as file:
            os.truncate(file.fileno(), layout.size)
        _write(layout, disk, Path(place) / "script")
        _compare(layout, read_table(disk, layout.sector))
        with disk.open("rb") as file:
            return _primary(layout, file.fileno(), boot_code), _backup(layout, file.fileno())


def _write(layout: Layout, disk: Path, script_file: Path) -> None:
    text = script(layout)
    if layout.sector == 512:
        run_tool(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(disk)], text)
        return
    script_file.write_text(text, encoding="utf-8")
    output = run_tool(["fdisk", "-b", str(layout.sector), str(disk)], f"I\n{script_file}\nw\n")
    if "Script successfully applied" not in output:
        raise RegionfsError(f"fdisk refused the table:\n{output.strip()}")


def _compare(layout: Layout, table: Table) -> None:
    meant = [(one.start, one.sectors, one.type.upper()) for one in layout.placed]
    found = [(one.start, one.sectors, one.type.upper()) for one in table.partitions]
    if meant != found or table.id.upper() != layout.disk_id.upper():
        raise RegionfsError(f"sfdisk wrote another table than asked for: {found} with id {table.id}, "
                            f"not {meant} with id {layout.disk_id}")


def _primary(layout: Layout, disk: int, boot_code: bytes) -> list[Piece]:
    if len(boot_code) > BOOT_CODE:
        raise UsageError(f"{len(boot_code)} bytes of boot code; there is room for {BOOT_CODE}")
    table = os.pread(disk, layout.sector, 0)[BOOT_CODE:]
    sector0 = Piece(0, boot_code.ljust(BOOT_CODE, b"\0") + table,
                    ("boot code and " if boot_code.strip(b"\0") else "")
                    + ("partition table" if layout.label == "mbr" else "protective MBR"))
    if layout.label == "mbr":
        return [sector0]
    header = Piece(layout.sector, os.pread(disk, layout.sector, layout.sector), "GPT header")
    return [sector0, header, Piece(2 * layout.sector, _entries(layout, disk, 2), "GPT entries")]


def _backup(layout: Layout, disk: int) -> list[Piece]:
    if layout.label == "mbr":
        return []
    last = layout.size // layout.sector - 1
    start = layout.last + 1
    return [Piece(start * layout.sector, _entries(layout, disk, start), "backup of the GPT entries"),
            Piece(last * layout.sector, os.pread(disk, layout.sector, last * layout.sector),
                  "backup of the GPT header")]


def _entries(layout: Layout, disk: int, sector: int) -> bytes:
    """The sectors of the entries that are in use; those after them are a hole."""
    return os.pread(disk, align_up(len(layout.placed) * ENTRY_SIZE, layout.sector), sector * layout.sector)
