"""Byte counts as people write them: "64KiB" <-> 65536.

The units are those of docs/contract.md section 3. Numbers that YAML 1.1 or C would read as something else
(octal, sexagesimal) are refused with a hint rather than guessed at.
"""

from __future__ import annotations

import re

from regionfs.errors import UnitError

MAX_OFFSET = 2**63 - 1  # off_t; no position or size in the program is larger

UNITS = {
    "": 1,
    "B": 1,
    "s": 512,
    **{f"{prefix}iB": 1024**power for power, prefix in enumerate("KMGT", 1)},
    **{f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)},
}

_MAX_DIGITS = 20  # on either side of the point; no int() of a text without bound
_NUMBER = re.compile(r"(?P<sign>-?)(?:(?P<hex>0x[0-9a-fA-F]+)|(?P<whole>[0-9]+)(?:\.(?P<part>[0-9]+))?)"
                     r"\s*(?P<unit>[A-Za-z]*)")


def parse_size(text: str | int) -> int:
    """Bytes meant by `text`: an int, "4096", "0x1000", "8s", "64KiB", "1.5GiB" or "10MB".

    Raises UnitError with a hint when the text is no number, negative, not whole, or over 2^63 - 1.
    """
    if isinstance(text, int):
        return _checked(text, str(text) if abs(text) <= 2**64 else hex(text))
    match = _NUMBER.fullmatch(text.strip())
    if match is None:
        hint = "; write minutes or seconds as plain numbers" if ":" in text else ""
        raise UnitError(f"{_short(text)} is not a number with a unit such as "
                        f"4096, 64KiB, 10MB, 8s or 0x1000{hint}")
    unit = match["unit"]
    if unit not in UNITS:
        raise UnitError(f"{_short(text)} has the unknown unit {unit!r}{_unit_hint(unit)}")
    if match["hex"]:
        if unit:
            raise UnitError(f"{_short(text)} mixes 0x and a unit; write one of them")
        return _checked(int(match["sign"] + match["hex"], 16), text)
    whole = match["whole"]
    if len(whole) > 1 and whole.startswith("0"):
        decimal = _short(whole.lstrip("0") or "0")
        raise UnitError(f"{_short(text)} starts with 0: octal or decimal? write {decimal} or 0x...")
    if len(whole) > _MAX_DIGITS or len(match["part"] or "") > _MAX_DIGITS:
        raise UnitError(f"{_short(text)} has more than {_MAX_DIGITS} digits; "
                        f"the largest number is {MAX_OFFSET}")
    return _checked(_scaled(match, UNITS[unit], text), text)


def format_size(value: int) -> str:
    """The shortest exact form of `value` bytes in powers of 1024: 65536 -> "64KiB", 700 -> "700"."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if value and value % UNITS[unit] == 0:
            return f"{value // UNITS[unit]}{unit}"
    return str(value)


def human_size(value: int) -> str:
    """`value` bytes for people, rounded: 1536 -> "1.5 KiB"."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        if value >= UNITS[unit]:
            return f"{value / UNITS[unit]:.1f}".removesuffix(".0") + f" {unit}"
    return f"{value} B"


def align_up(value: int, alignment: int) -> int:
    """The first multiple of `alignment` at or after `value`."""
    return -(-value // alignment) * alignment


def align_down(value: int, alignment: int) -> int:
    """The last multiple of `alignment` at or before `value`."""
    return value // alignment * alignment


def _scaled(match: re.Match[str], factor: int, text: str) -> int:
    part = match["part"] or ""
    scale: int = 10 ** len(part)
    scaled, rest = divmod(int(match["whole"] + part) * factor, scale)
    if rest:
        raise UnitError(f"{_short(text)} is not a whole number of bytes")
    return -scaled if match["sign"] else scaled


def _checked(value: int, text: str) -> int:
    if value < 0:
        raise UnitError(f"{_short(text)} is negative")
    if value > MAX_OFFSET:
        raise UnitError(f"{_short(text)} is more than {MAX_OFFSET}")
    return value


def _unit_hint(unit: str) -> str:
    for known in UNITS:
        if known and (known.lower() == unit.lower() or known.startswith(unit.upper() + "i")):
            return f"; did you mean {known}?"
    return "; units are KiB MiB GiB TiB, KB MB GB TB and s (512-byte sectors)"


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
