"""Manifests of a million regions and of ten thousand files, for tests and for bench/scale.py.

Chunk n of the file lies in source n % SOURCES, at place n // SOURCES of it: no two neighbours can be joined. A
chunk begins with its number; what follows is a hole of the source, so that a terabyte would take no room.
"""

from __future__ import annotations

import os
from pathlib import Path

SOURCES = 8
CHUNK = 4096


def write_chunks(directory: Path, count: int, *, access: str = "ro", marked: bool = True) -> Path:
    """Sources, the table chunks.csv and the manifest chunks.yaml with the file `f` of `count` chunks."""
    places = -(-count // SOURCES)
    fds = [os.open(directory / f"{number}.img", os.O_RDWR | os.O_CREAT, 0o644) for number in range(SOURCES)]
    for fd in fds:
        os.ftruncate(fd, places * CHUNK)
    if marked:
        for number in range(count):
            os.pwrite(fds[number % SOURCES], mark(number), number // SOURCES * CHUNK)
    for fd in fds:
        os.close(fd)
    with open(directory / "chunks.csv", "w") as table:
        table.write("start,length,source,offset,access\n")
        table.writelines(f"{number * CHUNK},{CHUNK},{number % SOURCES}.img,{number // SOURCES * CHUNK},{access}\n"
                         for number in range(count))
    manifest = directory / "chunks.yaml"
    manifest.write_text("regionfs: 1\nfiles:\n  f: {regions: {table: chunks.csv}}\n")
    return manifest


def mark(number: int) -> bytes:
    """What a chunk begins with."""
    return b"%020d" % number


def write_files(directory: Path, count: int, *, per_directory: int = 1000) -> Path:
    """Small sources and the manifest files.yaml, in which every tenth file has two regions and the rest are whole."""
    (directory / "src").mkdir(exist_ok=True)
    lines = ["regionfs: 1", "files:"]
    for number in range(count):
        (directory / f"src/{number}").write_bytes(mark(number))
        name = f"  d{number // per_directory}/{number}: "
        lines.append(name + (f"{{regions: [{{source: src/{number}}}, {{data: {{text: end}}}}]}}" if number % 10 == 0
                             else f"{{whole: src/{number}}}"))
    manifest = directory / "files.yaml"
    manifest.write_text("\n".join(lines) + "\n")
    return manifest
