"""Nodes -> single values: sizes, strings, flags, choices. Knows every YAML surprise and its hint.

Each reader returns None after it reported a problem, so that its caller goes on with the next field.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from regionfs.errors import UnitError
from regionfs.manifest.parse import List, Map, Node, Text, misread
from regionfs.manifest.report import Reporter, child, clip
from regionfs.units import MAX_OFFSET, parse_size

_GROUPED = re.compile(r"[0-9][0-9_]*_[0-9_]*")
_OCTAL = re.compile(r"0o[0-7]{1,21}")
_FLOAT = re.compile(r"[0-9]+(?:\.[0-9]+)?[eE]\+?[0-9]{1,2}")
_MODE = re.compile(r"0?[0-7]{3}")


def describe_node(node: Node) -> str:
    """What stands there, for a message: "a list", "a mapping", "nothing" or the text in quotes."""
    if isinstance(node, List):
        return "a list"
    if isinstance(node, Map):
        return "a mapping"
    if node.plain and not node.text:
        return "nothing"
    return f"'{clip(node.text)}'"


def read_map(report: Reporter, node: Node, path: str, known: Sequence[str]) -> dict[str, Node] | None:
    """The mapping's values by key, without unknown keys, which are reported with the nearest known one."""
    if not isinstance(node, Map):
        report.problem(node, path, f"a mapping is wanted here, found {describe_node(node)}")
        return None
    values = {}
    for name, (key, value) in node.entries.items():
        if name in known:
            values[name] = value
        elif not (key.plain and name == "<<"):  # reported by parse
            report.problem(key, child(path, name), _unknown(name, known))
    return values


def knows_all(node: Node, fields: dict[str, Node]) -> bool:
    """False when `node` has an unknown key, which may stand for the one that a caller misses."""
    return not isinstance(node, Map) or len(node.entries) == len(fields)


def read_size(report: Reporter, node: Node, path: str, *, least: int = 0) -> int | None:
    """A number of bytes, at least `least`."""
    if not isinstance(node, Text) or (node.plain and not node.text):
        report.problem(node, path, f"a number of bytes is wanted here, found {describe_node(node)}")
        return None
    try:
        value = parse_size(node.text)
    except UnitError as error:
        report.problem(node, path, f"{error}{_number_hint(node.text)}")
        return None
    if value < least:
        report.problem(node, path, f"{value} is less than {least}")
        return None
    return value


def read_text(report: Reporter, node: Node, path: str, what: str = "a string") -> str | None:
    """A string that every YAML reader takes for one."""
    if not isinstance(node, Text):
        report.problem(node, path, f"{what} is wanted here, found {describe_node(node)}")
        return None
    if node.plain and not node.text:
        report.problem(node, path, f"{what} is wanted here, found nothing")
        return None
    if node.plain and (meaning := misread(node.text)):
        report.problem(node, path, f"{what} is wanted here, but YAML reads '{clip(node.text)}' as {meaning}; "
                                   f'write "{clip(node.text)}"')
        return None
    return node.text


def read_path(report: Reporter, node: Node, path: str) -> str | None:
    """A non-empty string that can name a file."""
    text = read_text(report, node, path, "a path")
    if text is not None and (not text or "\0" in text):
        report.problem(node, path, f"a path cannot {'hold a NUL character' if text else 'be empty'}")
        return None
    return text


def read_flag(report: Reporter, node: Node, path: str) -> bool | None:
    """`true` or `false`, in this spelling."""
    if isinstance(node, Text) and node.plain and node.text in ("true", "false"):
        return node.text == "true"
    report.problem(node, path, f"true or false is wanted here, in this spelling and without quotes, "
                               f"found {describe_node(node)}")
    return None


def read_access(report: Reporter, node: Node, path: str) -> bool | None:
    """True for `rw`, False for `ro`."""
    if isinstance(node, Text) and node.text in ("ro", "rw"):
        return node.text == "rw"
    report.problem(node, path, f"ro or rw is wanted here, found {describe_node(node)}")
    return None


def read_mode(report: Reporter, node: Node, path: str) -> int | None:
    """Permission bits, written as an octal string in quotes."""
    if isinstance(node, Text) and not node.plain and _MODE.fullmatch(node.text):
        return int(node.text, 8)
    report.problem(node, path, 'permissions are wanted here, octal and in quotes such as "0644", '
                               f"found {describe_node(node)}")
    return None


def _unknown(name: str, known: Sequence[str]) -> str:
    near = nearest(name, known)
    return f"unknown key; did you mean {near}?" if near else f"unknown key; known are {', '.join(known)}"


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known word most like `name`, if any is."""
    from difflib import get_close_matches  # only for a message

    return next(iter(get_close_matches(name[:40].lower(), known, 1)), None)


def _number_hint(text: str) -> str:
    """The number that was probably meant, where Python, C or YAML would read one."""
    value = None
    if len(text) > 24:
        return ""
    if _GROUPED.fullmatch(text):
        return f"; write {clip(text.replace('_', ''))}"
    if _OCTAL.fullmatch(text):
        value = int(text[2:], 8)
    elif _FLOAT.fullmatch(text):
        exact = float(text)
        value = int(exact) if exact.is_integer() else None
    return f"; write {value}" if value is not None and value <= MAX_OFFSET else ""

