"""kerchunk references, versions 0 and 1: keys whose bytes lie in ranges of other files. Import only.

Source: fsspec's ReferenceFileSystem specification: a mapping of keys to `[url]`, to `[url, offset,
length]`, to inline text, after "base64:" in base64, or to an object, which is JSON text. Version 0 is the
bare mapping, version 1 has it under `refs` (fsspec's implementations/reference.py tells them apart by
`version`). A composite file per key. Only local files can be sources; templates and generated
references are programs, not a map, and are refused.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import Any
from urllib.parse import unquote, urlsplit

from regionfs.formats.text import bounded, clip, json_value, member, show
from regionfs.formats.values import Draft, Foreign, FormatError, Imported
from regionfs.regions import Kind, Region

# a key of Zarr or the first value of a bare mapping: a list that begins with a URL
_BARE = re.compile(rb'\{\s*"[^"]*"\s*:\s*(?:\[\s*"|"base64:)|'
                   rb'"(?:[^"]*/)?(?:\.zgroup|\.zattrs|\.zarray|\.zmetadata|zarr\.json)"\s*:')


def sniff(head: bytes) -> bool:
    """True for the first bytes of references."""
    return head.lstrip().startswith(b"{") and (b'"refs"' in head or _BARE.search(head) is not None)


def read(foreign: Foreign) -> Imported:
    """A composite file per key, ro, below the directory that the caller named."""
    place = str(foreign.path)
    draft = Draft(foreign)
    for key, reference in _references(json_value(foreign), place).items():
        name = f"{foreign.name}/{key}" if foreign.name else key
        where = f"{place}: refs[{clip(key)}]"
        match reference:
            case str():
                data = _inline(reference, where)
                draft.add(name, len(data), [Region(0, len(data), Kind.DATA, data=data)] if data else [])
            case dict():
                data = _inline(json.dumps(reference), where)
                draft.add(name, len(data), [Region(0, len(data), Kind.DATA, data=data)])
            case [str(url)]:
                source = draft.source(_path(url, where))
                draft.claim(source, where)
                draft.add_whole(name, source)
            case [str(url), offset, length]:
                start = bounded(offset, where, "offset")
                size = bounded(length, where, "length", least=1)
                bounded(start + size, where, "the end in the file")
                region = Region(0, size, Kind.SOURCE, draft.source(_path(url, where)), start)
                draft.add(name, size, [draft.take(region, where)])
            case _:
                raise FormatError(f"{where}: {show(reference)} is not [URL], [URL, OFFSET, LENGTH], text or an object")
    if not draft.files:
        raise FormatError(f"{place}: refs is empty")
    return draft.done()


def _references(document: Any, place: str) -> dict[str, Any]:
    """The mapping of keys, whatever the version."""
    if isinstance(document, dict) and not isinstance(document.get("version"), int) and "refs" not in document:
        return document
    if (version := member(document, "version", int, place) if "version" in document else 1) != 1:
        raise FormatError(f"{place}: version {version} is not 1, nor the bare mapping of version 0")
    for word in ("templates", "gen"):
        if document.get(word):
            raise FormatError(f"{place}: {word} must be worked out first; write plain references")
    refs: dict[str, Any] = member(document, "refs", dict, place)
    return refs


def _inline(text: str, place: str) -> bytes:
    try:
        if text.startswith("base64:"):
            return base64.b64decode(text.removeprefix("base64:"), validate=True)
        return text.encode()
    except (binascii.Error, UnicodeEncodeError) as error:
        raise FormatError(f"{place}: {clip(text)} cannot be decoded: {error}") from None


def _path(url: str, place: str) -> str:
    """The local path that a URL names."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise FormatError(f"{place}: {clip(url)} is not a URL: {error}") from None
    if "{{" in url:
        raise FormatError(f"{place}: {clip(url)} has a template, which must be worked out first")
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return unquote(parts.path)
    if "://" in url:
        raise FormatError(f"{place}: {clip(url)} is not a local file, which a source must be")
    return url
