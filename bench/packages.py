"""Source packages of the distribution, fetched once into build/sources: a real tree to build and to read.

apt-get reads the system's own package lists as lists of sources, in a directory of its own; nothing is installed.
What cannot be had is a MissingError that says why.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from bench.peers import APT, MissingError

BUILD = Path(__file__).resolve().parent.parent / "build" / "sources"


def source_tree(package: str) -> Path:
    """The unpacked source of `package`, of the version that the system's packages have."""
    known = sorted(BUILD.glob(f"{package}-*"))
    if known:
        return known[0]
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="regionfs-bench-") as name:
        directory = Path(name)
        directory.chmod(0o755)  # for apt's own user
        _fetch(package, directory)
        found = [path for path in directory.glob(f"{package}-*") if path.is_dir()]
        if not found:
            raise MissingError(f"the source package of {package} unpacks nothing of its name")
        part = BUILD / f".{found[0].name}"  # an interrupted copy shall not be taken for the tree
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(found[0], part)
        return part.rename(BUILD / found[0].name)


def _fetch(package: str, directory: Path) -> None:
    sources = directory / "sources"
    for folder in (sources, directory / "lists" / "partial", directory / "cache" / "archives" / "partial"):
        folder.mkdir(parents=True)
    for path in [APT / "sources.list", *sorted((APT / "sources.list.d").glob("*"))]:
        if path.exists() and path.suffix in (".list", ".sources"):
            text = re.sub(r"(?m)^deb\s", "deb-src ", re.sub(r"(?mi)^Types:.*$", "Types: deb-src", path.read_text()))
            (sources / f"{path.stem}-src{path.suffix}").write_text(text)
    options = [f"-oDir::Etc::sourceparts={sources}", "-oDir::Etc::sourcelist=/dev/null",
               f"-oDir::State::lists={directory / 'lists'}", f"-oDir::Cache={directory / 'cache'}"]
    for action in (["update"], ["source", package]):
        try:
            done = subprocess.run(["apt-get", "-qq", *options, *action], cwd=directory, check=False,
                                  capture_output=True, text=True, timeout=180)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise MissingError(f"apt-get {' '.join(action)}: {error}") from None
        if done.returncode:
            reason = (done.stderr.strip() or "no message").splitlines()[-1]
            raise MissingError(f"apt-get {' '.join(action)} failed: " + re.sub(r"\S+://\S+", "(address)", reason))
