"""The file system: what each operation of docs/contract.md section 4 answers. No FUSE types, no protocol.

Engines call these methods with inode numbers and plain values; failures are OSErrors with a
positive errno. Handles carry no state: whatever an operation needs follows from the inode, so that
a server which takes over from another needs nothing of its memory.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

from regionfs import extents
from regionfs.attributes import AttributeReader, Attributes, Changes, apply, map_text, source_xattr
from regionfs.content import descriptor
from regionfs.errors import RegionfsError
from regionfs.extents import BLOCK
from regionfs.inodes import Inodes
from regionfs.manifest.body import Whole
from regionfs.manifest.inspect import SourceFacts
from regionfs.manifest.schema import Manifest
from regionfs.modes.choose import Choice, Mode
from regionfs.regions import RegionMap
from regionfs.sharing import Span
from regionfs.source import Sources
from regionfs.stamps import old_enough
from regionfs.tree import Directory, FileNode, Node, Since, Tree
from regionfs.units import MAX_OFFSET

log = logging.getLogger("regionfs")

NAME_MAX = 255                    # bytes of a name
OURS = b"user.regionfs."          # names of extended attributes that no source's are shown under
MODE_XATTR, MAP_XATTR = b"user.regionfs.mode", b"user.regionfs.map"
_ACCESS_KINDS = os.O_RDONLY | os.O_WRONLY | os.O_RDWR


class Opened(NamedTuple):
    """How the kernel shall treat a new handle."""

    mode: Mode
    direct: bool      # userspace: every read and write comes to us, uncached
    keep_cache: bool  # userspace: what the page cache holds is still true
    stamps: tuple[tuple[int, ...], ...]  # of the sources, as SourceFacts.stamp
    settled: bool     # the stamps are so old that a later change gets others; see FileSystem.lasting
    since: int        # ns, monotonic; the sources were looked at after this
    news: int | None  # the kernel may hold a wrong size or time: it has to forget them, then Told.forgotten(news)


class FileSystem(Inodes):
    """One mounted manifest: what is asked of its inodes. Its sources stay the caller's to close."""

    def __init__(self, manifest: Manifest, sources: Sources, choices: Mapping[str, Choice],
                 generations: Mapping[str, int] | None = None, loaded: int | None = None,
                 since: Mapping[str, Since] | None = None) -> None:
        """`loaded` (ns since the epoch) is shown where no other time is known; `since` as Tree has it."""
        super().__init__(Tree(manifest, choices, sources, generations, since))
        self._attributes = AttributeReader(time.time_ns() if loaded is None else loaded)
        self._total: tuple[float, Tree | None, int] = (0, None, 0)  # blocks of all files: when, of which tree, how many
        self.on_open: Callable[[int], None] = lambda ino: None  # called before an open looks at the sources
        self.userspace = True  # a file whose kernel mode fails may be served here

    # names

    def lookup(self, parent: int, name: bytes) -> Attributes:
        """Attributes of `name` in directory `parent`. ENOENT, ENAMETOOLONG."""
        child = self._directory(parent).children.get(name)
        if child is None:
            raise OSError(errno.ENAMETOOLONG if len(name) > NAME_MAX else errno.ENOENT, os.fsdecode(name))
        return self._shown(child)

    def readdir(self, ino: int) -> list[tuple[bytes, int, int]]:
        """(name, inode, type bits) of a directory's entries in a stable order, without "." and ".."."""
        return self._directory(ino).entries()

    def parent(self, ino: int) -> int:
        """Inode number of the directory above; the root is its own."""
        return self._directory(ino).parent

    # attributes

    def getattr(self, ino: int) -> Attributes:
        """What stat(2) shows."""
        return self._shown(self._node(ino))

    def _shown(self, node: Node) -> Attributes:
        # asked before it is read: a reload may change it meanwhile
        return self._attributes.read(node, keep=not self._follows(node))

    def size(self, node: FileNode) -> int:
        """Bytes in a file now."""
        return self._attributes.size(node)

    def followers(self) -> list[int]:
        """Inodes of `whole` files whose source this mount may write: what stat(2) shows of them has to follow at once.

        Of all others it is soon enough to see other people's changes at the next open, or some time after.
        """
        return [node.ino for node in list(self.tree.nodes.values()) if self._follows(node)]

    def _follows(self, node: Node) -> bool:
        return isinstance(node, FileNode) and isinstance(node.spec.body, Whole) and self.is_written(node)

    def setattr(self, ino: int, changes: Changes) -> Attributes:
        """Change a `whole` rw file's source. Elsewhere EPERM, but for a truncate to the present size."""
        node = self.file(ino)
        body = node.spec.body
        if not isinstance(body, Whole) or not body.writable:
            return self._setattr_fixed(node, changes)
        fd = descriptor(node.sources, body.source, write=changes.size is not None)
        if changes.mode is not None and node.spec.mode is not None:
            raise OSError(errno.EPERM, "the manifest pins this file's mode")
        apply(changes, fd)
        return self._attributes.read(node, keep=False)

    def getxattr(self, ino: int, name: bytes) -> bytes:
        """One extended attribute. ENODATA when the file has none of that name."""
        node = self._node(ino)
        if isinstance(node, FileNode):
            if name == MODE_XATTR:
                return node.choice.mode.value.encode()
            if name == MAP_XATTR:
                return map_text(self.regions(node), self._attributes.size(node))
            if isinstance(node.spec.body, Whole) and not name.startswith(OURS):
                return source_xattr(descriptor(node.sources, node.spec.body.source), name)
        raise OSError(errno.ENODATA, os.fsdecode(name))

    def listxattr(self, ino: int, *, trusted: bool) -> list[bytes]:
        """Names of a `whole` file's extended attributes; with `trusted` those that only the system's root may see.

        Our own are answered by name and not listed: who copies all that is listed would copy them or fail.
        """
        node = self._node(ino)
        if not isinstance(node, FileNode) or not isinstance(node.spec.body, Whole):
            return []
        fd = descriptor(node.sources, node.spec.body.source)
        names = [os.fsencode(name) for name in os.listxattr(fd)]
        return [name for name in names
                if not name.startswith(OURS) and (trusted or not name.startswith(b"trusted."))]

    def setxattr(self, ino: int, name: bytes, value: bytes, flags: int) -> None:
        """Set on a `whole` rw file's source; EPERM elsewhere and for our own names."""
        os.setxattr(self._xattr_target(ino, name), name, value, flags)

    def removexattr(self, ino: int, name: bytes) -> None:
        """Remove from a `whole` rw file's source; EPERM elsewhere and for our own names."""
        os.removexattr(self._xattr_target(ino, name), name)

    # handles

    def open(self, ino: int, flags: int) -> Opened:
        """Check the sources and say how to cache. EIO when one failed, EROFS without a rw region.

        For writing also the errno that opening a rw source would have.
        """
        node = self.file(ino)
        body = node.spec.body
        if flags & _ACCESS_KINDS != os.O_RDONLY and not body.writable:
            raise OSError(errno.EROFS, node.spec.path)
        since, before = time.monotonic_ns(), node.cached
        answers = node.told.begin_open()
        self.on_open(ino)
        try:
            seen = self.look(node)
        except (RegionfsError, OSError) as error:
            if node.trouble != str(error):
                node.trouble = str(error)
                log.error("%s: cannot be opened: %s", node.spec.path, error)
            raise OSError(errno.EIO, node.spec.path) from error
        node.trouble = ""
        if flags & (_ACCESS_KINDS | os.O_TRUNC) != os.O_RDONLY:
            node.sources.check_writable(body.rw_sources)
        stamps = tuple([found.stamp for found in seen])
        now = time.time_ns()
        settled = False not in [old_enough(found, now) for found in seen]
        # filled before this open began: the loop answers opens after one that keeps, and asks nothing of `told`
        keep = before == stamps == node.cached
        if not keep:
            node.cached = None  # until what the kernel holds was dropped
        news = None
        if isinstance(body, Whole):
            news = answers if node.told.wrong(seen[0].shown) else None
        return Opened(node.choice.mode, self.uncached(node), keep, stamps, settled, since, news)

    def look_for_trouble(self, node: FileNode) -> str:
        """Why an open of the file would fail now, "" where it would not. May wait for its sources' file systems."""
        try:
            self.look(node)
        except (RegionfsError, OSError) as error:
            return str(error)
        node.trouble = ""
        return ""

    def look(self, node: FileNode) -> list[SourceFacts]:
        """What its sources are now. SourceError or OSError when one cannot serve this file."""
        needs, sources = node.spec.body.needs, node.sources
        return [sources.look(key, needs.get(key, 0)) for key in node.spec.body.sources]

    def lasting(self, node: FileNode, opened: Opened) -> object:
        """The stamps of an open as proof of what is read of the sources after this call; None where they prove nothing.

        As long as an open finds the same ones, that is what it would read itself.
        """
        lasting = opened.settled and all(map(node.sources.nobody_writes, node.spec.body.sources))
        return opened.stamps if lasting else None

    def fits_whole(self, node: FileNode, opened: Opened) -> bool:
        """False for a fixed-size passthrough file whose source has grown: its handles would see that."""
        body = node.spec.body
        if opened.mode is not Mode.PASSTHROUGH or isinstance(body, Whole):
            return True
        return os.fstat(self.source_fd(node)).st_size == body.regions.size

    def source_fd(self, node: FileNode) -> int:
        """The descriptor of a passthrough file's one source."""
        return descriptor(node.sources, node.spec.sources[0])

    def writes_whole(self, ino: int) -> bool:
        """Whether an inode is all of one source, which may be written."""
        node = self.tree.nodes.get(ino)
        return isinstance(node, FileNode) and isinstance(node.spec.body, Whole) and node.spec.body.writable

    def source_fds(self, node: FileNode) -> dict[str, int]:
        """Descriptors of all its sources, by key."""
        return {key: descriptor(node.sources, key) for key in node.spec.sources}

    def read_into(self, ino: int, offset: int, buffer: memoryview, *, paging: bool, flags: int = 0,
                  count: bool = True) -> int:
        """Fill `buffer` from `offset`; return how many bytes there are. `flags` as execute.read_into.

        `paging` tells that the kernel fills its page cache: it takes a short answer for end of file
        and shows zeros behind it, so then all bytes up to end of file come, or EIO. `count`: for status.
        """
        node = self.file(ino)
        try:
            done = node.content.read_into(offset, buffer, flags, paging)
        except RegionfsError as error:
            raise OSError(errno.EIO, str(error)) from error
        if count:
            node.counters.reads += 1
            node.counters.read_bytes += done
        return done

    def write(self, ino: int, offset: int, data: memoryview, *, paging: bool = False, append: bool = False,
              drop_setid: bool = False) -> int:
        """Write into rw regions, short at their border; `paging` for pages of a shared mapping."""
        node = self.file(ino)
        if not node.spec.body.writable:
            raise OSError(errno.EROFS, node.spec.path)
        count = node.content.write(offset, data, paging, append, drop_setid)
        node.counters.writes += 1
        node.counters.write_bytes += count
        return count

    def elsewhere(self, ino: int, offset: int, length: int) -> list[Span]:
        """Every other place that shows the bytes just written."""
        return self.sharing.elsewhere(ino, offset, length)

    def shares_writes(self, ino: int) -> bool:
        """True when bytes that it may write are shown elsewhere too."""
        return ino in self.sharing.writers

    def fsync(self, ino: int, data_only: bool) -> None:
        """Flush every rw source of the file; the first error is raised after all were tried."""
        node = self.file(ino)
        node.sources.sync(node.spec.rw_sources, data_only)

    def sync(self) -> None:
        """Flush every rw source of the mount."""
        written: dict[Sources, set[str]] = {}
        for node in list(self.tree.nodes.values()):
            if isinstance(node, FileNode) and node.spec.writable:
                written.setdefault(node.sources, set()).update(node.spec.rw_sources)
        for sources, keys in written.items():
            sources.sync(keys, False)

    def lseek(self, ino: int, offset: int, whence: int) -> int:
        """SEEK_DATA or SEEK_HOLE: holes of the map and holes inside the sources."""
        node = self.file(ino)
        if whence not in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(errno.EINVAL, f"whence {whence}")
        seek = extents.seek_data if whence == os.SEEK_DATA else extents.seek_hole
        return seek(self.regions(node, self._attributes.size(node)), node.sources, offset)

    def fallocate(self, ino: int, mode: int, offset: int, length: int) -> None:
        """`whole`: forwarded. Fixed size: punch and zero inside rw ground; allocate changes nothing; no growth."""
        node = self.file(ino)
        if not node.spec.writable:
            raise OSError(errno.EROFS, node.spec.path)
        node.content.fallocate(mode, offset, length)

    def statfs(self) -> tuple[int, int, int]:
        """(block size, blocks, files): totals of the composite files, a second old at most; never zero blocks."""
        when, tree, blocks = self._total
        if tree is not self.tree or time.monotonic() - when > 1:
            blocks = sum(-(-self._attributes.size(node) // BLOCK) for node in self.tree.files.values())
            self._total = time.monotonic(), self.tree, blocks
        return BLOCK, max(blocks, 1), len(self.tree.nodes)

    # inside

    def _node(self, ino: int) -> Node:
        try:
            return self.tree.nodes[ino]
        except KeyError:
            raise OSError(errno.ESTALE, f"inode {ino}") from None

    def file(self, ino: int) -> FileNode:
        """The file with this inode number. EISDIR, ESTALE."""
        node = self._node(ino)
        if isinstance(node, Directory):
            raise OSError(errno.EISDIR, f"inode {ino}")
        return node

    def _directory(self, ino: int) -> Directory:
        node = self._node(ino)
        if isinstance(node, FileNode):
            raise OSError(errno.ENOTDIR, node.spec.path)
        return node

    def _xattr_target(self, ino: int, name: bytes) -> int:
        node = self._node(ino)
        ours = name.startswith(OURS)
        if ours or not isinstance(node, FileNode) or not isinstance(node.spec.body, Whole) or not node.spec.writable:
            raise OSError(errno.EPERM, os.fsdecode(name))
        return descriptor(node.sources, node.spec.body.source)

    def uncached(self, node: FileNode) -> bool:
        """True for files whose reads and writes must not go through the kernel's page cache.

        Writers of bytes shown elsewhere: a cached write holds pages locked while the others' are
        dropped, and two of them could wait for each other. Error regions that share a page with
        good bytes: the page cache fails whole pages.
        """
        return self.shares_writes(node.ino) or self.written_past_us(node) or (
            node.spec.body.has_unaligned_errors(BLOCK))

    def regions(self, node: FileNode, size: int = MAX_OFFSET) -> RegionMap:
        """Its region map; a `whole` file's is one region over `size` bytes."""
        return node.spec.body.as_map(size)

    def _setattr_fixed(self, node: FileNode, changes: Changes) -> Attributes:
        owner = (changes.mode, changes.uid, changes.gid)
        if changes.size is None or changes.size != self._attributes.size(node) or owner != (None, None, None):
            raise OSError(errno.EPERM, f"{node.spec.path}: the manifest fixes its size and attributes")
        return self._attributes.read(node, keep=False)  # kernels before 6.16 ask not what came in between
