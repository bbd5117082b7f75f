"""Mounting for ordinary users: the setuid helper fusermount3 of the package fuse3.

It opens /dev/fuse and mounts, then hands the descriptor back over the socket named in _FUSE_COMMFD. What it
prints goes into the MountError, with the remedy.
"""

from __future__ import annotations

import os
import socket

from regionfs.errors import MountError
from regionfs.wire.options import MountOptions

HELPER = "fusermount3"

# what it prints: what to do
REMEDIES = (
    ("user_allow_other", "add the line user_allow_other to /etc/fuse.conf, or leave out allow_other"),
    ("too many FUSE filesystems", "raise mount_max in /etc/fuse.conf"),
    ("device not found", "load the driver: modprobe fuse"),
    ("/dev/fuse", "give the user access to /dev/fuse (mode 0666, as udev sets it)"),
    ("has no write access to mountpoint", "mount on a directory that the user owns"),
    ("Operation not permitted", "fusermount3 must be setuid root, and the container must allow mounts"),
    ("not found in /etc/mtab", "it is not mounted there, or by another user"),
    ("Device or resource busy", "it is in use; see fuser -vm, or unmount with --lazy"),
)


def mount(mountpoint: str, options: MountOptions) -> int:
    """Mount on `mountpoint`; returns the descriptor of /dev/fuse, close-on-exec."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        _run(["-o", ",".join(options.words()), "--", mountpoint], f"cannot mount on {mountpoint}", theirs)
        theirs.close()
        _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    if not fds:
        raise MountError(f"cannot mount on {mountpoint}: {HELPER} sent no descriptor")
    # recv_fds() passes no flags on, so not MSG_CMSG_CLOEXEC
    os.set_inheritable(fds[0], False)
    return fds[0]


def unmount(mountpoint: str, lazy: bool = False) -> None:
    """Unmount a mount that the same user made."""
    _run(["-u", *(["-z"] if lazy else []), "--", mountpoint], f"cannot unmount {mountpoint}")


def _run(arguments: list[str], task: str, comm: socket.socket | None = None) -> None:
    import shutil  # root's mounts need neither
    import subprocess

    helper = shutil.which(HELPER)
    if helper is None:
        raise MountError(f"{task}: only root may do it alone, and {HELPER} is not installed;"
                         " install the package fuse3")
    environment, fds = {**os.environ, "LC_ALL": "C"}, []
    if comm is not None:
        fds.append(comm.fileno())
        environment["_FUSE_COMMFD"] = str(comm.fileno())
    done = subprocess.run([helper, *arguments], env=environment, pass_fds=fds, stdin=subprocess.DEVNULL,
                          stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip() or f"{HELPER} exited with {done.returncode}"
        remedy = next((f"; {remedy}" for sign, remedy in REMEDIES if sign in said), "")
        raise MountError(f"{task}: {said}{remedy}")
