"""The C examples of libfuse, compiled here: passthrough_ll from libfuse3-dev, passthrough_hp from the source package.

Debian ships no passthrough_hp.cc in its examples, so apt-get fetches the source of the installed fuse3 in a
temporary directory, with the system's own sources read as deb-src. What cannot be had is a MissingError that
says why.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

BUILD = Path(__file__).resolve().parent.parent / "build" / "peers"
EXAMPLES = Path("/usr/share/doc/libfuse3-dev/examples")
APT = Path("/etc/apt")


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
        with tempfile.TemporaryDirectory(prefix="regionfs-bench-") as name:
            directory = Path(name)
            directory.chmod(0o755)  # for apt's own user
            _compile(["g++", "-O2", "-w", "-std=c++17"], _fetch(directory), target)
    return target


def libfuse_version() -> str:
    """Of the installed library, as pkg-config says."""
    return subprocess.run(["pkg-config", "--modversion", "fuse3"], check=True, capture_output=True,
                          text=True).stdout.strip()


def _target(name: str) -> Path:
    BUILD.mkdir(parents=True, exist_ok=True)
    return BUILD / f"{name}-{libfuse_version()}"


def _compile(compiler: list[str], source: Path, target: Path) -> None:
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "fuse3"], check=True, capture_output=True,
                           text=True).stdout.split()
    done = subprocess.run([*compiler, "-D_FILE_OFFSET_BITS=64", source, "-o", target, *flags], check=False,
                          capture_output=True, text=True)
    if done.returncode:
        raise MissingError(f"{source.name} does not compile: {done.stderr.strip().splitlines()[0]}")


def _fetch(directory: Path) -> Path:
    """The source of passthrough_hp, unpacked below `directory`."""
    sources = directory / "sources"
    for folder in (sources, directory / "lists" / "partial", directory / "cache" / "archives" / "partial"):
        folder.mkdir(parents=True)
    _write_source_lists(sources)
    options = [f"-oDir::Etc::sourceparts={sources}", "-oDir::Etc::sourcelist=/dev/null",
               f"-oDir::State::lists={directory / 'lists'}", f"-oDir::Cache={directory / 'cache'}"]
    for action in (["update"], ["source", "fuse3"]):
        try:
            done = subprocess.run(["apt-get", "-qq", *options, *action], cwd=directory, check=False,
                                  capture_output=True, text=True, timeout=180)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MissingError(f"apt-get {' '.join(action)}: {error}") from None
        if done.returncode:
            raise MissingError(f"apt-get {' '.join(action)} failed: {_last_line(done.stderr)}")
    found = list(directory.glob("fuse3-*/example/passthrough_hp.cc"))
    if not found:
        raise MissingError("the source package of fuse3 has no example/passthrough_hp.cc")
    return found[0]


def _write_source_lists(target: Path) -> None:
    """The system's package sources once more, as sources of source packages."""
    for path in [APT / "sources.list", *sorted((APT / "sources.list.d").glob("*.list"))]:
        if path.exists():
            text = re.sub(r"(?m)^deb\s", "deb-src ", path.read_text())
            (target / f"{path.stem}-src.list").write_text(text)
    for path in sorted((APT / "sources.list.d").glob("*.sources")):
        text = re.sub(r"(?mi)^Types:.*$", "Types: deb-src", path.read_text())
        (target / f"{path.stem}-src.sources").write_text(text)


def _last_line(text: str) -> str:
    """For a table cell: the last line, without addresses."""
    lines = text.strip().splitlines() or ["no message"]
    return re.sub(r"\S+://\S+", "(address)", lines[-1])
