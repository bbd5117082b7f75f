"""Strict reading of foreign text: UTF-8, lines with their place, bounded numbers, JSON without surprises.

Every failure is a FormatError that says where and what. Knows no format.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from regionfs.formats.values import Foreign, FormatError
from regionfs.units import MAX_OFFSET

MAX_CONTENT = 64 << 20  # bytes of a foreign file, as for manifests (docs/contract.md section 3)
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_KINDS = {dict: "an object", str: "text", int: "a whole number", bool: "true or false"}
_DIGITS = {10: re.compile(r"[0-9]{1,19}"), 16: re.compile(r"0[xX][0-9a-fA-F]{1,16}")}


def decode(foreign: Foreign, encoding: str = "utf-8") -> str:
    """The content as text: in `encoding`, or as its byte order mark says. NULs that fill up its end are dropped.

    Raises FormatError with the byte where it is none.
    """
    content, encoding = _unmarked(foreign.content, encoding)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise FormatError(f"{foreign.path}: byte {error.start} is not {encoding} text") from None
    text = text.rstrip("\0") or text
    if "\0" in text:
        raise FormatError(f"{foreign.path}: character {text.index(chr(0))} is NUL; this is not a text file")
    return text


def plain(head: bytes) -> bytes:
    """The first bytes of a text in UTF-8, whatever its byte order mark says; bytes without one as they are."""
    content, encoding = _unmarked(head, "")
    return content.decode(encoding, "replace").encode() if encoding else content


def _unmarked(content: bytes, encoding: str) -> tuple[bytes, str]:
    """Windows' programs put a mark first, and some of them write UTF-16."""
    for mark, name in _MARKS.items():
        if content.startswith(mark):
            return content.removeprefix(mark), name
    return content, encoding


def lines(foreign: Foreign, text: str | None = None) -> Iterator[tuple[str, str]]:
    """(place, line) of every line that is not empty; the place is for messages."""
    for number, line in enumerate((decode(foreign) if text is None else text).split("\n"), 1):
        if line := line.strip():
            yield f"{foreign.path}:{number}", line


def number(text: str, place: str, what: str, *, base: int = 10, unit: int = 1) -> int:
    """The number `text` in bytes: decimal, or with base 16 hex after 0x, times `unit`."""
    if not _DIGITS[base].fullmatch(text):
        form = "a decimal number" if base == 10 else "hex after 0x"
        raise FormatError(f"{place}: {what} {clip(text)} is not {form}")
    return bounded(int(text, base), place, what, unit=unit)


def bounded(value: object, place: str, what: str, *, least: int = 0, unit: int = 1) -> int:
    """`value` in bytes where it is an integer from `least` to 2^63 - 1."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise FormatError(f"{place}: {what} {show(value)} is not a whole number")
    if not least * unit <= value * unit <= MAX_OFFSET:
        raise FormatError(f"{place}: {what} {show(value)} is outside {least} to {MAX_OFFSET // unit}")
    return value * unit


def json_value(foreign: Foreign) -> Any:
    """The content as JSON; duplicate keys, NaN and deep nesting are refused."""
    text = decode(foreign)
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise FormatError(f"{foreign.path}:{error.lineno}:{error.colno}: not JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{foreign.path}: not JSON that can be used: {error}") from None


def member(value: Any, key: str, kind: type, place: str) -> Any:
    """`value[key]`, which must be there and of `kind`."""
    if not isinstance(value, dict):
        raise FormatError(f"{place}: an object is wanted here, not {show(value)}")
    if key not in value:
        raise FormatError(f"{place}: {key} is missing")
    if not isinstance(value[key], kind) or (kind is int and isinstance(value[key], bool)):
        raise FormatError(f"{place}: {key} {show(value[key])} is not {_KINDS[kind]}")
    return value[key]


def show(value: object) -> str:
    """`value` as JSON writes it, shortened."""
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def clip(text: str) -> str:
    """`text` in quotes, shortened."""
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {clip(key)} stands twice in one object")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number of JSON")
