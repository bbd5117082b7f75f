"""Where the partitions of a disk lie: pure arithmetic on sectors, no table and no file.

GPT keeps sector 0 (protective MBR), one header and 16 KiB of entries at either end of the disk;
MBR keeps sector 0. Partitions go between, each after all that were given before it and on the
alignment, or where its start is stated: the table numbers them as they were given, whatever their
order on the disk. Every limit is checked here, so that sfdisk is only asked for what it can do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import NAMESPACE_URL, UUID, uuid5

from regionfs.disk.types import is_guid, type_id
from regionfs.errors import UsageError
from regionfs.printable import is_utf8, shown_bytes
from regionfs.units import align_up, format_size

ENTRIES = 128            # GPT entries, as sfdisk and sgdisk make them
ENTRY_SIZE = 128         # bytes
MBR_MAX_SECTORS = 2**32  # start and size are 32 bits in an MBR entry
NAME_UNITS = 36          # UTF-16 code units of a GPT name
_SEEDS = uuid5(NAMESPACE_URL, "regionfs:stitch")


@dataclass(frozen=True, slots=True)
class Part:
    """A partition as asked for. Sizes and starts in bytes."""

    path: str                 # of the image, as the manifest will say it
    length: int               # of the image
    type: str = "linux"       # a name of disk.types, a GUID or an MBR byte
    name: str = ""            # GPT only
    writable: bool = False
    size: int | None = None   # of the partition; default the image's length rounded up to a sector
    start: int | None = None  # default: after the one before, aligned up
    uuid: str | None = None   # GPT only; default from the seed
    attrs: tuple[str, ...] = ()  # GPT attributes in sfdisk's words, or bit numbers 48 to 63
    bootable: bool = False    # MBR: the active flag; GPT: LegacyBIOSBootable


@dataclass(frozen=True, slots=True)
class Placed:
    """A partition in its place, in the words of sfdisk's script. Sectors."""

    part: Part
    start: int
    sectors: int
    type: str
    uuid: str

    @property
    def end(self) -> int:
        """The first sector after it."""
        return self.start + self.sectors


@dataclass(frozen=True, slots=True)
class Layout:
    """A whole disk. `first` and `last` are the usable sectors between the tables, inclusive."""

    label: str    # "gpt" or "mbr"
    disk_id: str
    sector: int   # bytes
    size: int     # bytes
    first: int
    last: int
    placed: tuple[Placed, ...]


def lay_out(parts: Sequence[Part], *, label: str, sector: int, align: int, size: int | None,
            seed: str) -> Layout:
    """Place `parts`; `size` bytes or as small as they allow. Raises UsageError naming the partition."""
    if align <= 0 or align % sector:
        raise UsageError(f"--align {format_size(align)} is not a multiple of the sector size {sector}")
    limit = ENTRIES if label == "gpt" else 4
    if not 1 <= len(parts) <= limit:
        raise UsageError(f"{len(parts)} partitions; {label} takes 1 to {limit}" + ("" if label == "gpt" else
                         ", more need --gpt"))
    if not is_utf8(seed):
        raise UsageError(f"the seed {shown_bytes(seed)}, which is the disk's path unless --seed is given, is not UTF-8")
    table = 1 + -(-ENTRIES * ENTRY_SIZE // sector)  # header and entries
    first, tail = (1 + table, table) if label == "gpt" else (1, 0)
    placed: list[Placed] = []
    pos = first * sector
    for number, part in enumerate(parts, 1):
        one = _place(part, number, pos, sector, align, label, seed)
        placed.append(one)
        pos = max(pos, one.end * sector)
    _check_places(placed, first, sector)
    ids = [one.uuid for one in placed if label == "gpt"]
    if twice := {one for one in ids if ids.count(one) > 1}:
        raise UsageError(f"uuid={twice.pop()} is given to two partitions")
    total = _total(pos, tail * sector, sector, align, size)
    if label == "mbr" and total // sector > MBR_MAX_SECTORS:
        raise UsageError(f"{format_size(total)} is more than an MBR can say ({MBR_MAX_SECTORS} sectors); use --gpt")
    disk = uuid5(_SEEDS, f"{seed}/disk")
    disk_id = str(disk).upper() if label == "gpt" else f"0x{_word(disk):08x}"
    return Layout(label, disk_id, sector, total, first, total // sector - tail - 1, tuple(placed))


def _place(part: Part, number: int, pos: int, sector: int, align: int, label: str, seed: str) -> Placed:
    who = f"partition {number} ({part.path})"
    start = align_up(pos, align) if part.start is None else part.start
    if start % sector:
        raise UsageError(f"{who}: start {start} is not on a sector of {sector} bytes")
    size = align_up(part.length if part.size is None else part.size, sector)
    if size < part.length:
        raise UsageError(f"{who}: size {size} is less than the image's {part.length} bytes")
    if size == 0:
        raise UsageError(f"{who}: the image is empty; give the partition a size=")
    if label == "mbr" and (part.name or part.uuid or part.attrs):
        raise UsageError(f"{who}: name, uuid and attrs exist in GPT only; use --gpt")
    _check_name(who, part.name)
    if part.uuid is not None and not is_guid(part.uuid):
        raise UsageError(f"{who}: uuid={part.uuid} is not a GUID such as {_SEEDS}")
    uuid = part.uuid or str(uuid5(_SEEDS, f"{seed}/{number}"))
    return Placed(part, start // sector, size // sector, type_id(part.type, label), uuid.upper())


def _check_places(placed: Sequence[Placed], first: int, sector: int) -> None:
    """Refuse a partition that lies in the table's sectors or in another partition."""
    border, before = first * sector, "the partition table"
    for number, one in sorted(enumerate(placed, 1), key=lambda item: item[1].start):
        if one.start * sector < border:
            raise UsageError(f"partition {number} ({one.part.path}): start {one.start * sector} lies before {border}, "
                             f"where {before} ends")
        border, before = one.end * sector, f"partition {number} ({one.part.path})"


def _check_name(who: str, name: str) -> None:
    if not name.isprintable() or set(name) & set('"\\'):
        raise UsageError(f"{who}: name={name!r} has a quote, a backslash or a character that cannot be printed")
    if len(name.encode("utf-16-le")) // 2 > NAME_UNITS:
        raise UsageError(f"{who}: name={name} is longer than {NAME_UNITS} UTF-16 units")


def _total(end: int, tail: int, sector: int, align: int, size: int | None) -> int:
    if size is None:
        return align_up(end + tail, align)
    if size % sector:
        raise UsageError(f"--size {size} is not a multiple of the sector size {sector}")
    if size < end + tail:
        raise UsageError(f"--size {size} is too small: partitions end at {end} and the backup table takes "
                         f"{tail}, so {end + tail} bytes are needed")
    return size


def _word(value: UUID) -> int:
    return value.int >> 96 or 1  # an MBR id of 0 means none
