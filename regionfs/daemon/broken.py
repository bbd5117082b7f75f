"""What a holder does while no server runs: every request gets EIO, so that nobody hangs.

Reads the connection through a descriptor of its own: whether the shared one blocks is the servers' to say.
"""

from __future__ import annotations

import errno
import os
import selectors
from collections.abc import Callable
from typing import Any

from regionfs.wire import codec, device
from regionfs.wire.abi import NotifyCode, Opcode
from regionfs.wire.parse import IN_HEADER, IN_HEADER_SIZE

_SILENT = (Opcode.FORGET, Opcode.BATCH_FORGET)
_BUFFER = (1 << 20) + (1 << 16)  # bytes; holds any request that was negotiated


class Broken:
    """Answers from a selector's loop until closed; calls `gone` when the mount has ended."""

    def __init__(self, fd: int, selector: selectors.BaseSelector, gone: Callable[[], None], *, resends: bool) -> None:
        """`resends`: whether the kernel was asked to send what the dead server had taken again, when it is told to."""
        self._selector = selector
        self._gone = gone
        self._fd = device.clone(fd)
        os.set_blocking(self._fd, False)
        self._buffer = bytearray(_BUFFER)
        if resends:
            device.send(self._fd, codec.notify(NotifyCode.RESEND))
        selector.register(self._fd, selectors.EVENT_READ, self._answer)

    def close(self) -> None:
        """A server runs again."""
        self._selector.unregister(self._fd)
        os.close(self._fd)

    def _answer(self, _: Any) -> None:
        try:
            size = device.receive(self._fd, self._buffer)
        except BlockingIOError:
            return
        if not size:
            self._gone()
        elif size >= IN_HEADER_SIZE:
            _, opcode, unique, *_ = IN_HEADER.unpack_from(self._buffer)
            if opcode not in _SILENT:
                device.send(self._fd, (codec.error(unique, errno.EIO),))
