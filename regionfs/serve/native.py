"""The native engine: requests read from a ready /dev/fuse descriptor, answered from the file system.

Takes a descriptor on which INIT was answered and serves it until the mount is gone. READ and WRITE
are taken from the buffer as they come; everything else goes through the codec and the table of
handlers. Reads are tried with RWF_NOWAIT first, so that what the page cache holds is answered by
the thread that read the request; see relay for what happens otherwise.
"""

from __future__ import annotations

import errno
import logging
import mmap
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from regionfs.errors import ProtocolError, RegionfsError
from regionfs.execute import NOWAIT
from regionfs.fs import FileSystem
from regionfs.serve.backing import Backings
from regionfs.serve.fast import FastPath
from regionfs.serve.handlers import TOUCH_DISK, Handlers
from regionfs.serve.iomap import IomapSession
from regionfs.serve.late import Late
from regionfs.serve.ledger import Ledger
from regionfs.serve.once import CHANGES, Once, resent
from regionfs.serve.relay import Relay
from regionfs.serve.underway import NONE
from regionfs.sharing import Span
from regionfs.tree import FileNode
from regionfs.units import MAX_OFFSET
from regionfs.wire import abi, codec, device
from regionfs.wire.abi import NotifyCode, Opcode
from regionfs.wire.codec import OUT_HEADER, OUT_HEADER_SIZE
from regionfs.wire.parse import IO_REQUEST, IO_REQUEST_SIZE, Request, forgets, parse
from regionfs.wire.replies import NotifyInvalEntryOut, NotifyInvalInodeOut, OpenOut
from regionfs.wire.session import Negotiated

log = logging.getLogger("regionfs")

_SILENT = frozenset({Opcode.FORGET, Opcode.BATCH_FORGET})  # requests that get no reply
_SEE_ALL = frozenset({Opcode.OPEN, Opcode.FSYNC, Opcode.SYNCFS})  # what was written back shows everywhere after
_VERSIONED = 32  # FUSE 7.32, Linux 5.10: the kernel keeps no answer that was asked for before INVAL_INODE
_OPEN_OUT = codec.LAYOUTS[OpenOut]
_OPEN, _READ, _WRITE = int(Opcode.OPEN), int(Opcode.READ), int(Opcode.WRITE)

BUFFERS = 2  # pairs kept for who leads next


class Server:
    """Serves one connection; run() returns when the mount is gone."""

    def __init__(self, fs: FileSystem, fd: int, negotiated: Negotiated, ledger: Ledger,
                 registry: device.Registry | None = None, before_first: Callable[[], None] = lambda: None,
                 poll: int = 0, leaving: Sequence[int] = ()) -> None:
        """`registry` stands for the connection's own; `before_first` is called when iomap's first question came.

        `poll`: microseconds to stay awake for the next request, where the compiled loop serves. `leaving`: pidfds of
        servers that were killed, and may not have left their last system calls.
        """
        self._fs = fs
        self._fast = FastPath(fs, fd, poll, ledger if registry is None else None,
                              shows=negotiated.minor >= _VERSIONED and not negotiated.iomap)
        registry = device.Registry(fd) if registry is None else registry
        self._device = fd
        self._request_size = negotiated.buffer_size
        self._reply_size = OUT_HEADER_SIZE + negotiated.max_write
        self._backings = Backings(fs, registry, ledger, self._fast)
        send = partial(device.send, fd)
        self.iomap = IomapSession(fs, registry, send, before_first) if negotiated.iomap else None
        self._handlers = Handlers(fs, self._backings, lambda ino: self._drop([Span(ino, 0, 0)]),
                                  self._forget_at_open, self.iomap)
        self._relay = Relay(self._lead)
        self._once = Once(fs, ledger.underway, self._relay.step_down, leaving)
        self._resent: deque[bytes] = deque()  # what a dead server left unanswered
        self._resends = negotiated.resend
        self._late = Late()
        self._buffers: deque[tuple[memoryview, memoryview]] = deque(maxlen=BUFFERS)  # of threads that led before
        self._broken: OSError | None = None  # what ended the serving before the mount was gone

    def run(self, resume: bool = False) -> None:
        """Answer requests in this thread and as many more as disks keep waiting. OSError when the device fails.

        With `resume` another server died on this connection: what it left unanswered comes again.
        """
        if resume:
            for node in list(self._fs.tree.nodes.values()):
                if isinstance(node, FileNode):
                    node.filled = True
                    node.told.unknown()
            if self.iomap is not None:
                self.iomap.configure(resumed=True)
            else:
                self._backings.recover()
            self._take_over()
        else:
            self._fast.learn_all(self._backings.hand_over_unopened)
        self._relay.run()
        if self._broken is not None:
            raise self._broken
        self._backings.close()
        if self.iomap is not None:
            self.iomap.close()

    def _take_over(self) -> None:
        came = []
        if self._resends:
            self._send(codec.notify(NotifyCode.RESEND))
            came = resent(self._device, _buffer(self._request_size, mmap.MAP_POPULATE))
        self._resent = self._once.take_over(came)

    def invalidate(self, ino: int, offset: int, length: int) -> None:
        """Drop the kernel's pages of a range. May wait for requests on them: never while leading."""
        self._send(codec.notify(NotifyCode.INVAL_INODE, codec.pack(NotifyInvalInodeOut(ino, offset, length))))

    def forget_attributes(self, ino: int) -> bool:
        """Let the kernel ask for an inode's attributes again; False when it does not hold the inode.

        Waits while the kernel is just letting go of it: never while leading.
        """
        # an offset below 0 drops attributes only
        return self._send(codec.notify(NotifyCode.INVAL_INODE, codec.pack(NotifyInvalInodeOut(ino, -1, 0))))

    def forget_name(self, parent: int, name: bytes) -> None:
        """Let the kernel look a name up again, and list its directory again."""
        payload = codec.pack(NotifyInvalEntryOut(parent, len(name)))
        self._send(codec.notify(NotifyCode.INVAL_ENTRY, payload, name + b"\0"))
        self.invalidate(parent, 0, 0)

    def count(self) -> None:
        """Bring the files' counters up to date."""
        self._fast.count()

    @property
    def backing_ids(self) -> int:
        """Backing ids in use."""
        return len(self._backings)

    def _lead(self, relay: Relay) -> None:
        """Read and answer requests until another thread leads."""
        try:
            buffers = self._buffers.pop()
        except IndexError:
            buffers = _buffer(self._request_size, mmap.MAP_POPULATE), _buffer(self._reply_size)
        try:
            self._serve(relay, *buffers)
        finally:
            self._buffers.append(buffers)

    def _serve(self, relay: Relay, request: memoryview, answer: memoryview) -> None:
        while relay.leads():
            size = self._receive(request, answer)
            if size is None:
                return
            if not size:
                relay.end()
                return
            try:
                self._answer(request, abs(size), answer, waits=size < 0)
            except Exception:  # a bug of ours: its caller gets EIO, everybody else goes on
                log.exception("answering a request")
                self._send((codec.error(_unique(request, abs(size)), errno.EIO),))

    def _receive(self, request: memoryview, answer: memoryview) -> int | None:
        """As FastPath.receive, but first what came again; an error ends the serving."""
        try:
            if self._resent:
                with suppress(IndexError):  # another thread was faster
                    message = self._resent.popleft()
                    request[:len(message)] = message
                    return len(message)
            return self._fast.receive(request, answer, self._relay)
        except OSError as error:
            self._broken = error
            return 0

    def _answer(self, request: memoryview, size: int, answer: memoryview, *, waits: bool) -> None:
        """Do what a request of `size` bytes asks; `waits`: it is a READ that needs a disk."""
        if size >= IO_REQUEST_SIZE:
            length, opcode, unique, ino, _, _, _, _, offset, count, io_flags, _, flags = IO_REQUEST.unpack_from(request)
            if opcode == _READ and length == size == IO_REQUEST_SIZE:
                self._relay.risk()  # a source may have to be opened
                try:
                    self._read(unique, ino, offset, count, not io_flags & abi.READ_LOCKOWNER, answer, waits=waits)
                finally:
                    self._relay.safe()
                return
            if opcode == _WRITE and length == size == IO_REQUEST_SIZE + count:
                self._write(unique, ino, offset, request[IO_REQUEST_SIZE:size], io_flags, flags)
                return
        self._other(request, size)

    def _read(self, unique: int, ino: int, offset: int, count: int, paging: bool, answer: memoryview, *,
              waits: bool) -> None:
        """A READ; `paging` when it fills the kernel's page cache (a direct one names its owner)."""
        try:
            buffer = answer[OUT_HEADER_SIZE:OUT_HEADER_SIZE + count]
            try:
                if waits:
                    raise BlockingIOError
                done = self._fs.read_into(ino, offset, buffer, paging=paging, flags=NOWAIT)
            except BlockingIOError:
                self._relay.step_down()
                done = self._fs.read_into(ino, offset, buffer, paging=paging)
        except OSError as error:
            self._send((self._failure(unique, error),))
            return
        end = OUT_HEADER_SIZE + done
        OUT_HEADER.pack_into(answer, 0, end, 0, unique)
        self._send((answer[:end],))
        if not waits:
            self._learn(ino, offset, done)

    def _write(self, unique: int, ino: int, offset: int, data: memoryview, io_flags: int, flags: int) -> None:
        append = not io_flags & abi.WRITE_CACHE and self._once.appends(ino, flags)
        task = self._once.begin(unique, ino, [(0, MAX_OFFSET) if append else (offset, offset + len(data))])
        try:
            reply, done, spans = self._do_write(task, unique, ino, offset, data, io_flags, append=append)
            if not io_flags & abi.WRITE_CACHE:
                self._drop(spans)
                self._send((reply,))
                self._learn(ino, offset, done)
                return
            # whoever drops pages may wait for this very write-back: first the reply, and msync's FSYNC waits for us
            with self._late.one(unique):
                self._send((reply,))
                self._drop(spans)
        finally:
            self._once.end(task, unique)

    def _do_write(self, task: int, unique: int, ino: int, offset: int, data: memoryview, io_flags: int, *,
                  append: bool) -> tuple[bytes, int, list[Span]]:
        """The reply to a WRITE, the bytes written, and where else they are shown."""
        paging, drop_setid = bool(io_flags & abi.WRITE_CACHE), bool(io_flags & abi.WRITE_KILL_SUIDGID)
        self._relay.risk()
        try:
            if append:
                done, spans = self._once.append(task, unique, ino, data, drop_setid=drop_setid)
            else:
                done, spans = self._once.write(task, unique, ino, offset, data, paging=paging,
                                               drop_setid=drop_setid)
        except OSError as error:
            self._once.failed(task, unique, error)
            # pages of a mapping may be written in part
            done = len(data) if paging else 0
            return self._failure(unique, error), done, self._fs.elsewhere(ino, offset, done)
        finally:
            self._relay.safe()
        return codec.written(unique, done), done, spans

    def _other(self, buffer: memoryview, size: int) -> None:
        unique, task = 0, NONE
        try:
            request = parse(buffer, size)
            unique, opcode = request.header.unique, request.header.opcode
            if opcode in _SILENT:
                self._forget(request)
                return
            if opcode == _OPEN and not unique:  # the loop answered it, and the kernel did not take that any more
                self._handlers.taken_back(request)
                return
            handler = self._handlers.table.get(opcode)
            if handler is None:
                self._send((codec.error(unique, errno.ENOSYS),))
                return
            if opcode in TOUCH_DISK:
                self._relay.step_down()
            if opcode in _SEE_ALL and self._late:
                self._relay.step_down()
                self._late.wait()
            if opcode in CHANGES:
                task = self._once.begin_change(request)
            self._relay.risk()
            try:
                body, spans = self._once.change(task, request, handler) if opcode in CHANGES else (handler(request), [])
            finally:
                self._relay.safe()
            self._drop(spans)
            if not self._send((OUT_HEADER.pack(OUT_HEADER_SIZE + len(body), 0, unique), body)):
                self._handlers.taken_back(request)
            elif opcode == _OPEN:
                self._learn_open(request.header.nodeid, _OPEN_OUT.unpack(body)[1])
        except ProtocolError as error:
            log.error("%s", error)
            self._send((codec.error(_unique(buffer, size), errno.EIO),))
        except (OSError, RegionfsError) as error:
            self._send((self._failure(unique, error),))
        finally:
            if task != NONE:
                self._once.end(task, unique)

    def _learn(self, ino: int, offset: int, length: int) -> None:
        if not self._once.redoing:
            self._fast.learn(ino, offset, length)

    def _learn_open(self, ino: int, flags: int) -> None:
        self._relay.risk()
        try:
            if flags & (abi.FOPEN_KEEP_CACHE | abi.FOPEN_DIRECT_IO) == abi.FOPEN_KEEP_CACHE:
                self._fast.learn_open(ino)
            else:
                self._fast.learn_backed(ino, self._backings.hand_over)
        finally:
            self._relay.safe()

    def _forget(self, request: Request) -> None:
        self._relay.risk()
        try:
            self._fs.forget(forgotten.nodeid for forgotten in forgets(request))
        finally:
            self._relay.safe()

    def _drop(self, spans: list[Span]) -> None:
        if spans:
            self._relay.step_down()
            for ino, offset, length in spans:
                self.invalidate(ino, offset, length)
                self._backings.drop(ino)

    def _forget_at_open(self, ino: int) -> None:
        self._relay.step_down()
        self.forget_attributes(ino)

    @staticmethod
    def _failure(unique: int, error: OSError | RegionfsError) -> bytes:
        number = error.errno or errno.EIO
        if number == errno.EIO:
            log.debug("EIO: %s", error)
        return codec.error(unique, number)

    def _send(self, buffers: Sequence[codec.Buffer]) -> bool:
        """Write a reply or notification; False when the kernel does not want it any more."""
        try:
            return device.send(self._device, buffers)
        except OSError as error:
            log.error("answering the kernel: %s", error)
            return False


def _unique(buffer: memoryview, size: int) -> int:
    """The request's number as far as one came, so that a malformed request does not hang its caller."""
    return int.from_bytes(buffer[8:16], "little") if size >= 16 else 0


def _buffer(size: int, flags: int = 0) -> memoryview:
    """Anonymous memory, which is there page by page as it is used, for most requests and replies are short.

    With MAP_POPULATE all of it at once, which what the kernel copies requests to has to be: a process that is being
    killed gets no page any more, and the kernel then fails the request with EIO (fuse_dev_do_read in fs/fuse/dev.c).
    """
    return memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | flags))
