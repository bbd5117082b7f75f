"""Three ways to the bytes of one stitched disk agree: the mount, `regionfs flatten`, and QEMU reading the export."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.formats.tools import put, run
from tests.harness import REGIONFS, Mount

MIB = 2**20
DISK = "vm/disk.img"
NEW = b"written through the mount"


@pytest.mark.parametrize("sector", [512, 4096])
def test_vmdk_is_the_flattened_disk(tmp_path: Path, mount: Callable[..., Mount], sector: int) -> None:
    """qemu-img converts the export to the bytes of flatten, whatever was written through the mount before."""
    manifest, out, flat, raw = (tmp_path / name for name in ("disk.yaml", "out.vmdk", "flat", "raw"))
    put(tmp_path / "esp.img", MIB + 700)  # ends within a sector, as the exported extents cannot
    put(tmp_path / "root.img", 2 * MIB + 5000)
    run(REGIONFS, "stitch", manifest, "--disk", DISK, "--gpt", "--sector-size", sector,
        "--part", f"{tmp_path / 'esp.img'}:type=esp", "--part", f"{tmp_path / 'root.img'}:type=linux-root,rw")
    with mount(manifest.read_text()) as composite:
        with (composite.path / DISK).open("r+b") as disk:
            disk.seek(3 * MIB + 100)
            disk.write(NEW)
        run(REGIONFS, "flatten", manifest, DISK, flat)
        run(REGIONFS, "export", "vmdk", manifest, DISK, "-o", out)
        run("qemu-img", "convert", "-f", "vmdk", "-O", "raw", out, raw)
        mounted = (composite.path / DISK).read_bytes()
    assert NEW == mounted[3 * MIB + 100:][:len(NEW)]
    assert mounted == flat.read_bytes()
    assert mounted == raw.read_bytes()
