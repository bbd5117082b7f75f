"""Random maps through every format that goes both ways: the same bytes, or a region named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from regionfs.formats.table import FORMATS
from tests.formats.tools import random_manifest, regionfs

BOTH_WAYS = [row.name for row in FORMATS.values() if row.write]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", BOTH_WAYS)
def test_export_then_import_gives_the_same_bytes(tmp_path: Path, name: str, seed: int) -> None:
    """What an export says, read back, is the composite file's bytes; what it cannot say is one of its regions."""
    manifest, file, expected = random_manifest(tmp_path, seed)
    result = regionfs("export", name, manifest, file, "-o", tmp_path / "out")
    if result.exit_code:
        assert re.match(rf'regionfs: files\["{file}"\]\.regions\[\d+\] \[\d+, \d+\): ', result.stderr), result.stderr
        assert name in ("crosvm", "qemu-map")  # odd rw sizes, inline data
        return
    assert 0 == regionfs("import", "auto", tmp_path / "out", "-o", tmp_path / "n.yaml", "--file", "f").exit_code
    assert expected == regionfs("cat", tmp_path / "n.yaml", "f").stdout_bytes
