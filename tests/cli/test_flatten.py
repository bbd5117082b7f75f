"""`regionfs flatten`: a real file with the same bytes and holes, by the cheapest way, or nothing at all."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from regionfs.errors import RegionfsError
from regionfs.flatten import Flattening, without_errors
from regionfs.manifest.body import Mapped
from regionfs.manifest.load import load
from regionfs.source import Sources
from tests import harness
from tests.cases import FLAVOURS, manifest_text, random_case
from tests.cli.conftest import MIB, Cli
from tests.harness import REGIONFS

PLAIN = """\
regionfs: 1
files:
  disk.img:
    size: 64MiB
    regions:
      - {start: 0, data: {text: "boot"}}
      - {start: 1MiB, source: a.img}
      - {start: 8MiB, source: b.img, offset: 100, length: 1000000}
      - {start: 32MiB, source: sparse.img, access: rw}
"""


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A manifest without error regions, with its sources beside it."""
    return write_plain(tmp_path)


def write_plain(directory: Path) -> Path:
    (directory / "a.img").write_bytes(Random(1).randbytes(2 * MIB))
    (directory / "b.img").write_bytes(Random(2).randbytes(2 * MIB))
    with (directory / "sparse.img").open("wb") as sparse:
        sparse.truncate(16 * MIB)
        os.pwrite(sparse.fileno(), b"s" * 4096, 4 * MIB)
    manifest = directory / "plain.yaml"
    manifest.write_text(PLAIN)
    return manifest


def expected(directory: Path) -> bytes:
    """What PLAIN shows."""
    whole = bytearray(64 * MIB)
    whole[:4] = b"boot"
    whole[MIB:3 * MIB] = (directory / "a.img").read_bytes()
    whole[8 * MIB:8 * MIB + 1000000] = (directory / "b.img").read_bytes()[100:1000100]
    whole[32 * MIB:48 * MIB] = (directory / "sparse.img").read_bytes()
    return bytes(whole)


@contextmanager
def file_system(directory: Path, kind: str) -> Iterator[Path]:
    """A new file system of `kind` in an image, mounted, for root; the image lies beside it."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("loop mounts need root and /dev/loop-control")
    image, point = directory / f"{kind}.img", directory / kind
    with image.open("wb") as file:
        file.truncate(320 * MIB)
    point.mkdir()
    subprocess.run([f"mkfs.{kind}", image], check=True, capture_output=True, timeout=30)
    with harness.loop_device(image) as device:
        subprocess.run(["mount", device, point], check=True, timeout=30)
        try:
            yield point
        finally:
            subprocess.run(["umount", point], check=True, timeout=30)


def test_bytes_and_holes(run: Cli, plain: Path, tmp_path: Path) -> None:
    """Every byte is there; what is a hole of the map or of a source takes no room."""
    out = tmp_path / "out.img"
    result = run("flatten", plain, "disk.img", out, "--verify")
    assert (0, "") == (result.exit_code, result.stdout)
    assert expected(tmp_path) == out.read_bytes()
    assert out.stat().st_blocks * 512 < 4 * MIB
    assert result.stderr.startswith(f"{out}: 64 MiB (")
    assert result.stderr.endswith("holes), verified\n")


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_random_maps(tmp_path: Path, flavour: str) -> None:
    """100 random maps equal the byte oracle, errors as zeros, and verify agrees."""
    for seed in range(100):
        case = random_case(50_000 + seed, tmp_path, flavour)
        case.put()
        manifest = tmp_path / "case.yaml"
        manifest.write_text(manifest_text([case]))
        loaded = load(manifest)
        for file in case.files:
            if not isinstance(body := loaded.files[file.path].body, Mapped):
                continue
            with Sources(loaded) as sources, (tmp_path / "out").open("w+b") as out:
                flattening = Flattening(without_errors(body.regions), sources, out.fileno())
                flattening.write(lambda count: None)
                flattening.verify(lambda count: None)
                out.seek(0)
                found = out.read()
            wanted = bytes(0 if store is None else store[index] for store, index, _, _ in file.model.bytes)
            assert wanted == found, f"seed {case.seed}, {file.path}"


@pytest.mark.parametrize("kind", ["xfs", "btrfs"])
def test_blocks_are_shared_where_the_file_system_can(run: Cli, tmp_path: Path, kind: str) -> None:
    """The aligned source takes no room twice; what is not aligned is copied; the bytes are the same."""
    with file_system(tmp_path, kind) as point:
        manifest = write_plain(point)
        os.sync()
        before = os.statvfs(point).f_bfree * os.statvfs(point).f_frsize
        result = run("flatten", manifest, "disk.img", point / "out.img", "--verify", "--json")
        told = json.loads(result.stdout)
        assert 2 * MIB + 4096 == told["shared"]
        assert 4 + 1000000 == told["copied"] + told["written"]
        assert expected(point) == (point / "out.img").read_bytes()
        os.sync()
        assert before - os.statvfs(point).f_bfree * os.statvfs(point).f_frsize < 2 * MIB


def test_from_one_file_system_to_another(run: Cli, plain: Path, tmp_path: Path) -> None:
    """Nothing can be shared there; the bytes are the same."""
    with file_system(tmp_path, "xfs") as point:
        told = json.loads(run("flatten", plain, "disk.img", point / "out.img", "--verify", "--json").stdout)
        assert 0 == told["shared"]
        assert expected(tmp_path) == (point / "out.img").read_bytes()


def test_from_a_block_device(run: Cli, tmp_path: Path) -> None:
    """A window of a loop device, not on a sector."""
    (tmp_path / "backing").write_bytes(Random(3).randbytes(MIB))
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("loop devices need root and /dev/loop-control")
    with harness.loop_device(tmp_path / "backing") as device:
        manifest = tmp_path / "window.yaml"
        region = f"{{source: {device}, offset: 700, length: 5000}}"
        manifest.write_text(f"regionfs: 1\nfiles:\n  w: {{regions: [{region}]}}\n")
        assert 0 == run("flatten", manifest, "w", tmp_path / "out", "--verify").exit_code
    assert (tmp_path / "backing").read_bytes()[700:5700] == (tmp_path / "out").read_bytes()


def test_a_whole_file_and_an_empty_one(run: Cli, tmp_path: Path) -> None:
    """`whole` follows its source's size, also when that is 0."""
    (tmp_path / "full").write_bytes(b"x" * 1000)
    (tmp_path / "empty").write_bytes(b"")
    manifest = tmp_path / "whole.yaml"
    manifest.write_text("regionfs: 1\nfiles:\n  full: {whole: full}\n  empty: {whole: empty}\n")
    for name in ("full", "empty"):
        assert 0 == run("flatten", manifest, name, tmp_path / f"{name}.out", "--verify").exit_code
        assert (tmp_path / name).read_bytes() == (tmp_path / f"{name}.out").read_bytes()


def test_an_error_region_is_named_before_anything_is_written(run: Cli, disk: Path, tmp_path: Path) -> None:
    """Exit status 1; --errors zero writes zeros there."""
    out = tmp_path / "out"
    result = run("flatten", disk, "vm/disk.img", out)
    assert 1 == result.exit_code
    assert (f"regionfs: vm/disk.img: region 4, at byte {22 * MIB}, is an error region; --errors zero writes zeros "
            "there\n") == result.stderr
    assert not out.exists()
    assert 0 == run("flatten", disk, "vm/disk.img", out, "--errors", "zero", "--verify").exit_code
    assert 64 * MIB == out.stat().st_size


def test_an_existing_file_stays_without_force(run: Cli, plain: Path, tmp_path: Path) -> None:
    """Wrong usage, exit status 2; --force replaces it."""
    out = tmp_path / "out"
    out.write_text("mine")
    assert 2 == run("flatten", plain, "disk.img", out).exit_code
    assert "mine" == out.read_text()
    assert 0 == run("flatten", plain, "disk.img", out, "--force").exit_code
    assert 64 * MIB == out.stat().st_size


@pytest.mark.parametrize("name", ["a.img", "link", "plain.yaml"])
def test_a_source_is_never_replaced(run: Cli, plain: Path, tmp_path: Path, name: str) -> None:
    """Nor the manifest, under whatever name, even with --force."""
    (tmp_path / "link").hardlink_to(tmp_path / "b.img")
    before = (tmp_path / name).read_bytes()
    result = run("flatten", plain, "disk.img", tmp_path / name, "--force")
    assert 2 == result.exit_code
    assert "is what the result is made of" in result.stderr
    assert before == (tmp_path / name).read_bytes()


@pytest.mark.parametrize("source", ["image", "device"])
def test_a_place_inside_a_source_is_refused(run: Cli, tmp_path: Path, source: str) -> None:
    """The target's file system lies on the loop device's image: writing there would change what is read."""
    with file_system(tmp_path, "btrfs") as point:
        mounted = subprocess.run(["findmnt", "-no", "SOURCE", point], capture_output=True, text=True, check=True)
        path = tmp_path / "btrfs.img" if source == "image" else mounted.stdout.strip()
        manifest = tmp_path / "self.yaml"
        manifest.write_text(f"regionfs: 1\nfiles:\n  self: {{whole: {path}}}\n")
        result = run("flatten", manifest, "self", point / "out")
        assert 2 == result.exit_code, result.output
        assert f"{point} lies on {path}, which self is made of" in result.stderr
        assert [] == list(point.iterdir())


def test_a_full_disk_leaves_nothing(run: Cli, plain: Path, tmp_path: Path) -> None:
    """Exit status 1, one line that names the file and the reason."""
    if os.geteuid() != 0:
        pytest.skip("a small tmpfs needs root")
    point = tmp_path / "small"
    point.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M", "none", point], check=True)
    try:
        result = run("flatten", plain, "disk.img", point / "out")
        assert [] == list(point.iterdir())
    finally:
        subprocess.run(["umount", point], check=True)
    assert 1 == result.exit_code
    assert f"regionfs: {point}/out: No space left on device; nothing of it was kept\n" == result.stderr


def test_a_directory_that_does_not_exist(run: Cli, plain: Path, tmp_path: Path) -> None:
    """Named, before anything is read."""
    result = run("flatten", plain, "disk.img", tmp_path / "no" / "out")
    assert 2 == result.exit_code
    assert f"{tmp_path}/no is not a directory" in result.stderr


@pytest.mark.parametrize("position", [MIB + 4097, 5 * MIB, 63 * MIB])
def test_verify_finds_one_wrong_byte(plain: Path, tmp_path: Path, position: int) -> None:
    """In data and in holes alike."""
    loaded = load(plain)
    regions = loaded.files["disk.img"].regions
    assert regions is not None
    with Sources(loaded) as sources, (tmp_path / "out").open("w+b") as out:
        flattening = Flattening(regions, sources, out.fileno())
        flattening.write(lambda count: None)
        flattening.verify(lambda count: None)
        byte, = os.pread(out.fileno(), 1, position)
        os.pwrite(out.fileno(), bytes([byte ^ 1]), position)
        with pytest.raises(RegionfsError, match=f"^differs from its sources at byte {position}$"):
            flattening.verify(lambda count: None)


def test_progress_counts_every_byte_that_is_no_hole(plain: Path, tmp_path: Path) -> None:
    """The bar's total is what write and verify report."""
    loaded = load(plain)
    regions = loaded.files["disk.img"].regions
    assert regions is not None
    counts: list[int] = []
    with Sources(loaded) as sources, (tmp_path / "out").open("w+b") as out:
        flattening = Flattening(regions, sources, out.fileno())
        flattening.write(counts.append)
        assert flattening.total() == sum(counts)
        counts.clear()
        flattening.verify(counts.append)
        assert flattening.total() == sum(counts)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interrupt_leaves_nothing(tmp_path: Path, number: signal.Signals, status: int) -> None:
    """In the middle of the work, seen by the bar on the terminal: no file, no temporary one."""
    (tmp_path / "piece").write_bytes(Random(4).randbytes(32 * MIB))
    manifest = tmp_path / "long.yaml"
    manifest.write_text("regionfs: 1\nfiles:\n  long:\n    regions:\n" + "      - {source: piece}\n" * 2000)
    target = tmp_path / "target"
    target.mkdir()
    main, side = pty.openpty()
    with subprocess.Popen([REGIONFS, "flatten", manifest, "long", target / "out"], stderr=side,
                          env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}) as process:
        os.close(side)
        seen = b""
        while b"iB/s" not in seen:
            seen += os.read(main, 65536)
        working = [path.name for path in target.iterdir()]
        process.send_signal(number)
        while True:
            try:
                if not os.read(main, 65536):
                    break
            except OSError:  # EIO: the command has closed the terminal
                break
        assert status == process.wait(30)
    os.close(main)
    assert [] == working
    assert [] == list(target.iterdir())


def killed_while_writing(manifest: Path, target: Path) -> list[str]:
    """What is in `target` while flatten writes there, and is left when it is killed then."""
    main, side = pty.openpty()
    with subprocess.Popen([REGIONFS, "flatten", "--force", manifest, "long", target / "out"], stderr=side,
                          env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}) as process:
        os.close(side)
        seen = b""
        while b"iB/s" not in seen:
            seen += os.read(main, 65536)
        process.kill()
        process.wait(30)
    os.close(main)
    return sorted(path.name for path in target.iterdir())


def write_long(directory: Path) -> Path:
    """A manifest of a file that takes a while."""
    (directory / "piece").write_bytes(Random(4).randbytes(4 * MIB))
    manifest = directory / "long.yaml"
    rows = "      - {source: piece}\n" * 60
    manifest.write_text(f"regionfs: 1\nfiles:\n  short: {{whole: piece}}\n  long:\n    regions:\n{rows}")
    return manifest


def test_a_kill_leaves_nothing(tmp_path: Path) -> None:
    """Unfinished bytes have no name; what was there before stays."""
    manifest, target = write_long(tmp_path), tmp_path / "target"
    target.mkdir()
    assert [] == killed_while_writing(manifest, target)
    (target / "out").write_text("mine")
    assert ["out"] == killed_while_writing(manifest, target)
    assert "mine" == (target / "out").read_text()


def test_stdout(tmp_path: Path, plain: Path, disk: Path) -> None:
    """`-` is a pipe, not a file of that name; errors are zeros or refused as ever."""
    for words, status, size in ((["disk.img"], 0, 64 * MIB), (["disk.img", "--verify"], 2, 0),
                                (["disk.img", "--json"], 2, 0)):
        done = subprocess.run([REGIONFS, "flatten", plain, words[0], "-", *words[1:]], cwd=tmp_path, timeout=60,
                              capture_output=True, check=False)
        assert (status, size) == (done.returncode, len(done.stdout)), done.stderr
        assert status or done.stdout == expected(tmp_path)
    assert not (tmp_path / "-").exists()
    zeros = subprocess.run([REGIONFS, "flatten", disk, "vm/disk.img", "-", "--errors", "zero"], capture_output=True,
                           check=True, timeout=60)
    assert (b"boot", 64 * MIB) == (zeros.stdout[:4], len(zeros.stdout))


def test_the_others_that_write_a_file(tmp_path: Path, plain: Path) -> None:
    """stitch, show --svg and --html write to stdout too, and the manifest that stitch writes is the same."""
    stitch = ["stitch", "OUT", "--file", "f", "--concat", "a.img", "b.img"]
    for words, begin in ((["show", plain, "--svg", "-"], b"<?xml"), (["show", plain, "--html", "-"], b"<!DOCTYPE"),
                         ([word.replace("OUT", "-") for word in stitch], b"# Made by: regionfs stitch - ")):
        done = subprocess.run([REGIONFS, *words], cwd=tmp_path, capture_output=True, check=True, timeout=60)
        assert (begin, b"") == (done.stdout[:len(begin)], done.stderr)
        assert not (tmp_path / "-").exists()
    subprocess.run([REGIONFS, *stitch], cwd=tmp_path, capture_output=True, check=True, timeout=60)
    assert done.stdout.splitlines()[1:] == (tmp_path / "OUT").read_bytes().splitlines()[1:]


def test_without_a_terminal_there_is_no_bar(plain: Path, tmp_path: Path) -> None:
    """stderr has the one line of the end."""
    done = subprocess.run([REGIONFS, "flatten", plain, "disk.img", tmp_path / "out"], capture_output=True, text=True,
                          check=True, timeout=30)
    assert ("", 1) == (done.stdout, len(done.stderr.splitlines()))


def test_a_source_that_changes_meanwhile_is_an_error(plain: Path, tmp_path: Path) -> None:
    """A mixture of old and new bytes is not kept."""
    from regionfs.cli.flatten import _perform
    from regionfs.errors import SourceError
    loaded = load(plain)
    spec = loaded.files["disk.img"]

    class Changing(Flattening):
        def write(self, progress: object) -> None:
            os.utime(tmp_path / "a.img", (1, 1))

    with Sources(loaded) as sources, (tmp_path / "out").open("w+b") as out, pytest.raises(SourceError, match="changed"):
        _perform(Changing(spec.regions, sources, out.fileno()), spec, tmp_path / "out", False)
