"""The loop's own words for the kernel's messages, against linux/fuse.h and against those of regionfs.wire.

What is newer than the installed header is compared with wire alone, which tests/wire compares where it can.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from regionfs.wire import abi
from regionfs.wire.codec import LAYOUTS
from regionfs.wire.replies import AttrOut, EntryOut, OpenOut, WriteOut
from tests.harness import PROJECT

INCLUDE = ("#include <stddef.h>\n#include <stdio.h>\n#include <linux/fuse.h>\n"
           f'#include "{PROJECT}/regionfs/serve/loop/requests.h"\n')

# the loop's word, the header's
SAME = {
    "OPCODE_LOOKUP": "FUSE_LOOKUP", "OPCODE_GETATTR": "FUSE_GETATTR", "OPCODE_OPEN": "FUSE_OPEN",
    "OPCODE_READ": "FUSE_READ", "OPCODE_WRITE": "FUSE_WRITE", "OPCODE_RELEASE": "FUSE_RELEASE",
    "FOPEN_KEEP_CACHE": "/FOPEN_KEEP_CACHE", "WRITE_CACHE": "FUSE_WRITE_CACHE",
    "WRITE_KILL_SUIDGID": "FUSE_WRITE_KILL_SUIDGID",
    "HEADER_SIZE": "sizeof(struct fuse_in_header)",
    "GETATTR_SIZE": "sizeof(struct fuse_in_header) + sizeof(struct fuse_getattr_in)",
    "RELEASE_SIZE": "sizeof(struct fuse_in_header) + sizeof(struct fuse_release_in)",
    "sizeof(struct request)": "sizeof(struct fuse_in_header) + sizeof(struct fuse_read_in)",
    "sizeof(struct request) + 0": "sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in)",
    "sizeof(struct reply)": "sizeof(struct fuse_out_header)",
    "sizeof(struct attr)": "sizeof(struct fuse_attr)",
    "sizeof(struct entry_out)": "sizeof(struct fuse_entry_out)",
    "sizeof(struct attr_reply)": "sizeof(struct fuse_out_header) + sizeof(struct fuse_attr_out)",
    "sizeof(struct open_reply)": "sizeof(struct fuse_out_header) + sizeof(struct fuse_open_out)",
    "sizeof(struct write_reply)": "sizeof(struct fuse_out_header) + sizeof(struct fuse_write_out)",
    **{f"offsetof(struct request, {ours})": f"offsetof(struct fuse_in_header, {theirs})" for ours, theirs in (
        ("length", "len"), ("opcode", "opcode"), ("unique", "unique"), ("ino", "nodeid"), ("uid", "uid"),
        ("gid", "gid"), ("pid", "pid"))},
    **{f"offsetof(struct request, {ours})": f"sizeof(struct fuse_in_header) + offsetof(struct fuse_write_in, {theirs})"
       for ours, theirs in (("fh", "fh"), ("offset", "offset"), ("count", "size"), ("io_flags", "write_flags"),
                            ("lock_owner", "lock_owner"), ("flags", "flags"))},
    **{f"offsetof(struct attr, {name})": f"offsetof(struct fuse_attr, {name})" for name in (
        "ino", "size", "blocks", "atime", "mtime", "ctime", "atimensec", "mtimensec", "ctimensec", "mode", "nlink",
        "uid", "gid", "rdev", "blksize")},
    **{f"offsetof(struct entry_out, {name})": f"offsetof(struct fuse_entry_out, {name})" for name in (
        "nodeid", "generation", "entry_valid", "attr_valid", "entry_valid_nsec", "attr_valid_nsec", "attr")},
}
# the loop's word, wire's number
WIRE = {
    "FOPEN_PASSTHROUGH": abi.FOPEN_PASSTHROUGH, "FOPEN_KEEP_CACHE": abi.FOPEN_KEEP_CACHE,
    "BACKING_OPEN": abi.DEV_IOC_BACKING_OPEN, "BACKING_CLOSE": abi.DEV_IOC_BACKING_CLOSE,
    "UNIQUE_RESEND": abi.UNIQUE_RESEND,
    "sizeof(struct open_reply)": 16 + LAYOUTS[OpenOut].size, "sizeof(struct write_reply)": 16 + LAYOUTS[WriteOut].size,
    "sizeof(struct entry_reply)": 16 + LAYOUTS[EntryOut].size, "sizeof(struct attr_reply)": 16 + LAYOUTS[AttrOut].size,
}


def values(expressions: list[str], directory: Path) -> list[int]:
    """What a C program with both headers makes of them."""
    prints = "".join(f'printf("%llu\\n", (unsigned long long)({text}));' for text in expressions)
    # where the loop and the header have one name, the header's comes as a macro: it is put aside
    source = INCLUDE.replace("#include <linux/fuse.h>\n", "#include <linux/fuse.h>\nenum { HEADERS_KEEP_CACHE = "
                             "FOPEN_KEEP_CACHE };\n#undef FOPEN_KEEP_CACHE\n#undef FOPEN_PASSTHROUGH\n")
    (directory / "program.c").write_text(f"{source}int main(void) {{ {prints} return 0; }}\n")
    subprocess.run(["gcc", "-o", directory / "program", directory / "program.c"], check=True, timeout=60)
    done = subprocess.run([directory / "program"], check=True, stdout=subprocess.PIPE, text=True, timeout=60)
    return [*map(int, done.stdout.split())]


@pytest.mark.parametrize("expected", ["header", "wire"])
def test_the_loop_means_what_the_kernel_means(tmp_path: Path, expected: str) -> None:
    """Numbers, sizes and offsets."""
    if expected == "wire":
        assert WIRE == dict(zip(WIRE, values([*WIRE], tmp_path), strict=True))
        return
    theirs = [text.replace("/FOPEN_KEEP_CACHE", "HEADERS_KEEP_CACHE") for text in SAME.values()]
    assert values(theirs, tmp_path) == values([*SAME], tmp_path)
