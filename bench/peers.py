"""The C examples of libfuse, compiled here: passthrough_ll from libfuse3-dev, passthrough_hp from the source package.

Debian ships no passthrough_hp.cc in its examples: it comes from the source package of the installed fuse3.
Passthrough needs libfuse 3.17: where the installed one is older, the next release's source is built, library and
example as one program, and nothing is installed. What cannot be had is a MissingError that says why.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

from bench.packages import fetched
from bench.tools import MissingError, need, run

BUILD = Path(__file__).resolve().parent.parent / "build" / "peers"
EXAMPLES = Path("/usr/share/doc/libfuse3-dev/examples")
PASSTHROUGH = (3, 17)              # the first libfuse with it
NEXT = {"bookworm": "trixie"}      # releases whose libfuse is older, and where a newer one's source is


def passthrough_ll() -> Path:
    """The compiled low-level example."""
    target = _target("passthrough_ll")
    if not target.exists():
        source = EXAMPLES / "passthrough_ll.c"
        if not source.exists():
            raise MissingError(f"no {source}; it comes with libfuse3-dev")
        _compile(["gcc", "-O2", "-w"], source, target)
    return target


def passthrough_hp() -> Path:
    """The compiled high-performance example, of the same version as the installed libfuse."""
    target = _target("passthrough_hp")
    if not target.exists():
        with fetched("fuse3") as tree:
            _compile(["g++", "-O2", "-w", "-std=c++17"], tree / "example" / "passthrough_hp.cc", target)
    return target


def passthrough_hp_newer() -> Path:
    """The same example with a libfuse that knows passthrough, linked into it."""
    if found := _newer():
        return found
    for program in ("meson", "ninja"):
        need(program)
    with fetched("fuse3", _suite()) as tree:
        version = tree.name.rpartition("-")[2]
        if _numbers(version) < PASSTHROUGH:
            raise MissingError(f"libfuse {version} is the newest here; passthrough came with 3.17")
        build = tree / "build"
        run("meson", "setup", "--buildtype=release", "-Ddefault_library=static", "-Dutils=false", "-Dtests=false",
            build, cwd=tree)
        run("ninja", "-C", build, "example/passthrough_hp", cwd=tree)
        target = BUILD / f"libfuse-{version}" / "passthrough_hp"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(build / "example" / "passthrough_hp", target)
    return target


def libfuse_version() -> str:
    """Of the installed library, as pkg-config says."""
    return subprocess.run(["pkg-config", "--modversion", "fuse3"], check=True, capture_output=True,
                          text=True).stdout.strip()


def newer_version() -> str | None:
    """Of the library in passthrough_hp_newer(), once that was built."""
    found = _newer()
    return found.parent.name.rpartition("-")[2] if found else None


def _newer() -> Path | None:
    return max(BUILD.glob("libfuse-*/passthrough_hp"), default=None)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])


def _suite() -> str | None:
    """The release to take the source from; None for the installed one's own."""
    if _numbers(libfuse_version()) >= PASSTHROUGH:
        return None
    codename = platform.freedesktop_os_release().get("VERSION_CODENAME", "this release")
    if codename not in NEXT:
        raise MissingError(f"libfuse {libfuse_version()} has no passthrough (3.17 has), and for {codename} no newer "
                           "source is known")
    return NEXT[codename]


def _target(name: str) -> Path:
    BUILD.mkdir(parents=True, exist_ok=True)
    return BUILD / f"{name}-{libfuse_version()}"


def _compile(compiler: list[str], source: Path, target: Path) -> None:
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], check=True, capture_output=True,
                           text=True).stdout.split()
    if not source.exists():
        raise MissingError(f"the source package of fuse3 has no {source.name}")
    run(*compiler, "-D_FILE_OFFSET_BITS=64", source, "-o", target, *flags, cwd=source.parent)
