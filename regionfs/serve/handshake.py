"""INIT on a new connection, for whoever made the mount; apart, because the holder needs no more than this."""

from __future__ import annotations

from regionfs.errors import MountError, ProtocolError
from regionfs.wire import codec, device
from regionfs.wire.abi import MIN_READ_BUFFER
from regionfs.wire.parse import parse
from regionfs.wire.requests import InitIn
from regionfs.wire.session import RETRY, Negotiated, VersionError, Wanted, negotiate


def handshake(fd: int, wanted: Wanted) -> Negotiated:
    """Answer the connection's INIT. Raises VersionError, MountError when the mount went away before."""
    buffer = bytearray(MIN_READ_BUFFER)
    while size := device.receive(fd, buffer):
        request = parse(buffer, size)
        if not isinstance(request.body, InitIn):
            raise ProtocolError(f"opcode {request.header.opcode} came before INIT")
        unique = request.header.unique
        try:
            negotiated = negotiate(request.body, wanted)
        except VersionError as error:
            device.send(fd, (codec.error(unique, error.errno),))
            raise
        device.send(fd, codec.reply(unique, codec.pack(negotiated.reply() if negotiated else RETRY)))
        if negotiated is not None:
            return negotiated
    raise MountError("the mount was ended before it began to answer")
