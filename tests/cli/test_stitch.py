"""`regionfs stitch`: what people type and the manifests they get; the disks are tried in test_stitch_disk."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from regionfs.manifest.body import Mapped
from regionfs.manifest.load import load
from tests.cli.conftest import Cli

MIB = 2**20


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with images, entered."""
    for name, size in (("esp.img", MIB), ("root.img", 2 * MIB + 100), ("a", 100), ("b", 700), ("empty", 0)):
        (tmp_path / name).write_bytes(os.urandom(size))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_gpt_disk_is_a_commented_manifest(run: Cli, place: Path) -> None:
    """The command, the ids, and what each region is; the image's last sector is filled up by a hole."""
    words = ["stitch", "disk.yaml", "--disk", "vm/disk.img", "--part", "esp.img:type=esp,name=EFI",
             "--part", "root.img:type=linux-root,rw"]
    assert 0 == run(*words).exit_code
    lines = (place / "disk.yaml").read_text().splitlines()
    assert "# Made by: regionfs " + " ".join(words) == lines[0]
    assert "  # GPT disk A23933B5-4E42-587B-A131-4BBE23B97937, 2 partitions, sectors of 512 bytes" == lines[3]
    comments = [line.strip() for line in lines[4:] if line.strip().startswith("#")]
    assert ["# protective MBR", "# GPT header", "# GPT entries",
            "# partition 1: esp, EFI, 754A1FB0-76B5-5CF1-B354-8412D8E82200",
            "# partition 2: linux-root, 3EA25058-F2F5-5100-8E68-E88600C7CF6A, "
            "412 bytes of it are a hole after the image",
            "# backup of the GPT entries", "# backup of the GPT header"] == comments
    assert "      - {start: 2MiB, length: 2097252, source: root.img, access: rw}" in lines


@pytest.mark.parametrize("options", [["--gpt"], ["--mbr"], ["--gpt", "--sector-size", "4096", "--seed", "lab 7"]])
def test_same_command_same_bytes(run: Cli, place: Path, options: list[str]) -> None:
    """Ids and all."""
    texts = []
    for _ in range(2):
        assert 0 == run("stitch", "d.yaml", "--force", "--disk", "d", "--part", "esp.img:bootable", *options).exit_code
        texts.append((place / "d.yaml").read_bytes())
    assert texts[0] == texts[1]


def test_mbr_with_boot_code(run: Cli, place: Path) -> None:
    """440 bytes of the file, then the table."""
    assert 0 == run("stitch", "d.yaml", "--disk", "d", "--mbr", "--part", "a:bootable", "--boot-code", "b").exit_code
    result = run("cat", "d.yaml", "d", "--length", "440")
    assert (place / "b").read_bytes()[:440] == result.stdout_bytes


def test_sources_are_relative_to_the_manifest(run: Cli, place: Path) -> None:
    """Not to where the command ran; a directory that moves with its images goes on working."""
    (place / "deep").mkdir()
    assert 0 == run("stitch", "deep/d.yaml", "--disk", "d", "--part", place / "a").exit_code
    assert ["../a"] == list(load(place / "deep" / "d.yaml").files["d"].sources)


def test_concat(run: Cli, place: Path) -> None:
    """In the order given, starts and lengths stated; a piece may come twice."""
    assert 0 == run("stitch", "c.yaml", "--file", "data.bin", "--concat", "b", "a", "b").exit_code
    pieces = [(place / name).read_bytes() for name in "bab"]
    assert b"".join(pieces) == run("cat", "c.yaml", "data.bin").stdout_bytes
    (place / "b").write_bytes(bytes(600))
    assert (3, "c.yaml:7:") == ((result := run("cat", "c.yaml", "data.bin")).exit_code, result.stderr[:9])


def test_split_set(run: Cli, place: Path) -> None:
    """Any piece names the whole set; writes go to the pieces."""
    for number in (1, 2, 3):
        (place / f"image.00{number}").write_bytes(bytes([number]) * 1000)
    assert 0 == run("stitch", "s.yaml", "--split-set", "image.002", "--rw").exit_code
    file = load(place / "s.yaml").files["image.img"]
    assert (True, ("image.001", "image.002", "image.003")) == (file.writable, file.sources)


def test_split_set_with_a_gap(run: Cli, place: Path) -> None:
    """Refused, with the piece after which one is missing."""
    for number in (1, 3):
        (place / f"image.00{number}").write_bytes(b"x")
    result = run("stitch", "s.yaml", "--split-set", "image.001")
    assert (1, False) == (result.exit_code, (place / "s.yaml").exists())
    assert "image.001 is followed by image.003: pieces between them are missing" in result.stderr


@pytest.mark.parametrize("options", [["--gpt"], ["--mbr"], ["--gpt", "--sector-size", "4096"]])
def test_numbers_need_not_follow_the_disk(run: Cli, place: Path, options: list[str]) -> None:
    """Partition 1 may lie behind partition 2; the table says so, and each shows its image."""
    assert 0 == run("stitch", "d.yaml", "--disk", "d", "--part", "root.img:start=8MiB", "--part", "esp.img:start=1MiB",
                    *options).exit_code
    (place / "disk.img").write_bytes(run("cat", "d.yaml", "d").stdout_bytes)
    assert 0 == run("stitch", "p.yaml", "--from-disk", "disk.img").exit_code
    found = load(place / "p.yaml").files
    starts = [file.regions[0].offset for file in found.values() if isinstance(file.body, Mapped)]
    assert (["disk/part1.img", "disk/part2.img"], [8 * MIB, MIB]) == (list(found), starts)
    assert (place / "esp.img").read_bytes() == run("cat", "p.yaml", "disk/part2.img").stdout_bytes


@pytest.mark.parametrize("options", [["--gpt"], ["--mbr"], ["--gpt", "--sector-size", "4096"]])
def test_from_disk_is_the_inverse(run: Cli, place: Path, options: list[str]) -> None:
    """Partitions of a stitched disk have the bytes of their images, zeros after them."""
    run("stitch", "d.yaml", "--disk", "d", "--part", "esp.img", "--part", "root.img", *options)
    (place / "disk.img").write_bytes(run("cat", "d.yaml", "d").stdout_bytes)
    assert 0 == run("stitch", "p.yaml", "--from-disk", "disk.img").exit_code
    for number, name in ((1, "esp.img"), (2, "root.img")):
        image = (place / name).read_bytes()
        shown = run("cat", "p.yaml", f"disk/part{number}.img").stdout_bytes
        sector = 4096 if "4096" in options else 512
        assert image + bytes(-len(image) % sector) == shown


def test_from_disk_with_logical_partitions(run: Cli, place: Path) -> None:
    """The extended partition is a container: what it holds has files, itself none."""
    script = "label: dos\nstart=2048, size=2048, type=83\nstart=8192, size=20000, type=f\nstart=10240, size=2048\n"
    (place / "disk.img").write_bytes(bytes(32 * MIB))
    subprocess.run(["sfdisk", "--quiet", "disk.img"], input=script, text=True, check=True)
    run("stitch", "p.yaml", "--from-disk", "disk.img")
    shown = json.loads(run("show", "--json", "p.yaml").stdout)["files"]
    assert {"disk/part1.img": 2**20, "disk/part5.img": 5 * 2**20} == {
        name: file["regions"][0]["offset"] for name, file in shown.items()}


def test_out_is_not_overwritten(run: Cli, place: Path) -> None:
    """Unless told so; an edit in between would be lost."""
    (place / "c.yaml").write_text("mine")
    words = ["stitch", "c.yaml", "--file", "f", "--concat", "a"]
    result = run(*words)
    assert (2, "regionfs: c.yaml exists; --force replaces it\n") == (result.exit_code, result.stderr)
    assert ("mine", 0) == ((place / "c.yaml").read_text(), run(*words, "--force").exit_code)


def test_a_source_is_never_replaced(run: Cli, place: Path) -> None:
    """Not even by force, and not under another name."""
    (place / "c.yaml").symlink_to("a")
    before = (place / "a").read_bytes()
    result = run("stitch", "c.yaml", "--force", "--file", "f", "--concat", "a", "b")
    assert (2, before) == (result.exit_code, (place / "a").read_bytes())
    assert "c.yaml is one of the sources; a manifest in its place would destroy it" in result.stderr


DISK = ("--disk", "d")


@pytest.mark.parametrize("words, status, message", [
    ([], 2, "stitch makes one thing: one of --disk, --concat, --split-set, --from-disk; here none"),
    ([*DISK, "--concat", "a"], 2, "here --disk and --concat"),
    ([*DISK, "a"], 2, "--disk takes no PIECE"),
    (["--concat", "--file", "f", "--align", "1MiB", "a"], 2, "--concat takes no --align"),
    (["--concat", "a"], 2, "--concat needs --file"),
    (["--concat", "--file", "f"], 2, "--concat needs pieces"),
    (["--concat", "--file", "f", "a", "empty"], 2, "empty is empty; leave it out"),
    (["--concat", "--file", "f", "none"], 1, "none does not exist"),
    (["--concat", "--file", "../f", "a"], 3, "files[\"../f\"]: a path inside the mount"),
    (["--concat", "--file", "f", "."], 1, "is a directory; a source is a regular file or a block device"),
    ([*DISK], 2, "0 partitions; gpt takes 1 to 128"),
    ([*DISK, "--gpt", "--mbr", "--part", "a"], 2, "a --gpt or an --mbr, not both"),
    ([*DISK, "--part", "none.img:type=esp"], 1, "none.img does not exist"),
    ([*DISK, "--part", "a:typ=esp"], 2, "'typ=esp' is none of type=, name=, size=, start=, uuid=, attrs=, "
                                        "rw, bootable; did you mean type?"),
    ([*DISK, "--part", "a:rw=1"], 2, "'rw=1' is none of"),
    ([*DISK, "--part", "a:rw,rw"], 2, "rw is given twice"),
    ([*DISK, "--part", "a:name="], 2, "name= has no value"),
    ([*DISK, "--part", "a:size=1mib"], 2, "did you mean MiB"),
    ([*DISK, "--part", "a:attrs=Hidden"], 2, "attrs=Hidden is none of RequiredPartition"),
    ([*DISK, "--part", "a:attrs=5"], 2, "no bit from 48 to 63"),
    ([*DISK, "--part", "a", "--boot-code", "none"], 1, "none: No such file or directory"),
    ([*DISK, "--part", "a", "--size", "1MiB"], 2, "--size 1048576 is too small"),
    ([*DISK, "--part", "empty"], 2, "the image is empty; give the partition a size="),
    (["--from-disk", "esp.img"], 1, "does not contain a recognized partition table"),
    (["--from-disk", "none"], 1, "none does not exist"),
])
def test_refused(run: Cli, place: Path, words: list[str], status: int, message: str) -> None:
    """Nothing is written; the message says what and where."""
    result = run("stitch", "out.yaml", *words)
    assert (status, False) == (result.exit_code, (place / "out.yaml").exists())
    assert message in result.stderr


def test_attributes_and_colons(run: Cli, place: Path) -> None:
    """A path with colons, GPT attributes, and a partition without an image's bytes."""
    (place / "a:b=1").write_bytes(b"x")
    assert 0 == run("stitch", "d.yaml", "--disk", "d", "--part", "a:b=1", "--part", "empty:size=1MiB",
                    "--part", "a:attrs=RequiredPartition+60").exit_code
    assert ("a:b=1", "a") == load(place / "d.yaml").files["d"].sources
