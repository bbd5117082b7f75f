"""Runs sfdisk and fdisk. Knows how they fail, not what they are asked."""

from __future__ import annotations

import os
import subprocess

from regionfs.errors import RegionfsError

_PATH = "/usr/sbin:/sbin"  # where Debian keeps them, outside a user's PATH
_TIMEOUT = 60              # seconds


def run_tool(command: list[str], text: str = "") -> str:
    """Run `command` with `text` on its input; what it printed, both streams for errors' sake.

    Raises RegionfsError with the tool's own words.
    """
    environment = os.environ | {"LC_ALL": "C.UTF-8", "PATH": f"{os.environ.get('PATH', os.defpath)}:{_PATH}"}
    try:
        done = subprocess.run(command, input=text, capture_output=True, check=False,
                              encoding="utf-8", errors="surrogateescape", env=environment, timeout=_TIMEOUT)
    except FileNotFoundError:
        raise RegionfsError(f"{command[0]} is not installed; it comes with the package fdisk") from None
    except subprocess.TimeoutExpired:
        raise RegionfsError(f"{command[0]} did not end within {_TIMEOUT} seconds") from None
    if done.returncode:
        raise RegionfsError(f"{command[0]} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout
