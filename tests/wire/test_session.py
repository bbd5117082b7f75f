"""INIT: offers of real and imagined kernels -> what holds."""

from __future__ import annotations

import errno

import pytest

from regionfs.wire.abi import InitFlag
from regionfs.wire.codec import pack, unpack
from regionfs.wire.replies import InitOut
from regionfs.wire.requests import InitIn
from regionfs.wire.session import RETRY, WANTED_FLAGS, VersionError, Wanted, negotiate

LINUX_6_18 = InitIn(7, 45, 131072, 0x73FFFFFB, 0x5FD)  # as received
PASSTHROUGH = Wanted(passthrough=True, page_size=4096)


def test_linux_6_18() -> None:
    """A current kernel grants everything we want."""
    found = negotiate(LINUX_6_18, PASSTHROUGH)
    assert found is not None
    assert WANTED_FLAGS | InitFlag.PASSTHROUGH == found.flags
    assert (45, 1 << 20, 256, 131072, 2) == (found.minor, found.max_write, found.max_pages, found.max_readahead,
                                            found.max_stack_depth)
    assert (True, True, (1 << 20) + 80) == (found.passthrough, found.resend, found.buffer_size)


def test_reply_bytes() -> None:
    """The reply carries the flags in both halves and is 64 bytes."""
    found = negotiate(LINUX_6_18, PASSTHROUGH)
    assert found is not None
    data = pack(found.reply())
    assert (64, found.flags, 2) == (len(data), unpack(InitOut, data).flags, unpack(InitOut, data).max_stack_depth)


@pytest.mark.parametrize("flag", WANTED_FLAGS | InitFlag.PASSTHROUGH, ids=lambda flag: flag.name)
def test_only_what_is_offered(flag: InitFlag) -> None:
    """A flag the kernel does not offer is not in the reply; without INIT_EXT none of the upper half is."""
    offered = LINUX_6_18.flags & ~flag
    found = negotiate(LINUX_6_18._replace(flags_low=offered & 0xFFFFFFFF, flags_high=offered >> 32), PASSTHROUGH)
    assert found is not None
    assert InitFlag(0) == found.flags & flag
    assert flag != InitFlag.INIT_EXT or found.flags < 1 << 32


def test_nothing_unwanted() -> None:
    """A kernel that offers every bit gets only ours: the rest would change layouts or semantics."""
    found = negotiate(InitIn(7, 99, 131072, 0xFFFFFFFF, 0xFFFFFFFF), Wanted())
    assert found is not None
    assert (WANTED_FLAGS, 45, 0) == (found.flags, found.minor, found.max_stack_depth)
    assert InitFlag(0) == found.flags & (
        InitFlag.ATOMIC_O_TRUNC | InitFlag.WRITEBACK_CACHE | InitFlag.AUTO_INVAL_DATA | InitFlag.SETXATTR_EXT
        | InitFlag.EXPLICIT_INVAL_DATA | InitFlag.POSIX_LOCKS | InitFlag.SECURITY_CTX | InitFlag.PASSTHROUGH)


def test_no_writeback_with_passthrough() -> None:
    """The kernel silently drops passthrough next to a write-back cache: never ask for both."""
    found = negotiate(LINUX_6_18, Wanted(flags=WANTED_FLAGS | InitFlag.WRITEBACK_CACHE, passthrough=True))
    assert found is not None
    assert InitFlag.PASSTHROUGH == found.flags & (InitFlag.PASSTHROUGH | InitFlag.WRITEBACK_CACHE)


def test_linux_5_4() -> None:
    """The oldest kernel we take: 7.31, without flags2."""
    found = negotiate(InitIn(7, 31, 131072, 0x03FFFFFB), PASSTHROUGH)
    assert found is not None
    assert (31, False, False, 0) == (found.minor, found.passthrough, found.resend, found.reply().flags_high)


def test_without_max_pages() -> None:
    """Without MAX_PAGES a request has 32 pages, so a write at most 128 KiB."""
    found = negotiate(InitIn(7, 31, 131072, int(InitFlag.BIG_WRITES)), Wanted(page_size=4096))
    assert found is not None
    assert (128 << 10, 0) == (found.max_write, found.max_pages)


def test_flags2_without_init_ext() -> None:
    """flags2 is meaningless where INIT_EXT is not set."""
    assert InitFlag(1) == InitIn(7, 36, 0, 1, 0xFFFFFFFF).flags


@pytest.mark.parametrize("minor", [0, 99])
def test_larger_major(minor: int) -> None:
    """A kernel of a larger major is told ours, and sends INIT again."""
    assert negotiate(InitIn(8, minor, 0, 0)) is None
    assert (7, 45) == RETRY[:2]


@pytest.mark.parametrize(("major", "minor"), [(6, 99), (0, 0), (7, 30), (7, 0)])
def test_too_old(major: int, minor: int) -> None:
    """Older protocols are refused with EPROTO and both versions."""
    with pytest.raises(VersionError, match=rf"FUSE {major}\.{minor}, .* 7\.31") as caught:
        negotiate(InitIn(major, minor, 0, 0))
    assert errno.EPROTO == caught.value.errno


def test_smallest_buffer() -> None:
    """The kernel takes no buffer below 8 KiB, however small the writes."""
    found = negotiate(LINUX_6_18, Wanted(max_write=4096, page_size=4096))
    assert found is not None
    assert (1, 8192) == (found.max_pages, found.buffer_size)


IOMAP_KERNEL = InitIn(7, 99, 131072, 0x73FFFFFB, 0x5FD | 1 << 11)


def test_iomap() -> None:
    """Where fuse-iomap is wanted and offered the reply has bit 43 and its minor; 7.99 at most."""
    found = negotiate(IOMAP_KERNEL._replace(minor=120), Wanted(passthrough=True, iomap=True))
    assert found is not None
    reply = found.reply()
    assert (True, True, 99) == (found.iomap, found.passthrough, found.minor)
    assert (1 << 11, 1 << 30) == (reply.flags_high & 1 << 11, reply.flags_low & 1 << 30)


@pytest.mark.parametrize(("init", "wanted"), [
    (IOMAP_KERNEL, Wanted()),                # bit 43 is another flag in other kernels
    (LINUX_6_18, Wanted(iomap=True)),
    (IOMAP_KERNEL._replace(flags_low=0x33FFFFFB), Wanted(iomap=True)),  # without INIT_EXT flags2 does not count
])
def test_no_iomap(init: InitIn, wanted: Wanted) -> None:
    """Unasked, not offered, or without the upper half of the flags it does not hold."""
    found = negotiate(init, wanted)
    assert found is not None
    assert (False, 45, 0) == (found.iomap, found.minor, found.flags >> 43 & 1)
