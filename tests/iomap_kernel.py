"""The kernel's side of fuse-iomap, played over a socketpair against the real server.

It knows docs/kernel.md section 4 and fs/fuse/fuse_iomap.c of the patches: which replies the kernel takes, when it
asks and when its cache of mappings answers, and what it does with a mapping: page cache, write-back, direct
I/O on the block devices themselves. It must not know regionfs's maps: what it reads and writes follows from
the replies alone, so that a wrong one shows as wrong bytes. A reply that breaks a rule is a RuleError.

Like the kernel, and unlike anyone who would be careful:
- write-back joins neighbours by file position and sector number and never compares the device, unless the
  mapping says BOUNDARY and begins here;
- a write goes by a cached read mapping, unasked, while the inode's cache never held a write mapping;
- a completed write drops its range from the cache, and a cache over its limit is dropped whole.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from regionfs.wire import abi, codec, iomap_v7
from regionfs.wire.iomap_v7 import NULL_ADDR, EndIn, Io, IoendFlag, IoendIn, IoendOut, MapFlag, OpFlag, Type
from regionfs.wire.requests import FallocateIn, FsyncIn
from tests.iomap_connection import Connection
from tests.iomap_state import File, Fork, RuleError

PAGE = 4096
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 16  # linux/falloc.h


class IomapKernel(Connection):
    """One mount, from INIT to DESTROY, and I/O on its files."""

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        try:
            if value is None:
                for file in self.files.values():
                    self.writeback(file)
        finally:
            super().__exit__(kind, value, trace)

    def evict(self, file: File) -> None:
        """Memory is short: the inode goes, and with it pages and mappings."""
        self.writeback(file)
        with self._arrived:
            self.files[file.ino].read_fork, self.files[file.ino].write_fork = Fork(True), Fork(False)
        file.blocks.clear()

    def read(self, file: File, pos: int, length: int) -> bytes:
        """Through the page cache."""
        end = min(pos + length, file.size)
        data = bytearray()
        while pos < end:
            block = self._filled(file, pos // self.block, end - pos, 0)
            part = block[pos % self.block:pos % self.block + end - pos]
            data += part
            pos += len(part)
        return bytes(data)

    def _filled(self, file: File, number: int, count: int, flags: int, io: Io | None = None) -> bytearray:
        """A block of the page cache, read if it was not there; by `io` where a write has it already."""
        if number not in file.blocks:
            start = number * self.block
            io = io or self.mapping(file, start, max(count, self.block), flags)
            stop = min(io.end, start + max(count, self.block))
            for pos in range(start, max(stop // self.block * self.block, start + self.block), self.block):
                if pos // self.block not in file.blocks:
                    file.blocks[pos // self.block] = bytearray(self._load(io, pos, self.block))
        return file.blocks[number]

    def _load(self, io: Io, pos: int, length: int) -> bytes:
        if io.type == Type.HOLE:
            return bytes(length)
        data = os.pread(self.devices.known[io.dev].fd, length, io.addr + pos - io.offset)
        assert len(data) == length
        return data

    def write(self, file: File, pos: int, data: bytes) -> int:
        """Through the page cache; short where a later part fails. OSError when the first byte does."""
        done = 0
        while done < len(data):
            rest = len(data) - done
            try:
                io = self.mapping(file, pos + done, rest, OpFlag.WRITE)
            except OSError:
                if done:
                    return done
                raise
            count = min(io.end - pos - done, rest)
            self._store(file, pos + done, data[done:done + count], io)
            done += count
            if count < rest:
                self._end(file, pos + done - count, rest, count, OpFlag.WRITE, io)
        return done

    def _store(self, file: File, pos: int, data: bytes, io: Io) -> None:
        for number in range(pos // self.block, -(-(pos + len(data)) // self.block)):
            block = self._filled(file, number, 0, 0, io)
            start = max(pos, number * self.block)
            stop = min(pos + len(data), (number + 1) * self.block)
            block[start % self.block:start % self.block + stop - start] = data[start - pos:stop - pos]
            file.dirty.add(number)

    def _end(self, file: File, pos: int, count: int, written: int, flags: int, io: Io) -> None:
        body = iomap_v7.pack(EndIn(flags, file.ino, pos, count, written, io))
        if self.request(iomap_v7.Opcode.END, file.ino, body):
            raise RuleError("END: the reply is more than a header")

    def map_write(self, file: File, pos: int, data: bytes) -> None:
        """Store through a shared mapping: each page becomes writable as a whole, or SIGBUS (OSError)."""
        for page in range(pos // PAGE * PAGE, pos + len(data), PAGE):
            at, end = page, min(page + PAGE, file.size)
            while at < end:
                io = self.mapping(file, at, end - at, OpFlag.WRITE | OpFlag.FAULT)
                stop = min(io.end, end)
                for number in range(at // self.block, stop // self.block):
                    self._filled(file, number, 0, 0, io)
                    file.dirty.add(number)
                at = stop
        for index, byte in enumerate(data):
            file.blocks[(pos + index) // self.block][(pos + index) % self.block] = byte

    def writeback(self, file: File) -> None:
        """Write dirty blocks; what meets by position and sector goes in one piece to the first one's device."""
        io: Io | None = None
        piece: list[Any] = []  # device, sector, position, data
        for number in sorted(file.dirty):
            pos = number * self.block
            if io is None or not io.offset <= pos < io.end:
                io = self.mapping(file, pos, self.block, OpFlag.WRITEBACK | self._rng.choice((0, OpFlag.WRITE)))
            sector = (io.addr + pos - io.offset) // 512
            joins = piece and piece[2] + len(piece[3]) == pos and piece[1] + len(piece[3]) // 512 == sector
            if joins and not (io.flags & MapFlag.BOUNDARY and pos == io.offset):
                piece[3] += file.blocks[number]
                continue
            self._submit(file, piece)
            piece = [io.dev, sector, pos, bytearray(file.blocks[number])]
        self._submit(file, piece)
        file.dirty.clear()

    def _submit(self, file: File, piece: list[Any]) -> None:
        if piece:
            dev, sector, pos, data = piece
            assert len(data) == os.pwrite(self.devices.known[dev].fd, data, sector * 512)
            self._ioend(file, IoendFlag.WRITEBACK, pos, sector, len(data), dev)

    def _ioend(self, file: File, flags: int, pos: int, sector: int, written: int, dev: int) -> None:
        body = iomap_v7.pack(IoendIn(flags, 0, file.ino, pos, sector, written, dev))
        reply = iomap_v7.unpack(IoendOut, self.request(iomap_v7.Opcode.IOEND, file.ino, body))
        if reply.newsize != file.size:
            raise RuleError(f"IOEND: size {reply.newsize} instead of {file.size}")
        self._written(file, pos, written)

    def direct_read(self, file: File, pos: int, length: int) -> bytes:
        """O_DIRECT, on the devices."""
        self.writeback(file)
        end, data = min(pos + length, file.size), bytearray()
        flags = OpFlag.DIRECT | self._rng.choice((0, OpFlag.NOWAIT))
        while pos < end:
            io = self.mapping(file, pos, end - pos, flags)
            data += self._load(io, pos, min(io.end, end) - pos)
            pos = min(io.end, end)
        return bytes(data)

    def direct_write(self, file: File, pos: int, data: bytes) -> int:
        """O_DIRECT, on the devices; short where a later part fails."""
        self.writeback(file)
        done = 0
        while done < len(data):
            flags = OpFlag.WRITE | OpFlag.DIRECT | self._rng.choice((0, OpFlag.OVERWRITE_ONLY))
            try:
                io = self.mapping(file, pos + done, len(data) - done, flags)
            except OSError:
                if done:
                    break
                raise
            part = data[done:done + io.end - pos - done]
            at = io.addr + pos + done - io.offset
            assert len(part) == os.pwrite(self.devices.known[io.dev].fd, part, at)
            done += len(part)
        for number in range(pos // self.block, -(-(pos + done) // self.block)):
            file.blocks.pop(number, None)
        self._ioend(file, IoendFlag.DIRECT, pos, NULL_ADDR, done, 0)
        return done

    def zero(self, file: File, pos: int, length: int) -> None:
        """Zeros through the page cache, as after a punched hole; holes are left alone."""
        end = pos + length
        while pos < end:
            io = self.mapping(file, pos, end - pos, OpFlag.ZERO)
            stop = min(io.end, end)
            self._store(file, pos, bytes(stop - pos), io)
            pos = stop

    def unshare(self, file: File, pos: int, length: int) -> None:
        """Nothing is shared: only asked."""
        end = pos + length
        while pos < end:
            pos = self.mapping(file, pos, end - pos, OpFlag.UNSHARE).end

    def report(self, file: File) -> Iterator[Io]:
        """FIEMAP: mappings from 0 on, the last one up to the largest file."""
        pos = 0
        while pos < self.maxbytes:
            io = self.mapping(file, pos, self.maxbytes - pos, OpFlag.REPORT)
            yield io
            if pos >= file.size and io.end < self.maxbytes // PAGE * PAGE:
                raise RuleError(f"REPORT: the hole at the end stops at {io.end}")
            if pos >= file.size:
                return
            pos = io.end

    def seek(self, file: File, pos: int, whence: int) -> int:
        """lseek with SEEK_DATA or SEEK_HOLE."""
        if pos >= file.size:
            raise OSError(errno.ENXIO, "past the end")
        while pos < file.size:
            io = self.mapping(file, pos, file.size - pos, OpFlag.REPORT)
            if (io.type == Type.HOLE) == (whence == os.SEEK_HOLE):
                return pos
            pos = io.end
        if whence == os.SEEK_HOLE:
            return file.size
        raise OSError(errno.ENXIO, "no data")

    def fallocate(self, file: File, mode: int, pos: int, length: int) -> None:
        """fallocate(2): pages out, the server first, then zeros for what was punched."""
        self.writeback(file)
        file.blocks.clear()
        body = codec.pack(FallocateIn(0, pos, length, mode))
        self.request(abi.Opcode.FALLOCATE, file.ino, body)
        self._written(file, pos, length)
        if mode & (PUNCH_HOLE | ZERO_RANGE):
            self.zero(file, pos, length)

    def fsync(self, file: File) -> None:
        """Write-back, then the server flushes the devices."""
        self.writeback(file)
        self.request(abi.Opcode.FSYNC, file.ino, codec.pack(FsyncIn(0, self._rng.choice((0, 1)))))
