"""What the processes of a mount may still do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from regionfs.capabilities import Capability
from regionfs.daemon.harden import ALWAYS, AT_HAND, IOMAP, KERNEL
from tests.harness import Mount, User

PF_IO_FLUSHER = 0x00080000 | 0x00100000  # PF_MEMALLOC_NOIO | PF_LOCAL_THROTTLE, linux/sched.h

SYS_RESOURCE = 24

pytestmark = pytest.mark.mounted


def status(pid: int | str) -> dict[str, str]:
    """/proc/PID/status."""
    return dict(line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line)


def held(pid: int | str, *names: str) -> set[frozenset[int]]:
    """The different capability sets among those of `names` (CapPrm, CapEff, CapBnd), of all threads."""
    masks = {int(status(thread.name)[name], 16) for thread in Path(f"/proc/{pid}/task").iterdir() for name in names}
    return {frozenset(number for number in range(64) if mask >> number & 1) for mask in masks}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "a.img").write_bytes(b"a" * 4096)
    return tmp_path / "a.img"


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user's daemon has no capabilities to drop")
@pytest.mark.parametrize(("modes", "engine", "kept"), [
    ("userspace", "native", ALWAYS),
    ("passthrough,composed,userspace", "native", ALWAYS | KERNEL),
    ("iomap,userspace", "native", ALWAYS | IOMAP),
    ("userspace", "pyfuse3", ALWAYS | KERNEL),
])
def test_capabilities(tmp_path: Path, source: Path, modes: str, engine: str, kept: frozenset[Capability]) -> None:
    """A server keeps what its modes need, the holder what any server may need; no exec brings more."""
    with Mount(tmp_path, {"x": {"whole": "a.img"}}, engine=engine, options=["--modes", modes]) as mounted:
        said = mounted.status()
        assert [{kept}, {kept | AT_HAND}] == [held(said["pid"], name) for name in ("CapEff", "CapPrm")]
        assert {ALWAYS | IOMAP} == held(said["holder_pid"], "CapEff")
        assert {ALWAYS | IOMAP | AT_HAND} == held(said["holder_pid"], "CapPrm", "CapBnd")
        assert {ALWAYS | IOMAP | AT_HAND} == held(said["pid"], "CapBnd")
        assert b"a" * 4096 == (mounted.path / "x").read_bytes()


def test_no_new_privileges_no_core_file(tmp_path: Path, source: Path) -> None:
    """Neither process writes core files; root's cannot gain privileges by setuid programs."""
    with Mount(tmp_path, {"x": {"whole": "a.img"}}) as mounted:
        said = mounted.status()
        for pid in (said["pid"], said["holder_pid"]):
            limits = Path(f"/proc/{pid}/limits").read_text()
            assert ["0", "0"] == next(line for line in limits.splitlines() if "core file" in line).split()[4:6]
            assert "1" == status(pid)["NoNewPrivs"] or os.geteuid() != 0


def test_memory_for_the_server_never_waits_for_its_own_mount(tmp_path: Path, source: Path) -> None:
    """Every thread is an I/O flusher, where CAP_SYS_RESOURCE permits: a loop device over the mount cannot lock up."""
    expected = PF_IO_FLUSHER if any(SYS_RESOURCE in mine for mine in held("self", "CapEff")) else 0
    with Mount(tmp_path, {"x": {"whole": "a.img"}}) as mounted:
        (mounted.path / "x").read_bytes()
        for thread in Path(f"/proc/{mounted.status()['pid']}/task").iterdir():
            flags = int((thread / "stat").read_text().rpartition(")")[2].split()[6])
            assert expected == flags & PF_IO_FLUSHER


def test_sources_of_other_users_are_served(tmp_path: Path, source: Path, ordinary_user: User) -> None:
    """Root's daemon reads and writes files that only another user may."""
    if os.geteuid() != 0:
        pytest.skip("root's daemon is what this is about")
    source.chmod(0o600)
    ordinary_user.own(source)
    with Mount(tmp_path, {"x": {"whole": "a.img", "access": "rw"}}, options=["--modes", "userspace"]) as mounted:
        path = mounted.path / "x"
        with path.open("r+b") as file:
            file.write(b"b")
        path.chmod(0o640)
        os.utime(path, (1, 1))
        os.chown(path, 0, 0)
    assert (b"b", 0o640, 0) == (source.read_bytes()[:1], source.stat().st_mode & 0o777, source.stat().st_uid)


def test_an_ordinary_users_daemon_can_unmount(ordinary_user: User) -> None:
    """It has nothing to give up, and still runs the setuid helper."""
    directory = ordinary_user.new_directory()
    ordinary_user.write(directory / "a.img", b"a" * 4096)
    with Mount(directory, {"x": {"whole": "a.img"}}, user=ordinary_user) as mounted:
        assert {frozenset()} == held(mounted.status()["pid"], "CapPrm", "CapEff")
        os.kill(mounted.status()["holder_pid"], 15)
        mounted.ended()
