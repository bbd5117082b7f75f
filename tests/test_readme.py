"""The README's tour does what it says."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.harness import PROJECT, REGIONFS

TOUR = re.compile(r"<!-- tour: .*? -->\n```sh\n(.*?)```", re.DOTALL)


@pytest.mark.mounted
def test_the_tour_runs_as_it_stands(tmp_path: Path) -> None:
    """Every command of the five minutes succeeds; the bytes are those the text promises."""
    script, = TOUR.findall((PROJECT / "README.md").read_text())
    path = f"{Path(REGIONFS).parent}{os.pathsep}{os.environ['PATH']}"
    shell = shutil.which("bash")
    assert shell is not None
    done = subprocess.run([shell, "-e"], input=script, cwd=tmp_path, env={**os.environ, "PATH": path}, text=True,
                          capture_output=True, timeout=50, check=False)
    assert (0, "") == (done.returncode, done.stderr)
    assert "hello from the first file" in done.stdout
    assert "written through the map" in done.stdout
    assert "changed both.bin" in done.stdout
    assert done.stdout.endswith("END")
