"""`regionfs doctor`: what this machine can do, why not the rest, and what would help.

Tries things instead of looking at versions: opens the device, starts the helper, imports the library
in a process of its own. The kernel modes are probed by modes.probe, as a mount does.
"""

from __future__ import annotations

import os
import platform
import resource
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from regionfs.cli.common import examples, json_option, print_json, say
from regionfs.cli.wakeups import wake_ups
from regionfs.modes.choose import Ability

FUSE_CONF = Path("/etc/fuse.conf")
CAP_SYS_ADMIN = 21  # linux/capability.h
PATIENCE = 20       # seconds for a helper process; they take less than one

_PYFUSE3 = """
import ctypes, pyfuse3
version = ctypes.CDLL("libfuse3.so.3").fuse_pkgversion
version.restype = ctypes.c_char_p
print(f"pyfuse3 {pyfuse3.__version__} with libfuse {version().decode()}")
"""

_FAST = """
import regionfs.serve._fast
print("compiled: the native engine answers common reads and writes without Python")
"""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Everything that doctor finds; `engine` is what `--engine auto` can use, None if nothing can mount."""

    python: str
    kernel: str
    machine: dict[str, Ability]
    modes: dict[str, Ability]
    engine: str | None
    open_files: tuple[int, int]  # soft and hard limit of descriptors


@click.command(epilog=examples("regionfs doctor", "regionfs doctor --json | jq .modes.composed"))
@json_option
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Show what this machine can do, what is missing, and what would help.

    Exit status 1 only if nothing can be mounted at all.
    """
    found = diagnose()
    if as_json:
        print_json(asdict(found) | {"open_files": dict(zip(("soft", "hard"), found.open_files, strict=True))})
    else:
        for line in _lines(found):
            say(line)
    if found.engine is None:
        ctx.exit(1)


def diagnose() -> Diagnosis:
    """Try everything once."""
    machine = {"/dev/fuse": _device(), "mount(2)": _mount_call(), "fusermount3": _helper(),
               "pyfuse3": _pyfuse3(), "accelerator": _accelerator(), "allow_other": _allow_other(),
               "write-back": _write_back(), "wake-ups": wake_ups()}
    engine = _engine(machine)
    return Diagnosis(platform.python_version(), platform.release(), machine, _modes(engine), engine,
                     resource.getrlimit(resource.RLIMIT_NOFILE))


def _engine(machine: dict[str, Ability]) -> str | None:
    """The native engine needs the device and a way to mount, the other one libfuse as well."""
    can_mount = machine["mount(2)"].available or machine["fusermount3"].available
    return "native" if machine["/dev/fuse"].available and can_mount else None


def _modes(engine: str | None) -> dict[str, Ability]:
    from regionfs.modes.probe import probe
    kernel = probe()
    if engine is None:
        userspace = Ability(False, "nothing can be mounted here", "see what is missing above")
    else:
        userspace = Ability(True, "needs nothing but the mount")
    return {"iomap": kernel.iomap, "passthrough": kernel.passthrough, "composed": kernel.composed,
            "userspace": userspace}


def _device() -> Ability:
    from regionfs.wire.device import DEVICE, open_device
    try:
        os.close(open_device())
    except PermissionError:
        return Ability(False, f"{DEVICE} is not permitted to this user",
                       f"chmod 0666 {DEVICE}, as udev does; in a container: --device {DEVICE}")
    except OSError as error:
        return Ability(False, f"{DEVICE}: {error.strerror}",
                       f"load the driver: modprobe fuse; in a container: --device {DEVICE}")
    return Ability(True, f"{DEVICE} opens")


def _mount_call() -> Ability:
    status = Path("/proc/self/status").read_text()
    effective = next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1]
    if int(effective, 16) >> CAP_SYS_ADMIN & 1:
        return Ability(True, "permitted by CAP_SYS_ADMIN")
    return Ability(False, "no CAP_SYS_ADMIN: mounts go through fusermount3", "run as root, for the kernel modes")


def _helper() -> Ability:
    from regionfs.wire.fusermount import HELPER
    path = shutil.which(HELPER)
    if path is None:
        return Ability(False, f"{HELPER} is not installed", "install the package fuse3")
    status = Path(path).stat()
    if os.geteuid() and not (status.st_mode & stat.S_ISUID and status.st_uid == 0):
        return Ability(False, f"{path} is not setuid root", f"chown root {path} && chmod u+s {path}")
    works, said = _try([path, "--version"])
    return Ability(True, f"{path}, {said}") if works else Ability(False, f"{path}: {said}", "reinstall fuse3")


def _pyfuse3() -> Ability:
    works, said = _try([sys.executable, "-c", _PYFUSE3])
    if works:
        return Ability(True, said)
    return Ability(False, said, "install libfuse3-dev, pkg-config and gcc, then pip install pyfuse3")


def _accelerator() -> Ability:
    """Of the native engine; serve.fast says when it is used."""
    if os.environ.get("REGIONFS_FAST") == "0":
        return Ability(False, "REGIONFS_FAST=0 turns it off", "unset REGIONFS_FAST")
    works, said = _try([sys.executable, "-c", _FAST])
    if works:
        return Ability(True, said)
    return Ability(False, f"not built, reads and writes take longer: {said}",
                   "install gcc and python3-dev, then install regionfs again")


def _write_back() -> Ability:
    from regionfs.daemon.harden import FLUSHER_REMEDY, NO_FLUSHER, become_flusher
    if become_flusher() and become_flusher(on=False):
        return Ability(True, "the daemon may write for others while memory is short")
    return Ability(False, NO_FLUSHER, FLUSHER_REMEDY)


def _try(arguments: list[str]) -> tuple[bool, str]:
    """Whether the program does its work, and the last line it says."""
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, f"it does not start: {error}"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return done.returncode == 0, lines[-1] if lines else f"exit status {done.returncode}"


def _allow_other() -> Ability:
    if os.geteuid() == 0:
        return Ability(True, "root may let other users in")
    try:
        words = [line.strip() for line in FUSE_CONF.read_text().splitlines()]
    except OSError:
        words = []
    if "user_allow_other" in words:
        return Ability(True, f"user_allow_other is set in {FUSE_CONF}")
    return Ability(False, "only this user can see the mount", f"add the line user_allow_other to {FUSE_CONF}")


def _lines(found: Diagnosis) -> Iterator[str]:
    soft, hard = found.open_files
    yield f"python       {found.python}"
    yield f"kernel       {found.kernel}"
    yield f"open files   {soft} (at most {hard})"
    yield f"engine       {found.engine or 'none: nothing can be mounted here'}"
    for title, abilities in (("machine", found.machine), ("modes", found.modes)):
        yield ""
        yield f"{title}:"
        for name, ability in abilities.items():
            yield f"  {name:<12} {'yes' if ability.available else 'no ':<3}  {ability.reason}"
            if ability.remedy:
                yield f"  {'':<12}      -> {ability.remedy}"
