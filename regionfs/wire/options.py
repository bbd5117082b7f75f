"""The text behind `-o` -> MountOptions. Pure.

Speaks the words of mount(8) and fusermount3(1). Whoever mounts may have options of its own (mount.regionfs
does); those are named by the caller and handed back.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass, field

from regionfs.errors import UsageError

# MS_*, linux/mount.h
MS_RDONLY = 1 << 0
MS_NOSUID = 1 << 1
MS_NODEV = 1 << 2
MS_NOEXEC = 1 << 3
MS_SYNCHRONOUS = 1 << 4
MS_DIRSYNC = 1 << 7
MS_NOATIME = 1 << 10

# option: (mount flag, set or clear)
FLAGS = {
    "ro": (MS_RDONLY, True), "rw": (MS_RDONLY, False),
    "nosuid": (MS_NOSUID, True), "suid": (MS_NOSUID, False),
    "nodev": (MS_NODEV, True), "dev": (MS_NODEV, False),
    "noexec": (MS_NOEXEC, True), "exec": (MS_NOEXEC, False),
    "sync": (MS_SYNCHRONOUS, True), "async": (MS_SYNCHRONOUS, False),
    "dirsync": (MS_DIRSYNC, True),
    "noatime": (MS_NOATIME, True), "atime": (MS_NOATIME, False),
}
FUSE = ("allow_other", "default_permissions", "max_read", "fsname", "subtype")

# read by mount(8), systemd or older fusermount, without effect on the mount itself
IGNORED = frozenset({"defaults", "auto", "noauto", "user", "nouser", "users", "owner", "group", "_netdev",
                     "nofail", "nonempty"})
IGNORED_PREFIXES = ("x-", "X-", "comment=")

REFUSED = {
    "allow_root": "the kernel has no such option; use allow_other, permissions are checked for everyone",
    "auto_unmount": "regionfs unmounts when it ends and restarts a server that fails; leave it out",
}

#: bytes of a READ or WRITE. Larger ones save next to nothing, but are copied around the processor's cache, and no
#: ordinary user's pipe holds a WRITE of 1 MiB with its header (loop/bulk.h)
DEFAULT_MAX_READ = 1 << 19
MOST_MAX_READ = 1 << 20  # as INIT's max_pages


@dataclass(frozen=True, slots=True)
class MountOptions:
    """How to mount. `default_permissions` is always on."""

    flags: int = MS_NOSUID | MS_NODEV  # MS_*
    allow_other: bool = False
    max_read: int = DEFAULT_MAX_READ   # bytes
    fsname: str = "regionfs"           # first column of /proc/mounts: the manifest's path
    subtype: str = "regionfs"          # third column: fuse.SUBTYPE
    own: dict[str, str] = field(default_factory=dict)  # the caller's options; "" where no value was given

    def words(self) -> list[str]:
        """As words of fusermount3's and libfuse's -o."""
        words = [name for name, (bit, on) in FLAGS.items() if on == bool(self.flags & bit)]
        if self.allow_other:
            words.append("allow_other")
        return [*words, "default_permissions", f"max_read={self.max_read}",
                f"fsname={escape(self.fsname)}", f"subtype={escape(self.subtype)}"]


def parse_options(text: str, own: Collection[str] = (), fsname: str = "regionfs") -> MountOptions:
    r"""MountOptions for "ro,allow_other,...": commas separate, `\,` and `\\` escape, the last of a kind wins.

    `own` names options that belong to the caller. UsageError on an unknown one, with the known ones.
    """
    flags = MountOptions().flags
    values: dict[str, str] = {}
    mine: dict[str, str] = {}
    for option in _split(text):
        key, _, value = option.partition("=")
        if key in own:
            mine[key] = value
        elif option in FLAGS:
            bit, on = FLAGS[option]
            flags = flags | bit if on else flags & ~bit
        elif key in FUSE:
            values[key] = value
        elif option not in IGNORED and not option.startswith(IGNORED_PREFIXES):
            raise UsageError(_refusal(option, key, own))
    return MountOptions(
        flags=flags,
        allow_other="allow_other" in values,
        max_read=_max_read(values.get("max_read", str(DEFAULT_MAX_READ))),
        fsname=values.get("fsname", fsname),
        subtype=values.get("subtype", "regionfs"),
        own=mine,
    )


def escape(value: str) -> str:
    r"""`value` for fusermount3's -o: `,` and `\` are escaped (util/fusermount.c, get_string_opt)."""
    return value.replace("\\", "\\\\").replace(",", "\\,")


def _split(text: str) -> list[str]:
    parts, escaped = [""], False
    for char in text:
        if escaped or char not in ",\\":
            parts[-1] += char
            escaped = False
        elif char == "\\":
            escaped = True
        else:
            parts.append("")
    return [part for part in parts if part]


def _max_read(value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 4096 <= int(value) <= MOST_MAX_READ:
        raise UsageError(f"max_read={value}: give bytes from 4096 to {MOST_MAX_READ}")
    return int(value)


def _refusal(option: str, key: str, own: Collection[str]) -> str:
    if key in REFUSED:
        return f"mount option {key}: {REFUSED[key]}"
    known = sorted({*FLAGS, *FUSE, *own})
    hint = "".join(f", did you mean {near}?" for near in difflib.get_close_matches(key, known, 1))
    return f"unknown mount option {option!r}{hint or ';'} known are {' '.join(known)}"
