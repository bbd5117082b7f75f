"""Memory of a daemon: what it frees goes back to the kernel, since it idles for days after it has loaded a map."""

from __future__ import annotations

import ctypes

# malloc.h of glibc
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8
_LARGE = 1 << 20  # bytes; the columns of a map of this size and more are mapped, and unmapped when they are freed


def settle() -> None:
    """Keep large blocks apart, and threads in one arena, where the C library can be told (glibc)."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE)
        mallopt(_M_ARENA_MAX, 1)
