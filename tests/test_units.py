"""Byte counts: what is read, what is refused and with which hint, and how numbers are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regionfs.errors import UnitError
from regionfs.units import MAX_OFFSET, align_down, align_up, format_size, human_size, parse_size

READ = [
    (0, 0),
    (4096, 4096),
    ("0", 0),
    ("4096", 4096),
    (" 4096 ", 4096),
    ("0x1000", 4096),
    ("0xffffB", 0xffffb),  # B is a hex digit
    ("8s", 4096),
    ("1B", 1),
    ("64KiB", 65536),
    ("64 KiB", 65536),
    ("2GiB", 2 << 30),
    ("1TiB", 1 << 40),
    ("10MB", 10_000_000),
    ("1KB", 1000),
    ("1.5KiB", 1536),
    ("0.5s", 256),
    (str(MAX_OFFSET), MAX_OFFSET),
    (MAX_OFFSET, MAX_OFFSET),
]

REFUSED = [
    ("", "is not a number"),
    ("lots", "is not a number"),
    ("1e3", "is not a number"),
    ("1_000", "is not a number"),
    ("٣", "is not a number"),
    ("1:30", "minutes or seconds as plain numbers"),
    ("010", "octal or decimal? write '10' or 0x"),
    ("00", "octal or decimal? write '0'"),
    ("4k", "did you mean KiB?"),
    ("4kib", "did you mean KiB?"),
    ("4m", "did you mean MiB?"),
    ("4S", "did you mean s?"),
    ("4parsecs", "unknown unit 'parsecs'; units are KiB"),
    ("0x10KiB", "mixes 0x and a unit"),
    ("1.5", "not a whole number of bytes"),
    ("0.3s", "not a whole number of bytes"),
    ("-1", "is negative"),
    (-1, "is negative"),
    ("-0x1", "is negative"),
    (str(MAX_OFFSET + 1), f"more than {MAX_OFFSET}"),
    (MAX_OFFSET + 1, f"more than {MAX_OFFSET}"),
    ("8388608TiB", f"more than {MAX_OFFSET}"),
    ("9" * 5000, "more than 20 digits"),
    ("1." + "9" * 5000, "more than 20 digits"),
    ("0" * 5000, "octal or decimal?"),
    ("0x" + "f" * 5000, f"more than {MAX_OFFSET}"),
    (16**5000, f"more than {MAX_OFFSET}"),
]


@pytest.mark.parametrize(("text", "value"), READ, ids=repr)
def test_parse_size_reads_every_unit(text: str | int, value: int) -> None:
    """Each way of writing a number of docs/contract.md section 3 gives its bytes."""
    assert value == parse_size(text)


@pytest.mark.parametrize(("text", "hint"), REFUSED, ids=range(len(REFUSED)))
def test_parse_size_refuses_with_a_hint(text: str | int, hint: str) -> None:
    """What could be read in two ways, or not at all, is refused and the message says how to write it."""
    with pytest.raises(UnitError) as refused:
        parse_size(text)
    assert hint in str(refused.value)


@pytest.mark.parametrize("text", [text for text, _ in REFUSED], ids=range(len(REFUSED)))
def test_messages_stay_short(text: str | int) -> None:
    """A hostile text of any length gives a message a person can read."""
    with pytest.raises(UnitError) as refused:
        parse_size(text)
    assert len(str(refused.value)) < 200


@given(st.integers(0, MAX_OFFSET))
def test_format_size_is_exact(value: int) -> None:
    """What format_size writes, parse_size reads back to the same bytes."""
    assert value == parse_size(format_size(value))


@given(st.text(max_size=30))
def test_parse_size_raises_only_unit_errors(text: str) -> None:
    """Any text is either a number in range or a UnitError."""
    try:
        value = parse_size(text)
    except UnitError:
        return
    assert 0 <= value <= MAX_OFFSET


@pytest.mark.parametrize(("value", "text"), [(0, "0"), (700, "700"), (1024, "1KiB"), (65536, "64KiB"),
                                             (1 << 40, "1TiB"), ((1 << 30) + 512, str((1 << 30) + 512))])
def test_format_size_takes_the_largest_exact_unit(value: int, text: str) -> None:
    """The shortest exact form, in powers of 1024."""
    assert text == format_size(value)


@pytest.mark.parametrize(("value", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"),
                                             (2048, "2 KiB"), (5 << 40, "5 TiB")])
def test_human_size_rounds(value: int, text: str) -> None:
    """For people: one digit after the point, none when it is 0."""
    assert text == human_size(value)


@given(st.integers(0, 1 << 62), st.integers(1, 1 << 20))
def test_align_up_and_down_bracket_the_value(value: int, alignment: int) -> None:
    """Both are multiples, at most one alignment apart, with the value between them."""
    low, high = align_down(value, alignment), align_up(value, alignment)
    assert low % alignment == high % alignment == 0
    assert low <= value <= high
    assert high - low == (alignment if value % alignment else 0)
