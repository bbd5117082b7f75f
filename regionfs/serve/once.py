"""Requests that change something are done once, whichever server begins them: joins underway and redo.

After a death the kernel sends what was unanswered again, before anything new. So the successor first takes all
of it in: what was begun and does not come again is forgotten. Until what was begun is done, requests for the
same bytes or attributes wait, and the compiled loop is taught nothing, so that they need not look: else one
might be done, and answered, between the look at what was overtaken and the write.

A thread of the dead server may still be in the system call that began a request, and what it stores there shows
later. So what was begun is done again only once all threads of such servers have ended.

Appends to a source are made one by one, as the source's file system makes them anyhow: so at most one that
came through the mount is begun when a server dies, and who looks for its bytes finds no other's.
"""

from __future__ import annotations

import errno
import os
import select
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import cast

from regionfs.errors import RegionfsError
from regionfs.execute import PUNCH_HOLE, ZERO_RANGE
from regionfs.fs import FileSystem
from regionfs.serve.redo import (
    State,
    left_of_append,
    left_of_fallocate,
    left_of_setattr,
    left_of_write,
    number_of,
    position_of,
    positions,
    state_of,
)
from regionfs.serve.underway import NONE, Range, Underway
from regionfs.sharing import Span
from regionfs.units import MAX_OFFSET
from regionfs.wire import device
from regionfs.wire.abi import UNIQUE_RESEND, Opcode
from regionfs.wire.parse import IN_HEADER, IN_HEADER_SIZE, Request
from regionfs.wire.requests import FallocateIn, SetattrIn

CHANGES = frozenset({Opcode.SETATTR, Opcode.FALLOCATE, Opcode.SETXATTR, Opcode.REMOVEXATTR})  # beside WRITE
PAUSE = 0.001  # seconds between two looks whether an older request was answered
_UNASKED = (Opcode.FORGET, Opcode.BATCH_FORGET, Opcode.INTERRUPT)  # come before everything else


def resent(fd: int, buffer: memoryview) -> list[bytes]:
    """What comes again on a connection, and at most one request more; nobody else reads it yet. OSError."""
    taken, blocking = [], os.get_blocking(fd)
    os.set_blocking(fd, False)
    try:
        while size := device.receive(fd, buffer):
            taken.append(bytes(buffer[:size]))
            _, opcode, unique, *_ = IN_HEADER.unpack_from(buffer)
            if opcode not in _UNASKED and not unique & UNIQUE_RESEND:
                break
    except BlockingIOError:
        pass
    finally:
        os.set_blocking(fd, blocking)
    return taken


class Once:
    """Does what requests ask, unless that was done before. Safe to use from many threads."""

    def __init__(self, fs: FileSystem, underway: Underway, step_down: Callable[[], None],
                 leaving: Sequence[int] = ()) -> None:
        """`step_down` is called before a wait. `leaving`: pidfds of servers before this one that have not ended."""
        self._fs, self._underway, self._step_down = fs, underway, step_down
        self._leaving = tuple(leaving)
        self._begun: dict[int, Span] = {}  # by unique: what a dead server had begun, and is not done yet
        self._change = threading.Condition()
        self._appending: dict[tuple[int, int], threading.Lock] = {}  # by device and inode of a source

    @property
    def redoing(self) -> bool:
        """True while something is to be done that a dead server had begun."""
        return bool(self._begun)

    def take_over(self, messages: Sequence[bytes]) -> deque[bytes]:
        """What came again, to be answered in this order."""
        came = {IN_HEADER.unpack_from(message)[2] & ~UNIQUE_RESEND: message for message in messages
                if len(message) >= IN_HEADER_SIZE}
        for unique, (task, span) in self._underway.left().items():
            if unique not in came:
                self._underway.end(task)
            elif not self._underway.certain(task):
                self._begun[unique] = span
        return deque(sorted(messages, key=lambda message: self._unique(message) not in self._begun))

    @staticmethod
    def _unique(message: bytes) -> int:
        return int.from_bytes(message[8:16], "little") & ~UNIQUE_RESEND

    # every request

    def begin(self, unique: int, ino: int, ranges: Sequence[Range]) -> int:
        """The task of a request, with which the others are called until end(). May wait."""
        unique &= ~UNIQUE_RESEND
        if unique in self._begun:
            self._outlive()
        elif self._begun:
            self._wait(self._places(ino, ranges))
        start, end = min(ranges)[0], max(stop for _, stop in ranges)
        return self._underway.begin(unique, ino, start, end)

    def done(self, task: int, unique: int, count: int, places: Sequence[Span], *, waits: bool = False) -> None:
        """It is done; `places` are all that show it. `waits`: nobody whom it overtakes can be waiting for it."""
        while not self._underway.overtake(task, places, waits=waits):
            self._step_down()
            threading.Event().wait(PAUSE)  # the loop tells nobody of its answers
        self._underway.done(task, count)
        self._settled(unique)

    def failed(self, task: int, unique: int, error: OSError | RegionfsError) -> None:
        """It will be answered with this error."""
        self._underway.failed(task, error.errno or errno.EIO)
        self._settled(unique)

    def end(self, task: int, unique: int) -> None:
        """It was answered."""
        self._underway.end(task)
        self._settled(unique)

    def _settled(self, unique: int) -> None:
        if self._begun:
            with self._change:
                self._begun.pop(unique & ~UNIQUE_RESEND, None)
                self._change.notify_all()

    def _outlive(self) -> None:
        """Return when no server before this one can change anything any more."""
        for fd in self._leaving:
            ended = select.poll()
            ended.register(fd, select.POLLIN)
            if not ended.poll(0):
                self._step_down()
                ended.poll()

    def _wait(self, mine: list[Span]) -> None:
        def free() -> bool:
            return not any(one.ino == other.ino and one.offset < other.offset + other.length
                           and other.offset < one.offset + one.length
                           for one in mine for other in list(self._begun.values()))

        if not free():
            self._step_down()
            with self._change:
                self._change.wait_for(free)

    def _places(self, ino: int, ranges: Sequence[Range]) -> list[Span]:
        """All that shows these positions of an inode."""
        places = [Span(ino, start, end - start) for start, end in ranges]
        for start, end in ranges:
            if start < MAX_OFFSET:
                places += self._fs.elsewhere(ino, start, end - start)
            else:  # an attribute of the source
                others = {span.ino for span in self._fs.elsewhere(ino, 0, MAX_OFFSET)} - {ino}
                places += [Span(other, start, end - start) for other in others]
        return places

    # WRITE

    def appends(self, ino: int, flags: int) -> bool:
        """Whether a WRITE of a file opened with `flags` goes where its source ends."""
        return bool(flags & os.O_APPEND) and self._fs.writes_whole(ino)

    def write(self, task: int, unique: int, ino: int, offset: int, data: memoryview, *, paging: bool,
              drop_setid: bool) -> tuple[int, list[Span]]:
        """As FileSystem.write; also tells where else the bytes are shown."""
        done = self._underway.result(task)
        if done is not None:
            return done, self._fs.elsewhere(ino, offset, done)
        done = self._store(self._underway.overtaken(task), ino, offset, data, paging=paging, drop_setid=drop_setid)
        places = self._places(ino, [(offset, offset + done)])
        # not with pages that somebody drops meanwhile
        self.done(task, unique, done, places, waits=not paging)
        return done, places[1:]

    def _store(self, overtaken: list[Range], ino: int, offset: int, data: memoryview, *, paging: bool,
               drop_setid: bool) -> int:
        if not overtaken:
            return self._fs.write(ino, offset, data, paging=paging, drop_setid=drop_setid)
        for start, end in left_of_write(offset, offset + len(data), overtaken):
            count = self._fs.write(ino, start, data[start - offset:end - offset], paging=paging, drop_setid=drop_setid)
            if count < end - start:
                return start + count - offset
        return len(data)

    def append(self, task: int, unique: int, ino: int, data: memoryview, *, drop_setid: bool) -> tuple[int, list[Span]]:
        """The same at the end of its source, wherever that is by now."""
        fd = self._fs.source_fd(self._fs.file(ino))
        found = os.fstat(fd)
        with self._appending.setdefault((found.st_dev, found.st_ino), threading.Lock()):
            size, done = os.fstat(fd).st_size, self._underway.result(task)
            start = (self._underway.before(task) or [size])[0]
            if done is None:
                left = self._left_to_append(task, fd, size, data)
                done = len(data) - len(left)
                if left:
                    done += self._fs.write(ino, size, left, append=True, drop_setid=drop_setid)
                # what others append meanwhile lies there too; before the next one looks for the end
                self.done(task, unique, done, self._places(ino, [(start, max(start, os.fstat(fd).st_size))]))
        return done, self._fs.elsewhere(ino, start, MAX_OFFSET - start)

    def _left_to_append(self, task: int, fd: int, size: int, data: memoryview) -> memoryview:
        before = self._underway.before(task)
        if before is None:
            self._underway.remember(task, (size,))
            return data
        return left_of_append(data, before[0], size, self._underway.overtaken(task),
                              lambda at, length: os.pread(fd, length, at))

    # SETATTR, FALLOCATE, SETXATTR and REMOVEXATTR

    def begin_change(self, request: Request) -> int:
        """As begin(); NONE when it cannot change anything."""
        node = request.header.nodeid
        if not self._fs.writes_whole(node) and request.header.opcode != Opcode.FALLOCATE:
            return NONE
        ranges = _changed(request)
        return self.begin(request.header.unique, node, ranges) if ranges else NONE

    def change(self, task: int, request: Request, handler: Callable[[Request], bytes]) -> tuple[bytes, list[Span]]:
        """The reply's bytes, and where else what was changed is shown. OSError, RegionfsError."""
        unique, ino, body = request.header.unique, request.header.nodeid, b""
        try:
            for part in self._left(task, request):
                body = handler(part)
        except (OSError, RegionfsError) as error:
            self.failed(task, unique, error)
            raise
        if task != NONE and not self._underway.certain(task):
            self.done(task, unique, 0, self._places(ino, _taken(request)))
        before = self._underway.before(task)
        return body, [span for start, end in _bytes_changed(request, before[0] if before else MAX_OFFSET)
                      for span in self._fs.elsewhere(ino, start, end - start)]

    def _left(self, task: int, request: Request) -> Iterator[Request]:
        """What is left to do of it; a SETATTR is answered with what it finds, so something of it is always left."""
        if task == NONE:
            yield request
            return
        done, before = self._underway.result(task) is not None, self._underway.before(task)
        overtaken = [] if done else self._underway.overtaken(task)
        ino, body = request.header.nodeid, request.body
        fd = self._fs.source_fd(self._fs.file(ino)) if self._fs.writes_whole(ino) else None
        if isinstance(body, SetattrIn) and fd is not None:
            now = state_of(fd, body, before[0] if before else None)
            if done:
                body = body._replace(valid=0)
            elif before is not None:
                body = left_of_setattr(body, State(*before), now, overtaken)
            else:
                self._underway.remember(task, now)
            yield request._replace(body=body)
        elif done:
            return
        elif isinstance(body, FallocateIn) and before is not None:
            for part in left_of_fallocate(body, before[0], overtaken):
                yield request._replace(body=part)
        elif isinstance(body, FallocateIn):
            self._underway.remember(task, (MAX_OFFSET if fd is None else os.fstat(fd).st_size,))
            yield request
        elif before is None:
            self._underway.remember(task, (self._value(request),))
            yield request
        elif not overtaken and [self._value(request)] == before[:1]:
            yield request

    def _value(self, request: Request) -> int:
        """A number for an extended attribute, 0 when there is none."""
        try:
            return number_of(self._fs.getxattr(request.header.nodeid, request.names[0]))
        except OSError:
            return 0


def _taken(request: Request) -> list[Range]:
    """Positions of which a request takes what was there: what adds to a file takes nothing from others."""
    body = request.body
    return [] if isinstance(body, FallocateIn) and not body.mode & (PUNCH_HOLE | ZERO_RANGE) else _changed(request)


def _bytes_changed(request: Request, size: int) -> Iterator[Range]:
    """Where a file of `size` bytes shows others after a request; a SETATTR that grows it, from the old end on."""
    for start, end in _changed(request):
        if start < MAX_OFFSET:
            yield (min(start, size) if isinstance(request.body, SetattrIn) else start), end


def _changed(request: Request) -> list[Range]:
    """Positions that a request may change."""
    if request.header.opcode == Opcode.SETATTR:
        return positions(cast(SetattrIn, request.body))
    if request.header.opcode == Opcode.FALLOCATE:
        body = cast(FallocateIn, request.body)
        return [(body.offset, min(body.offset + body.length, MAX_OFFSET))]
    at = position_of(request.names[0])
    return [(at, at + 1)]
