"""Containers of other programs, by their first and last bytes, and what makes plain images of them.

Their bytes are not the disk's: a map over one shows the container. Pure: bytes in, a name and a remedy
out. Whoever writes the first sector of a disk can make it look like a container, so a match is a reason
to ask, never to read in another way. Sources: QEMU block/*.c (probe functions), file(1)'s magic, libewf's
and partclone's documentation.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import NamedTuple

HEAD = 512  # bytes from the start that container() wants
TAIL = 512  # bytes from the end

_QEMU = "qemu-img convert -O raw {} {}.raw"


class Container(NamedTuple):
    """What a file is instead of a plain image. `remedy` is a command over a file and its new name's stem."""

    name: str
    remedy: str

    def advice(self, path: Path) -> str:
        """A sentence on `path`: what it is, and the command that makes a plain image of it."""
        stem = path.with_suffix("") if path.suffix else f"{path}.plain"
        command = self.remedy.format(shlex.quote(str(path)), shlex.quote(str(stem)))
        return f"{path} is {self.name}, whose bytes are not the image's; first run {command}"


_AT_START: tuple[tuple[int, bytes, Container], ...] = tuple(
    (offset, magic, Container(name, remedy)) for offset, magic, name, remedy in (
        (0, b"QFI\xfb", "a qcow2 image", _QEMU),
        (0, b"QED\0", "a QED image", _QEMU),
        (0, b"KDMV", "a sparse VMDK extent", _QEMU),
        (0, b"COWD", "a sparse VMDK extent", _QEMU),
        (0, b"\xbe\xba\xfe\xca\0\0\0\0", "a sparse VMDK extent (SESparse)", _QEMU),
        (0x40, b"\x7f\x10\xda\xbe", "a VDI image", _QEMU),
        (0, b"vhdxfile", "a VHDX image", _QEMU),
        (0, b"conectix", "a dynamic VHD image", _QEMU),
        (0, b"WithoutFreeSpace", "a Parallels image", _QEMU),
        (0, b"WithouFreSpacExt", "a Parallels image", _QEMU),
        (0, b"\x3a\xff\x26\xed", "an Android sparse image", "simg2img {} {}.raw"),
        (0, b"composite_disk\x1d", "a crosvm composite disk", "regionfs import crosvm {} -o {}.yaml"),
        (0, b"# Disk Descriptor", "a VMDK descriptor", "regionfs import vmdk {} -o {}.yaml"),
        (0, b"EVF\x09\x0d\x0a\xff\0", "an EWF (EnCase) image", "ewfexport -f raw -t {1}.raw {0}"),
        (0, b"EVF2\x0d\x0a\x81\0", "an EWF2 (EnCase) image", "ewfexport -f raw -t {1}.raw {0}"),
        (0, b"AFF10\x0d\x0a\0", "an AFF image", "affconvert -r {}"),
        (0, b"partclone-image", "a partclone image", "partclone.restore -C -W -s {} -o {}.raw"),
        (0, b"\0ntfsclone-image", "an ntfsclone image", "ntfsclone --restore-image --overwrite {1}.raw {0}"),
        (0, b"VMA\0", "a Proxmox VMA archive", "vma extract {} {}"),
        (0, b"\x1f\x8b\x08", "compressed with gzip", "gzip -dc {} > {}"),
        (0, b"\xfd7zXZ\0", "compressed with xz", "xz -dc {} > {}"),
        (0, b"\x28\xb5\x2f\xfd", "compressed with zstd", "zstd -dc {} > {}"),
        (0, b"LZIP\x01", "compressed with lzip", "lzip -dc {} > {}"),
        (0, b"\x04\x22\x4d\x18", "compressed with lz4", "lz4 -dc {} > {}"),
        (0, b"\x02\x21\x4c\x18", "compressed with lz4", "lz4 -dc {} > {}"),
        (0, b"\x89LZO\0\x0d\x0a\x1a\x0a", "compressed with lzop", "lzop -dc {} > {}"),
        (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", "7z x {}"),
        (0, b"PK\x03\x04", "a ZIP archive", "unzip {}"),
        (0, b"Rar!\x1a\x07", "a RAR archive", "unrar x {}"),
    ))
_BZIP2 = Container("compressed with bzip2", "bzip2 -dc {} > {}")
_ZSTD = Container("compressed with zstd", "zstd -dc {} > {}")
_DMG = Container("an Apple disk image (UDIF)", _QEMU)
_FIXED_VHD = Container("a fixed VHD image", "qemu-img convert -f vpc -O raw {} {}.raw")


def container(head: bytes, tail: bytes = b"") -> Container | None:
    """What a file is that begins with `head` (HEAD bytes, or all) and ends with `tail`; None for plain bytes."""
    for offset, magic, found in _AT_START:
        if head.startswith(magic, offset):
            return found
    if head.startswith(b"BZh") and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):
        return _BZIP2
    # a skippable frame first, as pzstd and seekable zstd write it, then a frame or the next one
    if head[1:4] == b"\x2a\x4d\x18" and 0x50 <= head[0] <= 0x5F:
        return _ZSTD
    if tail[-TAIL:].startswith(b"koly"):
        return _DMG
    if tail[-TAIL:].startswith(b"conectix"):
        return _FIXED_VHD
    return None
