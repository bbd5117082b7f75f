"""A person's editor on a copy of a manifest, as visudo does it. Knows processes and questions, no locks."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import click

from regionfs.cli.common import say
from regionfs.errors import ManifestError, RegionfsError
from regionfs.manifest.load import loads
from regionfs.printable import printable

_FALLBACK = "vi"


def edit_copy(text: str, path: Path) -> str:
    """The new text of the manifest at `path`, as its user left it; it is valid.

    After an invalid one the user is asked whether to edit again. Raises ManifestError when not,
    RegionfsError when the editor fails.
    """
    with tempfile.TemporaryDirectory(prefix="regionfs-edit-") as place:
        copy = Path(place) / path.name
        copy.write_bytes(text.encode())
        while True:
            _run_editor(copy)
            new = copy.read_bytes()
            try:
                loads(new, path)
                return new.decode()
            except ManifestError as error:
                for line in error.lines:
                    say(line, err=True)
                if not _again(path):
                    raise RegionfsError(f"{path} was not changed") from None


def _run_editor(copy: Path) -> None:
    command = os.environ.get("VISUAL") or os.environ.get("EDITOR") or _FALLBACK
    try:
        status = subprocess.run([*shlex.split(command), str(copy)], check=False).returncode
    except (OSError, ValueError) as error:
        raise RegionfsError(f"the editor {command!r} cannot be started: {error}; set EDITOR") from None
    if status:
        raise RegionfsError(f"the editor {command!r} ended with status {status}; nothing was changed")


def _again(path: Path) -> bool:
    """True to edit again; no answer means no."""
    while True:
        try:
            answer = click.prompt(f"{printable(str(path))} is not valid and cannot be saved. What now? "
                                  "e: edit again, q: quit without saving", err=True, prompt_suffix=" ")
        except click.Abort:
            return False
        if answer.strip().lower() in ("e", "q"):
            return bool(answer.strip().lower() == "e")
