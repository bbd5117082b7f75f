"""Every size, offset and number against linux/fuse.h as the compiler reads it."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from regionfs.wire import abi
from regionfs.wire.abi import InitFlag, NotifyCode, Opcode
from regionfs.wire.codec import LAYOUTS, Message
from regionfs.wire.replies import Attr

HEADER = Path("/usr/include/linux/fuse.h")

# structs and members that came after 7.31: in an older header they are not there to compare
SINCE = {
    "CopyFileRangeOut": 45, "StatxIn": 39, "StatxOut": 39, "BackingMap": 40,
    "OpenOut.backing_id": 40, "InitOut.max_stack_depth": 40, "InitOut.request_timeout": 43,
    "OpenIn.open_flags": 33, "CreateIn.open_flags": 33, "Attr.flags": 32, "EntryOut.flags": 32,
    "AttrOut.flags": 32, "InitIn.flags_high": 36, "InitOut.flags_high": 36, "InHeader.total_extlen": 38,
    "InitIn": 36, "SyncfsIn": 34, "NotifyInvalEntryOut.flags": 38,
    "SYNCFS": 34, "TMPFILE": 37, "STATX": 39, "COPY_FILE_RANGE_64": 45,
    "RESEND": 40, "INC_EPOCH": 44, "PRUNE": 45,
}

# sent in the form of before 7.33, FUSE_COMPAT_SETXATTR_IN_SIZE, unless SETXATTR_EXT is negotiated
SHORTER = {"SetxattrIn": 8}

# where the header's word for a field is another one
FIELDS = {
    "GetattrIn": {"flags": "getattr_flags"},
    "BatchForgetIn": {"number": "count"},
    "InHeader": {"length": "len"}, "OutHeader": {"length": "len"},
    "Dirent": {"offset": "off"},
    "NotifyInvalInodeOut": {"offset": "off", "length": "len"},
    "CopyFileRangeIn": {"length": "len"},
    "InitIn": {"flags_low": "flags", "flags_high": "flags2"},
    "InitOut": {"flags_low": "flags", "flags_high": "flags2"},
    "LkIn": {field: f"lk.{field}" for field in ("start", "end", "type", "pid")},
    "LkOut": {field: f"lk.{field}" for field in ("start", "end", "type", "pid")},
    "StatfsOut": {field: f"st.{field}" for field in ("blocks", "bfree", "bavail", "files", "ffree", "bsize",
                                                     "namelen", "frsize")},
    "EntryOut": {field: f"attr.{field}" for field in Attr._fields},
    "AttrOut": {field: f"attr.{field}" for field in Attr._fields},
    "StatxIn": {"flags": "getattr_flags"},
    "StatxOut": {
        **{field: f"stat.{field}" for field in (
            "mask", "blksize", "attributes", "nlink", "uid", "gid", "mode", "ino", "size", "blocks",
            "attributes_mask", "rdev_major", "rdev_minor", "dev_major", "dev_minor")},
        **{f"{time}{suffix}": f"stat.{time}.{member}" for time in ("atime", "btime", "ctime", "mtime")
           for suffix, member in (("", "tv_sec"), ("nsec", "tv_nsec"))},
    },
}


@pytest.fixture(scope="module")
def minor() -> int:
    """FUSE_KERNEL_MINOR_VERSION of the installed header."""
    if not HEADER.exists() or shutil.which("gcc") is None:
        pytest.skip(f"needs {HEADER} and gcc")
    found = re.search(r"FUSE_KERNEL_MINOR_VERSION\s+(\d+)", HEADER.read_text())
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("cls", LAYOUTS, ids=lambda cls: cls.__name__)
def test_struct(cls: type[Message], minor: int, tmp_path: Path) -> None:
    """Size of the struct, offset and size of each field are the compiler's."""
    name = cls.__name__
    if SINCE.get(name, 0) > minor:
        pytest.skip(f"struct of {name} came with 7.{SINCE[name]}, {HEADER} is 7.{minor}")
    struct = "struct fuse_" + re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    fields = {field: span for field, span in spans(cls).items() if SINCE.get(f"{name}.{field}", 0) <= minor}
    known = FIELDS.get(name, {})
    rows = "".join(f'printf("%zu %zu\\n", offsetof({struct}, {known.get(field, field)}),'
                   f" sizeof((({struct} *)0)->{known.get(field, field)}));" for field in fields)
    size, *found = compiled(f'printf("%zu\\n", sizeof({struct}));{rows}', tmp_path)
    assert LAYOUTS[cls].size == SHORTER.get(name, int(size))
    assert fields == {field: tuple(map(int, line.split())) for field, line in zip(fields, found, strict=True)}


def test_statx_is_the_syscalls() -> None:
    """struct fuse_statx is bit for bit struct statx of statx(2): 256 bytes, stx_ino at 32, stx_mtime at 112."""
    found = spans(type_named("StatxOut"))
    assert (288, 32 + 32, 32 + 112) == (LAYOUTS[type_named("StatxOut")].size, found["ino"][0], found["mtime"][0])


@pytest.mark.parametrize(("enum", "prefix"), [(Opcode, "FUSE_"), (NotifyCode, "FUSE_NOTIFY_")],
                         ids=["opcodes", "notifications"])
def test_enum(enum: type[Opcode] | type[NotifyCode], prefix: str, minor: int, tmp_path: Path) -> None:
    """Opcodes and notification codes have the header's values; newer ones than it are left out."""
    members = [member for member in enum if SINCE.get(member.name, 0) <= minor]
    rows = "".join(f'printf("%d\\n", {prefix}{member.name});' for member in members)
    assert {member.name: member.value for member in members} == dict(
        zip([member.name for member in members], map(int, compiled(rows, tmp_path)), strict=True))


def test_macros(minor: int, tmp_path: Path) -> None:
    """Flags and ioctl numbers that the header defines have its values, and most of ours are in it."""
    ours = {f"FUSE_{name}": int(flag) for name, flag in InitFlag.__members__.items()}
    ours |= {f"FATTR_{name}": int(flag) for name, flag in abi.SetattrValid.__members__.items()}
    plain = ("RELEASE_", "GETATTR_", "LK_", "WRITE_", "READ_", "IOCTL_", "POLL_", "FSYNC_", "ATTR_", "OPEN_",
             "SETXATTR_", "EXPIRE_", "DEV_IOC_", "UNIQUE_", "MIN_READ", "KERNEL_MINOR", "ROOT_ID")
    for name, value in vars(abi).items():
        if name.startswith("FOPEN_"):
            ours[name] = value
        elif name.startswith(plain) and name != "KERNEL_MINOR":
            ours[f"FUSE_{name}"] = value
    rows = "".join(f'\n#ifdef {name}\nprintf("{name} %llu\\n", (unsigned long long)({name}));\n#endif\n'
                   for name in ours)
    found = {name: int(value) for name, value in (line.split() for line in compiled(rows, tmp_path))}
    signed = {name: value & 0xFFFFFFFF if name == "FUSE_INIT_RESERVED" else value for name, value in found.items()}
    assert {name: ours[name] for name in found} == signed
    assert len(ours) - 20 < len(found)


def spans(cls: type[Message]) -> dict[str, tuple[int, int]]:
    """Each field's (offset, size) in bytes: which bytes its largest value fills."""
    names = list(cls._fields)  # type: ignore[attr-defined]
    if names[-1:] == ["attr"]:
        names[-1:] = Attr._fields
    filled = (LAYOUTS[cls].pack(*[_largest(cls, here) if there == here else 0 for there in range(len(names))])
              for here in range(len(names)))
    return {name: (len(data) - len(data.lstrip(b"\0")), len(data.strip(b"\0")))
            for name, data in zip(names, filled, strict=True)}


def _largest(cls: type[Message], field: int) -> int:
    codes = "".join(code * int(count or 1) for count, code in re.findall(r"(\d*)([a-zA-Z])", LAYOUTS[cls].format)
                    if code != "x")
    return {"Q": 2**64 - 1, "q": -1, "I": 2**32 - 1, "i": -1, "H": 2**16 - 1}[codes[field]]


def type_named(name: str) -> type[Message]:
    return next(cls for cls in LAYOUTS if cls.__name__ == name)


def compiled(statements: str, directory: Path) -> list[str]:
    """Lines that a C program with these statements prints."""
    program, source = directory / "program", directory / "program.c"
    source.write_text("#include <stddef.h>\n#include <stdio.h>\n#include <sys/ioctl.h>\n#include <linux/fuse.h>\n"
                      f"int main(void) {{ {statements} return 0; }}\n")
    subprocess.run(["gcc", "-o", program, source], check=True)
    return subprocess.run([program], check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
