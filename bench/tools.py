"""Programs that may be missing here, or fail: what then cannot be measured, and the reason for the table."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path


class MissingError(Exception):
    """A subject that cannot run on this machine; the text says why."""


def need(program: str) -> None:
    """Raises MissingError unless `program` is on the PATH."""
    if not shutil.which(program):
        raise MissingError(f"{program} is not installed")


def run(*command: str | Path, cwd: Path | None = None) -> None:
    """Run a tool, in `cwd` if that is given; raises MissingError with the reason when it fails."""
    words = [Path(command[0]).name, *(word for word in command[1:] if isinstance(word, str) and word[:1] != "-")]
    name = " ".join(words)[:40]
    try:
        done = subprocess.run(command, cwd=cwd, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=180)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MissingError(f"{name}: {error}") from None
    if done.returncode:
        raise MissingError(f"{name} failed: {_last_line(done.stderr or done.stdout)}")


def _last_line(text: str) -> str:
    """For a table cell: the last line, without addresses."""
    lines = text.strip().splitlines() or ["no message"]
    return re.sub(r"\S+://\S+", "(address)", lines[-1])
