"""When each entry of a manifest was last seen to change: what stat(2) shows besides the times of the sources.

A mount has no memory of the one before it, and a manifest's own time stamp says not which of its entries changed. So
a record is kept from mount to mount, as JSON: of every file and directory a digest of what its entry means, and the
time since when it means that. There are two, of the mount point and of the manifest: what changed since the mount
before this one is seen, and a manifest shows the same times wherever it is mounted. A changed
entry moves to now; without any record (the first mount, or a place that cannot be written) a file is as new as what
its map was read from, and a `whole` one as its source. A time moves without need at worst; a change is not missed.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from regionfs.digest import blake2b
from regionfs.manifest.body import Mapped, Whole
from regionfs.manifest.inspect import SourceFacts
from regionfs.manifest.schema import FileSpec, Manifest
from regionfs.tree import Since

log = logging.getLogger("regionfs")

SECOND = 10**9  # ns; rsync compares whole seconds
MOST = 1000     # records that are kept, the latest used

_FILE_CLOCK = 5  # CLOCK_REALTIME_COARSE, linux/time.h: what file systems stamp with

Entries = dict[str, tuple[str, Since]]  # path, of a directory with a slash behind -> digest, since when


class History(NamedTuple):
    """Since when each entry of a manifest is what it is, and where that is written down."""

    entries: Entries
    records: list[tuple[Path | None, Entries]]  # file, and what it says

    @property
    def since(self) -> dict[str, Since]:
        """By path; a directory's ends in a slash."""
        return {path: since for path, (_, since) in self.entries.items()}

    def write(self) -> None:
        """For the next mount: the manifest is served, it did not only try to be."""
        for place, record in self.records:
            _write(place, record, self.entries)


def read(mountpoint: Path, manifest: Manifest, facts: Mapping[str, SourceFacts]) -> History:
    """What earlier mounts on `mountpoint`, or of the manifest, and a look at it say."""
    places = [_place(kind, path) for kind, path in (("mount", mountpoint), ("manifest", manifest.path))]
    records = [_read(place) for place in places]
    first = time.clock_gettime_ns(_FILE_CLOCK) if any(records) else _newest((manifest.path, *manifest.read_from))
    whole = {path for path, spec in manifest.files.items() if isinstance(spec.body, Whole)}
    now = time.clock_gettime_ns(_FILE_CLOCK)
    entries = compare(records, digests(manifest, facts), lambda path: 0 if path in whole else first, now)
    return History(entries, list(zip(places, records, strict=True)))


def compare(records: Collection[Entries], now: Mapping[str, str], first: Callable[[str], int], time_ns: int) -> Entries:
    """The entries of `now` with their times, by the first of the records that knows each, else `first` of the path."""
    entries: Entries = {}
    for path, digest in now.items():
        before = next((record[path] for record in records if path in record), None)
        if before is None:
            entries[path] = digest, Since(first(path), first(path))
        elif before[0] == digest:
            entries[path] = digest, before[1]
        else:
            entries[path] = digest, Since(max(time_ns, before[1].shown + SECOND), time_ns)
    return entries


def digests(manifest: Manifest, facts: Mapping[str, SourceFacts]) -> dict[str, str]:
    """What each file's entry and each directory's list of names mean, as hex digits."""
    found, children = {}, dict[str, list[str]]()
    for path, spec in manifest.files.items():
        found[path] = _digest(_meaning(manifest, spec, facts))
        name = path
        while name:
            above = name.rstrip("/").rpartition("/")[0]
            names = children.setdefault(f"{above}/" if above else "/", [])
            if names and names[-1] == name:
                break
            names.append(name)
            name = f"{above}/" if above else ""
    children.setdefault("/", [])
    return found | {path: _digest(os.fsencode(f"{name}\0") for name in sorted(set(names)))
                    for path, names in children.items()}


def _meaning(manifest: Manifest, spec: FileSpec, facts: Mapping[str, SourceFacts]) -> Iterator[bytes]:
    """All that makes its bytes and attributes, in pieces; a source by its path, and by which file that is now."""
    yield f"{spec.writable} {spec.mode} {isinstance(spec.body, Mapped)}\0".encode()
    for key in spec.sources:
        found = facts[key]
        yield os.fsencode(manifest.sources[key].path)
        yield f"\0{found.inode if found.kind == 'file' else found.kind}\0".encode()
    if isinstance(spec.body, Mapped):
        yield spec.body.digest


def _digest(pieces: Iterable[bytes]) -> str:
    digest = blake2b(digest_size=12)
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _newest(paths: Iterable[Path]) -> int:
    """The latest time at which any of them was written, renamed or linked, ns."""
    newest = 0
    for path in paths:
        with suppress(OSError):
            found = path.stat()
            newest = max(newest, found.st_mtime_ns, found.st_ctime_ns)
    return newest or time.time_ns()


def _place(kind: str, path: Path) -> Path | None:
    """The file of a record; None where this user has no place for it."""
    base = os.environ.get("XDG_STATE_HOME")
    try:
        home = Path(base) if base else Path("/var/lib") if os.geteuid() == 0 else Path.home() / ".local/state"
    except RuntimeError:  # a user without a home
        return None
    name = blake2b(os.fsencode(f"{kind}\0{path}"), digest_size=12).hexdigest()
    return home / "regionfs" / f"{name}.json" if home.is_absolute() else None


def _read(place: Path | None) -> Entries:
    """A record; empty when there is none that can be read."""
    if place is None:
        return {}
    try:
        said = json.loads(place.read_bytes())
        return {path: (str(digest), Since(int(shown), int(seen))) for path, (digest, shown, seen) in said.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.info("%s, a record of when files changed, cannot be read: %s", place, error)
        return {}


def _write(place: Path | None, before: Entries, entries: Entries) -> None:
    if place is None:
        return
    try:
        if entries == before:
            os.utime(place)
            return
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = place.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps({path: (digest, *since) for path, (digest, since) in entries.items()}))
        new.replace(place)
        _drop_oldest(place.parent)
    except OSError as error:
        log.info("when files changed cannot be written down in %s: %s", place.parent, error.strerror)


def _drop_oldest(directory: Path) -> None:
    """Of records of mounts and manifests that are gone."""
    files = list(directory.iterdir())
    if len(files) > MOST:
        for path in sorted(files, key=lambda path: path.stat().st_mtime)[:len(files) - MOST]:
            path.unlink(missing_ok=True)
