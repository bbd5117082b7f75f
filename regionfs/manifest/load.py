"""YAML text -> Manifest, with every problem of the text at once (docs/contract.md section 3).

Sources are inspected, never opened for their bytes; only `data: {file: ...}` is read. Whatever is
wrong, a missing or unreadable manifest included, is a ManifestError: the caller handles one class.
"""

from __future__ import annotations

import errno
import gc
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from regionfs.manifest.body import Mapped, Whole
from regionfs.manifest.inline import InlineReader
from regionfs.manifest.inspect import Avoid, Way, no_path, url_hint, why_no_text
from regionfs.manifest.parse import Map, Node, Text, parse
from regionfs.manifest.region import RegionReader, read_total
from regionfs.manifest.report import Reporter, child, clip
from regionfs.manifest.schema import VERSION, FileSpec, Manifest
from regionfs.manifest.sources import SourceTable
from regionfs.manifest.table import TableReader
from regionfs.manifest.values import describe_node, knows_all, read_access, read_map, read_mode, read_text
from regionfs.regions import RegionMap
from regionfs.units import format_size

LIMIT = 64 * 2**20  # bytes of a manifest, unless told otherwise
PATH_LIMIT = 4095    # PATH_MAX less its NUL; who opens the file cannot say more
FILE_KEYS = ("size", "mode", "regions", "whole", "access")


def load(path: Path, *, limit: int | None = LIMIT, confine: Path | None = None, avoid: Avoid = no_path) -> Manifest:
    """Read the manifest at `path`, at most `limit` bytes of it; None lifts the limits.

    With `confine` (absolute, resolved) sources and inline files lie beneath that directory. No path is touched
    that `avoid` says why of: who loads may have to answer the calls on it.

    Raises ManifestError with every problem; a file that cannot be read is a problem at line 1.
    """
    report = Reporter(str(path))
    try:
        if why := avoid(path.absolute()):
            raise report.fatal(1, 1, f"cannot be read: {why}")
        with _open(path) as stream:
            size = os.fstat(stream.fileno()).st_size
            if limit is not None and size > limit:
                raise report.fatal(1, 1, f"{size} bytes are over the limit of {format_size(limit)}")
            data = stream.read(-1 if limit is None else limit + 1)
    except (OSError, ValueError) as error:
        raise report.fatal(1, 1, f"cannot be read: {getattr(error, 'strerror', None) or error}"
                           f"{url_hint(path)}") from error
    if limit is not None and len(data) > limit:
        raise report.fatal(1, 1, f"the text is over the limit of {format_size(limit)}")
    return _load(data, path, report, bounded=limit is not None, confine=confine, avoid=avoid)


def _open(path: Path) -> BinaryIO:
    """The text: of a regular file, for no other is sure to answer, or to end. OSError."""
    def check(status: os.stat_result) -> None:
        if why := why_no_text(status):
            directory = stat.S_ISDIR(status.st_mode)
            raise OSError(errno.EINVAL, os.strerror(errno.EISDIR) if directory else why)

    check(path.stat())  # before it is opened, which may have an effect on a device
    stream = open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK | os.O_NOCTTY))
    try:
        check(os.fstat(stream.fileno()))
    except OSError:
        stream.close()
        raise
    return stream


def loads(text: bytes | str, path: Path) -> Manifest:
    """The manifest in `text`, as if it had been read from `path`, which need not exist.

    Raises ManifestError with every problem.
    """
    report = Reporter(str(path))
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return _load(data, path, report, bounded=True)


def _load(data: bytes, path: Path, report: Reporter, *, bounded: bool, confine: Path | None = None,
          avoid: Avoid = no_path) -> Manifest:
    with _no_collection():
        return _Loader(path, report, Way(confine, avoid), bounded).load(parse(data, report, bounded=bounded))


@contextmanager
def _no_collection() -> Iterator[None]:
    """Millions of nodes, none in a cycle: looking for garbage among them takes as long as the load."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _directories(names: Iterable[str]) -> dict[str, str]:
    """Each name that is a directory of others, with one of them."""
    # with the lowest character for its slashes, what is below a name sorts right behind it
    ordered = sorted(names, key=lambda name: name.replace("/", "\0"))
    return {name: after for name, after in pairwise(ordered) if after.startswith(f"{name}/")}


class _Loader:
    def __init__(self, path: Path, report: Reporter, way: Way, bounded: bool) -> None:
        self._path = path.absolute()
        self._report = report
        self._confine = way.confine
        self._sources = SourceTable(report, self._path.parent, way)
        self._inline = InlineReader(report, self._path.parent, way)
        self._tables = TableReader(report, self._sources, self._path.parent, way, bounded=bounded)

    def load(self, root: Map) -> Manifest:
        fields = read_map(self._report, root, "", ("regionfs", "sources", "files")) or {}
        self._check_version(fields, root)
        if "sources" in fields:
            self._sources.declare(fields["sources"])
        files = {}
        if "files" in fields:
            files = self._files(fields["files"])
        elif knows_all(root, fields):
            self._report.problem(root, "", "files is missing")
        self._report.finish()
        tables = {spec.table for spec in files.values() if spec.table is not None}
        return Manifest(self._path, self._sources.specs, files, self._confine, (*sorted(tables), *self._inline.paths))

    def _check_version(self, fields: dict[str, Node], root: Map) -> None:
        node = fields.get("regionfs")
        if node is None and not knows_all(root, fields):
            return
        if node is None:
            self._report.problem(root, "", f"regionfs is missing; write regionfs: {VERSION} first")
        elif not isinstance(node, Text) or node.text != str(VERSION):
            self._report.problem(node, "regionfs", f"version {VERSION} is wanted here, found {describe_node(node)}")

    def _files(self, node: Node) -> dict[str, FileSpec]:
        if not isinstance(node, Map):
            self._report.problem(node, "files", f"paths are wanted here, found {describe_node(node)}")
            return {}
        files = {}
        below = _directories(node.entries)
        for name, (key, value) in node.entries.items():
            path = child("files", name)
            self._check_name(key, path, below.get(name))
            if spec := self._file(name, value, path):
                files[name] = spec
        return files

    def _check_name(self, key: Text, path: str, below: str | None) -> None:
        if read_text(self._report, key, path, "a path") is None:
            return
        if len(key.text) > PATH_LIMIT:
            self._report.problem(key, path, f"a path of more than {PATH_LIMIT} characters")
            return
        if below is not None:
            self._report.problem(key, path, f"this file is also the directory of {clip(below)}")
        parts = key.text.split("/")
        if key.text.startswith("/"):
            self._report.problem(key, path, "a path inside the mount does not begin with '/'")
        elif "" in parts or "." in parts or ".." in parts:
            self._report.problem(key, path, "a path inside the mount has no empty, '.' or '..' part")
        if "\0" in key.text:
            self._report.problem(key, path, "a path cannot hold a NUL character")
        if any(len(part.encode("utf-8", "replace")) > 255 for part in parts):
            self._report.problem(key, path, "a part of this path is longer than 255 bytes")

    def _file(self, name: str, node: Node, path: str) -> FileSpec | None:
        fields = read_map(self._report, node, path, FILE_KEYS)
        if fields is None:
            return None
        if ("regions" in fields) == ("whole" in fields):
            if "whole" in fields or knows_all(node, fields):
                both = "both" if "whole" in fields else "neither"
                self._report.problem(node, path, f"a file has either regions or whole; here {both}")
            return None
        if "whole" in fields:
            return self._whole(name, fields, path)
        mode = read_mode(self._report, fields["mode"], child(path, "mode")) if "mode" in fields else None
        if "access" in fields:
            where = child(path, "access")
            self._report.problem(fields["access"], where, "access is for whole or for a region")
        node, where, size_path = fields["regions"], child(path, "regions"), child(path, "size")
        if isinstance(node, Map):
            table = self._tables.read(node, where)
            size = read_total(self._report, fields.get("size"), size_path, 0 if table is None else table.end)
            if table is None or size is None:
                return None
            regions = RegionMap.from_columns(size, table.names, table.columns)
            return FileSpec(name, Mapped(regions), mode, table.path)
        reader = RegionReader(self._report, self._sources, self._inline, where)
        found = reader.read(node, fields.get("size"), size_path)
        return None if found is None else FileSpec(name, Mapped(found), mode)

    def _whole(self, name: str, fields: dict[str, Node], path: str) -> FileSpec | None:
        for key in ("size", "mode"):
            if key in fields:
                self._report.problem(fields[key], child(path, key), f"a whole file has its source's {key}")
        source = self._sources.use(fields["whole"], child(path, "whole"))
        where = child(path, "access")
        writable = read_access(self._report, fields["access"], where) if "access" in fields else False
        if source is None or writable is None:
            return None
        if writable:
            self._sources.check_writable(source, fields["access"], where)
        return FileSpec(name, Whole(source, writable))
