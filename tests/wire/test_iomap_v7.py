"""The v7 ABI of fuse-iomap: golden messages both ways, and what is refused."""

from __future__ import annotations

import pytest

from regionfs.errors import ProtocolError
from regionfs.wire import iomap_v7
from regionfs.wire.codec import LAYOUTS as UPSTREAM
from regionfs.wire.codec import Message
from regionfs.wire.iomap_v7 import (
    LAYOUTS,
    NULL_ADDR,
    BeginIn,
    BeginOut,
    ConfigIn,
    ConfigOut,
    DevInvalOut,
    EndIn,
    InvalMappingsOut,
    Io,
    IoendIn,
    IoendOut,
    Opcode,
    UpsertOut,
    pack,
    unpack,
)
from regionfs.wire.parse import IN_HEADER, parse

IO = Io(offset=1, length=2, addr=3, type=4, flags=5, dev=6)
IO_BYTES = "0100000000000000 0200000000000000 0300000000000000 0400 0500 06000000 "
OTHER = Io(offset=7, length=8, addr=NULL_ADDR, type=255, flags=0, dev=0)
OTHER_BYTES = "0700000000000000 0800000000000000 ffffffffffffffff ff00 0000 00000000 "

STRUCTS: list[tuple[Message, str]] = [
    (IO, IO_BYTES),
    (
        BeginIn(opflags=1 << 31, attr_ino=2, pos=3, length=4),
        "00000080 00000000 0200000000000000 0300000000000000 0400000000000000",  # opflags, -, attr_ino, pos, length
    ),
    (BeginOut(read=IO, write=OTHER), IO_BYTES + OTHER_BYTES),
    (
        EndIn(opflags=1, attr_ino=2, pos=3, length=4, written=-5, map=IO),
        "01000000 00000000 0200000000000000 0300000000000000 "  # opflags, -, attr_ino, pos
        "0400000000000000 fbffffffffffffff " + IO_BYTES,  # length, written, map
    ),
    (
        IoendIn(flags=1, error=-2, attr_ino=3, pos=4, new_addr=5, written=6, dev=7),
        "01000000 feffffff 0300000000000000 0400000000000000 "  # flags, error, attr_ino, pos
        "0500000000000000 0600000000000000 07000000 00000000",  # new_addr, written, dev, -
    ),
    (IoendOut(newsize=1), "0100000000000000"),
    (
        ConfigIn(flags=1, maxbytes=-2, cache_maxbytes=3),
        "0100000000000000 feffffffffffffff 03000000 00000000 "  # flags, maxbytes, cache_maxbytes, -
        + 5 * "0000000000000000 ",
    ),
    (
        ConfigOut(flags=1, sid=b"s", uuid=b"u", uuid_length=2, blocksize=3, max_links=4, time_gran=5, time_min=-6,
                  time_max=7, maxbytes=8, cache_maxbytes=9),
        "0100000000000000 73" + 31 * "00" + "75" + 15 * "00" + "02 000000"  # flags, sid, uuid, uuid_length, -
        "03000000 04000000 05000000 faffffffffffffff "  # blocksize, max_links, time_gran, time_min
        "0700000000000000 0800000000000000 09000000 00000000",  # time_max, maxbytes, cache_maxbytes, -
    ),
    (
        UpsertOut(nodeid=1, attr_ino=2, read=IO, write=OTHER),
        "0100000000000000 0200000000000000 " + IO_BYTES + OTHER_BYTES,
    ),
    (
        InvalMappingsOut(nodeid=1, attr_ino=2, read_offset=3, read_length=4, write_offset=5, write_length=6),
        "0100000000000000 0200000000000000 0300000000000000 0400000000000000 0500000000000000 0600000000000000",
    ),
    (DevInvalOut(dev=1, offset=2, length=3), "01000000 00000000 0200000000000000 0300000000000000"),
]
IDS = [type(message).__name__ for message, _ in STRUCTS]

# docs/kernel.md section 4
SIZES = {Io: 32, BeginIn: 32, BeginOut: 64, EndIn: 72, IoendIn: 48, IoendOut: 8, ConfigIn: 64, ConfigOut: 104,
         UpsertOut: 80, InvalMappingsOut: 48, DevInvalOut: 24}


def test_every_struct_is_golden() -> None:
    """The golden table has each struct of the table once, and upstream's codec has none of them."""
    assert list(LAYOUTS) == [type(message) for message, _ in STRUCTS]
    assert set() == UPSTREAM.keys() & LAYOUTS.keys()


def test_sizes() -> None:
    """Structs are as long as the kernel's."""
    assert SIZES == {cls: layout.size for cls, layout in LAYOUTS.items()}


@pytest.mark.parametrize(("message", "golden"), STRUCTS, ids=IDS)
def test_pack(message: Message, golden: str) -> None:
    """A value becomes exactly the golden bytes."""
    assert bytes.fromhex(golden) == pack(message)


@pytest.mark.parametrize(("message", "golden"), STRUCTS, ids=IDS)
def test_unpack(message: Message, golden: str) -> None:
    """The golden bytes become the value again."""
    assert message == unpack(type(message), bytes.fromhex(golden))


@pytest.mark.parametrize(("message", "golden"), STRUCTS, ids=IDS)
def test_wrong_length(message: Message, golden: str) -> None:
    """A struct cut off at any byte, or with one more, is refused."""
    whole = bytes.fromhex(golden)
    for data in (*(whole[:length] for length in range(len(whole))), whole + b"\0"):
        with pytest.raises(ProtocolError, match=type(message).__name__):
            unpack(type(message), data)


@pytest.mark.parametrize(("opcode", "number"),
                         [(Opcode.CONFIG, 6), (Opcode.IOEND, 4), (Opcode.BEGIN, 1), (Opcode.END, 3)])
def test_body(opcode: Opcode, number: int) -> None:
    """A whole request: upstream's parser leaves its body alone, and this table reads it."""
    message, golden = STRUCTS[number]
    data = bytes.fromhex(golden)
    header = IN_HEADER.pack(IN_HEADER.size + len(data), opcode, 1, 2, 0, 0, 0, 0)
    request = parse(header + data, IN_HEADER.size + len(data))
    assert (None, message) == (request.body, iomap_v7.body(request))


def test_malformed_body() -> None:
    """A request of the wrong length is refused by its name."""
    request = parse(IN_HEADER.pack(IN_HEADER.size, Opcode.BEGIN, 1, 2, 0, 0, 0, 0), IN_HEADER.size)
    with pytest.raises(ProtocolError, match="malformed BEGIN"):
        iomap_v7.body(request)


def test_halves() -> None:
    """What the kernel demands of holes and of write halves: no device, no address, no flags."""
    read = iomap_v7.mapped(4096, 8192, 3, 512, boundary=True)
    assert Io(4096, 8192, 512, 2, 0x10, 3) == read
    assert Io(4096, 8192, NULL_ADDR, 255, 0, 0) == iomap_v7.overwrite(read)
    assert Io(4096, 8192, NULL_ADDR, 253, 0, 0) == iomap_v7.nocache(read)
    assert Io(0, 512, NULL_ADDR, 0, 0, 0) == iomap_v7.hole(0, 512)
