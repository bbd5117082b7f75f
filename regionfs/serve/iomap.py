"""iomap in the native engine: the kernel asks where a file's bytes lie, and reads and writes them itself.

    CONFIG   comes once, before any name is looked up: block size and limits; here the block devices of
             the mount's iomap files get their dev numbers, one each
    BEGIN    "what covers this byte?" -> one mapping, and by and by its neighbours (see Upserts)
    END, IOEND   the kernel is done with a mapping, or with a write: files have fixed sizes, so nothing follows

A file takes part from CONFIG on if its inode's attributes say so when the kernel first sees them. Whatever
stands against it is found out before: then it goes to userspace, with the reason and one log line. An
inode that takes part does so for good, also under the next server and after a reload, so questions about
it are answered whatever its file's mode is now.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol, cast

from regionfs.errors import RegionfsError
from regionfs.fs import FileSystem
from regionfs.modes import iomap
from regionfs.modes.choose import Mode
from regionfs.plan import Mapping
from regionfs.regions import Kind, RegionMap
from regionfs.serve.upserts import Batch, Send, Upserts
from regionfs.tree import FileNode
from regionfs.units import MAX_OFFSET, align_down
from regionfs.wire import abi, iomap_v7
from regionfs.wire.device import set_block_size
from regionfs.wire.iomap_v7 import BeginIn, BeginOut, ConfigFlag, ConfigIn, ConfigOut, IoendOut, Opcode, pack
from regionfs.wire.parse import Request

log = logging.getLogger("regionfs")

INODE_FLAGS = iomap_v7.ATTR_EXCLUSIVE | iomap_v7.ATTR_IOMAP
_REFUSES_THE_KIND = frozenset({errno.EPERM, errno.EBUSY, errno.EOPNOTSUPP})  # of BACKING_OPEN, not of one file


class Registry(Protocol):
    """What the device offers: numbers for descriptors."""

    def backing_device(self, device_fd: int) -> int:
        """A dev number for a block device. OSError when the kernel refuses."""

    def trial(self, source_fd: int) -> None:
        """Register a file and give its number back at once. OSError when the kernel refuses."""


class Mapped(NamedTuple):
    """What answers about one file are made of."""

    regions: RegionMap
    devs: dict[str, int]    # source key -> dev number
    boundary: bool          # on more than one device: write-back must not join its mappings
    first_rw: Mapping | None

    def io(self, mapping: Mapping) -> iomap_v7.Io:
        """A mapping of the planner in the kernel's words."""
        if mapping.kind is not Kind.SOURCE:
            return iomap_v7.hole(mapping.offset, mapping.length)
        return iomap_v7.mapped(mapping.offset, mapping.length, self.devs[mapping.source], mapping.address,
                               boundary=self.boundary)


class IomapSession:
    """The iomap files of one connection and their devices. Safe to use from many threads."""

    def __init__(self, fs: FileSystem, registry: Registry, send: Send, before_first: Callable[[], None]) -> None:
        """`send` writes a notification; `before_first` is called once, when the kernel has first asked."""
        self._fs = fs
        self._registry = registry
        self._lock = threading.RLock()
        self._block = 0                                       # bytes; 0 before configure()
        self._limit = align_down(MAX_OFFSET, iomap.BLOCKS[0])  # bytes; no file reaches further
        self._devs: dict[tuple[object, bool], int] = {}       # (identity, open for writing) -> dev number
        self._held: list[int] = []                            # descriptors that keep others away
        self._resumed = False                                 # a server before us has claimed devices
        self._files: dict[int, Mapped] = {}                   # by inode
        self.upserts = Upserts(send, before_first)
        self.table: dict[int, Callable[[Request], bytes]] = {
            Opcode.CONFIG: self._config, Opcode.BEGIN: self._begin, Opcode.END: _end, Opcode.IOEND: self._ioend,
            abi.Opcode.DESTROY: self._destroy}

    def configure(self, resumed: bool = False) -> None:
        """Register the devices of every iomap file; files that cannot take part go to userspace.

        `resumed`: on a connection that another server configured, whose devices the kernel still holds.
        """
        with self._lock:
            self._resumed = resumed
            mapped, backed = self._nodes(Mode.IOMAP), self._nodes(Mode.PASSTHROUGH, Mode.COMPOSED)
            self._block = iomap.block_size(iomap.granularity(self._regions(node)) for node in mapped)
            # a kernel that allows one kind a mount refuses the second: the first is what serves more bytes
            if self._bytes(mapped) >= self._bytes(backed):
                self._admit_all(mapped)
                self._keep_backed(backed if self._devs else [])
            else:
                self._keep_backed(backed)
                self._admit_all(mapped)
            files = self._fs.tree.files.values()
            others = sum(node.choice.mode is not Mode.IOMAP for node in files)
            if others and self._devs:
                log.warning("iomap serves %d of %d files; some fuse-iomap kernels then keep little unwritten data for "
                            "the whole mount: give the others one of their own", len(files) - others, len(files))

    def inode_flags(self, ino: int) -> int:
        """fuse_attr.flags of an inode, also of one the kernel has not seen yet."""
        return INODE_FLAGS if self.serves(ino) else 0

    def serves(self, ino: int) -> bool:
        """True when the kernel does this inode's I/O: its file is in iomap mode and its devices are known."""
        node = self._fs.tree.nodes.get(ino)
        if not isinstance(node, FileNode) or node.choice.mode is not Mode.IOMAP or not self._block:
            return False
        if ino not in self._files:  # came with a reload or a new server
            with self._lock:
                self._admit_all([node])
        return ino in self._files

    def close(self) -> None:
        """Stop telling, let go of the devices; the kernel keeps them until the mount is gone."""
        self.upserts.close()
        self._let_go()

    # requests

    def _config(self, request: Request) -> bytes:
        body = cast(ConfigIn, iomap_v7.body(request))
        self.configure()
        self._limit = min(self._limit, align_down(body.maxbytes, iomap.BLOCKS[0]))
        flags = (ConfigFlag.BLOCKSIZE | ConfigFlag.TIME | ConfigFlag.MAXBYTES | ConfigFlag.CACHE_MAXBYTES) & body.flags
        return pack(ConfigOut(flags, blocksize=self._block, time_gran=1, time_min=-2**63, time_max=2**63 - 1,
                              maxbytes=self._limit, cache_maxbytes=iomap_v7.CACHE_MAXBYTES))

    def _begin(self, request: Request) -> bytes:
        body, ino = cast(BeginIn, iomap_v7.body(request)), request.header.nodeid
        change = bool(body.opflags & iomap_v7.CHANGES)
        mapped = self._mapped(ino)
        read = mapped.io(iomap.begin(mapped.regions, body.pos, change=change, limit=self._limit))
        first_rw = None if mapped.first_rw is None else mapped.io(mapped.first_rw)
        self.upserts.add(Batch(ino, mapped.regions, body.pos, mapped.io, first_rw, change))
        return pack(BeginOut(read, iomap_v7.overwrite(read)))

    def _ioend(self, request: Request) -> bytes:
        iomap_v7.body(request)
        return pack(IoendOut(self._mapped(request.header.nodeid).regions.size))

    def _destroy(self, request: Request) -> bytes:
        """The mount ends: we hold no device any more when umount(2) returns."""
        self.upserts.stop()
        self._let_go()
        return b""

    # files and devices

    def _mapped(self, ino: int) -> Mapped:
        """What answers about an inode are made of. OSError(EIO) when its devices cannot be had."""
        mapped = self._files.get(ino)
        if mapped is None:
            with self._lock:
                if not self._block:
                    self.configure(resumed=True)
                try:
                    mapped = self._files[ino] = self._map(self._fs.file(ino))
                except RegionfsError as error:
                    raise OSError(errno.EIO, str(error)) from error
        return mapped

    def _admit_all(self, nodes: Iterable[FileNode]) -> None:
        refused: dict[str, list[FileNode]] = defaultdict(list)
        for node in nodes:
            try:
                self._files[node.ino] = self._admit(node)
            except OSError as error:
                where = f"{error.filename}: " if error.filename else ""
                refused[f"iomap failed: {where}{error.strerror}"].append(node)
            except RegionfsError as error:
                refused[f"iomap failed: {error}"].append(node)
        for why, group in refused.items():
            self._fall_back(group, why)

    def _admit(self, node: FileNode) -> Mapped:
        found = iomap.granularity(self._regions(node))
        if found < self._block:
            raise OSError(errno.EINVAL, f"it lies on {found}-byte blocks, the mount began with {self._block}")
        return self._map(node)

    def _map(self, node: FileNode) -> Mapped:
        regions = self._regions(node)
        devs = {key: self._dev(node, key) for key in node.spec.sources}
        first_rw = None
        if node.spec.writable:
            planned = iomap.covering(regions, 0)
            first_rw = next((mapping for mapping in planned if mapping.writable), None)
        return Mapped(regions, devs, len(set(devs.values())) > 1, first_rw)

    def _dev(self, node: FileNode, key: str) -> int:
        """The device's number, registered when first needed."""
        device = node.sources.facts(key).identity, node.sources.writer(key) is not None
        if device not in self._devs:
            if len(self._devs) >= iomap.MAX_DEVICES:
                raise OSError(errno.ENOSPC, f"the kernel takes {iomap.MAX_DEVICES} block devices a mount")
            try:
                self._held.append(self._open(node, key))
                self._devs[device] = self._registry.backing_device(self._held[-1])
            except OSError as error:
                raise OSError(error.errno, error.strerror, key) from error
        return self._devs[device]

    def _open(self, node: FileNode, key: str) -> int:
        """A descriptor of the device, claimed and prepared, or left as a server before us has done that."""
        try:
            fd = node.sources.open_device(key, claim=True)
            try:
                set_block_size(fd, self._block)
            except BaseException:
                os.close(fd)
                raise
            return fd
        except OSError as error:
            if not self._resumed or error.errno != errno.EBUSY:
                raise
            return node.sources.open_device(key, claim=False)

    def _let_go(self) -> None:
        with self._lock:
            while self._held:
                os.close(self._held.pop())

    def _keep_backed(self, nodes: list[FileNode]) -> None:
        """Send files with a backing file to userspace if the kernel takes none of them here."""
        if not nodes:
            return
        fds = self._fs.source_fds(nodes[0])
        try:
            self._registry.trial(next(iter(fds.values())))
        except OSError as error:
            if error.errno in _REFUSES_THE_KIND:
                self._fall_back(nodes, f"the kernel takes no backing files beside iomap ({error.strerror})")

    def _nodes(self, *modes: Mode) -> list[FileNode]:
        return [node for node in self._fs.tree.files.values() if node.choice.mode in modes]

    def _regions(self, node: FileNode) -> RegionMap:
        return self._fs.regions(node, self._fs.size(node))

    def _bytes(self, nodes: Iterable[FileNode]) -> int:
        return sum(self._fs.size(node) for node in nodes)

    def _fall_back(self, nodes: list[FileNode], why: str) -> None:
        more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
        log.warning("%s%s: served in userspace: %s", nodes[0].spec.path, more, why)
        self._fs.fall_back(nodes, why)


def _end(request: Request) -> bytes:
    iomap_v7.body(request)
    return b""
