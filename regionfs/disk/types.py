"""Partition types by the names people use for them.

Knows GUIDs of the Discoverable Partitions Specification and MBR type bytes as sfdisk lists them
(`sfdisk --list-types`). Knows nothing of where a partition lies.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import NamedTuple

from regionfs.errors import UsageError


class PartType(NamedTuple):
    """What one name means in either table; None where the table has no such type."""

    gpt: str
    mbr: str | None


TYPES = {
    "esp": PartType("C12A7328-F81F-11D2-BA4B-00A0C93EC93B", "ef"),
    "bios-boot": PartType("21686148-6449-6E6F-744E-656564454649", None),
    "xbootldr": PartType("BC13C2FF-59E6-4262-A352-B275FD6F7172", "ea"),
    "linux": PartType("0FC63DAF-8483-4772-8E79-3D69D8477DE4", "83"),
    # x86-64 on every machine, so that the same command gives the same bytes everywhere
    "linux-root": PartType("4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709", "83"),
    "linux-root-arm64": PartType("B921B045-1DF0-41C3-AF44-4C6F280D3FAE", "83"),
    "linux-root-riscv64": PartType("72EC70A6-CF74-40E6-BD49-4BDA08E8F224", "83"),
    "linux-usr": PartType("8484680C-9521-48C6-9C11-B0720656F69E", "83"),
    "linux-home": PartType("933AC7E1-2EB4-4F13-B844-0E14E2AEF915", "83"),
    "linux-srv": PartType("3B8F8425-20E0-4F3B-907F-1A25A76F98E8", "83"),
    "linux-var": PartType("4D21B016-B534-45C2-A9FB-5C16E091FD2D", "83"),
    "swap": PartType("0657FD6D-A4AB-43C4-84E5-0933C84B4F4F", "82"),
    "lvm": PartType("E6D6D379-F507-44C2-A23C-238F2A3DF928", "8e"),
    "raid": PartType("A19D880F-05FC-4D3B-A006-743F0F84911E", "fd"),
    "basic-data": PartType("EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", "7"),
    "fat32": PartType("EBD0A0A2-B9E5-4433-87C0-68B6B72699C7", "c"),
}

EXTENDED = ("5", "f", "85")  # MBR types that hold further partitions

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_BYTE = re.compile(r"(?:0x)?([0-9a-f]{1,2})", re.IGNORECASE)


def is_guid(text: str) -> bool:
    """True for the 36 characters of a GUID with its dashes."""
    return _GUID.fullmatch(text) is not None


def type_id(text: str, label: str) -> str:
    """What sfdisk calls the type `text` in a table of `label` "gpt" or "mbr".

    `text` is a name in TYPES, or a GUID (gpt) or one byte in hex (mbr). Raises UsageError.
    """
    if known := TYPES.get(text.lower()):
        value = known.gpt if label == "gpt" else known.mbr
        if value is None:
            raise UsageError(f"type={text} has no place in an MBR table; use --gpt")
        return value
    if label == "gpt" and is_guid(text):
        return text.upper()
    if label == "mbr" and (byte := _BYTE.fullmatch(text)) and int(byte[1], 16):
        return f"{int(byte[1], 16):x}"
    near = get_close_matches(text.lower(), TYPES, 1)
    hint = f"did you mean {near[0]}?" if near else f"names are {', '.join(TYPES)}"
    form = "a GUID" if label == "gpt" else "one byte in hex, 01 to ff"
    raise UsageError(f"type={text} is neither a known partition type nor {form}; {hint}")


def type_name(value: str) -> str:
    """The name of a type as sfdisk writes it, or the value itself where it has none."""
    for name, known in TYPES.items():
        if value.upper() == known.gpt or value.lower() == known.mbr:
            return name
    return value
