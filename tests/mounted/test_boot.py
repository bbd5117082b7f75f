"""A stitched disk boots: firmware, boot loader, kernel and userspace read it through the mount.

QEMU emulates the whole machine. What it boots is Debian's: scripts/setup unpacks a kernel with its virtio modules,
a static busybox, boot loaders and firmware into build/guest. The partition they start from is the same for every
table and firmware.
"""

from __future__ import annotations

import lzma
import os
import re
import shutil
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.formats.tools import run
from tests.harness import PROJECT, REGIONFS, Mount

MIB = 2**20
SECONDS = 200  # for the machine, which needs 5 on an idle processor
GUEST = PROJECT / "build" / "guest"
PARTS = ("vmlinuz", "busybox", "mbr.bin", "gptmbr.bin", "systemd-bootx64.efi", "OVMF_CODE_4M.fd", "OVMF_VARS_4M.fd")
QEMU = "qemu-system-x86_64"
TOOLS = (QEMU, "syslinux", "mcopy", "mkfs.vfat", "mkfs.ext4")
# in the order they need each other
MODULES = ("virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "virtio_blk")
OPTIONS = "console=ttyS0 quiet panic=-1"
LOADERS = {
    "syslinux.cfg": f"SERIAL 0\nDEFAULT linux\nLABEL linux\nLINUX /vmlinuz\nINITRD /initrd.img\nAPPEND {OPTIONS}\n",
    "loader/loader.conf": "default linux\ntimeout 0\n",
    "loader/entries/linux.conf": f"title linux\nlinux /vmlinuz\ninitrd /initrd.img\noptions {OPTIONS}\n",
}
INIT = f"""\
#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
for module in {' '.join(MODULES)}; do
    if [ -e /$module.ko ]; then insmod /$module.ko; fi
done
mount -t ext4 /dev/vda2 /mnt
echo "REGIONFS-BOOTED $(cat /mnt/token)"
cp /mnt/token /mnt/seen
umount /mnt
poweroff -f
"""


@pytest.fixture(autouse=True)
def machine() -> None:
    """Skips where something to boot, or to boot it with, is not there."""
    missing = [name for name in PARTS if not (GUEST / name).exists()]
    missing += [name for name in TOOLS if shutil.which(name) is None]
    if missing:
        pytest.skip(f"scripts/setup found no package for: {', '.join(missing)}")


def empty_image(path: Path, size: int) -> Path:
    path.touch()
    os.truncate(path, size)
    return path


def make_initramfs(directory: Path) -> Path:
    """busybox, the modules that are not built into the kernel, and INIT, as the archive a kernel unpacks."""
    tree = directory / "initramfs"
    for name in ("bin", "dev", "mnt"):
        (tree / name).mkdir(parents=True)
    shutil.copy(GUEST / "busybox", tree / "bin")
    for module in MODULES:
        for file in GUEST.glob(f"{module}.ko*"):
            data = file.read_bytes()
            (tree / f"{module}.ko").write_bytes(lzma.decompress(data) if file.suffix == ".xz" else data)
    (tree / "init").write_text(INIT)
    (tree / "init").chmod(0o755)
    archive = directory / "initrd.img"
    run("sh", "-c", 'cd "$0" && find . | "$1" cpio -o -H newc >"$2"', tree, GUEST / "busybox", archive)
    return archive


def make_esp(directory: Path, sector: int) -> Path:
    """esp.img: a vfat that starts Linux by SYSLINUX from a BIOS (512-byte sectors only), by systemd-boot from UEFI."""
    tree, image = directory / "esp", empty_image(directory / "esp.img", 64 * MIB)
    for name, text in LOADERS.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    (tree / "EFI" / "BOOT").mkdir(parents=True)
    shutil.copy(GUEST / "systemd-bootx64.efi", tree / "EFI" / "BOOT" / "BOOTX64.EFI")
    shutil.copy(GUEST / "vmlinuz", tree)
    shutil.copy(make_initramfs(directory), tree)
    run("mkfs.vfat", "-S", sector, image)
    run("mcopy", "-s", "-i", image, *sorted(tree.iterdir()), "::/")
    if sector == 512:
        run("syslinux", "--install", image)
    return image


def make_root(directory: Path, token: str) -> Path:
    """root.img: an ext4 with the token in a file."""
    tree, image = directory / "root", empty_image(directory / "root.img", 8 * MIB)
    tree.mkdir()
    (tree / "token").write_text(token)
    run("mkfs.ext4", "-q", "-b", 4096, "-d", tree, image)
    return image


def firmware_words(firmware: str, directory: Path) -> list[str]:
    """QEMU's words for it: the BIOS is built in; OVMF lies in flash, and its variables in a file of their own."""
    if firmware == "bios":
        return []
    shutil.copy(GUEST / "OVMF_VARS_4M.fd", directory / "vars.fd")
    return ["-drive", f"if=pflash,format=raw,readonly=on,file={GUEST / 'OVMF_CODE_4M.fd'}",
            "-drive", f"if=pflash,format=raw,file={directory / 'vars.fd'}"]


def run_machine(disk: Path, sector: int, firmware: list[str], serial: Path) -> str:
    """Boot from `disk` until the machine powers itself off; what it wrote to its serial line."""
    words = [QEMU, "-accel", "tcg", "-m", "256M", "-nodefaults", "-display", "none", "-no-reboot", "-serial", "stdio",
             "-drive", f"if=none,id=disk,format=raw,file={disk}",
             "-device", f"virtio-blk-pci,drive=disk,logical_block_size={sector},physical_block_size={sector}"]
    with serial.open("wb") as out:
        done = subprocess.run(["timeout", str(SECONDS), *words, *firmware], stdin=subprocess.DEVNULL, stdout=out,
                              stderr=out, check=False)
    said = serial.read_text(errors="replace")
    assert 0 == done.returncode, said
    return said


@pytest.mark.timeout(240)
@pytest.mark.parametrize(("engine", "table", "sector", "firmware"), [
    ("native", "mbr", 512, "bios"),
    ("pyfuse3", "gpt", 512, "bios"),
    ("native", "gpt", 512, "uefi"),
    ("pyfuse3", "gpt", 4096, "uefi"),
], indirect=["engine"])
def test_boots(mount: Callable[..., Mount], table: str, sector: int, firmware: str, tmp_path: Path) -> None:
    """Userspace prints what a file on the root partition says; what it writes there is in root.img, and only there."""
    token = uuid.uuid4().hex
    esp, root, manifest = make_esp(tmp_path, sector), make_root(tmp_path, token), tmp_path / "disk.yaml"
    before = esp.read_bytes()
    run(REGIONFS, "stitch", manifest, "--disk", "vm/disk.img", f"--{table}", "--sector-size", sector,
        "--boot-code", GUEST / {"mbr": "mbr.bin", "gpt": "gptmbr.bin"}[table],
        "--part", f"{esp}:type=esp,bootable", "--part", f"{root}:type=linux-root,rw")
    with mount(manifest.read_text()) as composite:
        said = run_machine(composite.path / "vm" / "disk.img", sector, firmware_words(firmware, tmp_path),
                           tmp_path / "serial")
    assert [token] == re.findall(r"REGIONFS-BOOTED (\w*)", said), said
    run("fsck.ext4", "-f", "-n", root)
    assert token == run("debugfs", "-R", "cat seen", root)
    assert before == esp.read_bytes()
