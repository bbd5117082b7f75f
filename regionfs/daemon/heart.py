"""A descriptor that tells at once when its process is killed, whatever its threads wait for.

A killed process keeps its descriptors until the last of its threads has left the kernel, and that may
take as long as a disk does. So one thread, which waits for nothing in the kernel that a signal does not
end, has a table of descriptors of its own (close_range(2), CLOSE_RANGE_UNSHARE, Linux 5.9), and in it
the only copy of one end of a pipe. It ends at once, and the pipe with it.
"""

from __future__ import annotations

import ctypes
import logging
import os
import threading

log = logging.getLogger("regionfs")

_UNSHARE = 1 << 1        # CLOSE_RANGE_UNSHARE, linux/close_range.h
_LAST = (1 << 32) - 1    # ~0U: every descriptor that there may be

_libc = ctypes.CDLL(None, use_errno=True)


def beat() -> int | None:
    """The end of a pipe that becomes readable when this process is killed; None where that cannot be had."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    begun, alone = threading.Event(), []

    def keep() -> None:
        alone.append(_keep_only(writing))
        begun.set()
        if alone[0]:
            threading.Event().wait()

    try:
        threading.Thread(target=keep, name="heart", daemon=True).start()
        begun.wait()
    except RuntimeError as error:  # no thread left
        log.debug("no heart: %s", error)
    os.close(writing)
    if alone == [True]:
        return reading
    os.close(reading)
    return None


def _keep_only(fd: int) -> bool:
    """The calling thread has a table of its own, with nothing but `fd` in it; False where the kernel has no such."""
    close_range = getattr(_libc, "close_range", None)
    if close_range is None:  # glibc before 2.34
        return False
    last = ctypes.c_uint(_LAST)
    if close_range(ctypes.c_uint(fd + 1), last, ctypes.c_int(_UNSHARE)) != 0:
        return False
    return fd == 0 or close_range(ctypes.c_uint(0), ctypes.c_uint(fd - 1), ctypes.c_int(0)) == 0
