"""What a mount keeps in the runtime directory, put back when a cleaner took it (systemd-tmpfiles, tmpreaper, rm).

The holder has all of it open. The lock and the control socket are put back as soon as they are missed, the
servers' state before the next server looks for it: never what the manifest says by then. A lock on the
directory keeps systemd-tmpfiles out (tmpfiles.d(5)), and time stamps that are renewed keep others out.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import selectors
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from regionfs.daemon import logs, runtime
from regionfs.daemon.timers import Timers

log = logging.getLogger("regionfs")

SOON = 0.02        # seconds after something was removed: a cleaner seldom removes one thing
RENEW = 6 * 3600.0  # seconds between two looks; a cleaner takes what is days old
UNWATCHED = 60.0   # seconds between them where the kernel does not tell (fs.inotify.max_user_instances)

# sys/inotify.h
_IN_NONBLOCK, _IN_CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC
_REMOVED = 0x40 | 0x200 | 0x400 | 0x800  # IN_MOVED_FROM, IN_DELETE, IN_DELETE_SELF, IN_MOVE_SELF

_libc = ctypes.CDLL(None, use_errno=True)


class Keeper:
    """Of the files beside `stem` (a path without suffix). Used by the loop's thread alone."""

    def __init__(self, stem: Path, lock: int, selector: selectors.BaseSelector, timers: Timers,
                 listen_again: Callable[[], None]) -> None:
        """`lock` is the holder's, which stays its own; `listen_again` makes the control socket anew. OSError."""
        self._stem = stem
        self._lock = lock
        self._locks: list[int] = []        # of files that took the place of the first one
        self._listen_again = listen_again
        self._selector, self._timers = selector, timers
        self._state: dict[str, int] = {}   # name -> descriptor
        self._directory = self._held = -1
        self._watch = _libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
        if self._watch >= 0:
            selector.register(self._watch, selectors.EVENT_READ, self._something_removed)
        self._look()

    def keep(self, name: str, fds: list[int]) -> None:
        """A server has written the file `name`, open as fds[0], which is ours from now on; without one: removed it."""
        old = self._state.pop(name, None)
        if old is not None:
            os.close(old)
        if fds:
            self._state[name] = fds[0]

    def forget_state(self) -> None:
        """The next server begins anew."""
        for name in list(self._state):
            self.keep(name, [])

    def restore_state(self) -> None:
        """Write again what servers have left for the next one and is not there. OSError."""
        for name, fd in list(self._state.items()):
            path = self._stem.with_name(name)
            if path.exists():
                continue
            log.warning("%s was removed; it is written again", path)
            runtime.directory()
            new = path.with_name(path.name + ".new")
            new.touch(0o600)
            new.write_bytes(os.pread(fd, os.fstat(fd).st_size, 0))
            new.replace(path)

    def close(self) -> None:
        """The mount has ended."""
        self._timers.cancel("keeper")
        self.forget_state()
        if self._watch >= 0:
            self._selector.unregister(self._watch)
            os.close(self._watch)
        for fd in (self._directory, *self._locks):
            if fd >= 0:
                os.close(fd)

    def _something_removed(self, watch: Any) -> None:
        with suppress(BlockingIOError):
            os.read(watch, 1 << 16)
        self._timers.set("keeper", SOON, self._look)

    def _look(self) -> None:
        """See that everything is there, and looks new. What cannot be mended now is tried again."""
        self._timers.set("keeper", RENEW if self._watch >= 0 else UNWATCHED, self._look)
        try:
            self._hold_directory()
            self._restore_lock()
            self._restore_log()
            if not self._stem.with_suffix(".sock").exists():
                self._listen_again()
            for path in self._stem.parent.glob(f"{self._stem.name}.*"):
                with suppress(FileNotFoundError):
                    os.utime(path)
        except OSError as error:
            log.warning("%s: %s; the next look is in %.0f s", self._stem, error.strerror, UNWATCHED)
            self._timers.set("keeper", UNWATCHED, self._look)

    def _hold_directory(self) -> None:
        """The directory that is there now is locked, shared with other holders, and watched."""
        place = runtime.directory()
        if self._directory < 0 or not os.path.samestat(os.fstat(self._directory), place.stat()):
            if self._directory >= 0:
                os.close(self._directory)
            self._directory = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            with suppress(BlockingIOError):  # a cleaner is at it just now
                fcntl.flock(self._directory, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if self._watch >= 0:
            _libc.inotify_add_watch(self._watch, os.fsencode(place), _REMOVED)

    def _restore_lock(self) -> None:
        path = self._stem.with_suffix(".lock")
        with suppress(FileExistsError):
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.pwrite(fd, os.pread(self._lock, os.fstat(self._lock).st_size, 0), 0)
            self._locks.append(fd)

    def _restore_log(self) -> None:
        """Ours is a file beside the others, unless we are in the foreground. The next server inherits it."""
        path = self._stem.with_suffix(".log")
        if logs.place() == f"{path} (deleted)":
            new = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            os.dup2(new, 1)
            os.dup2(new, 2)
            os.close(new)
