"""Giving up what a daemon does not need, by prctl(2) and capset(2); for good, and for its children.

What is kept, of what there is:

    DAC_OVERRIDE, DAC_READ_SEARCH   sources belong to anybody
    CHOWN, FOWNER                   chown, chmod and utimens of `whole` files are forwarded
    LEASE                           to tell whether somebody else may write to a source, see stamps
    SYS_ADMIN                       mount and umount; backing files and composed files of the kernel's modes
    SYS_RAWIO                       fuse-iomap

A daemon that is not root's has none of these and needs none. It may still run fusermount3, which is
setuid, so NO_NEW_PRIVS is root's only. Core files are off: they would hold bytes of the sources.
Call it before there are threads: capabilities are a thread's.
"""

from __future__ import annotations

import ctypes
import os
import resource
from collections.abc import Iterable
from contextlib import suppress
from enum import IntEnum

# linux/prctl.h
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_SET_IO_FLUSHER = 24, 38, 47, 57
_CLEAR_ALL = 4                  # PR_CAP_AMBIENT_CLEAR_ALL
_CAPABILITY_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3
_LAST = 63                      # capabilities have 64 bits

_libc = ctypes.CDLL(None, use_errno=True)


class Capability(IntEnum):
    """Those that some daemon keeps, linux/capability.h."""

    CHOWN = 0
    DAC_OVERRIDE = 1
    DAC_READ_SEARCH = 2
    FOWNER = 3
    SYS_RAWIO = 17
    SYS_ADMIN = 21
    LEASE = 28


ALWAYS = frozenset({Capability.CHOWN, Capability.DAC_OVERRIDE, Capability.DAC_READ_SEARCH, Capability.FOWNER,
                    Capability.LEASE})
KERNEL = frozenset({Capability.SYS_ADMIN})
IOMAP = frozenset({Capability.SYS_ADMIN, Capability.SYS_RAWIO})


class _Header(ctypes.Structure):
    """struct __user_cap_header_struct."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    """struct __user_cap_data_struct; two of them make 64 bits, the low ones first."""

    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


def give_up(keep: Iterable[Capability]) -> None:
    """Keep of this process's privileges only `keep`. OSError when the kernel will not take one away."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # needs SYS_RESOURCE; what writes for others must not wait for itself to write
        _prctl(_PR_SET_IO_FLUSHER, 1)
    kept = frozenset(keep)
    _prctl(_PR_CAP_AMBIENT, _CLEAR_ALL)
    with suppress(OSError):  # EPERM: without SETPCAP the bounding set stays; EINVAL: past the kernel's last one
        for number in range(_LAST + 1):
            if number not in kept:
                _prctl(_PR_CAPBSET_DROP, number)
    _limit(sum(1 << number for number in kept))
    if os.geteuid() == 0:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _limit(mask: int) -> None:
    """Permitted and effective capabilities become those of `mask` that were permitted before."""
    header, data = _Header(_CAPABILITY_VERSION, 0), (_Data * 2)()
    _check(_libc.capget(ctypes.byref(header), data))
    for index, half in enumerate(data):
        half.permitted &= mask >> 32 * index & 0xFFFFFFFF
        half.effective = half.permitted
        half.inheritable = 0
    _check(_libc.capset(ctypes.byref(header), data))


def _prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    _check(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero))


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
