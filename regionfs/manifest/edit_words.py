"""How regions are written: strings, sizes and mappings in the manner of what stands around them.

Pure text. Knows the keys' order and which values are words or numbers, not what an edit changes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from regionfs.errors import UsageError
from regionfs.manifest import edit_text as places
from regionfs.manifest.edit_draft import Value
from regionfs.manifest.edit_text import MapText, column
from regionfs.manifest.parse import misread
from regionfs.manifest.region import KEYS
from regionfs.printable import is_utf8, shown_bytes
from regionfs.units import format_size, parse_size

ORDER = {key: rank for rank, key in enumerate((*KEYS, "size", "mode", "regions"))}

_PLAIN = re.compile(r"[A-Za-z_./][A-Za-z0-9_./+-]*(?: [A-Za-z0-9_./+-]+)*")
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_VERBATIM = {"start", "length", "offset", "align", "size", "hole", "error", "over", "access"}


def scalar(text: str) -> str:
    """`text` as a YAML string: plain where every reader takes it for a string, else in double quotes."""
    if _PLAIN.fullmatch(text) and misread(text) is None:
        return text
    return _in_quotes(text)


def flow_mapping(fields: Mapping[str, Value], *, quoted: bool = False) -> str:
    """`fields` as {key: value}; keys in quotes where `quoted`, as JSON wants them."""
    return "{" + ", ".join(pair(key, value, quoted) for key, value in fields.items()) + "}"


def pair(key: str, value: Value, quoted: bool) -> str:
    """`key: value`."""
    word = f'"{key}"' if quoted else key
    return f"{word}: {value_text(key, value, quoted)}"


def value_text(key: str, value: Value, quoted: bool) -> str:
    """The value of `key`; with `quoted` as JSON has it."""
    if isinstance(value, dict):
        return flow_mapping(value, quoted=quoted)
    if key not in _VERBATIM:
        return _in_quotes(value) if quoted else scalar(value)
    return value if not quoted or value.isdecimal() or value == "true" else f'"{value}"'


def state(fields: dict[str, Value], key: str, value: int) -> None:
    """Write `value`, in the manner of what stood there, unless that says it already."""
    old = fields.get(key)
    if not isinstance(old, str):
        fields[key] = format_size(value)
    elif parse_size(old) != value:
        fields[key] = _like(old, value)


def written(old: MapText, near: places.Mapping, fields: Mapping[str, Value]) -> str:
    """`fields` in the style of the region `near`, and where that stands."""
    if near.flow:
        return flow_mapping(fields, quoted=quotes(old, near))
    indent = " " * column(old.text, near.start)
    return f"{old.newline}{indent}".join(pair(key, value, False) for key, value in fields.items())


def quotes(old: MapText, mapping: places.Mapping) -> bool:
    """True when its keys are in quotes, as in JSON."""
    return mapping.flow and any(old.text[field.key] == '"' for field in mapping.fields.values())


def _in_quotes(text: str) -> str:
    if not is_utf8(text):
        raise UsageError(f"{shown_bytes(text)} is not UTF-8, which a manifest must be; rename it, or make a "
                         "symbolic link to it")
    return '"' + "".join(_escaped(letter) for letter in text) + '"'


def _escaped(letter: str) -> str:
    if letter in _ESCAPES:
        return _ESCAPES[letter]
    return letter if letter.isprintable() else f"\\U{ord(letter):08x}"


def _like(old: str, value: int) -> str:
    if old.startswith("0x"):
        return hex(value)
    if old.endswith("s") and value % 512 == 0:
        return f"{value // 512}s"
    return str(value) if old.isdecimal() and old != "0" else format_size(value)
