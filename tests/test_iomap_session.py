"""iomap mode between the real server and the kernel's side: questions counted, the plan, fallbacks, claims."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from random import Random

import pytest

from regionfs.fs import FileSystem
from regionfs.modes.choose import Mode
from regionfs.serve.iomap import IomapSession
from regionfs.serve.native import Server
from regionfs.wire import iomap_v7
from tests.harness import ROOT_OR_ME, loop_device
from tests.iomap_cases import random_case
from tests.iomap_kernel import KEEP_SIZE, PUNCH_HOLE, IomapKernel
from tests.iomap_state import Devices

LoopDevice = Callable[..., AbstractContextManager[Path]]
SECTOR, REGIONS = 512, 10_000
SIZE = REGIONS * SECTOR


@pytest.fixture(scope="module")
def devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[tuple[Path, int, int]]]:
    """Two loop devices, of which the first holds 10,000 sectors."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("loop devices need root and /dev/loop-control")
    directory = tmp_path_factory.mktemp("disks")
    with ExitStack() as stack:
        found = []
        for name, size in (("a", SIZE), ("b", 40 * SECTOR)):
            (directory / name).write_bytes(Random(name).randbytes(size))
            found.append((stack.enter_context(loop_device(directory / name)), size, SECTOR))
        yield found


@pytest.fixture(scope="module")
def shuffled(devices: list[tuple[Path, int, int]], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A manifest of 10,000 one-sector regions in random order, and what its file holds."""
    order = list(range(REGIONS))
    Random(1).shuffle(order)
    path = devices[0][0]
    contents = path.read_bytes()[:SIZE]
    lines = "\n".join(f"      - {{source: d, offset: {SECTOR * n}, length: {SECTOR}}}" for n in order)
    manifest = tmp_path_factory.mktemp("map") / "shuffled.yaml"
    manifest.write_text(f"regionfs: 1\nsources: {{d: {path}}}\nfiles:\n  f:\n    regions:\n{lines}\n")
    return manifest, b"".join(contents[SECTOR * n:SECTOR * (n + 1)] for n in order)


def silent(server: Server) -> None:
    """A server that answers, and tells nothing in advance."""
    assert server.iomap is not None
    server.iomap.upserts.stop()


@pytest.mark.parametrize("order", ["sequential", "random"])
@pytest.mark.parametrize(("told", "most"), [(True, REGIONS // 1000), (False, REGIONS)])
def test_questions_are_few(shuffled: tuple[Path, bytes], order: str, told: bool, most: int) -> None:
    """With mappings told in advance at most one BEGIN per 1,000 regions, in any order; without, one for each."""
    manifest, contents = shuffled
    sectors = list(range(REGIONS))
    if order == "random":
        Random(2).shuffle(sectors)
    with IomapKernel(manifest, tamper=None if told else silent) as kernel:
        file = kernel.open("f", os.O_RDONLY)
        for sector in sectors:
            asked = kernel.begins
            assert contents[SECTOR * sector:SECTOR * (sector + 1)] == kernel.read(file, SECTOR * sector, SECTOR)
            if told and kernel.begins != asked:
                kernel.settle()
        print(f"{order} read of {REGIONS} regions, mappings {'' if told else 'not '}told: {kernel.begins} BEGIN")
        assert kernel.begins <= most
        assert told or kernel.begins == REGIONS


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4])
def test_answers_are_the_plan(devices: list[tuple[Path, int, int]], tmp_path: Path, seed: int) -> None:
    """`regionfs plan` prints just the mappings that BEGIN answers with, and that are told in advance."""
    case = random_case(seed, [(path, 40 * SECTOR, SECTOR) for path, _, _ in devices])
    manifest = tmp_path / "map.yaml"
    manifest.write_text(case.text)
    done = ROOT_OR_ME.regionfs("plan", "--json", manifest, "dir/f", "0", str(case.model.size))
    assert "" == done.stderr
    planned = [(m["offset"], m["length"], m["address"], m["source"]) for m in json.loads(done.stdout)["mappings"]]
    with IomapKernel(manifest) as kernel:
        file = kernel.open("dir/f", os.O_RDONLY)
        names = {os.fstat(known.fd).st_rdev: dev for dev, known in kernel.devices.known.items()}
        key_of = {names[path.stat().st_rdev]: f"d{number}" for number, (path, _, _) in enumerate(devices)
                  if path.stat().st_rdev in names}
        begun = [kernel._begin(file, offset, 1, 0) for offset, _, _, _ in planned]
        kernel.settle()
        for answers in (begun, file.read_fork.mappings):
            assert planned == [(io.offset, io.length, None if io.addr == iomap_v7.NULL_ADDR else io.addr,
                                key_of.get(io.dev)) for io in answers]


def whole(tmp_path: Path, device: Path, *, access: str = "rw", beside: str = "") -> Path:
    manifest = tmp_path / "whole.yaml"
    manifest.write_text(f"regionfs: 1\nfiles:\n  f: {{whole: {device}, access: {access}}}\n{beside}")
    return manifest


def test_one_number_a_device(devices: list[tuple[Path, int, int]], tmp_path: Path) -> None:
    """However many regions, files and names use a device, it is registered once, by CONFIG."""
    path, size, _ = devices[1]
    alias = tmp_path / "alias"
    alias.symlink_to(path)
    lines = "".join(f"      - {{source: {name}, offset: {offset}, length: 512}}\n"
                    for name in ("x", "y") for offset in (0, 512, 2048))
    files = "".join(f"  {name}:\n    regions:\n{lines}" for name in ("f", "g"))
    manifest = tmp_path / "m.yaml"
    manifest.write_text(f"regionfs: 1\nsources: {{x: {path}, y: {alias}}}\nfiles:\n{files}")
    with IomapKernel(manifest) as kernel:
        assert [size] == [known.size for known in kernel.devices.known.values()]
        assert kernel.begins == 0


def test_a_device_in_use_is_left_alone(devices: list[tuple[Path, int, int]], tmp_path: Path,
                                       caplog: pytest.LogCaptureFixture) -> None:
    """A rw device that somebody claims (a mounted partition) goes to userspace, with one line that names it."""
    path = devices[1][0]
    claim = os.open(path, os.O_RDWR | os.O_EXCL)
    try:
        with caplog.at_level(logging.WARNING, "regionfs"), IomapKernel(whole(tmp_path, path)) as kernel:
            choice = kernel.fs.tree.files["f"].choice
    finally:
        os.close(claim)
    assert f"userspace: iomap failed: {path}: Device or resource busy" == str(choice)
    assert [f"f: served in userspace: iomap failed: {path}: Device or resource busy"] == caplog.messages


def test_a_rw_device_is_claimed(devices: list[tuple[Path, int, int]], tmp_path: Path) -> None:
    """While it is mounted nobody else can claim it, and after DESTROY anybody can."""
    path = devices[1][0]
    with IomapKernel(whole(tmp_path, path)):
        with pytest.raises(OSError) as caught:
            os.close(os.open(path, os.O_RDONLY | os.O_EXCL))
        assert errno.EBUSY == caught.value.errno
    os.close(os.open(path, os.O_RDONLY | os.O_EXCL))


def test_a_ro_device_is_not_claimed(devices: list[tuple[Path, int, int]], tmp_path: Path) -> None:
    """Reading disturbs nobody."""
    path = devices[1][0]
    with IomapKernel(whole(tmp_path, path, access="ro")):
        os.close(os.open(path, os.O_RDONLY | os.O_EXCL))


@pytest.mark.parametrize(("size", "backed", "fallen"), [(10 * SECTOR, "f", "g"), (SIZE, "g", "f")])
def test_one_kind_of_backing(devices: list[tuple[Path, int, int]], tmp_path: Path, caplog: pytest.LogCaptureFixture,
                             size: int, backed: str, fallen: str) -> None:
    """Where the kernel allows iomap or passthrough only, the smaller group falls back, with one log line."""
    (tmp_path / "g.img").write_bytes(bytes(size))
    manifest = whole(tmp_path, devices[1][0], beside=f"  g: {{whole: {tmp_path / 'g.img'}}}\n")
    caplog.set_level(logging.WARNING, "regionfs")
    with IomapKernel(manifest, passthrough=True, exclusive=True) as kernel:
        modes = {path: node.choice.mode for path, node in kernel.fs.tree.files.items()}
    assert {backed: {"f": Mode.IOMAP, "g": Mode.PASSTHROUGH}[backed], fallen: Mode.USERSPACE} == modes
    assert 1 == sum("served in userspace" in line for line in caplog.messages)


def test_both_kinds_where_the_kernel_allows(devices: list[tuple[Path, int, int]], tmp_path: Path,
                                            caplog: pytest.LogCaptureFixture) -> None:
    """Both modes in one mount; only the newest tree's throttling is warned of."""
    (tmp_path / "g.img").write_bytes(bytes(512))
    manifest = whole(tmp_path, devices[1][0], beside=f"  g: {{whole: {tmp_path / 'g.img'}}}\n")
    caplog.set_level(logging.WARNING, "regionfs")
    with IomapKernel(manifest, passthrough=True) as kernel:
        modes = [node.choice.mode for node in kernel.fs.tree.files.values()]
    assert [Mode.IOMAP, Mode.PASSTHROUGH] == modes
    assert ["iomap serves 1 of 2 files"] == [line.partition(";")[0] for line in caplog.messages]


def flushes(device: Path) -> int:
    """Flush requests that the device has completed, Documentation/admin-guide/iostats.rst field 16."""
    return int(Path(f"/sys/block/{device.name}/stat").read_text().split()[15])


def test_fsync_flushes_every_rw_device(devices: list[tuple[Path, int, int]], tmp_path: Path) -> None:
    """FSYNC and SYNCFS reach the disks that rw regions lie on."""
    (first, _, _), (second, _, _) = devices
    manifest = tmp_path / "m.yaml"
    manifest.write_text("regionfs: 1\nfiles:\n  f:\n    regions:\n" + "".join(
        f"      - {{source: {path}, length: 4096, access: rw}}\n" for path in (first, second)))
    with IomapKernel(manifest) as kernel:
        file = kernel.open("f")
        for sync in (partial(kernel.fsync, file), kernel.syncfs):
            before = [flushes(first), flushes(second)]
            kernel.write(file, 0, bytes(8192))
            kernel.writeback(file)
            sync()
            assert all(after > count for after, count in zip([flushes(first), flushes(second)], before, strict=True))


def test_truncate_and_owner(devices: list[tuple[Path, int, int]], tmp_path: Path) -> None:
    """Times are accepted from anyone who closes; sizes and owners are the manifest's."""
    manifest = tmp_path / "m.yaml"
    manifest.write_text(f"regionfs: 1\nfiles:\n  f:\n    regions:\n"
                        f"      - {{source: {devices[1][0]}, length: 4096, access: rw}}\n")
    with IomapKernel(manifest) as kernel:
        file = kernel.open("f")
        kernel.close(file)
        assert 4096 == kernel.setattr(file, size=4096).size
        for change in ({"size": 5000}, {"mode": 0o600}, {"uid": 5}):
            with pytest.raises(OSError) as caught:
                kernel.setattr(file, **change)
            assert errno.EPERM == caught.value.errno


def test_fallocate(devices: list[tuple[Path, int, int]], tmp_path: Path) -> None:
    """Punched inside a rw region, refused outside and where it would grow; plain allocation changes nothing."""
    path = devices[1][0]
    before = path.read_bytes()
    manifest = tmp_path / "m.yaml"
    manifest.write_text("regionfs: 1\nfiles:\n  f:\n    regions:\n"
                        f"      - {{source: {path}, length: 4096, access: rw}}\n"
                        f"      - {{source: {path}, offset: 8192, length: 4096}}\n")
    with IomapKernel(manifest) as kernel:
        file = kernel.open("f")
        kernel.fallocate(file, PUNCH_HOLE | KEEP_SIZE, 512, 1024)
        kernel.fallocate(file, 0, 0, 8192)
        refused = (PUNCH_HOLE | KEEP_SIZE, 3584, 1024, errno.EROFS), (0, 8000, 512, errno.EPERM)
        for mode, pos, length, number in refused:
            with pytest.raises(OSError) as caught:
                kernel.fallocate(file, mode, pos, length)
            assert number == caught.value.errno
        expected = before[:512] + bytes(1024) + before[1536:4096] + before[8192:12288]
        assert expected == kernel.read(file, 0, 8192)
    assert before[:512] + bytes(1024) + before[1536:] == path.read_bytes()


def test_a_new_inode_takes_part(devices: list[tuple[Path, int, int]], tmp_path: Path) -> None:
    """A file that gets another inode (a reload) is the kernel's again, on the same device numbers."""
    path = devices[1][0]
    with IomapKernel(whole(tmp_path, path, access="ro")) as kernel:
        old = kernel.open("f", os.O_RDONLY)
        kernel.fs.renew(kernel.fs.tree.files["f"])
        new = kernel.open("f", os.O_RDONLY)
        assert new.ino != old.ino
        assert path.read_bytes() == kernel.read(new, 0, new.size) == kernel.read(old, 0, old.size)
        assert 1 == len(kernel.devices.known)


def test_the_next_server_goes_on(devices: list[tuple[Path, int, int]], tmp_path: Path) -> None:
    """A server that takes over registers again, though the kernel still claims the device for the mount."""
    path = devices[1][0]
    with IomapKernel(whole(tmp_path, path)) as kernel:
        assert kernel.server.iomap is not None
        first = kernel.open("f")
        kernel.server.iomap._let_go()  # as its death would
        successor = session(kernel.fs, kernel.devices)
        successor.configure(resumed=True)
        assert successor.serves(first.ino)
        assert 2 == len(kernel.devices.known)


def session(fs: FileSystem, devices: Devices) -> IomapSession:
    return IomapSession(fs, devices, lambda parts: True, lambda: None)
