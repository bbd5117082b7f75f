"""What stat(2) shows of the tree's nodes: sizes, times, owners and allocated blocks.

A fixed-size file has the size and mode of its manifest, the newest of its sources' times and of its entry's, and the
daemon's owner; a `whole` file has its source's own attributes, as a bind mount would. The map as an extended
attribute is written here too.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import NamedTuple

from regionfs import execute, extents
from regionfs.capabilities import Capability, raised
from regionfs.errors import RegionfsError
from regionfs.manifest.body import Whole
from regionfs.manifest.inspect import SourceFacts
from regionfs.regions import Kind, RegionMap
from regionfs.source import Sources
from regionfs.tree import Directory, FileNode, Node

XATTR_LIMIT = 1 << 16   # bytes of an extended attribute's value, XATTR_SIZE_MAX of linux/limits.h
_LEAST = 70              # bytes of a region as JSON, at least


class Attributes(NamedTuple):
    """struct stat, as far as a composite file has one; times in ns, `blocks` in 512-byte units.

    And whether the kernel may `keep` it for a while.
    """

    ino: int
    size: int
    blocks: int
    atime: int
    mtime: int
    ctime: int
    mode: int
    nlink: int
    uid: int
    gid: int
    keep: bool = True


class Changes(NamedTuple):
    """What setattr shall change; None leaves alone. Times in ns."""

    size: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    atime: int | None = None
    mtime: int | None = None
    drop_setid: bool = False  # the change takes set-id bits from the file, as write(2) does


def apply(changes: Changes, fd: int) -> None:
    """Make the changes to the open file `fd`. OSError at the first that fails."""
    if changes.size is not None:
        os.ftruncate(fd, changes.size)
    if changes.drop_setid:
        execute.drop_setid(fd)
    if changes.mode is not None:
        # the kernel has checked who asks: a group that is not this process's is no reason to drop the set-gid bit
        with raised(Capability.FSETID):
            os.fchmod(fd, stat.S_IMODE(changes.mode))
    if changes.uid is not None or changes.gid is not None:
        os.fchown(fd, -1 if changes.uid is None else changes.uid, -1 if changes.gid is None else changes.gid)
    if changes.atime is not None or changes.mtime is not None:
        found = os.fstat(fd)
        os.utime(fd, ns=(found.st_atime_ns if changes.atime is None else changes.atime,
                         found.st_mtime_ns if changes.mtime is None else changes.mtime))


class AttributeReader:
    """Attributes of nodes; `time` (ns) is what has no source to take it from."""

    def __init__(self, time: int) -> None:
        self._time = time
        self._uid, self._gid = os.getuid(), os.getgid()

    def read(self, node: Node, *, keep: bool) -> Attributes:
        """What stat(2) shows of a node; `keep`: the kernel may keep it, unless an open comes in between."""
        if isinstance(node, Directory):
            time = node.since.shown or self._time
            return Attributes(node.ino, 0, 0, time, time, time, stat.S_IFDIR | 0o555, node.links, self._uid, self._gid)
        if isinstance(node.spec.body, Whole):
            return self._whole_attributes(node, node.spec.body.source, keep=keep)
        seen = [_last_seen(node.sources, key) for key in node.spec.body.sources]
        mtime = ctime = node.since.shown or self._time
        if seen:
            mtime = node.since.latest(max(found.mtime_ns for found in seen))
            ctime = node.since.latest(max(found.ctime_ns for found in seen))
        return Attributes(node.ino, node.content.size(), self._allocated(node, seen), mtime, mtime, ctime,
                          stat.S_IFREG | node.spec.permissions, 1, self._uid, self._gid)

    def _whole_attributes(self, node: FileNode, key: str, *, keep: bool) -> Attributes:
        """The source's own, less what the mount does not give: write bits of a ro file."""
        opens = node.told.opens
        found, spec = node.sources.status(key), node.spec
        mode, mtime, ctime = found.st_mode & (0o7777 if spec.writable else 0o7555), found.st_mtime_ns, found.st_ctime_ns
        size, blocks = found.st_size, found.st_blocks
        if stat.S_ISBLK(found.st_mode):
            size = node.sources.device_size(key)
            blocks = -(-size // 512)
        keep = keep and node.told.keep((size, mtime, ctime), opens)
        if ctime < node.since.seen:  # the entry came to show this source after its last change
            mtime = ctime = node.since.shown
        return Attributes(node.ino, size, blocks, found.st_atime_ns, mtime, ctime,
                          stat.S_IFREG | (mode if spec.mode is None else spec.mode), 1, found.st_uid, found.st_gid,
                          keep)

    def _allocated(self, node: FileNode, seen: list[SourceFacts]) -> int:
        """512-byte units with data; counted again when a source changed."""
        if node.allocated is None or node.allocated[0] != seen:
            try:
                units = -(-extents.allocated(node.spec.regions, node.sources) // 512)
            except (RegionfsError, OSError):
                units = -(-node.content.size() // 512)
            node.allocated = (seen, units)
        return node.allocated[1]

    def size(self, node: FileNode) -> int:
        """Bytes in the file now."""
        return node.content.size()


def _last_seen(sources: Sources, key: str) -> SourceFacts:
    """The source as it is, or, where it can serve no more, as it was: stat goes on, open tells."""
    try:
        return sources.look(key)
    except (RegionfsError, OSError):
        return sources.facts(key)


def source_xattr(fd: int, name: bytes) -> bytes:
    """An extended attribute of a source open as `fd`. OSError.

    A file system that knows no ACLs has none: the kernel asks for one before it lets anybody in.
    """
    try:
        return os.getxattr(fd, name)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP and name.startswith(b"system.posix_acl_"):
            raise OSError(errno.ENODATA, os.fsdecode(name)) from error
        raise


def map_text(regions: RegionMap, size: int) -> bytes:
    """The region map as JSON, for an extended attribute; only its length where the kernel would not take all of it."""
    if len(regions) * _LEAST <= XATTR_LIMIT:
        text = json.dumps([_described(regions, index, size) for index in range(len(regions))
                           if regions.starts[index] < size], separators=(",", ":")).encode()
        if len(text) <= XATTR_LIMIT:
            return text
    return json.dumps({"regions": len(regions), "see": "regionfs show --json"}).encode()


def _described(regions: RegionMap, index: int, size: int) -> dict[str, object]:
    """One region as plain values: start, length, kind, access, source, offset."""
    region = regions[index]
    return {"start": region.start, "length": min(region.end, size) - region.start, "kind": region.kind.value,
            "access": "rw" if region.writable else "ro", "source": region.source or None,
            "offset": region.offset if region.kind is Kind.SOURCE else None}
