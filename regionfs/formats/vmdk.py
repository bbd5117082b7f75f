"""VMDK flat descriptors: extents of whole 512-byte sectors in files.

Source: "Virtual Disk Format 5.0", VMware, 2011, "The Descriptor File"; QEMU's block/vmdk.c for what
readers do: QEMU 7.2 drops RDONLY, NOACCESS and ZERO extents and shifts what follows, and takes the
first extent twice without the line `# Extent description`. So the writer says RW FLAT only. Readers take
more than the document says, and so does this one: VirtualBox a space in the first line, QEMU any comment
there, VMware the encoding of the Windows it ran on, and all of them lines that mean nothing to them.
"""

from __future__ import annotations

import codecs
import re
import shlex
import zlib

from regionfs.formats.containers import HEAD, container
from regionfs.formats.sides import LaidOut, lay_out
from regionfs.formats.text import clip, decode, lines, number, plain
from regionfs.formats.values import SECTOR, Composite, Draft, Exported, Foreign, FormatError, Imported
from regionfs.regions import Kind, Region
from regionfs.units import MAX_OFFSET

MAX_DESCRIPTOR = (1 << 20) - 1  # bytes that QEMU reads of a descriptor (vmdk_read_desc)
MANY_EXTENTS = 1000             # QEMU opens each by itself, against the usual limit of 1024 descriptors
MAX_NAME = 511                  # bytes of a file name in QEMU's extent line (vmdk_parse_extents)

_MAGIC = "# Disk DescriptorFile"
_TITLE = re.compile(rb"#\s*Disk\s+Descriptor\s*File\s*", re.IGNORECASE)
_VERSION = re.compile(rb'version\s*=\s*"?[0-9]')
_SPARSE = ("SPARSE", "VMFSSPARSE", "SESPARSE")
_HEADER = re.compile(r'([\w.-]+)\s*=\s*(?:"([^"]*)"|(.*))')
_EXTENT = re.compile(r'(RW|RDONLY|NOACCESS)\s+(\S+)\s+([A-Z]+)(?:\s+"([^"]+)"(?:\s+(\S+))?)?(?:\s+.*)?')
_ASCII = 'RW 1 FLAT "Az09-._/ \\n +AGEA- ~{" 0\n'  # escapes of other encodings, which must mean nothing
# Windows' code pages by the names that VMware writes, where Python's codec of that name is a narrower one
_CODE_PAGES = {"gbk": "cp936", "gb2312": "cp936", "big5": "cp950", "shift_jis": "cp932", "sjis": "cp932",
               "euc-kr": "cp949", "ks_c_5601-1987": "cp949"}
_TYPES = ("monolithicFlat", "twoGbMaxExtentFlat", "2GbMaxExtentFlat", "vmfs", "vmfsPreallocated",
          "vmfsEagerZeroedThick", "vmfsThin", "fullDevice", "partitionedDevice", "custom")


def sniff(head: bytes) -> bool:
    """True for the first bytes of a descriptor: its title among the first comments, or a version after them."""
    for line in map(bytes.strip, plain(head).split(b"\n")):
        if _TITLE.fullmatch(line):
            return True
        if line and not line.startswith(b"#"):
            return _VERSION.match(line) is not None and b"createtype" in plain(head).lower()
    return False


def read(foreign: Foreign) -> Imported:
    """A composite file of the extents: RW rw, RDONLY ro, ZERO a hole, NOACCESS an error region."""
    if (found := container(foreign.content[:HEAD])) and not sniff(foreign.content):
        raise FormatError(f"{foreign.path}: only flat descriptors map bytes one to one; {found.advice(foreign.path)}")
    if not sniff(foreign.content):
        raise FormatError(f"{foreign.path}:1: {_MAGIC!r} is missing; this is not a VMDK descriptor")
    draft, header, regions, pos = Draft(foreign), {"encoding": "UTF-8"}, [], 0
    for place, line in lines(foreign, decode(foreign, _encoding(foreign))):
        if line.startswith("#"):
            continue
        if match := _EXTENT.fullmatch(line):
            region = draft.take(_extent(draft, match, pos, place), place)
            regions.append(region)
            pos = region.end
        elif line.lower().startswith("ddb."):
            continue  # geometry, tools' notes: free text that maps nothing
        elif match := _HEADER.fullmatch(line):
            header[match[1].lower()] = match[2] or match[3] or ""
        else:
            raise FormatError(f"{place}: {clip(line)} is neither an extent, NAME=VALUE nor a comment")
    _check_header(foreign, header)
    if not regions:
        raise FormatError(f"{foreign.path}: the descriptor has no extents")
    draft.add(draft.default_name(), pos, regions)
    return draft.done()


def write(composite: Composite) -> Exported:
    """A descriptor of RW FLAT extents; what no source holds sector by sector goes into a side file."""
    laid = lay_out(composite, SECTOR, lambda region: region.kind is Kind.SOURCE)
    extents = "".join(_extent_lines(composite, laid))
    content = _descriptor(extents, len(laid.pieces), composite.regions.size).encode()
    if len(content) > MAX_DESCRIPTOR:
        raise FormatError(f'files["{composite.path}"]: {len(laid.pieces)} extents make {len(content)} bytes; '
                          f"QEMU reads {MAX_DESCRIPTOR} of a descriptor")
    many = [f"{len(laid.pieces)} extents: QEMU opens each by itself; raise its limit with "
            f"ulimit -n {2 * len(laid.pieces)}"] if len(laid.pieces) >= MANY_EXTENTS else []
    return Exported(content, laid.side, (*laid.notes, *_access_notes(composite, laid), *many))


def _encoding(foreign: Foreign) -> str:
    """The codec of the declared encoding; text that is ASCII needs none."""
    match = re.search(rb'^\s*encoding\s*=\s*"?([^"\r\n]*)', foreign.content[:4096], re.MULTILINE | re.IGNORECASE)
    name = match[1].decode("ascii", "replace").strip() if match else ""
    if not name or foreign.content.isascii():
        return "utf-8"
    if (codec := _codec(name)) is None:
        raise FormatError(f"{foreign.path}: encoding {clip(name)} is not known; write the descriptor in UTF-8, "
                          'with encoding="UTF-8"')
    return codec


def _codec(name: str) -> str | None:
    """Python's name of an encoding in which ASCII is ASCII, else None."""
    page = re.fullmatch(r"(?:x-)?(?:windows|ms|ibm)-?([0-9]+)", name.lower())
    known = f"cp{page[1]}" if page else _CODE_PAGES.get(name.lower(), name)
    try:
        found = codecs.lookup(known)
        return found.name if str(_ASCII.encode(), found.name) == _ASCII else None
    except (LookupError, UnicodeError, ValueError):
        return None


def _extent(draft: Draft, match: re.Match[str], pos: int, place: str) -> Region:
    access, count, kind, name, offset = match.groups()
    length = number(count, place, "the extent's sector count", unit=SECTOR)
    if not 0 < length <= MAX_OFFSET - pos:
        raise FormatError(f"{place}: {count} sectors after {pos} bytes is outside 1 sector to 2^63 - 1 bytes")
    if kind not in ("FLAT", "VMFS", "ZERO"):
        path = draft.foreign.path
        raise FormatError(f"{place}: {kind} extents are not flat; only FLAT, VMFS and ZERO map bytes one to one"
                          + (f"; this is a sparse VMDK, of which a plain image is made by qemu-img convert -O raw "
                             f"{shlex.quote(str(path))} {shlex.quote(str(path.with_suffix('.raw')))}"
                             if kind in _SPARSE else ""))
    if (kind == "ZERO") != (name is None):
        raise FormatError(f"{place}: a {kind} extent has {'a' if name else 'no'} file name")
    if kind == "FLAT" and offset is None:
        raise FormatError(f"{place}: a FLAT extent has no offset")
    start = number(offset or "0", place, "the extent's offset", unit=SECTOR)
    if access == "NOACCESS":
        return Region(pos, pos + length, Kind.ERROR)
    if kind == "ZERO":
        return Region(pos, pos + length, Kind.HOLE)
    if start + length > MAX_OFFSET:
        raise FormatError(f"{place}: the extent ends at {start + length} of its file; the limit is 2^63 - 1")
    return Region(pos, pos + length, Kind.SOURCE, draft.source(name), start - pos, access == "RW")


def _check_header(foreign: Foreign, header: dict[str, str]) -> None:
    if header.get("version") not in ("1", "2", "3"):
        raise FormatError(f"{foreign.path}: version {clip(header.get('version', ''))} is not 1, 2 or 3")
    if header.get("createtype", "").lower() not in (name.lower() for name in _TYPES):
        raise FormatError(f"{foreign.path}: createType {clip(header.get('createtype', ''))} is not one of "
                          f"{', '.join(_TYPES)}")
    if header.get("parentcid", "ffffffff").lower() != "ffffffff":
        raise FormatError(f"{foreign.path}: parentCID {clip(header['parentcid'])}: the disk is a difference "
                          "to another; flatten it first")


def _extent_lines(composite: Composite, laid: LaidOut) -> list[str]:
    found = []
    for piece in laid.pieces:
        if piece.direct is not None:
            path, offset = composite.source(piece.direct.source), piece.direct.offset
        else:
            assert laid.side is not None
            path, offset = laid.side.path, piece.offset
        name = _file_name(composite, composite.written(path), piece.start)
        found.append(f'RW {piece.length // SECTOR} FLAT "{name}" {offset // SECTOR}\n')
    return found


def _file_name(composite: Composite, name: str, start: int) -> str:
    if '"' in name or "\n" in name or "\r" in name:
        raise FormatError(f"{composite.place(start)}: {clip(name)} has a quote or line break, "
                          "which a VMDK extent cannot say")
    # QEMU takes what stands before a colon for a protocol (path_has_protocol)
    name = f"./{name}" if ":" in name.split("/", 1)[0] else name
    if len(name.encode()) > MAX_NAME:
        raise FormatError(f"{composite.place(start)}: {clip(name)} has {len(name.encode())} bytes; "
                          f"the limit in a VMDK extent is {MAX_NAME}")
    return name


def _descriptor(extents: str, count: int, size: int) -> str:
    # any value but ffffffff (no parent) and fffffffe (QEMU's in-memory mark); from the map, so that
    # the same map gives the same bytes
    content_id = zlib.crc32(extents.encode()) & 0x7FFFFFFF
    return f"""{_MAGIC}
version=1
CID={content_id:08x}
parentCID=ffffffff
encoding="UTF-8"
createType="{'monolithicFlat' if count == 1 else 'twoGbMaxExtentFlat'}"

# Extent description
{extents}
# The Disk Data Base
#DDB

ddb.virtualHWVersion = "4"
ddb.geometry.cylinders = "{size // (16 * 63 * SECTOR)}"
ddb.geometry.heads = "16"
ddb.geometry.sectors = "63"
ddb.adapterType = "ide"
"""


def _access_notes(composite: Composite, laid: LaidOut) -> list[str]:
    for piece in laid.pieces:
        if piece.direct is not None and not piece.direct.writable:
            return [f"{composite.place(piece.start)} is ro, but QEMU knows no read-only extents: a machine that "
                    "opens the descriptor for writing changes the source; attach it read-only or with a snapshot"]
    return []
