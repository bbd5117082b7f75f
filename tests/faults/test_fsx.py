"""Random operations on one file of each mode and on a plain file agree; `make torture` does a million of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.lives import TORTURE, Lives, pattern
from tests.harness import PROJECT, Mount

pytestmark = [pytest.mark.mounted, pytest.mark.timeout(7200)]

OPERATIONS = 1_000_000 if TORTURE else 2_000
KIB = 1024
SEED = 20261120

FILES: dict[str, Any] = {
    "pass.bin": {"whole": "pass.img", "access": "rw"},
    "pass-ro.bin": {"whole": "ro.img"},
    "comp.bin": {"regions": [{"source": "ro.img", "offset": at * 64 * KIB, "length": 64 * KIB} for at in (2, 0, 3, 1)]},
    "user.bin": {"size": "300KiB", "regions": [
        {"source": "one.img", "offset": 700, "length": 99_993, "access": "rw"},
        {"source": "two.img", "length": 100_000, "access": "rw"},
        {"source": "one.img", "offset": 150_000, "length": 107_207, "access": "rw"},
    ]},
    "user-whole.bin": {"whole": "whole.img", "access": "rw"},
}
# file, mode, --modes of the mount, options of fsx
CASES = [
    ("pass.bin", "passthrough", "passthrough,composed,userspace", ["--sized"]),
    ("pass-ro.bin", "passthrough", "passthrough,composed,userspace", ["--read-only"]),
    ("comp.bin", "composed", "passthrough,composed,userspace", ["--read-only"]),
    ("user.bin", "userspace", "passthrough,composed,userspace", []),
    ("user-whole.bin", "userspace", "userspace", ["--sized"]),
]


@pytest.fixture
def sources(tmp_path: Path) -> Iterator[Path]:
    for number, name in enumerate(("pass", "ro", "one", "two", "whole")):
        (tmp_path / f"{name}.img").write_bytes(pattern(256 * KIB if name == "ro" else 300 * KIB, number))
    yield tmp_path


@pytest.mark.parametrize(("name", "mode", "modes", "options"), CASES, ids=[case[0] for case in CASES])
def test_it_agrees_with_a_plain_file(sources: Path, name: str, mode: str, modes: str, options: list[str]) -> None:
    """Reads, writes, mappings, truncates, holes, fsyncs and reopens; also while the server dies twice."""
    if mode != "userspace" and os.geteuid() != 0:
        pytest.skip("passthrough and composed need root")
    with Mount(sources, {name: FILES[name]}, options=["--modes", modes]) as mount:
        assert mode == mount.status()["files"][name]["mode"]
        model = sources / "model"
        model.write_bytes((mount.path / name).read_bytes())
        lives = Lives(mount)
        command = [sys.executable, "-m", "tests.faults.fsx", mount.path / name, model, str(OPERATIONS), str(SEED),
                   *options]
        with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as fsx:
            lives.kill()
            lives.kill()
            said, why = fsx.communicate()
        assert 0 == fsx.returncode, why
        found = json.loads(said)
        print(f"\n{name} ({mode}): {found['operations']} operations, {found['per_second']} per second, {found['done']}")
