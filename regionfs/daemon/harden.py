"""Giving up what a daemon does not need, by prctl(2) and capset(2); for good, and for its children.

What is kept, of what there is:

    DAC_OVERRIDE, DAC_READ_SEARCH   sources belong to anybody
    FSETID                          chmod keeps set-id bits; else not in force, so that writes take them away
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
from pathlib import Path

from regionfs import capabilities
from regionfs.capabilities import Capability

# linux/prctl.h
_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_SET_IO_FLUSHER = 24, 38, 47, 57
_PF_IO_FLUSHER = 0x00080000 | 0x00100000  # PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE, linux/sched.h
_CLEAR_ALL = 4                  # PR_CAP_AMBIENT_CLEAR_ALL
_LAST = 63                      # capabilities have 64 bits

_libc = ctypes.CDLL(None, use_errno=True)

ALWAYS = frozenset({Capability.CHOWN, Capability.DAC_OVERRIDE, Capability.DAC_READ_SEARCH, Capability.FOWNER,
                    Capability.LEASE})
AT_HAND = frozenset({Capability.FSETID})  # permitted, and raised for one call only
KERNEL = frozenset({Capability.SYS_ADMIN})
IOMAP = frozenset({Capability.SYS_ADMIN, Capability.SYS_RAWIO})


#: why a loop device over an rw file may hang for ever, where become_flusher() was refused
NO_FLUSHER = ("PR_SET_IO_FLUSHER is refused: under a memory limit that holds the daemon and who writes, "
              "a loop device over an rw file may hang")
FLUSHER_REMEDY = "give the daemon CAP_SYS_RESOURCE, or keep it out of that limit"


def become_flusher(*, on: bool = True) -> bool:
    """What writes for others must not wait for itself to write; PR_SET_IO_FLUSHER, prctl(2). False when refused.

    Needs CAP_SYS_RESOURCE. Counts for this thread, and for threads and processes that it starts.
    """
    try:
        _prctl(_PR_SET_IO_FLUSHER, int(on))
    except OSError:  # whoever started us may have been allowed, and threads and processes inherit it
        fields = Path("/proc/thread-self/stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[6]) & _PF_IO_FLUSHER == _PF_IO_FLUSHER  # flags, proc_pid_stat(5)
    return True


def give_up(keep: Iterable[Capability]) -> None:
    """Keep of this process's privileges only `keep`. OSError when the kernel will not take one away."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kept = AT_HAND | frozenset(keep)
    _prctl(_PR_CAP_AMBIENT, _CLEAR_ALL)
    with suppress(OSError):  # EPERM: without SETPCAP the bounding set stays; EINVAL: past the kernel's last one
        for number in range(_LAST + 1):
            if number not in kept:
                _prctl(_PR_CAPBSET_DROP, number)
    capabilities.limit(_mask(kept), _mask(kept - AT_HAND))
    if os.geteuid() == 0:
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def _mask(numbers: Iterable[int]) -> int:
    return sum(1 << number for number in numbers)


def _prctl(option: int, value: int) -> None:
    zero = ctypes.c_ulong(0)
    _check(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), zero, zero, zero))


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
