"""Which mode serves a file, and the sentence that says why: every rule as a row of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from regionfs.errors import UsageError
from regionfs.manifest.body import Mapped, Whole
from regionfs.manifest.inspect import SourceFacts
from regionfs.manifest.schema import FileSpec, Manifest
from regionfs.modes.choose import Ability, Kernel, Mode, ModeError, choose, choose_all, parse_modes
from regionfs.regions import Kind, Region, RegionMap

KIB, MIB, TIB = 1 << 10, 1 << 20, 1 << 40
YES = Ability(True, "")
ALL = Kernel(YES, YES, YES)
STOCK = Kernel(YES, YES, Ability(False, "this kernel has no fuse-iomap", "patches"))
BARE = Kernel(Ability(False, "passthrough needs root"), Ability(False, "composed needs root"),
              Ability(False, "this kernel has no fuse-iomap"))


def facts(kind: str = "file", size: int = MIB, inode: int = 1, rdev: int = 0) -> SourceFacts:
    """A source as it was inspected."""
    assert kind in ("file", "block")
    return SourceFacts(kind="block" if kind == "block" else "file", size=size, device=8, inode=inode,
                       rdev=rdev or (inode if kind == "block" else 0), mtime_ns=0, ctime_ns=0, mode=0o644,
                       uid=0, gid=0, blocks=0)


SOURCES: Mapping[str, SourceFacts] = {
    "a": facts(inode=1), "alias-of-a": facts(inode=1), "b": facts(inode=2), "huge": facts(size=64 * TIB, inode=3),
    "disk": facts("block", inode=4), "disk2": facts("block", inode=5), "other-node": facts("block", inode=6, rdev=4),
}


def source(start: int, length: int, key: str = "a", offset: int = 0, *, rw: bool = False) -> Region:
    return Region(start, start + length, Kind.SOURCE, key, shift=offset - start, writable=rw)


def hole(start: int, length: int) -> Region:
    return Region(start, start + length, Kind.HOLE)


def data(start: int, length: int) -> Region:
    return Region(start, start + length, Kind.DATA, shift=-start, data=bytes(length))


def error(start: int, length: int) -> Region:
    return Region(start, start + length, Kind.ERROR)


def mapped(*regions: Region, size: int | None = None, path: str = "f") -> FileSpec:
    """A file of regions."""
    total = regions[-1].end if size is None else size
    return FileSpec(path, Mapped(RegionMap(total, regions)))


def whole(key: str = "a", *, rw: bool = False, path: str = "f") -> FileSpec:
    return FileSpec(path, Whole(key, rw))


ROWS: Sequence[tuple[str, FileSpec, Kernel]] = [
    # passthrough
    ("passthrough: it is the whole of a", whole(), STOCK),
    ("passthrough: it is the whole of a", whole(rw=True), STOCK),
    ("passthrough: it is the whole of a", mapped(source(0, MIB)), STOCK),
    ("userspace: passthrough needs root", whole(), BARE),
    ("userspace: passthrough needs root", mapped(source(0, MIB)), BARE),
    ("composed: 1 region, read-only, on regular files", mapped(source(0, MIB - 4096)), STOCK),
    ("composed: 1 region, read-only, on regular files", mapped(source(0, MIB), size=MIB + 1), STOCK),
    ("userspace: region 0 is rw, and a composed file is read-only", mapped(source(0, MIB, rw=True)), STOCK),
    # composed
    ("composed: 3 regions, read-only, on regular files",
     mapped(data(0, 446), source(4096, 8192), source(MIB, 700, "b", 512)), STOCK),
    ("composed: 2 regions, read-only, on regular files",
     mapped(source(0, 700), source(700, 100, "b", 512 + 188)), STOCK),
    ("userspace: composed needs root", mapped(source(0, 4096)), BARE),
    ("userspace: region 2 starts at 700, not on a 512-byte block",
     mapped(hole(0, 512), source(512, 100), source(700, 512, "b")), STOCK),
    ("userspace: region 0 starts at 0, but a is at 700 there: not the same place in a 512-byte block",
     mapped(source(0, 512, offset=700)), STOCK),
    ("userspace: region 1 is rw, and a composed file is read-only",
     mapped(source(0, 512), source(512, 512, "b", rw=True)), STOCK),
    ("userspace: region 1 is an error region, and a composed file has none",
     mapped(source(0, 512), error(512, 512)), STOCK),
    ("userspace: region 1 lies on the block device disk, not on a regular file",
     mapped(source(0, 512), source(512, 512, "disk")), STOCK),
    ("userspace: it has no source region", mapped(data(0, 512), hole(512, 512)), STOCK),
    ("userspace: it has no source region", FileSpec("f", Mapped(RegionMap(0, []))), STOCK),
    ("userspace: its chunk index would take 1 GiB with 128 MiB a chunk, over the limit of 64 MiB",
     mapped(source(0, MIB), size=16 * 1024 * TIB), STOCK),
    ("userspace: 65 MiB would have to be copied (inline data, borders inside 4096-byte blocks), "
     "over the limit of 64 MiB", mapped(data(0, 65 * MIB), source(65 * MIB, MIB)), STOCK),
    ("userspace: it reaches 3 TiB into a source, over the 2 TiB that 512-byte blocks can number",
     mapped(source(0, 512, offset=512), source(512, 4096, "huge", 3 * TIB - 4096)), STOCK),
    # iomap
    ("iomap: 1 region on block devices, all on block borders", whole("disk", rw=True), ALL),
    ("iomap: 3 regions on block devices, all on block borders",
     mapped(source(0, 512, "disk"), hole(512, 512), source(1024, 512, "disk2", rw=True)), ALL),
    ("userspace: this kernel has no fuse-iomap", whole("disk"), STOCK),
    ("userspace: this kernel has no fuse-iomap", mapped(source(0, 512, "disk")), STOCK),
    ("userspace: region 1 starts at 700, not on a 512-byte block",
     mapped(source(0, 512, "disk"), source(700, 324, "disk")), ALL),
    ("userspace: region 0 ends at 100, not on a 512-byte block",
     mapped(source(0, 100, "disk"), size=512), ALL),
    ("userspace: region 0 shows disk from 100, not on a 512-byte block",
     mapped(source(0, 512, "disk", 100)), ALL),
    ("userspace: region 1 is of kind data, and fuse-iomap only has holes and devices",
     mapped(source(0, 512, "disk"), data(512, 512)), ALL),
    ("userspace: its size 700 is not a multiple of 512", mapped(source(0, 512, "disk"), size=700), ALL),
    ("userspace: it shows the same bytes of disk twice, which the kernel caches apart",
     mapped(source(0, 1024, "disk", rw=True), source(1024, 512, "disk", 512)), ALL),
    ("iomap: 2 regions on block devices, all on block borders",
     mapped(source(0, 1024, "disk"), source(1024, 512, "disk", 512)), ALL),
    # a source that nobody could look at
    ("userspace: gone could not be inspected", mapped(source(0, 512, "gone")), ALL),
    ("userspace: gone could not be inspected", whole("gone"), ALL),
]


@pytest.mark.parametrize(("expected", "file", "kernel"), ROWS)
def test_one_file(expected: str, file: FileSpec, kernel: Kernel) -> None:
    """A file by itself gets this mode with this reason."""
    assert expected == str(choose(file, SOURCES, kernel))


A_WHOLE, A_RW = whole(path="ro"), whole(rw=True, path="rw")
NEIGHBOURS: Sequence[tuple[str, Sequence[FileSpec], dict[str, str]]] = [
    ("whole files of one source share its pages", [A_RW, A_WHOLE, whole("alias-of-a", rw=True, path="x")],
     {"rw": "passthrough: it is the whole of a", "ro": "passthrough: it is the whole of a",
      "x": "passthrough: it is the whole of alias-of-a"}),
    ("an exact map is as good as whole", [A_RW, mapped(source(0, MIB), path="map")],
     {"rw": "passthrough: it is the whole of a", "map": "passthrough: it is the whole of a"}),
    ("a map keeps the writer in userspace, by identity, not by key",
     [A_RW, mapped(source(0, 512, "alias-of-a"), path="map")],
     {"rw": "userspace: its bytes are also shown by map, which the kernel caches apart",
      "map": "userspace: its bytes can be written through rw, and a composed file would not see that"}),
    ("the reader beside it sees what the daemon writes", [A_RW, A_WHOLE, mapped(source(0, 512), path="map")],
     {"rw": "userspace: its bytes are also shown by map, which the kernel caches apart",
      "ro": "passthrough: it is the whole of a",
      "map": "userspace: its bytes can be written through rw, and a composed file would not see that"}),
    ("a rw region elsewhere keeps a map from being composed",
     [mapped(source(0, 512, "b"), path="map"), mapped(source(0, 512, "b", 512, rw=True), path="rw")],
     {"map": "userspace: its bytes can be written through rw, and a composed file would not see that",
      "rw": "userspace: region 0 is rw, and a composed file is read-only"}),
    ("readers alone do not disturb each other", [A_WHOLE, mapped(source(0, 512), path="map")],
     {"ro": "passthrough: it is the whole of a", "map": "composed: 1 region, read-only, on regular files"}),
    ("a device written through iomap is shown by nobody else, by number, not by node",
     [whole("disk", rw=True, path="rw"), mapped(source(0, 512, "other-node"), path="map")],
     {"rw": "userspace: its bytes are also shown by map, which the kernel caches apart",
      "map": "userspace: its bytes are also shown by rw, which the kernel caches apart"}),
]


def choices(files: Sequence[FileSpec], kernel: Kernel = ALL,
            allowed: Sequence[Mode] | None = None) -> dict[str, str]:
    manifest = Manifest(Path("/m.yaml"), {}, {file.path: file for file in files})
    chosen = choose_all(manifest, SOURCES, kernel, *([] if allowed is None else [allowed]))
    return {path: str(choice) for path, choice in chosen.items()}


@pytest.mark.parametrize(("_name", "files", "expected"), NEIGHBOURS)
def test_files_over_the_same_source(_name: str, files: Sequence[FileSpec], expected: dict[str, str]) -> None:
    """A writer and those who show its bytes agree, whatever order they stand in."""
    assert expected == choices(files)
    assert expected == choices(files[::-1])


ASKED: Sequence[tuple[str, FileSpec, str]] = [
    ("userspace", whole(), "userspace: passthrough is not among the modes asked for"),
    ("userspace,passthrough", whole(), "userspace: userspace comes before passthrough in the modes asked for"),
    ("composed,passthrough", mapped(source(0, MIB)), "composed: 1 region, read-only, on regular files"),
    ("passthrough,userspace", mapped(source(0, 512)),
     "userspace: composed is not among the modes asked for"),
    ("passthrough", whole(), "passthrough: it is the whole of a"),
]


@pytest.mark.parametrize(("modes", "file", "expected"), ASKED)
def test_modes_order_and_forbid(modes: str, file: FileSpec, expected: str) -> None:
    """A list of modes is tried in its order; what is not in it is not used."""
    assert {"f": expected} == choices([file], allowed=parse_modes(modes))


def test_a_forced_mode_that_cannot_be_had() -> None:
    """Without userspace in the list, every file that fits none is named with its reason."""
    files = [whole(path="fits"), mapped(source(0, 512, rw=True), path="rw"), whole("disk", path="disk")]
    with pytest.raises(ModeError) as caught:
        choices(files, STOCK, (Mode.PASSTHROUGH, Mode.COMPOSED))
    assert ("rw: no mode of passthrough,composed can serve it: region 0 is rw, and a composed file is read-only\n"
            "disk: no mode of passthrough,composed can serve it: disk is a block device, and only regular files "
            "can be passed through; it follows the size of disk, and a composed file cannot"
            ) == str(caught.value)
    assert ["rw", "disk"] == list(caught.value.refused)


def test_a_million_regions_are_chosen_in_seconds() -> None:
    """The rules look at a region in microseconds."""
    regions = RegionMap(4096 * 1_000_000, (source(4096 * n, 4096, offset=4096 * (n * 7 % 256))
                                           for n in range(1_000_000)))
    assert Mode.COMPOSED is choose(FileSpec("f", Mapped(regions)), SOURCES, STOCK).mode


PARSED = [
    ("passthrough", (Mode.PASSTHROUGH,)),
    ("Userspace, iomap", (Mode.USERSPACE, Mode.IOMAP)),
    ("", "--modes '': '' is not one of passthrough, composed, iomap, userspace"),
    ("passthru", "--modes 'passthru': 'passthru' is not one of passthrough, composed, iomap, userspace; "
                 "did you mean passthrough?"),
    ("iomap,iomap", "--modes 'iomap,iomap': iomap stands twice"),
    ("iomap,", "--modes 'iomap,': '' is not one of passthrough, composed, iomap, userspace"),
]


@pytest.mark.parametrize(("text", "expected"), PARSED)
def test_parse_modes(text: str, expected: tuple[Mode, ...] | str) -> None:
    """What --modes takes, and what it says otherwise."""
    if isinstance(expected, str):
        with pytest.raises(UsageError) as caught:
            parse_modes(text)
        assert expected == str(caught.value)
    else:
        assert expected == parse_modes(text)
