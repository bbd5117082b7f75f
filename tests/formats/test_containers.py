"""Containers where plain images are wanted: called by their names, with what makes a plain image of them."""

from __future__ import annotations

import bz2
import gzip
import lzma
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regionfs.formats.containers import HEAD, container
from regionfs.formats.fit import container_at
from regionfs.manifest.load import load
from tests.formats.tools import exported, put, put_manifest, regionfs, run

DATA = Random(5).randbytes(1 << 20)


def by_qemu(name: str, *options: str) -> Callable[[Path], None]:
    """What qemu-img makes of a plain image."""
    def make(path: Path) -> None:
        plain = path.with_name("plain")
        plain.write_bytes(DATA)
        run("qemu-img", "convert", "-f", "raw", "-O", name, *options, plain, path)
    return make


def by_simg(path: Path) -> None:
    """An Android sparse image by its own tool."""
    plain = path.with_name("plain")
    plain.write_bytes(DATA)
    run("img2simg", plain, path)


MAKERS: dict[str, Callable[[Path], object]] = {
    "d.qcow2": by_qemu("qcow2"), "d.qed": by_qemu("qed"), "d.vdi": by_qemu("vdi"), "d.vhdx": by_qemu("vhdx"),
    "d.vhd": by_qemu("vpc"), "d.fixed": by_qemu("vpc", "-o", "subformat=fixed,force_size=on"),
    "d.vmdk": by_qemu("vmdk"), "d.simg": by_simg,
    "d.gz": lambda path: path.write_bytes(gzip.compress(DATA)),
    "d.xz": lambda path: path.write_bytes(lzma.compress(DATA)),
    "d.bz2": lambda path: path.write_bytes(bz2.compress(DATA)),
}


@pytest.mark.parametrize("name", MAKERS)
def test_the_advice_makes_the_plain_image(tmp_path: Path, name: str) -> None:
    """Each is recognised, and the command that is proposed gives the image's bytes back."""
    MAKERS[name](tmp_path / name)
    found = container_at(tmp_path / name)
    assert found is not None
    command = found.advice(tmp_path / name).partition("first run ")[2]
    before = set(tmp_path.iterdir())
    subprocess.run(["sh", "-c", command], check=True, timeout=50)
    (made,) = set(tmp_path.iterdir()) - before
    assert DATA == made.read_bytes()[:len(DATA)]


def test_names_with_spaces_stay_one_word(tmp_path: Path) -> None:
    """The command can be pasted."""
    found = container(b"QFI\xfb")
    assert found is not None
    words = shlex.split(found.advice(tmp_path / "my disk.qcow2").partition("first run ")[2])
    assert [str(tmp_path / "my disk.qcow2"), str(tmp_path / "my disk.raw")] == words[-2:]


@pytest.mark.parametrize("head", [b"", bytes(512), b"\xeb\x3c\x90mkfs.fat", b"LUKS\xba\xbe", b"hsqs", b"\x1f\x8b",
                                  b"BZh", b"QFI", b"# Disk", b"XFSB"])
def test_plain_images_are_no_containers(head: bytes) -> None:
    """File systems, encrypted ones, and what only begins alike."""
    assert container(head) is None


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=HEAD), st.binary(max_size=HEAD))
def test_any_bytes_get_an_answer(head: bytes, tail: bytes) -> None:
    """No exception, whatever a disk begins or ends with."""
    found = container(head, tail)
    assert found is None or found.name


@pytest.mark.parametrize("name", [*MAKERS])
@pytest.mark.parametrize("access", ["", ",rw"])
def test_no_partition_is_made_of_a_container(tmp_path: Path, name: str, access: str) -> None:
    """stitch --part refuses; with --raw it takes the bytes and never looks."""
    MAKERS[name](tmp_path / name)
    command = ("stitch", tmp_path / "m.yaml", "--disk", "d", "--part", f"{tmp_path / name}:type=linux{access}")
    result = regionfs(*command)
    assert (2, True, False) == (result.exit_code, "--raw takes its bytes as they are" in result.stderr,
                                (tmp_path / "m.yaml").exists())
    assert 0 == regionfs(*command, "--raw").exit_code


@pytest.mark.parametrize("access", ["ro", "rw"])
def test_crosvm_components_are_plain(tmp_path: Path, access: str) -> None:
    """crosvm would open them by their formats; the message names the component, --raw is for who knows better."""
    put(tmp_path / "a.img", 8192)
    content = exported("crosvm", put_manifest(tmp_path, [{"source": "a.img", "length": 8192, "access": access}]),
                       tmp_path / "o").content
    (tmp_path / "d.cd").write_bytes(content)
    (tmp_path / "a.img").write_bytes(b"QFI\xfb".ljust(8192, b"\0"))
    command = ("import", "auto", tmp_path / "d.cd", "-o", tmp_path / "n.yaml")
    result = regionfs(*command)
    why = f"d.cd: the component at 0: {tmp_path}/a.img is a qcow2 image"
    assert (3, True) == (result.exit_code, why in result.stderr)
    assert (0, ["d.img"]) == (regionfs(*command, "--raw").exit_code, list(load(tmp_path / "n.yaml").files))


def test_auto_names_a_container_that_is_no_map(tmp_path: Path) -> None:
    """What most people have is called by its name, with the remedy."""
    (tmp_path / "d").write_bytes(gzip.compress(DATA))
    result = regionfs("import", "auto", tmp_path / "d", "-o", tmp_path / "m.yaml")
    assert (1, True) == (result.exit_code, "is compressed with gzip" in result.stderr)
