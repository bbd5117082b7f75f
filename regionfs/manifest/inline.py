"""`data:` -> bytes: hex, base64, text, or a small file taken in when the manifest is loaded.

Inline files are copied into memory, so together they are bounded; what is larger is a source.
"""

from __future__ import annotations

import base64
import binascii
from pathlib import Path

from regionfs.errors import SourceError
from regionfs.manifest.confine import reach
from regionfs.manifest.inspect import Way, open_at_once
from regionfs.manifest.parse import Node
from regionfs.manifest.report import Reporter, child
from regionfs.manifest.values import knows_all, read_map, read_path, read_text
from regionfs.units import format_size

FILE_LIMIT = 64 * 2**20  # bytes of all inline files of a manifest
_NO_SPACE = dict.fromkeys(map(ord, " \t\r\n"))
KINDS = ("hex", "base64", "text", "file")


class InlineReader:
    """Reads `data` nodes of one manifest; an inline file used twice is read once."""

    def __init__(self, report: Reporter, directory: Path, way: Way) -> None:
        self._report = report
        self._directory = directory
        self._way = way
        self._files: dict[str, bytes | None] = {}
        self._left = FILE_LIMIT

    @property
    def paths(self) -> list[Path]:
        """The files that bytes were read from."""
        return [self._directory / written for written in self._files]

    def read(self, node: Node, path: str) -> bytes | None:
        """The bytes of a `data` mapping, at least one."""
        fields = read_map(self._report, node, path, KINDS)
        if fields is None:
            return None
        if not fields and not knows_all(node, fields):
            return None
        if len(fields) != 1:
            given = " and ".join(fields) or "none"
            self._report.problem(node, path, f"data has exactly one of {', '.join(KINDS)}; here {given}")
            return None
        ((kind, value),) = fields.items()
        data = self._decode(kind, value, child(path, kind))
        if data == b"":
            self._report.problem(value, child(path, kind), "there are no bytes")
            return None
        return data

    def _decode(self, kind: str, node: Node, path: str) -> bytes | None:
        if kind == "file":
            return self._file(node, path)
        text = read_text(self._report, node, path)
        if text is None:
            return None
        try:
            match kind:
                case "hex":
                    return bytes.fromhex(text)
                case "base64":
                    return base64.b64decode(text.translate(_NO_SPACE), validate=True)
                case _:
                    return text.encode()
        except binascii.Error as error:
            self._report.problem(node, path, f"not base64: {str(error).lower()}")
        except UnicodeEncodeError:
            self._report.problem(node, path, "half of a surrogate pair cannot be written as UTF-8")
        except ValueError:
            self._report.problem(node, path, "not hex: two digits 0-9 a-f for each byte")
        return None

    def _file(self, node: Node, path: str) -> bytes | None:
        written = read_path(self._report, node, path)
        if written is None:
            return None
        if written not in self._files:
            self._files[written] = self._load(written, node, path)
        return self._files[written]

    def _load(self, written: str, node: Node, path: str) -> bytes | None:
        file = self._directory / written
        try:
            facts = self._way.inspect(file)
            if facts.size > self._left:
                self._report.problem(node, path, f"{written} has {facts.size} bytes; inline files may hold "
                                                 f"{format_size(FILE_LIMIT)} together: make it a source")
                return None
            with reach(file, self._way.confine) as here, open(here, "rb", opener=open_at_once) as stream:
                data = stream.read(facts.size)
        except SourceError as error:
            self._report.problem(node, path, str(error))
            return None
        except OSError as error:
            self._report.problem(node, path, f"{written}: {error.strerror}")
            return None
        self._left -= len(data)
        return data
