"""Loop devices on request: attached, shared by all names of a file, gone with whoever holds them."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from regionfs.errors import ManifestError
from regionfs.manifest.load import load
from regionfs.manifest.schema import Manifest
from regionfs.modes.loop import attach, attach_loops
from tests import sweep
from tests.harness import PROJECT, exercised, loop_device
from tests.iomap_kernel import IomapKernel

pytestmark = pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/loop-control").exists(),
                                reason="loop devices need root and /dev/loop-control")


@pytest.fixture(autouse=True)
def detached(tmp_path: Path) -> Iterator[None]:
    """No test leaves a device behind."""
    yield
    assert [] == list(sweep.loops_below(tmp_path))
    exercised["loop devices"] += 1


def manifest_of(directory: Path, sources: str, files: str) -> Path:
    manifest = directory / "m.yaml"
    manifest.write_text(f"regionfs: 1\nsources: {{{sources}}}\nfiles:\n{files}")
    return manifest


def devices_of(manifest: Manifest) -> dict[str, Path | None]:
    return {key: spec.device for key, spec in manifest.sources.items()}


def test_attached_and_gone(tmp_path: Path) -> None:
    """The device shows the file, takes writes only if asked, and goes with its last descriptor."""
    image = tmp_path / "image"
    image.write_bytes(b"x" * 8192)
    fd, device = attach(image, False)
    try:
        assert [str(device)] == list(sweep.loops_below(tmp_path))
        assert (b"x" * 8192, "1") == (device.read_bytes(), Path(f"/sys/block/{device.name}/ro").read_text().strip())
    finally:
        os.close(fd)


def test_gone_after_a_crash(tmp_path: Path) -> None:
    """A process that is killed leaves no device."""
    image = tmp_path / "image"
    image.write_bytes(bytes(4096))
    code = ("import os, signal, sys; from pathlib import Path; from regionfs.modes.loop import attach\n"
            "attach(Path(sys.argv[1]), True); print('attached', flush=True); os.kill(os.getpid(), signal.SIGKILL)")
    done = subprocess.run([sys.executable, "-c", code, image], capture_output=True, text=True, check=False, cwd=PROJECT)
    assert ("attached\n", -9) == (done.stdout, done.returncode)


def test_one_device_a_file(tmp_path: Path) -> None:
    """All names of a file get its device, which is rw if any of them is; a file that does not ask gets none."""
    (tmp_path / "a").write_bytes(bytes(4096))
    (tmp_path / "b").write_bytes(bytes(4096))
    (tmp_path / "link").symlink_to("a")
    manifest = load(manifest_of(tmp_path, "x: {path: a, loop: true}, y: link, z: b", (
        "  f: {whole: x}\n  g: {whole: y, access: rw}\n  h: {whole: z}\n")))
    attached, kept = attach_loops(manifest)
    try:
        devices = devices_of(attached)
        assert (1, devices["x"], None) == (len(kept), devices["y"], devices["z"])
        again, more = attach_loops(manifest, [device for device in devices.values() if device])
        assert (devices, []) == (devices_of(again), more)
    finally:
        for fd in kept:
            os.close(fd)


def test_no_whole_sectors(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A loop device would hide a file's last partial sector: such a file gets none, and a log line."""
    (tmp_path / "a").write_bytes(bytes(700))
    manifest = load(manifest_of(tmp_path, "x: {path: a, loop: true}", "  f: {whole: x}\n"))
    with caplog.at_level(logging.WARNING, "regionfs"):
        assert (manifest, []) == attach_loops(manifest)
    assert ["x: no loop device: 700 bytes are not whole sectors of 512"] == caplog.messages


def test_a_device_needs_no_loop(tmp_path: Path) -> None:
    """`loop` on what is a block device already is a mistake, told with its place."""
    (tmp_path / "a").write_bytes(bytes(4096))
    with loop_device(tmp_path / "a") as device, pytest.raises(ManifestError) as caught:
        load(manifest_of(tmp_path, f"x: {{path: {device}, loop: true}}", "  f: {whole: x}\n"))
    problem, = caught.value.problems
    assert ("sources.x.loop", f"{device} is a block device already; loop is for regular files") == (
        problem.path, problem.message)


def test_served_by_iomap(tmp_path: Path) -> None:
    """A file that could only be copied byte by byte is the kernel's own over its loop device."""
    (tmp_path / "a").write_bytes(bytes(range(256)) * 16)
    manifest = manifest_of(tmp_path, "x: {path: a, loop: true}", (
        "  f:\n    regions:\n      - {source: x, offset: 512, length: 1024, access: rw}\n"))
    with IomapKernel(manifest) as kernel:
        file = kernel.open("f")
        assert bytes(range(256)) * 4 == kernel.read(file, 0, 4096)
        assert 700 == kernel.write(file, 100, b"y" * 700)
        kernel.fsync(file)
    assert b"y" * 700 == (tmp_path / "a").read_bytes()[612:1312]
