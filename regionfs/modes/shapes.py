"""What the shape of a composite file allows: one function per kernel mode, each an objection or nothing.

Knows the rules of DESIGN section 5 for files and sources, and those of coherence between the files of a
mount (section 4). Does not know what this machine can do; choose joins both.

Coherence, for a source that any file of the mount may write:
- composed and iomap files keep pages of their own: they never show it beside its writer;
- passthrough files share the source's own pages: they agree with each other and with pread/pwrite;
- a passthrough writer goes past the daemon, so every file that shows its source must be passthrough too.
A source is known by device and inode, not by key: two keys may name one file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regionfs.manifest.schema import FileSpec
from regionfs.modes import erofs
from regionfs.regions import Kind, Region, RegionMap

if TYPE_CHECKING:
    from regionfs.manifest.inspect import SourceFacts

Identity = tuple[int, int]  # device and inode of a source
SECTOR = 512                # bytes; no kernel mode maps anything finer


@dataclass(frozen=True, slots=True)
class Sharing:
    """Who shows and who writes the sources of one mount."""

    written: Mapping[Identity, str]            # sources that a file maps rw -> one such file
    mapped: Mapping[Identity, tuple[str, ...]]  # sources -> files that cannot be passthrough over them
    shown: Mapping[Identity, tuple[str, ...]]   # sources -> all files that show them

    @staticmethod
    def of(files: Iterable[FileSpec], facts: Mapping[str, SourceFacts]) -> Sharing:
        """Gather it from every file of the mount; sources without facts are left out."""
        written: dict[Identity, str] = {}
        mapped: dict[Identity, tuple[str, ...]] = {}
        shown: dict[Identity, tuple[str, ...]] = {}
        for file in files:
            rw = _written(file)
            for identity in sorted({_identity(facts[key]) for key in rw if key in facts}):
                written.setdefault(identity, file.path)
            for identity in sorted({_identity(facts[key]) for key in file.sources if key in facts}):
                shown[identity] = (*shown.get(identity, ()), file.path)
                if single(file, facts) is None:
                    mapped[identity] = (*mapped.get(identity, ()), file.path)
        return Sharing(written, mapped, shown)


def passthrough(file: FileSpec, facts: Mapping[str, SourceFacts], sharing: Sharing) -> str:
    """Why the kernel cannot pass the file through to one source; empty when it can."""
    key = single(file, facts)
    if key is None:
        if file.regions is not None and len(file.regions) == 1 and file.writable:
            return "a rw region map of a fixed size is not passed through; `whole` is"
        return "it is not exactly one whole source"
    if facts[key].kind == "block":
        return f"{key} is a block device, and only regular files can be passed through"
    if file.writable and (others := _others(file, sharing.mapped, facts, (key,))):
        return f"its bytes are also shown by {others}, which the kernel caches apart"
    return ""


def composed(file: FileSpec, facts: Mapping[str, SourceFacts], sharing: Sharing) -> str:
    """Why the file cannot be read through a detached EROFS; empty when it can."""
    regions = file.regions
    if regions is None:
        return f"it follows the size of {file.whole}, and a composed file cannot"
    if not file.sources:
        return "it has no source region"
    for number, region in enumerate(regions, 1):
        where = f"region {number}"
        if region.kind is Kind.ERROR:
            return f"{where} is an error region, and a composed file has none"
        if region.kind is not Kind.SOURCE:
            continue
        if region.writable:
            return f"{where} is rw, and a composed file is read-only"
        if facts[region.source].kind == "block":
            return f"{where} lies on the block device {region.source}, not on a regular file"
        if region.shift % SECTOR:
            return f"{where} starts at {region.start}, {_misfit(region)}"
    if writer := next((sharing.written[identity] for key in file.sources
                       if (identity := _identity(facts[key])) in sharing.written), ""):
        return f"its bytes can be written through {writer}, and a composed file would not see that"
    if len(file.sources) > erofs.MAX_DEVICES:
        return f"it has {len(file.sources)} sources, over the limit of {erofs.MAX_DEVICES}"
    return erofs.measure(regions).objection


def iomap(file: FileSpec, facts: Mapping[str, SourceFacts], sharing: Sharing) -> str:
    """Why the kernel cannot be told the file's mappings; empty when it can."""
    if not file.sources:
        return "it has no source region"
    if regular := next((key for key in file.sources if facts[key].kind != "block"), ""):
        return f"{regular} is a regular file, and fuse-iomap takes block devices only"
    if misfit := _off_block(file.regions, SECTOR) if file.regions is not None else "":
        return misfit
    for key in file.sources:
        identity = _identity(facts[key])
        if identity in sharing.written and (others := _others(file, sharing.shown, facts, (key,))):
            return f"its bytes are also shown by {others}, which the kernel caches apart"
    return ""


def _off_block(regions: RegionMap, block: int) -> str:
    """The first region that iomap cannot show on `block`-byte blocks."""
    for number, region in enumerate(regions, 1):
        if region.kind not in (Kind.SOURCE, Kind.HOLE):
            return f"region {number} is of kind {region.kind}, and fuse-iomap only has holes and devices"
        if region.start % block:
            return f"region {number} starts at {region.start}, not on a {block}-byte block"
        if region.end % block:
            return f"region {number} ends at {region.end}, not on a {block}-byte block"
        if region.kind is Kind.SOURCE and region.offset % block:
            return (f"region {number} shows {region.source} from {region.offset}, "
                    f"not on a {block}-byte block")
    return ""


def _misfit(region: Region) -> str:
    """How a region's start and its source offset disagree."""
    if region.offset % SECTOR == 0:
        return f"not on a {SECTOR}-byte block"
    return f"but {region.source} is at {region.offset} there: not the same place in a {SECTOR}-byte block"


def single(file: FileSpec, facts: Mapping[str, SourceFacts]) -> str | None:
    """The source that the file is the whole of: by `whole`, or by a read-only map of exactly all of it."""
    if file.whole is not None:
        return file.whole
    regions = file.regions
    if regions is None or len(regions) != 1 or file.writable:
        return None
    region = regions[0]
    known = facts.get(region.source)
    exact = known is not None and known.size == region.length == regions.size and region.shift == 0
    return region.source if exact else None


def _written(file: FileSpec) -> set[str]:
    """Keys of the sources that the file may write."""
    if not file.writable:
        return set()
    if file.whole is not None or file.regions is None:
        return set(file.sources)
    return {region.source for region in file.regions if region.writable}


def _others(file: FileSpec, shown: Mapping[Identity, tuple[str, ...]], facts: Mapping[str, SourceFacts],
            keys: Iterable[str]) -> str:
    """The first other file of `shown` over the same sources; empty without one."""
    paths = (path for key in keys for path in shown.get(_identity(facts[key]), ()))
    return next((path for path in paths if path != file.path), "")


def _identity(facts: SourceFacts) -> Identity:
    return (facts.device, facts.inode)
