"""What the shape of a composite file allows: one function per kernel mode, each an objection or nothing.

Knows the rules of docs/contract.md section 5 for files and sources, and those of coherence between the files of a
mount (section 4). Does not know what this machine can do; choose joins both.

Coherence, for a source that any file of the mount may write:
- composed and iomap files keep pages of their own: they never show it beside its writer;
- passthrough files share the source's own pages: they agree with each other and with pread/pwrite;
- a passthrough writer goes past the daemon, so every file that shows its source must be passthrough too.
A source is known by its identity, not by its key: two keys may name one file.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import add

from regionfs.manifest.body import Mapped, Whole
from regionfs.manifest.inspect import SourceFacts
from regionfs.manifest.schema import FileSpec
from regionfs.modes.geometry import MAX_DEVICES, measure
from regionfs.regions import ERROR, HOLE, Kind, Region, RegionMap

Identity = tuple[int, ...]  # SourceFacts.identity
SECTOR = 512                # bytes; no kernel mode maps anything finer


@dataclass(frozen=True, slots=True)
class Neighbours:
    """Who shows and who writes the sources of one mount."""

    written: Mapping[Identity, str]           # sources that a file maps rw -> one such file
    mapped: Mapping[Identity, Sequence[str]]  # sources -> files that cannot be passthrough over them
    shown: Mapping[Identity, Sequence[str]]   # sources -> all files that show them

    @staticmethod
    def of(files: Iterable[FileSpec], facts: Mapping[str, SourceFacts]) -> Neighbours:
        """Gather it from every file of the mount; sources without facts are left out."""
        written: dict[Identity, str] = {}
        mapped: dict[Identity, list[str]] = {}
        shown: dict[Identity, list[str]] = {}
        for file in files:
            for key in sorted(file.rw_sources & facts.keys()):
                written.setdefault(facts[key].identity, file.path)
            for identity in {facts[key].identity for key in file.sources if key in facts}:
                shown.setdefault(identity, []).append(file.path)
                if single(file, facts) is None:
                    mapped.setdefault(identity, []).append(file.path)
        return Neighbours(written, mapped, shown)


def passthrough(file: FileSpec, facts: Mapping[str, SourceFacts], neighbours: Neighbours) -> str:
    """Why the kernel cannot pass the file through to one source; empty when it can."""
    key = single(file, facts)
    if key is None:
        if isinstance(file.body, Mapped) and file.body.count == 1 and file.writable:
            return "a rw region map of a fixed size is not passed through; `whole` is"
        return "it is not exactly one whole source"
    if facts[key].kind == "block":
        return f"{key} is a block device, and only regular files can be passed through"
    if file.writable and (others := _others(file, neighbours.mapped, facts, (key,))):
        return f"its bytes are also shown by {others}, which the kernel caches apart"
    return ""


def composed(file: FileSpec, facts: Mapping[str, SourceFacts], neighbours: Neighbours) -> str:
    """Why the file cannot be read through a detached EROFS; empty when it can."""
    if isinstance(file.body, Whole):
        return f"it follows the size of {file.body.source}, and a composed file cannot"
    regions = file.body.regions
    if not file.sources:
        return "it has no source region"
    geometry = measure(regions)
    if file.writable or geometry.errors or not geometry.block or _devices(file, facts):
        return _uncomposable(regions, facts)
    identities = [facts[key].identity for key in file.sources]
    if writer := next((neighbours.written[one] for one in identities if one in neighbours.written), ""):
        return f"its bytes can be written through {writer}, and a composed file would not see that"
    if len(file.sources) > MAX_DEVICES:
        return f"it has {len(file.sources)} sources, over the limit of {MAX_DEVICES}"
    return geometry.objection


def _uncomposable(regions: RegionMap, facts: Mapping[str, SourceFacts]) -> str:
    """The first region that EROFS cannot show."""
    devices = {index for index, key in enumerate(regions.names) if facts[key].kind == "block"}
    number = next((number for number, (_, _, target, shift, rw) in enumerate(regions.rows())
                   if rw or target == ERROR or target in devices or (target >= 0 and shift % SECTOR)), None)
    if number is None:
        return ""
    region = regions[number]
    if region.kind is Kind.ERROR:
        return f"region {number} is an error region, and a composed file has none"
    if region.writable:
        return f"region {number} is rw, and a composed file is read-only"
    if facts[region.source].kind == "block":
        return f"region {number} lies on the block device {region.source}, not on a regular file"
    return f"region {number} starts at {region.start}, {_misfit(region)}"


def _devices(file: FileSpec, facts: Mapping[str, SourceFacts]) -> bool:
    """True when any source of the file is a block device."""
    return any(facts[key].kind == "block" for key in file.sources)


def iomap(file: FileSpec, facts: Mapping[str, SourceFacts], neighbours: Neighbours) -> str:
    """Why the kernel cannot be told the file's mappings; empty when it can."""
    if not file.sources:
        return "it has no source region"
    if regular := next((key for key in file.sources if facts[key].kind != "block"), ""):
        return f"{regular} is a regular file, and fuse-iomap takes block devices only"
    sector = max(facts[key].sector for key in file.sources)
    if misfit := _off_block(file.body.regions, sector) if isinstance(file.body, Mapped) else "":
        return misfit
    for key in file.sources:
        identity = facts[key].identity
        if identity in neighbours.written and (others := _others(file, neighbours.shown, facts, (key,))):
            return f"its bytes are also shown by {others}, which the kernel caches apart"
    if file.writable and isinstance(file.body, Mapped) and (doubled := _doubled(file.body.regions, facts)):
        return f"it shows the same bytes of {doubled} twice, which the kernel caches apart"
    return ""


def _doubled(regions: RegionMap, facts: Mapping[str, SourceFacts]) -> str:
    """A source of which the map shows some byte twice; empty without one."""
    identities = [facts[key].identity for key in regions.names]
    offsets = array("q", map(add, regions.starts, (shift for _, _, _, shift, _ in regions.rows())))
    ends: dict[Identity, int] = {}
    for index in sorted(range(len(regions)), key=offsets.__getitem__):
        start, end, target, shift, _ = regions.column(index)
        if target >= 0:
            identity = identities[target]
            if start + shift < ends.get(identity, 0):
                return regions.names[target]
            ends[identity] = end + shift
    return ""


def _off_block(regions: RegionMap, block: int) -> str:
    """The first region that iomap cannot show on `block`-byte blocks."""
    if regions.size % block:
        return f"its size {regions.size} is not a multiple of {block}"
    number = None
    if regions.alignment % block or min((target for _, _, target, _, _ in regions.rows()), default=0) < HOLE:
        number = next((number for number, (start, end, target, shift, _) in enumerate(regions.rows())
                       if target < HOLE or start % block or end % block or shift % block), None)
    if number is None:
        return ""
    region = regions[number]
    if region.kind not in (Kind.SOURCE, Kind.HOLE):
        return f"region {number} is of kind {region.kind}, and fuse-iomap only has holes and devices"
    if region.start % block:
        return f"region {number} starts at {region.start}, not on a {block}-byte block"
    if region.end % block:
        return f"region {number} ends at {region.end}, not on a {block}-byte block"
    return f"region {number} shows {region.source} from {region.offset}, not on a {block}-byte block"


def _misfit(region: Region) -> str:
    """How a region's start and its source offset disagree."""
    if region.offset % SECTOR == 0:
        return f"not on a {SECTOR}-byte block"
    return f"but {region.source} is at {region.offset} there: not the same place in a {SECTOR}-byte block"


def single(file: FileSpec, facts: Mapping[str, SourceFacts]) -> str | None:
    """The source that the file is the whole of: by `whole`, or by a read-only map of exactly all of it."""
    if isinstance(file.body, Whole):
        return file.body.source
    regions = file.body.regions
    if len(regions) != 1 or regions.writable:
        return None
    region = regions[0]
    known = facts.get(region.source)
    exact = known is not None and known.size == region.length == regions.size and region.shift == 0
    return region.source if exact else None


def _others(file: FileSpec, shown: Mapping[Identity, Sequence[str]], facts: Mapping[str, SourceFacts],
            keys: Iterable[str]) -> str:
    """The first other file of `shown` over the same sources; empty without one."""
    paths = (path for key in keys for path in shown.get(facts[key].identity, ()))
    return next((path for path in paths if path != file.path), "")
