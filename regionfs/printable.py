"""Text of others on its way to people: what a terminal, a log or a browser would obey is spelled out.

Names of files and texts of manifests may hold anything. Whatever shows them (messages, tables, log lines, metrics,
pictures) passes them through here; JSON and the bytes of files need not.
"""

from __future__ import annotations

import os
import re

# C0, DEL and C1; marks and overrides of direction, what has no width, ends of lines; halves of surrogate pairs, which
# stand for bytes that are no UTF-8; noncharacters. Joiners (U+200C, U+200D) belong to some scripts and stay.
_OBEYED = ("\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
           "\ufffe\uffff\U000e0000-\U000e007f")
_LINE = re.compile(f"[{_OBEYED}]")
_LINES = re.compile(rf"[{_OBEYED}](?<!\n)")
_HALVES = re.compile("[\ud800-\udfff]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def printable(text: str) -> str:
    r"""`text` as one line that only shows: ESC becomes \x1b, a newline \n, a byte that is no UTF-8 \xff."""
    return text if text.isascii() and text.isprintable() else _LINE.sub(_spelled, text)


def is_utf8(text: str) -> bool:
    """True when `text` can be written as UTF-8: a path with no other bytes in it."""
    return text.isascii() or not _HALVES.search(text)


def shown_bytes(text: str) -> str:
    """`text` in quotes for a message that it is no UTF-8: the bytes of a path, where it is one."""
    try:
        return repr(os.fsencode(text))
    except UnicodeEncodeError:
        return repr(text)


def printable_lines(text: str) -> str:
    """The same for a text of several lines, which stay apart."""
    return _LINES.sub(_spelled, text)


def _spelled(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if character in _SHORT:
        return _SHORT[character]
    if 0xDC80 <= code <= 0xDCFF:  # PEP 383
        return f"\\x{code - 0xDC00:02x}"
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
