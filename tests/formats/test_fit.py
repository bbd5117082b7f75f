"""What a foreign map says of its sources, compared with them: messages name the input's line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from regionfs.manifest.load import load
from tests.formats.tools import put, regionfs

VMDK = '# Disk DescriptorFile\nversion=1\ncreateType="monolithicFlat"\nRW 1 FLAT "b" 0\nRW 8 FLAT "a" 1\n'
FRAG = """Filesystem type is: ef53
File size of f is 8192 (2 blocks of 4096 bytes)
 ext:     logical_offset:        physical_offset: length:   expected: flags:
   0:        0..       1:          0..         1:      2:             last,eof
"""
BMAP = """<bmap version="2.0">
<ImageSize> 4096 </ImageSize> <BlockSize> 4096 </BlockSize>
<BlockMap>
<Range> 0 </Range>
</BlockMap></bmap>
"""
MAP = "0x0 + 1\n0x0 0x1000 +\n"
QEMU = [{"start": 0, "length": 4096, "depth": 0, "zero": False, "data": True, "offset": 512}]
DUMP = "label: dos\ndevice: a\nunit: sectors\n\na1 : start=1, size=8, type=83\n"


@pytest.mark.parametrize(("name", "text", "message"), [
    ("vmdk", VMDK, "in:5: reaches to byte 4608 of {a}, which has 4095"),
    ("filefrag", FRAG, "in:4: reaches to byte 8192 of {a}, which has 4095"),
    ("bmap", BMAP, "in:4: {a} has 4095 bytes, but the map is of an image of 4096"),
    ("ddrescue", MAP, "in:2: reaches to byte 4096 of {a}, which has 4095"),
    ("qemu-map", json.dumps(QEMU), "in: entry 0: reaches to byte 4608 of {a}, which has 4095"),
    ("kerchunk", '{"k/0": ["a", 1, 4096]}', "in: refs['k/0']: reaches to byte 4097 of {a}, which has 4095"),
    ("gpt", DUMP, "in: partition 1 ends at 4608; the disk has 4095 bytes"),
])
def test_a_source_that_is_too_short(tmp_path: Path, name: str, text: str, message: str) -> None:
    """Refused with the place in the input; nothing points into a manifest that was never written."""
    put(tmp_path / "a", 4095)
    put(tmp_path / "b", 512)
    (tmp_path / "in").write_text(text)
    (tmp_path / "o.yaml").write_text("mine")
    result = regionfs("import", name, tmp_path / "in", "-o", tmp_path / "o.yaml", "--force", "--source", tmp_path / "a")
    assert ("mine", True) == ((tmp_path / "o.yaml").read_text(), result.exit_code in (1, 3))
    assert message.format(a=tmp_path / "a") in result.stderr.replace(f"{tmp_path}/in", "in")
    assert "o.yaml" not in result.stderr


def test_every_source_that_does_not_fit_is_told(tmp_path: Path) -> None:
    """A line each."""
    (tmp_path / "in").write_text(VMDK)
    result = regionfs("import", "vmdk", tmp_path / "in", "-o", tmp_path / "o.yaml")
    expected = [f"regionfs: {tmp_path}/in:4: {tmp_path}/b does not exist",
                f"{tmp_path}/in:5: {tmp_path}/a does not exist"]
    assert (3, expected) == (result.exit_code, [line.strip() for line in result.stderr.splitlines()])


def test_a_bad_name_is_a_problem_of_the_input(tmp_path: Path) -> None:
    """Keys that are no paths inside a mount are named with the input's path."""
    put(tmp_path / "a", 10)
    (tmp_path / "in").write_text('{"../x": ["a", 0, 1]}')
    result = regionfs("import", "kerchunk", tmp_path / "in", "-o", tmp_path / "o.yaml")
    assert (3, True, False) == (result.exit_code, result.stderr.startswith(f'{tmp_path}/in: files["../x"]: '),
                                "o.yaml" in result.stderr)
    result = regionfs("stitch", tmp_path / "o.yaml", "--file", "../x", "--concat", tmp_path / "a")
    assert (3, True) == (result.exit_code, result.stderr.startswith(f'{tmp_path}/o.yaml: files["../x"]: '))


@pytest.mark.parametrize(("written", "key"), [
    ("a", "a"), ("./a", "a"), ("x/../a", "a"), ("x//./y/../../a", "a"), ("../sub/a", "a"), ("../b", "../b"),
    ("link/../b", "other/b"), ("{here}/x/../a", "a"), ("{here}/../b", "{parent}/b"),
])
def test_paths_are_written_plain(tmp_path: Path, written: str, key: str) -> None:
    """Without . and .., which go up from where a link leads; one file has one key."""
    here = tmp_path / "sub"
    for directory in (here / "x/y", here / "other/deep"):
        directory.mkdir(parents=True)
    (here / "link").symlink_to(here / "other/deep")
    for path in (here / "a", tmp_path / "b", here / "other/b"):
        put(path, 512)
    words: dict[str, Any] = {"here": here, "parent": tmp_path}
    text = VMDK.splitlines()[:3] + [f'RW 1 FLAT "{written.format(**words)}" 0'] * 2
    (here / "in").write_text("\n".join(text))
    assert 0 == regionfs("import", "vmdk", here / "in", "-o", here / "o.yaml").exit_code
    (found,) = load(here / "o.yaml").sources.values()
    assert (key.format(**words), True) == (found.key, found.path.samefile(here / written.format(**words)))


BAD = os.fsdecode(b"bel\x9f")


@pytest.mark.parametrize("words", [
    ("import", "split", f"{BAD}/x.001", "-o", "o.yaml"),
    ("import", "ddrescue", "map", "-o", "o.yaml", "--source", f"{BAD}/x.001"),
    ("import", "ddrescue", "map", "-o", "o.yaml", "--source", "a", "--file", BAD),
    ("import", "gpt", f"{BAD}/disk", "-o", "o.yaml"),
    ("stitch", "o.yaml", "--file", "f", "--concat", f"{BAD}/x.001"),
    ("stitch", "o.yaml", "--file", BAD, "--concat", "a"),
    ("stitch", "o.yaml", "--disk", "d", "--part", f"{BAD}/x.001"),
    ("stitch", "o.yaml", "--disk", BAD, "--part", "a"),
    ("stitch", "o.yaml", "--disk", "d", "--part", f"a:name={BAD}"),
    ("stitch", "o.yaml", "--disk", "d", "--part", "a", "--seed", BAD),
    ("stitch", "o.yaml", "--from-disk", f"{BAD}/disk"),
    ("map", "add", "e.yaml", "f", f"source={BAD}/x.001"),
    ("map", "set", "e.yaml", "f", "0", f"source={BAD}/x.001"),
    ("export", "vmdk", f"{BAD}/e.yaml", "f", "-o", "o.yaml"),
    ("export", "crosvm", f"{BAD}/e.yaml", "f", "-o", "o.yaml"),
    ("export", "qemu-map", f"{BAD}/e.yaml", "f", "-o", "o.yaml"),
    ("export", "dmsetup", f"{BAD}/e.yaml", "f", "-o", "o.yaml"),
    ("export", "dmsetup", "h.yaml", "f", "-o", BAD + ".dm"),
])
def test_names_that_are_not_utf8(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]) -> None:
    """One line that says so, and nothing is written."""
    monkeypatch.chdir(tmp_path)
    Path(BAD).mkdir()
    for name in (f"{BAD}/x.001", f"{BAD}/x.002", f"{BAD}/a", "a"):
        put(Path(name), 4096)
    for name in (f"{BAD}/e.yaml", "e.yaml"):
        Path(name).write_text("{regionfs: 1, files: {f: {regions: [{source: a, length: 4096}]}}}")
    Path("h.yaml").write_text("{regionfs: 1, files: {f: {regions: [{hole: true, length: 4096}]}}}")
    Path("map").write_text(MAP)
    disk = Path(f"{BAD}/disk")
    assert 0 == regionfs("stitch", "d.yaml", "--disk", "d", "--part", "a").exit_code
    disk.write_bytes(regionfs("cat", "d.yaml", "d").stdout_bytes)
    before = sorted(Path().iterdir())
    result = regionfs(*words)
    assert (True, 1, before) == (result.exit_code in (1, 2), len(result.stderr.splitlines()), sorted(Path().iterdir()))
    assert "UTF-8" in result.stderr or "cannot be printed" in result.stderr


def test_what_lies_beside_a_manifest_has_plain_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the manifest's own directory the other bytes are not written anywhere."""
    monkeypatch.chdir(tmp_path)
    Path(BAD).mkdir()
    for number in (1, 2):
        put(Path(BAD, f"x.00{number}"), 4096)
    assert 0 == regionfs("import", "split", f"{BAD}/x.001", "-o", f"{BAD}/o.yaml").exit_code
    assert ["x.001", "x.002"] == list(load(Path(BAD, "o.yaml")).sources)
