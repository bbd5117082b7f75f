"""Text of others only shows, wherever it goes."""

from __future__ import annotations

from random import Random

import pytest

from regionfs.printable import printable, printable_lines


@pytest.mark.parametrize(("text", "shown"), [
    ("plain name.img", "plain name.img"),
    ("a\x1b[2J\x07", r"a\x1b[2J\x07"),
    ("two\nlines\ttab\r", r"two\nlines\ttab\r"),
    ("\x7f\x85\x9b", r"\x7f\x85\x9b"),
    ("right\u202eleft", r"right\u202eleft"),
    ("caf\u00e9 \u65e5\u672c \U0001f468\u200d\U0001f469", "caf\u00e9 \u65e5\u672c \U0001f468\u200d\U0001f469"),
    ("byte \udcff", r"byte \xff"),
    ("half \ud800", r"half \ud800"),
    ("tag \U000e0041", r"tag \U000e0041"),
])
def test_spelling(text: str, shown: str) -> None:
    """Letters of every script stay; what is obeyed is spelled as Python spells it."""
    assert shown == printable(text)


def test_every_character() -> None:
    """What comes out is one line of UTF-8 without control characters, and comes out the same again."""
    letters = list(map(chr, range(0x110000)))
    Random(1).shuffle(letters)
    shown = printable("".join(letters))
    assert [shown] == shown.splitlines()
    assert shown.encode().decode() == shown == printable(shown)
    assert not any(letter < " " or "\x7f" <= letter <= "\x9f" for letter in shown)


def test_lines_stay_apart() -> None:
    """Where several are meant."""
    assert "a\\x1b\nb\\r\nc" == printable_lines("a\x1b\nb\r\nc")
