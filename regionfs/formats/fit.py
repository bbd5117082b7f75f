"""Whether the sources here are those that a foreign map speaks of: there, long enough, plain, of the same bytes.

What the map says of each is a Claim, gathered by the reader, so that a message names the input's line.
Reads sources; knows no format.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from regionfs.errors import SourceError
from regionfs.formats.containers import HEAD, TAIL, Container, container
from regionfs.formats.values import Claim, Imported, Sum, UnfitError
from regionfs.manifest.inspect import SourceFacts, inspect_source

_CHUNK = 1 << 20  # bytes read at a time
_MANY = 10        # problems that are told


def check_fit(imported: Imported, *, read_only: bool = False, raw: bool = False, verify: bool = True) -> list[str]:
    """Compare all claims with the sources; notes on what is odd but can be served.

    `read_only`: nothing will be written, whatever the map says; `raw`: no source is looked at for being
    a container; `verify`: checksums are compared, which reads what they cover. Raises UnfitError with
    every source that does not fit.
    """
    problems: list[str] = []
    notes: list[str] = []
    for key, claim in imported.claims.items():
        path = imported.manifest.sources[key].path
        try:
            facts = inspect_source(path, writable=bool(claim.rw_place) and not read_only)
        except SourceError as error:
            problems.append(f"{claim.rw_place or claim.place}: {error}")
            continue
        if fault := _fault(path, facts, claim, raw=raw, verify=verify):
            problems.append(fault)
        notes += _notes(path, facts, claim, verify=verify)
    if problems:
        more = [f"and {len(problems) - _MANY} more"] if len(problems) > _MANY else []
        raise UnfitError([*problems[:_MANY], *more])
    return notes


def container_at(path: Path) -> Container | None:
    """What the regular file or block device at `path` holds instead of a plain image; None for plain bytes.

    Raises OSError.
    """
    with path.open("rb", buffering=0) as file:
        head = file.read(HEAD)
        end = file.seek(0, os.SEEK_END)
        return container(head, os.pread(file.fileno(), TAIL, max(0, end - TAIL)))


def _fault(path: Path, facts: SourceFacts, claim: Claim, *, raw: bool, verify: bool) -> str:
    if claim.raw and not raw and (found := container_at(path)):
        return f"{claim.place}: {found.advice(path)}; --raw takes its bytes as they are"
    if claim.exact and claim.size is not None and _differs(facts, claim.size):
        return f"{claim.place}: {path} has {facts.size} bytes, but the map is of an image of {claim.size}"
    if facts.size < claim.end:
        return f"{claim.place}: reaches to byte {claim.end} of {path}, which has {facts.size}"
    return _changed(path, claim.sums) if verify and claim.sums else ""


def _differs(facts: SourceFacts, size: int) -> bool:
    """A device that an image was written to may be larger."""
    return facts.size < size if facts.kind == "block" else facts.size != size


def _changed(path: Path, sums: tuple[Sum, ...]) -> str:
    with path.open("rb", buffering=0) as file:
        for one in sums:
            found = hashlib.new(one.kind)
            for data in _bytes(file.fileno(), one.start, one.end):
                found.update(data)
            if found.hexdigest() != one.digest:
                return (f"{one.place}: bytes {one.start} to {one.end} of {path} have another {one.kind} sum than the "
                        "map says: it is another image, or was changed; --no-verify takes it all the same")
    return ""


def _bytes(fd: int, start: int, end: int) -> Iterator[bytes]:
    while start < end and (data := os.pread(fd, min(_CHUNK, end - start), start)):
        yield data
        start += len(data)


def _notes(path: Path, facts: SourceFacts, claim: Claim, *, verify: bool) -> Iterator[str]:
    if claim.size is not None and facts.size > claim.size:
        yield f"{path} has {facts.size} bytes; the map speaks of the first {claim.size}"
    if claim.sums:
        count = f"{len(claim.sums)} ranges"
        yield (f"the checksums of {count} fit; a manifest has no place for them" if verify else
               f"the checksums of {count} were not compared, and a manifest has no place for them")
