"""A guided tour: a partitioned disk out of three partition images, none of them copied.

Builds the images and a manifest in a temporary directory, mounts the manifest, and lets the system's own tools judge:
sfdisk reads the partition table, fsck the file systems, the kernel mounts a partition through the composite file.
What is written there must arrive in that partition's image and nowhere else. Every command is shown.
Leaves nothing behind, whatever happens. Without root or /dev/fuse it goes as far as it can and says so.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

MIB = 1 << 20
SECTOR = 512
DISK_SIZE = 162 * MIB
REGIONFS = str(Path(sys.executable).with_name("regionfs"))
COLOUR = sys.stdout.isatty() and "NO_COLOR" not in os.environ


@dataclass(frozen=True)
class Partition:
    """One image, and where the disk shows it."""

    name: str
    image: str
    start: int   # bytes
    size: int    # bytes
    kind: str    # sfdisk's alias
    access: str
    uuid: str


PARTITIONS = (
    Partition("EFI", "esp.img", 1 * MIB, 32 * MIB, "uefi", "ro", "3A2E7C0A-58F5-4A44-9B63-5F1E1C0D0001"),
    Partition("root", "root.img", 33 * MIB, 96 * MIB, "linux", "rw", "3A2E7C0A-58F5-4A44-9B63-5F1E1C0D0002"),
    Partition("data", "data.img", 129 * MIB, 32 * MIB, "linux", "rw", "3A2E7C0A-58F5-4A44-9B63-5F1E1C0D0003"),
)
ESP, ROOT, DATA = PARTITIONS
DISK = "vm/disk.img"


def paint(code: str, text: str) -> str:
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


def chapter(title: str) -> None:
    print(paint("1", f"\n== {title}"))


def say(text: str) -> None:
    print(text)


def shown(text: str) -> None:
    """Output of a command, indented; without the clutter of empty lines."""
    for line in text.splitlines():
        if line.strip():
            print(f"    {line}")


def run(*command: str | Path, stdin: str = "", ok: tuple[int, ...] = (0,)) -> str:
    """Show a command, run it, show what it says; SystemExit when its status is not in `ok`."""
    words = [Path(word).name if word == REGIONFS else str(word) for word in command]
    print(paint("36", "$ " + shlex.join(words)))
    done = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          check=False, timeout=60)
    shown(done.stdout)
    if done.returncode not in ok:
        fail(f"{words[0]} ended with status {done.returncode}")
    return done.stdout


def fail(reason: str) -> NoReturn:
    sys.exit(paint("31", f"demo: {reason}"))


def checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def build_images() -> None:
    """Three partition images with real files in them."""
    chapter("Three partition images, made by the usual tools")
    for partition in PARTITIONS:
        run("truncate", "--size", str(partition.size), partition.image)
    Path("files/etc").mkdir(parents=True)
    Path("files/etc/hostname").write_text("composite\n")
    Path("files/numbers.txt").write_text("".join(f"{number}\n" for number in range(100_000)))
    Path("loader.conf").write_text("default linux\ntimeout 3\n")
    run("mkfs.vfat", "-n", "EFI", ESP.image)
    run("mcopy", "-i", ESP.image, "loader.conf", "::/loader.conf")
    for partition in (ROOT, DATA):
        run("mkfs.ext4", "-q", "-L", partition.name, "-d", "files", partition.image)


def partition_table() -> list[tuple[int, bytes]]:
    """(offset, bytes) of what sfdisk writes on an empty disk of this size: a GPT and its backup."""
    chapter("A partition table, written by sfdisk on a sparse file")
    run("truncate", "--size", str(DISK_SIZE), "table.img")
    script = "label: gpt\nlabel-id: 3A2E7C0A-58F5-4A44-9B63-5F1E1C0D0000\n" + "".join(
        f"start={part.start // SECTOR}, size={part.size // SECTOR}, type={part.kind}, name={part.name}, "
        f"uuid={part.uuid}\n" for part in PARTITIONS)
    shown(script)
    run("sfdisk", "--quiet", "table.img", stdin=script)
    entries = SECTOR  # four entries of 128 bytes lie in one sector; the rest of the table is zeros, that is: hole
    with open("table.img", "rb") as file:
        def cut(offset: int, length: int) -> tuple[int, bytes]:
            file.seek(offset)
            return offset, file.read(length)
        pieces = [cut(0, 2 * SECTOR + entries), cut(DISK_SIZE - 33 * SECTOR, entries),
                  cut(DISK_SIZE - SECTOR, SECTOR)]
    Path("table.img").unlink()
    return pieces


def write_manifest() -> None:
    """The disk as text: the table inline, the partitions where they are."""
    regions = [f"      - {{start: {offset}, data: {{base64: {base64.b64encode(data).decode()}}}}}"
               for offset, data in partition_table()]
    regions[1:1] = [f"      - {{start: {part.start // MIB}MiB, source: {part.image}, access: {part.access}}}"
                    for part in PARTITIONS]
    lines = ["regionfs: 1", "files:", f"  {DISK}:", f"    size: {DISK_SIZE // MIB}MiB", "    regions:", *regions]
    Path("disk.yaml").write_text("\n".join(lines) + "\n")
    chapter("The manifest: which bytes lie where")
    shown("\n".join(line if len(line) < 100 else line[:70] + " ...}}" for line in lines))
    run(REGIONFS, "check", "disk.yaml")
    run(REGIONFS, "show", "disk.yaml")


@contextlib.contextmanager
def mounted() -> Iterator[Path]:
    """The manifest, mounted; gives the composite file."""
    Path("mnt").mkdir()
    run(REGIONFS, "mount", "disk.yaml", "mnt")
    try:
        yield Path("mnt") / DISK
        run(REGIONFS, "umount", "mnt")
    finally:
        if Path("mnt").is_mount():
            undo("fusermount3", "-uz", "mnt")


@contextlib.contextmanager
def loop_device(disk: Path, part: Partition) -> Iterator[str]:
    """A block device that shows one partition of the composite file."""
    device = run("losetup", "--find", "--show", "--offset", str(part.start), "--sizelimit", str(part.size),
                 *(["--read-only"] if part.access == "ro" else []), disk).strip()
    try:
        yield device
    finally:
        undo("losetup", "--detach", device)


def undo(*command: str) -> None:
    """A step back: shown, and never a reason to stop going back."""
    print(paint("36", "$ " + shlex.join(command)))
    subprocess.run(command, check=False, timeout=60)


def inspect(disk: Path) -> None:
    """What the system's tools think of the composite file."""
    chapter("A disk like any other")
    run("ls", "-l", disk)
    run("sfdisk", "--verify", disk)
    run("sfdisk", "--list", disk)
    run("mdir", "-i", f"{disk}@@{ESP.start}", "::/")


def use_as_root(disk: Path) -> None:
    """Loop devices over the composite file: check two partitions, mount one and write into it."""
    chapter("The kernel checks and mounts partitions through the composite file")
    with loop_device(disk, ESP) as device:
        run("fsck.vfat", "-n", device)
    with loop_device(disk, ROOT) as device:
        run("e2fsck", "-f", "-n", device)
        Path("root").mkdir()
        run("mount", "-t", "ext4", device, "root")
        try:
            run("cat", "root/etc/hostname")
            run("tail", "-n", "1", "root/numbers.txt")
            run("sh", "-c", "echo 'written through the composite file' > root/hello.txt")
            run("sync", "root/hello.txt")
        finally:
            undo("umount", "root")


def use_as_user(disk: Path) -> None:
    """Without loop devices: e2fsprogs reads and writes a file system at an offset."""
    chapter("File system tools at an offset of the composite file")
    say("(As root, with loop devices, the tour mounts the partition here instead.)")
    target = f"{disk}?offset={ROOT.start}"
    run("e2fsck", "-f", "-n", target)
    run("debugfs", "-R", "cat /etc/hostname", target)
    Path("hello.txt").write_text("written through the composite file\n")
    run("debugfs", "-w", "-R", "write hello.txt hello.txt", target)


def compare(before: dict[str, str]) -> None:
    """The write is in root.img, and every other image is what it was."""
    chapter("Where the write went")
    after = {part.image: checksum(Path(part.image)) for part in PARTITIONS}
    for image, digest in after.items():
        say(f"    {image:9} {before[image][:16]} -> {digest[:16]}  "
            + ("unchanged" if digest == before[image] else "changed"))
    changed = {image for image in after if after[image] != before[image]}
    if changed != {ROOT.image}:
        fail(f"expected a change in {ROOT.image} alone, found it in {sorted(changed) or 'none'}")
    run("e2fsck", "-f", "-n", ROOT.image)
    if "written through the composite file" not in run("debugfs", "-R", "cat /hello.txt", ROOT.image):
        fail(f"/hello.txt is not in {ROOT.image}")
    say("The file is in the partition's own image; nothing was copied, nothing else was touched.")


def use(disk: Path) -> None:
    chapter("Mounted: what serves it")
    run(REGIONFS, "status", "mnt")
    inspect(disk)
    if os.geteuid() == 0 and Path("/dev/loop-control").exists():
        use_as_root(disk)
    else:
        use_as_user(disk)
    say("What the daemon had to do for all that:")
    run(REGIONFS, "status", "mnt")


def tour() -> None:
    build_images()
    write_manifest()
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        chapter("Not mounted")
        run(REGIONFS, "plan", "disk.yaml", DISK, "0", str(2 * MIB))
        say("/dev/fuse is missing or not open to this user, so nothing is mounted; `regionfs doctor` says more.")
        return
    before = {part.image: checksum(Path(part.image)) for part in PARTITIONS}
    with mounted() as disk:
        use(disk)
    compare(before)


def remove(place: Path) -> None:
    """Delete the tour's directory; what a failure left mounted there goes first."""
    for point in (place / "root", place / "mnt"):
        if os.path.ismount(point):
            undo("umount", "--lazy", str(point))
    shutil.rmtree(place)


def main() -> None:
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    place = Path(tempfile.mkdtemp(prefix="regionfs-demo-", dir=os.environ.get("TMPDIR", "/var/tmp")))
    start = Path.cwd()
    try:
        os.chdir(place)
        tour()
    finally:
        os.chdir(start)
        remove(place)
    chapter("Nothing is left behind: no mount, no loop device, no file.")


if __name__ == "__main__":
    main()
