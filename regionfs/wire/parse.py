"""One read(2) of /dev/fuse -> one checked Request. Sans-io.

A request is InHeader, the opcode's struct, then names or data. Every length is checked against every other
before anything is believed; what does not add up is a ProtocolError, never a guess. REQUESTS has one row
per opcode. An opcode without a row is no error: what follows its header comes back unread in `data`, and
the server answers ENOSYS or has a table of its own.

**The hot path.** READ and WRITE come 150,000 times a second, and parse() takes 0.5 us where one
unpack takes 0.1. So a server may take them first: with `n` >= IO_REQUEST_SIZE bytes received in `buffer`,

    (length, opcode, unique, nodeid, uid, gid, pid,
     fh, offset, size, io_flags, lock_owner, flags) = IO_REQUEST.unpack_from(buffer)
    if opcode == READ and length == n == IO_REQUEST_SIZE: ...          # nothing follows
    if opcode == WRITE and length == n == IO_REQUEST_SIZE + size: ...  # the rest of n is data

Everything else goes to parse(), which agrees with this by test. codec.OUT_HEADER.pack_into(answer, 0,
OUT_HEADER_SIZE + count, 0, unique) completes a buffer that holds `count` bytes from OUT_HEADER_SIZE on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from struct import Struct
from typing import NamedTuple

from regionfs.errors import ProtocolError
from regionfs.wire.abi import Opcode
from regionfs.wire.codec import LAYOUTS, Buffer, Message, unpack
from regionfs.wire.requests import (
    INIT_IN_SHORT,
    AccessIn,
    BatchForgetIn,
    BmapIn,
    CopyFileRangeIn,
    CreateIn,
    FallocateIn,
    FlushIn,
    ForgetIn,
    ForgetOne,
    FsyncIn,
    GetattrIn,
    GetxattrIn,
    InHeader,
    InitIn,
    InterruptIn,
    IoctlIn,
    LinkIn,
    LkIn,
    LseekIn,
    MkdirIn,
    MknodIn,
    NotifyRetrieveIn,
    OpenIn,
    PollIn,
    ReadIn,
    ReleaseIn,
    Rename2In,
    RenameIn,
    SetattrIn,
    SetxattrIn,
    StatxIn,
    SyncfsIn,
    WriteIn,
)

IN_HEADER = LAYOUTS[InHeader]
IN_HEADER_SIZE = IN_HEADER.size    # 40
IO_REQUEST = Struct("=IIQQ3I4x" "QQIIQI4x")  # fuse_in_header, then fuse_read_in or fuse_write_in
IO_REQUEST_SIZE = IO_REQUEST.size  # 80


class Request(NamedTuple):
    """One request from the kernel. `data` is a view into the buffer: use it before the next read."""

    header: InHeader
    body: Message | None       # the opcode's struct, as its row in REQUESTS says
    names: tuple[bytes, ...]   # without NUL
    data: Buffer               # what follows struct and names


_Tail = tuple[tuple[bytes, ...], Buffer]  # names and data
Tail = Callable[[Message | None, memoryview], _Tail]


class Row(NamedTuple):
    """How a request is laid out behind its header."""

    body: type[Message] | None
    tail: Tail


def parse(buffer: Buffer, size: int) -> Request:
    """The request in the first `size` bytes of `buffer`, as one read(2) filled them.

    Raises ProtocolError, naming opcode and lengths but no contents, when lengths disagree, a struct or a
    name is cut off, a name is empty or has a '/', or bytes follow where nothing may.
    """
    if not IN_HEADER_SIZE <= size <= len(buffer):
        raise ProtocolError(f"a request of {size} bytes in a buffer of {len(buffer)}: the header alone has"
                            f" {IN_HEADER_SIZE}")
    header = tuple.__new__(InHeader, IN_HEADER.unpack_from(buffer))
    if header.length != size:
        raise _malformed(header, f"the header says {header.length} bytes, {size} came")
    if header.total_extlen:
        raise _malformed(header, f"{8 * header.total_extlen} bytes of extensions, never negotiated")
    # most are one struct of fixed size
    lone = _LONE.get(header.opcode)
    if lone is not None and size == lone.size:
        return Request(header, tuple.__new__(lone.body, lone.layout.unpack_from(buffer, IN_HEADER_SIZE)), (), b"")
    rest = memoryview(buffer)[IN_HEADER_SIZE:size]
    row = REQUESTS.get(header.opcode)
    if row is None:
        return Request(header, None, (), rest)
    try:
        body, rest = (None, rest) if row.body is None else _split_body(row.body, rest)
        names, data = row.tail(body, rest)
        return Request(header, body, names, data)
    except ProtocolError as error:
        raise _malformed(header, str(error)) from None


def forgets(request: Request) -> Iterator[ForgetOne]:
    """The (nodeid, nlookup) pairs of a FORGET or BATCH_FORGET."""
    if isinstance(request.body, ForgetIn):
        yield ForgetOne(request.header.nodeid, request.body.nlookup)
    else:
        yield from map(ForgetOne._make, LAYOUTS[ForgetOne].iter_unpack(request.data))


def _split_body(cls: type[Message], rest: memoryview) -> tuple[Message, memoryview]:
    # the short form of kernels before 7.36
    if cls is InitIn and len(rest) == INIT_IN_SHORT.size:
        return InitIn(*INIT_IN_SHORT.unpack(rest)), rest[INIT_IN_SHORT.size:]
    return unpack(cls, rest), rest[LAYOUTS[cls].size:]


def _nothing(body: Message | None, rest: memoryview) -> _Tail:
    if len(rest):
        raise ProtocolError(f"{len(rest)} bytes follow where nothing may")
    return (), b""


def _anything(body: Message | None, rest: memoryview) -> _Tail:
    return (), b""


def _name(body: Message | None, rest: memoryview) -> _Tail:
    return (_entry_name(*_texts(rest, 1)),), b""


def _two_names(body: Message | None, rest: memoryview) -> _Tail:
    old, new = _texts(rest, 2)
    return (_entry_name(old), _entry_name(new)), b""


def _name_and_target(body: Message | None, rest: memoryview) -> _Tail:
    name, target = _texts(rest, 2)
    return (_entry_name(name), target), b""


def _text(body: Message | None, rest: memoryview) -> _Tail:
    return tuple(_texts(rest, 1)), b""


def _name_and_value(body: Message | None, rest: memoryview) -> _Tail:
    name, found, _ = bytes(rest).partition(b"\0")
    if not found or not name:
        raise ProtocolError("the attribute's name is empty or has no NUL")
    return (name,), _exactly(_declared_size(body), rest[len(name) + 1:])


def _bytes(body: Message | None, rest: memoryview) -> _Tail:
    return (), _exactly(_declared_size(body), rest)


def _declared_size(body: Message | None) -> int:
    match body:
        case WriteIn(size=size) | SetxattrIn(size=size) | NotifyRetrieveIn(size=size):
            return size
        case IoctlIn(in_size=size):
            return size
        case BatchForgetIn(number=number):
            return number * LAYOUTS[ForgetOne].size
    raise TypeError(f"{type(body).__name__} declares no size")


def _exactly(size: int, rest: memoryview) -> memoryview:
    if len(rest) != size:
        raise ProtocolError(f"{size} bytes of data were announced, {len(rest)} came")
    return rest


def _texts(rest: memoryview, count: int) -> list[bytes]:
    texts = bytes(rest).split(b"\0")
    if len(texts) != count + 1 or texts.pop():
        raise ProtocolError(f"{count} NUL-terminated strings should fill {len(rest)} bytes exactly")
    if b"" in texts:
        raise ProtocolError("a name is empty")
    return texts


def _entry_name(name: bytes) -> bytes:
    if b"/" in name:
        raise ProtocolError("a name has a '/'")
    return name


def _malformed(header: InHeader, why: str) -> ProtocolError:
    name = Opcode(header.opcode).name if header.opcode in REQUESTS else f"opcode {header.opcode}"
    return ProtocolError(f"malformed {name} of {header.length} bytes: {why}")


REQUESTS: dict[int, Row] = {
    Opcode.LOOKUP: Row(None, _name),
    Opcode.FORGET: Row(ForgetIn, _nothing),
    Opcode.GETATTR: Row(GetattrIn, _nothing),
    Opcode.SETATTR: Row(SetattrIn, _nothing),
    Opcode.READLINK: Row(None, _nothing),
    Opcode.SYMLINK: Row(None, _name_and_target),
    Opcode.MKNOD: Row(MknodIn, _name),
    Opcode.MKDIR: Row(MkdirIn, _name),
    Opcode.UNLINK: Row(None, _name),
    Opcode.RMDIR: Row(None, _name),
    Opcode.RENAME: Row(RenameIn, _two_names),
    Opcode.LINK: Row(LinkIn, _name),
    Opcode.OPEN: Row(OpenIn, _nothing),
    Opcode.READ: Row(ReadIn, _nothing),
    Opcode.WRITE: Row(WriteIn, _bytes),
    Opcode.STATFS: Row(None, _nothing),
    Opcode.RELEASE: Row(ReleaseIn, _nothing),
    Opcode.FSYNC: Row(FsyncIn, _nothing),
    Opcode.SETXATTR: Row(SetxattrIn, _name_and_value),
    Opcode.GETXATTR: Row(GetxattrIn, _text),
    Opcode.LISTXATTR: Row(GetxattrIn, _nothing),
    Opcode.REMOVEXATTR: Row(None, _text),
    Opcode.FLUSH: Row(FlushIn, _nothing),
    Opcode.INIT: Row(InitIn, _anything),  # a newer minor may append fields
    Opcode.OPENDIR: Row(OpenIn, _nothing),
    Opcode.READDIR: Row(ReadIn, _nothing),
    Opcode.RELEASEDIR: Row(ReleaseIn, _nothing),
    Opcode.FSYNCDIR: Row(FsyncIn, _nothing),
    Opcode.GETLK: Row(LkIn, _nothing),
    Opcode.SETLK: Row(LkIn, _nothing),
    Opcode.SETLKW: Row(LkIn, _nothing),
    Opcode.ACCESS: Row(AccessIn, _nothing),
    Opcode.CREATE: Row(CreateIn, _name),
    Opcode.INTERRUPT: Row(InterruptIn, _nothing),
    Opcode.BMAP: Row(BmapIn, _nothing),
    Opcode.DESTROY: Row(None, _nothing),
    Opcode.IOCTL: Row(IoctlIn, _bytes),
    Opcode.POLL: Row(PollIn, _nothing),
    Opcode.NOTIFY_REPLY: Row(NotifyRetrieveIn, _bytes),
    Opcode.BATCH_FORGET: Row(BatchForgetIn, _bytes),
    Opcode.FALLOCATE: Row(FallocateIn, _nothing),
    Opcode.READDIRPLUS: Row(ReadIn, _nothing),
    Opcode.RENAME2: Row(Rename2In, _two_names),
    Opcode.LSEEK: Row(LseekIn, _nothing),
    Opcode.COPY_FILE_RANGE: Row(CopyFileRangeIn, _nothing),
    Opcode.SYNCFS: Row(SyncfsIn, _nothing),
    Opcode.TMPFILE: Row(CreateIn, _text),  # its name is "/", from vfs_tmpfile() in fs/namei.c
    Opcode.STATX: Row(StatxIn, _nothing),
    Opcode.COPY_FILE_RANGE_64: Row(CopyFileRangeIn, _nothing),
}


class _Lone(NamedTuple):
    body: type[Message]
    layout: Struct
    size: int  # bytes of the whole request


_LONE = {int(opcode): _Lone(row.body, LAYOUTS[row.body], IN_HEADER_SIZE + LAYOUTS[row.body].size)
         for opcode, row in REQUESTS.items() if row.body is not None and row.tail is _nothing}
