"""Step 5a: the sources of a mount, open: descriptors, identity, and what must not have changed.

A source is opened when it is first needed, checked against the facts seen when the manifest was
loaded, and kept open, unless there are too many: then one that is only read is closed, and opened
again when it is needed. One that may be written stays: fsync must ask the descriptor that wrote. It is
opened for writing when something is written first, for readers need no leave to write. `look`
asks what the path shows now, so that an open of a composite file fails when a source vanished, shrank
or was replaced, instead of serving bytes of something else. Knows nothing of composite files; execute
does the I/O on the descriptors.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

from regionfs import stamps
from regionfs.descriptors import Descriptor, Pool, limit
from regionfs.errors import SourceError
from regionfs.manifest.confine import reach
from regionfs.manifest.inspect import SourceFacts, check_writable, inspect_open, inspect_source, open_source
from regionfs.manifest.schema import Manifest, SourceSpec


def inspect_sources(manifest: Manifest) -> dict[str, SourceFacts]:
    """What every source of `manifest` is now. Raises SourceError for the first that cannot serve."""
    rw = _rw_keys(manifest)
    return {key: inspect_source(spec.place, writable=key in rw, confine=_confine(spec, manifest.confine))
            for key, spec in manifest.sources.items()}


class Sources:
    """Descriptors of a manifest's sources, by key. Safe to use from many threads."""

    def __init__(self, manifest: Manifest, facts: Mapping[str, SourceFacts] | None = None,
                 pool: Pool | None = None) -> None:
        """`pool` bounds the open descriptors of several."""
        self._fds: dict[str, int] = {}  # to read from; Descriptor objects: see there
        self._written: dict[str, int] = {}  # those of them that were opened for writing, too
        self._pool = Pool(limit()) if pool is None else pool
        self._lock = threading.Lock()
        self._specs = manifest.sources
        self._confine = manifest.confine
        self._rw = _rw_keys(manifest)
        self._facts = dict(inspect_sources(manifest) if facts is None else facts)
        #: path and what look() found there last, of sources that it need not inspect in full
        self._seen: dict[str, tuple[str, SourceFacts]] = {}
        self.blocking: set[str] = set()  # keys whose file system knows no RWF_NOWAIT
        self.in_memory: set[str] = set()  # such as have no disk to wait for

    def __enter__(self) -> Sources:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()

    def fd(self, key: str) -> int:
        """A descriptor to read the source from, opened now if it was not. Raises SourceError or OSError.

        Good for as long as this very object is referred to: a call that it is given to, a variable.
        """
        try:
            return self._fds[key]
        except KeyError:
            fd = self._written.get(key) or Descriptor(self._open(key))
            with self._lock:
                known = self._fds.setdefault(key, fd)  # another thread's, if that was faster
                if known is fd and key not in self._written:
                    self._pool.added(self._fds, key)
            return known

    def fd_to_write(self, key: str) -> int:
        """The same to write to a source that some file may write, and to read from; reads go through it from now on.

        OSError, too, when it cannot be written now: EROFS, EACCES or EPERM.
        """
        try:
            return self._written[key]
        except KeyError:
            if key not in self._rw:
                raise OSError(errno.EBADF, f"{key} is only read") from None
            fd = Descriptor(self._open(key, os.O_RDWR))
            with self._lock:
                known = self._written.setdefault(key, fd)
                self._fds[key] = known
            return known

    def writer(self, key: str) -> str | None:
        """The key by which some file writes to the source behind `key`: this one or another; None if none does."""
        identity = self._facts[key].identity
        return next((other for other in sorted(self._rw) if self._facts[other].identity == identity), None)

    def open_device(self, key: str, *, claim: bool) -> int:
        """A descriptor of its own for a block device, the caller's to close. SourceError, OSError.

        Read-write when any file writes to the device. Then with `claim` nobody else on the machine may claim
        it too: EBUSY when it is mounted or in use otherwise.
        """
        writer = self.writer(key)
        return self._open(key) if writer is None else self._open(writer, os.O_RDWR | (os.O_EXCL if claim else 0))

    def facts(self, key: str) -> SourceFacts:
        """What the source was when the manifest was loaded."""
        return self._facts[key]

    def same(self, key: str, spec: SourceSpec, facts: SourceFacts) -> bool:
        """True when `spec`, which is `facts` now, is the very source behind `key` here."""
        mine, first = self._specs.get(key), self._facts.get(key)
        return mine is not None and first is not None and first.identity == facts.identity and (
            (mine.place, mine.size) == (spec.place, spec.size)) and (first.kind == "file" or first.size == facts.size)

    def look(self, key: str, need: int = 0) -> SourceFacts:
        """What the source's path shows now. Raises SourceError when that cannot serve any more.

        `need`: bytes that it must have at least.
        """
        spec, first = self._specs[key], self._facts[key]
        seen = self._seen.get(key, (str(spec.place), first))
        if self._steady(key, seen[1]) and seen[1].hold(seen[0]):
            self._seen.setdefault(key, seen)
            now = seen[1]
        else:
            now = self._look_closer(key, seen[0])
        if now.size < need:
            raise SourceError(f"{spec.path} shrank to {now.size} bytes; the map needs {need}")
        return now

    def _look_closer(self, key: str, place: str) -> SourceFacts:
        spec, first = self._specs[key], self._facts[key]
        now = inspect_source(spec.place, confine=_confine(spec, self._confine))
        if now == first:
            now = first  # one copy is enough
        else:
            _check_same(now, first, spec.path)
        if spec.size is not None and now.size != spec.size:
            raise SourceError(f"{spec.path} has {now.size} bytes, the manifest pins {spec.size}")
        if self._steady(key, now):
            self._seen[key] = place, now
        return now

    def _steady(self, key: str, facts: SourceFacts) -> bool:
        """Whether look() would find nothing else as long as these facts hold; a way beneath a directory may change."""
        return facts.kind == "file" and self._confine is None and self._specs[key].size in (None, facts.size)

    def check_writable(self, keys: Iterable[str]) -> None:
        """OSError with the errno that opening one of them for writing would have now: EROFS and the like."""
        for spec in map(self._specs.__getitem__, keys):
            try:
                check_writable(spec.place, _confine(spec, self._confine))
            except SourceError as error:
                raise OSError(errno.EIO, str(error)) from error

    def unchanged(self, key: str) -> tuple[str, SourceFacts] | None:
        """What shows that look() would find nothing new, for a regular file.

        As long as SourceFacts.hold() says so; None when it has to look closer.
        """
        return self._seen.get(key)

    def nobody_writes(self, key: str) -> bool:
        """Whether the source is a regular file that nobody has open for writing, as stamps has it; False if unknown."""
        try:
            return stamps.nobody_writes(self.fd(key))
        except (SourceError, OSError):
            return False

    def status(self, key: str) -> os.stat_result:
        """What stat(2) shows of the source now. Raises SourceError or OSError.

        Of its descriptor, once it was opened: a file that took its path's place since then does not matter.
        """
        fd = self._fds.get(key)
        if fd is not None:
            return os.fstat(fd)
        first = self._facts[key]
        if first.kind == "file" and self._confine is None:
            try:
                found = os.stat(self._specs[key].place)  # noqa: PTH116 - as in SourceFacts.hold
            except OSError:  # opening tells why
                return os.fstat(self.fd(key))
            if found.st_ino == first.inode and found.st_dev == first.device and stat.S_ISREG(found.st_mode):
                return found
        return os.fstat(self.fd(key))

    def device_size(self, key: str) -> int:
        """Bytes of a block device now; as seen last where it cannot be opened any more."""
        try:
            return inspect_open(self.fd(key), key).size
        except (SourceError, OSError):
            return self._facts[key].size

    def sync(self, keys: Iterable[str], data_only: bool) -> None:
        """fsync every one of `keys`; all are tried, then the first error is raised, an OSError."""
        failed: OSError | None = None
        for key in keys:
            try:
                (os.fdatasync if data_only else os.fsync)(self.fd(key))
            except OSError as error:
                failed = failed or error
            except SourceError as error:
                failed = failed or OSError(errno.EIO, str(error))
        if failed is not None:
            raise failed

    def close(self) -> None:
        """Let go of every descriptor; each is closed when the last call on it has returned."""
        with self._lock:
            self._pool.clear(self._fds)
            self._written.clear()

    def _open(self, key: str, flags: int = os.O_RDONLY) -> int:
        spec, first = self._specs[key], self._facts[key]
        with reach(spec.place, _confine(spec, self._confine)) as here:
            fd = open_source(here, flags)
        try:
            _check_same(inspect_open(fd, str(spec.path)), first, spec.path)
        except SourceError:
            os.close(fd)
            raise
        return fd


def _confine(spec: SourceSpec, confine: Path | None) -> Path | None:
    """Where a source must lie; a loop device of our own was attached to a file that does."""
    return confine if spec.device is None else None


def _check_same(now: SourceFacts, first: SourceFacts, path: Path) -> None:
    if (now.kind, now.device, now.inode, now.rdev) != (first.kind, first.device, first.inode, first.rdev):
        raise SourceError(f"{path} was replaced by another file since the mount; reload to accept it")


def _rw_keys(manifest: Manifest) -> frozenset[str]:
    return frozenset().union(*(file.rw_sources for file in manifest.files.values()))
