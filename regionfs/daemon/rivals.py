"""Which bytes of sources two mounts of this user write: each knows its own files only, so nobody keeps them apart.

A mount leaves the ranges that it may write in a file of the runtime directory; whoever mounts or reloads compares.
Who writes different ranges of one disk is no rival. Other users' mounts, whose runtime directory is theirs, are not
seen.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from regionfs.daemon import runtime
from regionfs.errors import MountError
from regionfs.manifest.body import Whole
from regionfs.manifest.inspect import SourceFacts
from regionfs.manifest.schema import FileSpec, Manifest
from regionfs.units import MAX_OFFSET

log = logging.getLogger("regionfs")

Range = tuple[int, int]  # bytes [start, end) of a source

MOST_RANGES = 1000  # of a source that are told apart; of more only where the first begins and the last ends
MOST_WARNINGS = 8


def written(manifest: Manifest, facts: Mapping[str, SourceFacts]) -> list[dict[str, Any]]:
    """What a mount of `manifest` may write, as plain values: a source's identity, its path, a file, the ranges."""
    found: dict[tuple[int, ...], dict[str, Any]] = {}
    for path, spec in manifest.files.items():
        for key in sorted(spec.rw_sources):
            entry = found.setdefault(facts[key].identity, {
                "identity": [*facts[key].identity], "source": str(manifest.sources[key].path), "file": path,
                "ranges": []})
            entry["ranges"] += _ranges(spec, key)
    for entry in found.values():
        entry["ranges"] = _merged(entry["ranges"])
    return list(found.values())


def announce(name: tuple[Path, int], writes: list[dict[str, Any]]) -> None:
    """Leave for others what the mount `name` (see runtime.Known) may write. What cannot be written is logged."""
    try:
        place = _place(name)
        new = place.with_suffix(".writes-new")
        new.write_text(json.dumps(writes))
        new.replace(place)
    except (OSError, MountError) as error:
        log.info("mounts that write the same sources will not be warned: %s", error)


def warnings(name: tuple[Path, int], writes: list[dict[str, Any]] | None = None) -> list[str]:
    """A sentence for each source that `name` may write (`writes`, else what it announced) and another mount too."""
    try:
        found = [*_found(name, writes)]
    except MountError as error:  # what lies in a directory that is not private is not believed
        return [f"mounts that may write the same sources are not known: {error}"]
    more = len(found) - MOST_WARNINGS
    return [*found[:MOST_WARNINGS], *([f"{more} more sources are written by other mounts too"] if more > 0 else [])]


def _found(name: tuple[Path, int], writes: list[dict[str, Any]] | None) -> Iterator[str]:
    mine = {tuple(entry["identity"]): entry for entry in (_read(name) if writes is None else writes)}
    for other in runtime.known() if mine else ():
        if not other.alive or other.name == name:
            continue
        for theirs in _read(other.name):
            entry = mine.get(tuple(theirs["identity"]))
            if entry and _overlap(entry["ranges"], theirs["ranges"]):
                yield _sentence(entry, other.mountpoint, theirs)


def _sentence(entry: Mapping[str, Any], mountpoint: Path, theirs: Mapping[str, Any]) -> str:
    return (f"{entry['source']} is written by {entry['file']} here and by {theirs['file']} of the mount on "
            f"{mountpoint}: what one writes the other shows at its next open only, "
            "and a file system in it that both use is destroyed")


def _ranges(spec: FileSpec, key: str) -> Iterator[Range]:
    if isinstance(spec.body, Whole):
        yield 0, MAX_OFFSET
        return
    wanted = spec.regions.names.index(key)
    for start, end, target, shift, writable in spec.regions.rows():
        if writable and target == wanted:
            yield start + shift, end + shift


def _merged(ranges: Iterable[Range]) -> list[Range]:
    merged: list[Range] = []
    for start, end in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged if len(merged) <= MOST_RANGES else [(merged[0][0], merged[-1][1])]


def _overlap(some: Iterable[Range], others: Iterable[Range]) -> bool:
    """Whether any of the one overlaps any of the other; each in order."""
    border = -1
    for start, end in sorted((*found,) for found in (*some, *others)):
        if start < border:
            return True
        border = end
    return False


def _place(name: tuple[Path, int]) -> Path:
    return runtime.stem_of(*name).with_suffix(".writes")


def _read(name: tuple[Path, int]) -> list[dict[str, Any]]:
    """What a mount announced; nothing when it did not, or is of an older version."""
    try:
        found: list[dict[str, Any]] = json.loads(_place(name).read_text())
    except (OSError, ValueError):
        return []
    return found
