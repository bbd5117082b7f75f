"""A manifest over real files, and the two ways of running a command on it: in this process or for real."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from regionfs.cli.main import cli
from tests.harness import REGIONFS

MIB = 1 << 20
DISK = """\
regionfs: 1
sources:
  root: {path: root.img, size: 4MiB}
files:
  vm/disk.img:
    size: 64MiB
    regions:
      - {start: 0, data: {text: "boot"}}
      - {start: 1MiB, source: esp.img}
      - {source: root, access: rw, align: 1MiB}
      - {length: 16MiB, hole: true}
      - {length: 4KiB, error: true}
  data.bin: {whole: esp.img, access: rw}
"""

Cli = Callable[..., Result]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A manifest of a small disk and of one whole file, with its sources beside it."""
    (tmp_path / "esp.img").write_bytes(bytes(range(256)) * (MIB // 256))
    (tmp_path / "root.img").write_bytes(b"R" * 4 * MIB)
    manifest = tmp_path / "disk.yaml"
    manifest.write_text(DISK)
    return manifest


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A manifest of one file with 100,000 regions over three sources."""
    for name in "abc":
        (tmp_path / name).write_bytes(bytes(4096))
    rows = "".join(f"      - {{source: {'abc'[number % 3]}, length: 512}}\n" for number in range(100_000))
    manifest = tmp_path / "many.yaml"
    manifest.write_text(f"regionfs: 1\nfiles:\n  big:\n    regions:\n{rows}")
    return manifest


@pytest.fixture
def run() -> Cli:
    """Run a command line in this process; stdout and stderr apart."""
    def run_cli(*arguments: object) -> Result:
        return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="regionfs")
    return run_cli


@pytest.fixture
def command() -> Command:
    """Run the installed command as a shell would."""
    def run_command(*arguments: object, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run([REGIONFS, *map(str, arguments)], capture_output=True, text=True, check=False,
                              timeout=30, env={**os.environ, **(env or {})})
    return run_command
