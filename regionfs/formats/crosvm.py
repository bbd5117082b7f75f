"""crosvm composite disks: a magic, then one protobuf message of components that follow each other.

Source: crosvm protos/src/cdisk_spec.proto and disk/src/composite.rs. A component reaches to the next
one's offset, there are no gaps, and relative paths are below the disk's directory. Positions are bytes,
so only holes and inline data need the side file. crosvm opens components by their formats (qcow2,
Android sparse); here they are raw, so a component that is another container is refused. The few varints
are read and written by hand.
"""

from __future__ import annotations

from collections.abc import Iterator

from regionfs.formats.sides import LaidOut, Piece, lay_out
from regionfs.formats.text import bounded, clip
from regionfs.formats.values import Composite, Draft, Exported, Foreign, FormatError, Imported
from regionfs.regions import Kind, Region

MAGIC = b"composite_disk\x1d"
VERSION = 2   # the newest; tools that know only 1 do not know file_offset, and refuse 2 rather than ignore it
RW_UNIT = 4096  # bytes; sizes of rw components are multiples of it (UnalignedReadWrite)

_VARINT, _BYTES = 0, 2  # wire types
_DISK = {1: ("version", _VARINT), 2: ("component_disks", _BYTES), 3: ("length", _VARINT)}
_COMPONENT = {1: ("file_path", _BYTES), 2: ("offset", _VARINT), 3: ("read_write_capability", _VARINT),
              4: ("file_offset", _VARINT)}

Fields = dict[int, tuple[str, int]]


def sniff(head: bytes) -> bool:
    """True for the first bytes of a composite disk."""
    return head.startswith(MAGIC)


def read(foreign: Foreign) -> Imported:
    """A composite file of the components."""
    if not sniff(foreign.content):
        raise FormatError(f"{foreign.path}: does not begin with composite_disk, so it is no crosvm composite disk")
    draft, place = Draft(foreign), str(foreign.path)
    disk = {"version": 0, "length": 0}
    components: list[dict[str, int | bytes]] = []
    for name, value in _message(foreign.content[len(MAGIC):], _DISK, place):
        if isinstance(value, bytes):
            components.append(dict(_message(value, _COMPONENT, f"{place}: component_disks[{len(components)}]")))
        else:
            disk[name] = value
    if disk["version"] not in (1, 2):
        raise FormatError(f"{place}: version {disk['version']} is not 1 or 2")
    length = bounded(disk["length"], place, "length", least=1)
    draft.add(draft.default_name(), length, _regions(draft, components, length, place))
    return draft.done()


def write(composite: Composite) -> Exported:
    """A composite disk of version 2."""
    for region in composite.regions:
        if region.writable and region.length % RW_UNIT:
            raise FormatError(f"{composite.place(region.start)}: rw regions of {region.length} bytes cannot be said; "
                              f"rw components are multiples of {RW_UNIT}")
    laid = lay_out(composite, 1, lambda region: region.kind is Kind.SOURCE)
    content = [MAGIC, _field(1, VERSION)]
    content += [_field(2, _component(composite, laid, piece)) for piece in laid.pieces]
    content.append(_field(3, composite.regions.size))
    return Exported(b"".join(content), laid.side, laid.notes)


def _regions(draft: Draft, components: list[dict[str, int | bytes]], length: int, place: str) -> Iterator[Region]:
    ordered = sorted(components, key=_offset)
    if not ordered or _offset(ordered[0]):
        raise FormatError(f"{place}: no component begins at 0")
    ends = [*(_offset(one) for one in ordered[1:]), length]
    for one, end in zip(ordered, ends, strict=True):
        start = bounded(_offset(one), place, "a component's offset")
        where = f"{place}: the component at {start}"
        if end <= start:
            raise FormatError(f"{where}: the next one begins, or the disk ends, at {end}")
        access, path = one.get("read_write_capability", 0), one.get("file_path", b"")
        if access not in (0, 1):
            raise FormatError(f"{where}: read_write_capability {access!r} is not 0 or 1")
        offset = bounded(one.get("file_offset", 0), where, "file_offset")
        bounded(offset + end - start, where, "the end in the file")
        assert isinstance(path, bytes)
        try:
            key = draft.source(path.decode())
        except UnicodeDecodeError:
            raise FormatError(f"{where}: file_path {clip(repr(path))} is not UTF-8") from None
        draft.claim(key, where, raw=True)
        yield draft.take(Region(start, end, Kind.SOURCE, key, offset - start, bool(access)), where)


def _offset(component: dict[str, int | bytes]) -> int:
    offset = component.get("offset", 0)
    assert isinstance(offset, int)
    return offset


def _component(composite: Composite, laid: LaidOut, piece: Piece) -> bytes:
    if piece.direct is None:
        assert laid.side is not None
        path, offset, writable = laid.side.path, piece.offset, False
    else:
        path, offset, writable = composite.source(piece.direct.source), piece.direct.offset, piece.direct.writable
    try:
        name = composite.written(path).encode()
    except UnicodeEncodeError:
        raise FormatError(f"{composite.place(piece.start)}: {clip(repr(path))} is not UTF-8, "
                          "which file_path must be") from None
    return (_field(1, name) + _field(2, piece.start) + _field(3, int(writable)) + _field(4, offset))


def _field(number: int, value: int | bytes) -> bytes:
    """One field; as proto3 does, a number of 0 is left out."""
    if isinstance(value, bytes):
        return _varint(number << 3 | _BYTES) + _varint(len(value)) + value
    return _varint(number << 3 | _VARINT) + _varint(value) if value else b""


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(found) + bytes((value,))


def _message(data: bytes, fields: Fields, place: str) -> Iterator[tuple[str, int | bytes]]:
    """(name, value) of each field; what the specification does not know is refused, not skipped."""
    pos = 0
    while pos < len(data):
        tag, pos = _read_varint(data, pos, place)
        name, wire = fields.get(tag >> 3, ("", -1))
        if tag & 7 != wire:
            raise FormatError(f"{place}: byte {pos}: field {tag >> 3} of wire type {tag & 7} is not of the format")
        value, pos = _read_varint(data, pos, place)
        if wire == _BYTES:
            if value > len(data) - pos:
                raise FormatError(f"{place}: {name} of {value} bytes reaches past the end")
            yield name, data[pos:pos + value]
            pos += value
        else:
            yield name, value


def _read_varint(data: bytes, pos: int, place: str) -> tuple[int, int]:
    """The number at `pos` and where it ends: at most 64 bits in at most 10 bytes."""
    value = 0
    for shift in range(0, 70, 7):
        if pos >= len(data):
            raise FormatError(f"{place}: byte {pos}: the file ends inside a number")
        value |= (data[pos] & 0x7F) << shift
        pos += 1
        if data[pos - 1] < 0x80:
            break
    if data[pos - 1] >= 0x80 or value >= 1 << 64:
        raise FormatError(f"{place}: byte {pos}: a number of more than 64 bits")
    return value, pos
