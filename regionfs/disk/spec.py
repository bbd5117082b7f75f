"""One partition as the command line says it: IMAGE:KEY=VALUE,... -> Part."""

from __future__ import annotations

from pathlib import Path

from regionfs.disk.layout import Part
from regionfs.errors import UsageError
from regionfs.manifest.edit_new import source_path
from regionfs.manifest.inspect import inspect_source
from regionfs.manifest.values import nearest
from regionfs.units import parse_size

_KEYS = ("type", "name", "size", "start", "uuid", "attrs")
_FLAGS = ("rw", "bootable")
_ATTRIBUTES = ("RequiredPartition", "NoBlockIOProtocol", "LegacyBIOSBootable")


def read_part(word: str, manifest: Path) -> Part:
    """The partition that `word` asks for, its image as `manifest` will say it.

    Raises UsageError, UnitError, and SourceError when the image cannot serve.
    """
    image, options = split_part(word)
    writable = "rw" in options
    return Part(
        source_path(image, manifest), inspect_source(image, writable=writable).size,
        type=options.get("type", "linux"), name=options.get("name", ""), writable=writable,
        size=parse_size(options["size"]) if "size" in options else None,
        start=parse_size(options["start"]) if "start" in options else None,
        uuid=options.get("uuid"), attrs=_attributes(options.get("attrs")), bootable="bootable" in options)


def split_part(word: str) -> tuple[Path, dict[str, str]]:
    """The image and its options; a path may hold colons, and one that exists as a whole has no options."""
    image, colon, rest = word.rpartition(":")
    if not colon or Path(word).exists():
        return Path(word), {}
    options: dict[str, str] = {}
    for item in rest.split(","):
        key, equals, value = item.partition("=")
        if key not in (_KEYS if equals else _FLAGS):
            near = nearest(key, (*_KEYS, *_FLAGS))
            raise UsageError(f"--part {word}: {item!r} is none of {', '.join(f'{key}=' for key in _KEYS)}, "
                             f"{', '.join(_FLAGS)}" + (f"; did you mean {near}?" if near else ""))
        if key in options:
            raise UsageError(f"--part {word}: {key} is given twice")
        if equals and not value:
            raise UsageError(f"--part {word}: {key}= has no value")
        options[key] = value
    return Path(image), options


def _attributes(text: str | None) -> tuple[str, ...]:
    """GPT attributes in sfdisk's words; numbers are the bits 48 to 63 that belong to the type."""
    attributes = []
    for word in text.split("+") if text else ():
        number = int(word) if word.isascii() and word.isdecimal() and len(word) < 3 else None
        if word not in _ATTRIBUTES and (number is None or not 48 <= number <= 63):
            raise UsageError(f"attrs={word} is none of {', '.join(_ATTRIBUTES)} and no bit from 48 to 63")
        attributes.append(f"GUID:{number}" if number is not None else word)
    return tuple(attributes)
