"""kerchunk references, version 1: keys whose bytes lie in ranges of other files. Import only.

Source: fsspec's ReferenceFileSystem specification ("Version 1"): `refs` maps a key to `[url]`, to
`[url, offset, length]` or to inline text, after "base64:" in base64. A composite file per key. Only local
files can be sources; templates and generated references are programs, not a map, and are refused.
"""

from __future__ import annotations

import base64
import binascii
from urllib.parse import unquote, urlsplit

from regionfs.formats.text import bounded, clip, json_value, member, show
from regionfs.formats.values import Draft, Foreign, FormatError, Imported
from regionfs.regions import Kind, Region


def sniff(head: bytes) -> bool:
    """True for the first bytes of references."""
    return head.lstrip().startswith(b"{") and b'"refs"' in head and b'"version"' in head


def read(foreign: Foreign) -> Imported:
    """A composite file per key, ro, below the directory that the caller named."""
    place = str(foreign.path)
    document = json_value(foreign)
    if member(document, "version", int, place) != 1:
        raise FormatError(f"{place}: version {document['version']} is not 1")
    for word in ("templates", "gen"):
        if document.get(word):
            raise FormatError(f"{place}: {word} must be worked out first; write plain references")
    draft = Draft(foreign)
    for key, reference in member(document, "refs", dict, place).items():
        name = f"{foreign.name}/{key}" if foreign.name else key
        where = f"{place}: refs[{clip(key)}]"
        match reference:
            case str():
                data = _inline(reference, where)
                draft.add(name, len(data), [Region(0, len(data), Kind.DATA, data=data)] if data else [])
            case [str(url)]:
                draft.add_whole(name, draft.source(_path(url, where)))
            case [str(url), offset, length]:
                start = bounded(offset, where, "offset")
                size = bounded(length, where, "length", least=1)
                bounded(start + size, where, "the end in the file")
                draft.add(name, size, [Region(0, size, Kind.SOURCE, draft.source(_path(url, where)), start)])
            case _:
                raise FormatError(f"{where}: {show(reference)} is not [URL], [URL, OFFSET, LENGTH] or text")
    if not draft.files:
        raise FormatError(f"{place}: refs is empty")
    return draft.done()


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
