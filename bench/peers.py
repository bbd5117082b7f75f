"""The C examples of libfuse, compiled here: passthrough_ll from libfuse3-dev, passthrough_hp from the source package.

Debian ships no passthrough_hp.cc in its examples, so apt-get fetches the source of the installed fuse3 in a
temporary directory, with the system's own sources read as deb-src. Passthrough needs libfuse 3.17: where the
installed one is older, the next release's source is built, library and example as one program, and nothing is
installed. What cannot be had is a MissingError that says why.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUILD = Path(__file__).resolve().parent.parent / "build" / "peers"
EXAMPLES = Path("/usr/share/doc/libfuse3-dev/examples")
APT = Path("/etc/apt")
PASSTHROUGH = (3, 17)              # the first libfuse with it
NEXT = {"bookworm": "trixie"}      # releases whose libfuse is older, and where a newer one's source is


class MissingError(Exception):
    """A subject that cannot run on this machine; the text says why."""


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
        with _fetched() as tree:
            _compile(["g++", "-O2", "-w", "-std=c++17"], tree / "example" / "passthrough_hp.cc", target)
    return target


def passthrough_hp_newer() -> Path:
    """The same example with a libfuse that knows passthrough, linked into it."""
    if found := _newer():
        return found
    if missing := [tool for tool in ("meson", "ninja") if not shutil.which(tool)]:
        raise MissingError(f"no {' and no '.join(missing)} to build libfuse with")
    with _fetched(_suite()) as tree:
        version = tree.name.rpartition("-")[2]
        if _numbers(version) < PASSTHROUGH:
            raise MissingError(f"libfuse {version} is the newest here; passthrough came with 3.17")
        build = tree / "build"
        _run(["meson", "setup", "--buildtype=release", "-Ddefault_library=static", "-Dutils=false", "-Dtests=false",
              build], tree)
        _run(["ninja", "-C", build, "example/passthrough_hp"], tree)
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
    _run([*compiler, "-D_FILE_OFFSET_BITS=64", source, "-o", target, *flags], source.parent)


@contextmanager
def _fetched(suite: str | None = None) -> Iterator[Path]:
    """The unpacked source package of fuse3, of `suite` or of the installed release, while the block runs."""
    with tempfile.TemporaryDirectory(prefix="regionfs-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # for apt's own user
        sources = directory / "sources"
        for folder in (sources, directory / "lists" / "partial", directory / "cache" / "archives" / "partial"):
            folder.mkdir(parents=True)
        _write_source_lists(sources, suite)
        options = [f"-oDir::Etc::sourceparts={sources}", "-oDir::Etc::sourcelist=/dev/null",
                   f"-oDir::State::lists={directory / 'lists'}", f"-oDir::Cache={directory / 'cache'}"]
        for action in (["update"], ["source", "fuse3"]):
            _run(["apt-get", "-qq", *options, *action], directory)
        found = [path for path in directory.glob("fuse3-*") if path.is_dir()]
        if not found:
            raise MissingError("apt-get source fuse3 unpacked nothing")
        yield found[0]


def _write_source_lists(target: Path, suite: str | None) -> None:
    """The system's package sources once more, as sources of source packages; those of `suite` if it is given."""
    own = platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    for path in [APT / "sources.list", *sorted((APT / "sources.list.d").glob("*"))]:
        if not path.exists() or path.suffix not in (".list", ".sources"):
            continue
        text = re.sub(r"(?m)^deb\s", "deb-src ", re.sub(r"(?mi)^Types:.*$", "Types: deb-src", path.read_text()))
        if suite and own:
            text = re.sub(rf"\b{own}\b", suite, text)
        (target / f"{path.stem}-src{path.suffix}").write_text(text)


def _run(command: list[str | Path], directory: Path) -> None:
    """Run a tool in `directory`; raises MissingError with the reason when it fails."""
    name = " ".join(str(word) for word in command if not str(word).startswith("-"))[:40]
    try:
        done = subprocess.run(command, cwd=directory, check=False, capture_output=True, text=True, timeout=180)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingError(f"{name}: {error}") from None
    if done.returncode:
        raise MissingError(f"{name} failed: {_last_line(done.stderr or done.stdout)}")


def _last_line(text: str) -> str:
    """For a table cell: the last line, without addresses."""
    lines = text.strip().splitlines() or ["no message"]
    return re.sub(r"\S+://\S+", "(address)", lines[-1])
