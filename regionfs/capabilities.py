"""A thread's capabilities, by capget(2) and capset(2). Knows nothing of who needs which."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_libc = ctypes.CDLL(None, use_errno=True)


class Capability(IntEnum):
    """Those that some daemon keeps, linux/capability.h."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    FOWNER = 3
    FSETID = 4
    SYS_RAWIO = 17
    SYS_ADMIN = 21
    LEASE = 28


class _Header(ctypes.Structure):
    """struct __user_cap_header_struct."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    """struct __user_cap_data_struct; two of them make 64 bits, the low ones first."""

    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def limit(permitted: int, effective: int) -> None:
    """Of this thread's permitted capabilities those in the mask `permitted` stay; `effective` of them hold. OSError."""
    data = _get()
    for index, half in enumerate(data):
        half.permitted &= permitted >> 32 * index & 0xFFFFFFFF
        half.effective = half.permitted & effective >> 32 * index
        half.inheritable = 0
    _set(data)


@contextmanager
def raised(capability: Capability) -> Iterator[None]:
    """A permitted capability holds for this thread meanwhile; nothing changes where it is not permitted."""
    data, (index, bit) = _get(), divmod(capability, 32)
    before = data[index].effective
    data[index].effective |= data[index].permitted & 1 << bit
    if data[index].effective == before:
        yield
        return
    _set(data)
    try:
        yield
    finally:
        data[index].effective = before
        _set(data)


def _get() -> ctypes.Array[_Data]:
    data = (_Data * 2)()
    _check(_libc.capget(ctypes.byref(_Header(_VERSION, 0)), data))
    return data


def _set(data: ctypes.Array[_Data]) -> None:
    _check(_libc.capset(ctypes.byref(_Header(_VERSION, 0)), data))


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
