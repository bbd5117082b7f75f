"""The README's tour does what it says."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness import PROJECT, REGIONFS

TOUR = re.compile(r"<!-- tour: .*? -->\n```sh\n(.*?)```", re.DOTALL)


def run_tour(directory: Path, path: str) -> str:
    """The five minutes as they stand, in `directory`, with commands from `path`; what they print."""
    script, = TOUR.findall((PROJECT / "README.md").read_text())
    shell = shutil.which("bash")
    assert shell is not None
    done = subprocess.run([shell, "-e"], input=script, cwd=directory, env={**os.environ, "PATH": path}, text=True,
                          capture_output=True, timeout=50, check=False)
    expected = ("tour.yaml: both.bin: ", f"{directory}/mnt shows the manifest as it was until: regionfs reload ",
                "mounted tour.yaml on mnt: 2 files, ", "unmounted mnt")
    surprises = [line for line in done.stderr.splitlines() if not line.startswith(expected)]
    assert (0, []) == (done.returncode, surprises)
    return done.stdout


@pytest.mark.mounted
def test_the_tour_runs_as_it_stands(tmp_path: Path) -> None:
    """Every command of the five minutes succeeds; the bytes are those the text promises."""
    printed = run_tour(tmp_path, f"{Path(REGIONFS).parent}{os.pathsep}{os.environ['PATH']}")
    assert "hello from the first file" in printed
    assert "written through the map" in printed
    assert "changed both.bin" in printed
    assert printed.endswith("END")
