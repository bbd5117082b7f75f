"""Whether what looks like a disk is made of whole sectors: who opens it past the page cache needs that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from regionfs.errors import RegionfsError
from regionfs.units import align_up

if TYPE_CHECKING:
    from regionfs.manifest.schema import FileSpec, Manifest
    from regionfs.source import Sources

SECTOR = 512        # bytes
HEAD = 4096 + 8     # bytes in which a partition table of any sector size shows
SIGNATURE = b"\x55\xaa"  # of an MBR, also a protective one, at 510
GPT = b"EFI PART"        # UEFI specification, 5.3.2; at the second sector of 512 or 4096 bytes


def warnings(manifest: Manifest, files: Iterable[FileSpec]) -> Iterator[str]:
    """A line for each disk among `files` whose size is no multiple of a sector."""
    from regionfs.manifest.body import Mapped
    from regionfs.source import Sources
    odd = [file for file in files if isinstance(file.body, Mapped) and file.regions.size % SECTOR]
    if not odd:
        return
    with Sources(manifest) as sources:
        for file in odd:
            if is_disk(_head(file, sources)):
                size, sectors = file.regions.size, align_up(file.regions.size, SECTOR) // SECTOR
                yield (f"{manifest.path.name}: {file.path} looks like a disk, and its {size} bytes are not whole "
                       f"sectors: QEMU with cache=none cannot write it; size: {sectors}s rounds up")


def is_disk(head: bytes) -> bool:
    """True where the first bytes have a partition table."""
    return head[510:512] == SIGNATURE or GPT in (head[512:520], head[4096:4104])


def _head(file: FileSpec, sources: Sources) -> bytes:
    from regionfs.execute import read_into
    head = bytearray(min(HEAD, file.regions.size))
    done = 0
    try:
        while done < len(head):
            done += read_into(file.regions, sources, done, memoryview(head)[done:])
    except (OSError, RegionfsError):  # what cannot be read is no table
        pass
    return bytes(head)
