"""What an edit or a new manifest comes to, in a line for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from regionfs.manifest.schema import FileSpec, Manifest
from regionfs.regions import Kind, Region, RegionMap
from regionfs.units import format_size

MOST = 3  # regions that are named, of those gone and of those new


def contents(manifest: Manifest) -> dict[str, int]:
    """How many files, regions and sources it has; a `whole` file counts as one region."""
    regions = sum(file.body.count for file in manifest.files.values())
    return {"files": len(manifest.files), "regions": regions, "sources": len(manifest.sources)}


def counted(numbers: dict[str, int]) -> str:
    """'1 file, 5 regions, 2 sources'."""
    return ", ".join(f"{number} {what[:-1] if number == 1 else what}" for what, number in numbers.items())


def map_change(before: RegionMap, after: RegionMap) -> str:
    """'5 -> 6 regions: - [1MiB, 2MiB) a.img + [1MiB, 1536KiB) a.img + [1536KiB, 2MiB) a.img at 512KiB'."""
    gone, new = _without(before, after), _without(after, before)
    told = []
    if gone or new or len(before) != len(after):
        count = f"{len(before)} -> {len(after)} regions" if len(before) != len(after) else f"{len(after)} regions"
        told.append(f"{count}: {_listed('-', gone)}{' ' if gone and new else ''}{_listed('+', new)}")
    if before.size != after.size:
        told.append(f"size {format_size(before.size)} -> {format_size(after.size)}")
    return "; ".join(told) or "the same map in other words"


def files_change(before: Manifest, after: Manifest) -> str:
    """'2 files changed: a.img, b.img; 1 added: c.img', of whole manifests."""
    old, new = before.files, after.files
    sides = {"removed": [path for path in old if path not in new], "added": [path for path in new if path not in old],
             "changed": [path for path in old if path in new and old[path] != new[path]]}
    told = [f"{len(paths)} {'file' if len(paths) == 1 else 'files'} {word}: {_some(paths)}"
            for word, paths in sides.items() if paths]
    return "; ".join(told) or "the same files in other words"


def shortened(file: FileSpec, source: str, size: int) -> str:
    """Of a region that shows less of `source` (`size` bytes) than is left of it: how much. '' when none does."""
    for region in file.body.as_map(0):
        if region.source == source and region.offset + region.length < size:
            return (f"[{format_size(region.start)}, {format_size(region.end)}) shows {region.length} of {size} bytes "
                    f"of {source}")
    return ""


def _without(regions: Iterable[Region], others: Iterable[Region]) -> list[Region]:
    known = set(others)
    return [region for region in regions if region not in known]


def _listed(sign: str, regions: Sequence[Region]) -> str:
    return " ".join(f"{sign} {_shown(region)}" for region in regions) if len(regions) <= MOST else (
        f"{sign} {len(regions)} regions")


def _shown(region: Region) -> str:
    place = f"[{format_size(region.start)}, {format_size(region.end)})"
    if region.kind is not Kind.SOURCE:
        return f"{place} {region.kind}"
    offset = f" at {format_size(region.offset)}" if region.offset else ""
    return f"{place}{' rw' if region.writable else ''} {region.source}{offset}"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST]) + (", ..." if len(names) > MOST else "")
