"""Probes: each ability by trying, with a reason and a remedy, quickly, leaving nothing behind."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from regionfs.modes import probe
from regionfs.modes.choose import Ability
from tests.harness import User

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="passthrough is tried by root only")


def refusing(code: int) -> Callable[[int], None]:
    """A trial that the kernel answers with `code`."""
    def trial(fd: int) -> None:
        raise OSError(code, os.strerror(code))
    return trial


@pytest.mark.mounted
@needs_root
def test_passthrough_is_what_the_trial_says() -> None:
    """The trial gets a regular file; its success is the ability."""
    seen: list[bool] = []
    found = probe.probe_passthrough(lambda fd: seen.append(os.fstat(fd).st_nlink == 0))
    assert (True, "the kernel registered a backing file", "") == (found.available, found.reason, found.remedy)
    assert [True] == seen


REFUSALS = [
    (errno.EOPNOTSUPP, "this kernel's FUSE has no passthrough"),
    (errno.ENOTTY, "this kernel's FUSE has no passthrough"),
    (errno.EPERM, "the kernel does not let this process register backing files"),
    (errno.ELOOP, "the file system of the temporary directory is stacked too deep already"),
    (errno.EIO, "a trial of passthrough failed: Input/output error"),
]


@pytest.mark.mounted
@needs_root
@pytest.mark.parametrize(("code", "reason"), REFUSALS)
def test_passthrough_refused(code: int, reason: str) -> None:
    """Each errno of the trial is told in words, with a remedy."""
    found = probe.probe_passthrough(refusing(code))
    assert (False, reason) == (found.available, found.reason)
    assert found.remedy


def test_a_missing_device() -> None:
    """Without /dev/fuse the remedy is the module or the container's option."""
    expected = Ability(False, "there is no /dev/none", "modprobe fuse; in a container, --device /dev/fuse")
    assert expected == probe.probe_iomap(Path("/dev/none"))


def test_an_upstream_kernel_has_no_iomap() -> None:
    """A device that does not know the ioctl answers as an upstream /dev/fuse does."""
    found = probe.probe_iomap(Path("/dev/null"))
    assert (False, "this kernel has no fuse-iomap") == (found.available, found.reason)


IOMAP = [
    (errno.ENOTTY, "Y", "this kernel has no fuse-iomap"),
    (errno.EOPNOTSUPP, "Y", "fuse-iomap is compiled out of this kernel"),
    (0, "N", "fuse-iomap is switched off by the parameter enable_iomap"),
    (0, "0", "fuse-iomap is switched off by the parameter enable_iomap"),
    (0, "Y", "fuse-iomap is not permitted to this process"),
    (0, None, "fuse-iomap is not permitted to this process"),
]


@pytest.mark.parametrize(("code", "parameter", "reason"), IOMAP)
def test_iomap_refused(tmp_path: Path, code: int, parameter: str | None, reason: str) -> None:
    """Upstream, compiled out, switched off and not permitted are told apart, each with a remedy."""
    switch = tmp_path / "enable_iomap"
    if parameter is not None:
        switch.write_text(f"{parameter}\n")
    ask: Callable[[int], int] = _raising(code) if code else lambda fd: 0
    found = probe.probe_iomap(Path("/dev/null"), ask, switch)
    assert (False, reason) == (found.available, found.reason)
    assert found.remedy


def test_iomap_permitted() -> None:
    """Bit 0 of the answer permits file I/O; other bits do not matter."""
    assert probe.probe_iomap(Path("/dev/null"), lambda fd: 3).available


def _raising(code: int) -> Callable[[int], int]:
    def ask(fd: int) -> int:
        raise OSError(code, os.strerror(code))
    return ask


def test_composed_needs_a_directory_that_can() -> None:
    """Where no directory can hold the image, the reason says so."""
    found = probe.probe_composed([Path("/nonexistent")])
    assert not found.available
    assert found.reason
    assert found.remedy


def test_an_ordinary_user(ordinary_user: User) -> None:
    """Without privileges nothing is available, and each reason names what is missing."""
    code = ("from regionfs.modes.probe import probe\nkernel = probe()\n"
            "for ability in (kernel.passthrough, kernel.composed): print(ability.reason)")
    done = ordinary_user.run(*ordinary_user.python, "-c", code)
    assert "" == done.stderr
    assert ["passthrough needs CAP_SYS_ADMIN in the initial user namespace",
            "mounting an image needs CAP_SYS_ADMIN"] == done.stdout.splitlines()


def test_nothing_is_left() -> None:
    """Probes leave no descriptor and no mount in sight."""
    before = {entry.name for entry in Path("/proc/self/fd").iterdir()}
    probe.probe()
    assert before == {entry.name for entry in Path("/proc/self/fd").iterdir()}
    assert " - erofs /proc/self/fd" not in Path("/proc/self/mountinfo").read_text()
