"""Source packages of the distribution: fetched for a while, or once into build/sources, a real tree to build and read.

apt-get reads the system's own package lists as lists of sources, in a directory of its own; nothing is installed.
What cannot be had is a MissingError that says why.
"""

from __future__ import annotations

import platform
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.tools import MissingError, run

APT = Path("/etc/apt")
BUILD = Path(__file__).resolve().parent.parent / "build" / "sources"


def source_tree(package: str) -> Path:
    """The unpacked source of `package`, of the version that the system's packages have."""
    known = sorted(BUILD.glob(f"{package}-*"))
    if known:
        return known[0]
    BUILD.mkdir(parents=True, exist_ok=True)
    with fetched(package) as tree:
        part = BUILD / f".{tree.name}"  # an interrupted copy shall not be taken for the tree
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(tree, part)
        return part.rename(BUILD / tree.name)


@contextmanager
def fetched(package: str, suite: str | None = None) -> Iterator[Path]:
    """The unpacked source package, of the release `suite` or of the installed one, while the block runs."""
    with tempfile.TemporaryDirectory(prefix="regionfs-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # for apt's own user
        sources = directory / "sources"
        for folder in (sources, directory / "lists" / "partial", directory / "cache" / "archives" / "partial"):
            folder.mkdir(parents=True)
        _write_source_lists(sources, suite)
        options = [f"-oDir::Etc::sourceparts={sources}", "-oDir::Etc::sourcelist=/dev/null",
                   f"-oDir::State::lists={directory / 'lists'}", f"-oDir::Cache={directory / 'cache'}"]
        for action in (["update"], ["source", package]):
            run("apt-get", "-qq", *options, *action, cwd=directory)
        found = [path for path in directory.glob(f"{package}-*") if path.is_dir()]
        if not found:
            raise MissingError(f"the source package of {package} unpacks nothing of its name")
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
