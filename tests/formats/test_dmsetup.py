"""device-mapper tables: exports against a parser of dmsetup's grammar, imports of each form."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from regionfs.formats.devices import Device, from_system
from regionfs.formats.dmsetup import read
from regionfs.formats.values import Foreign, FormatError, Imported
from regionfs.manifest.body import Mapped
from regionfs.manifest.load import load
from regionfs.regions import Kind
from tests.formats.tools import exported, faults, imported, nearly, put, put_manifest, regionfs, resolved

Line = tuple[int, int, str, list[str]]


def parse(text: str) -> list[Line]:
    """A table as dmsetup reads it: _parse_line of dmsetup.c, then the kernel's dm_table_add_target."""
    found: list[Line] = []
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        match = re.match(r"([0-9]+) +([0-9]+) +(\S+) *(.*)", line)
        assert match is not None, line
        arguments = match[4].split("#")[0].split()
        assert {"linear": 2, "zero": 0, "error": 0}[match[3]] == len(arguments)
        assert sum(entry[1] for entry in found) == int(match[1])  # gap in table
        assert int(match[2]) > 0                                  # zero-length target
        found.append((int(match[1]), int(match[2]), match[3], arguments))
    return found


def test_export_is_a_table_for_dmsetup(tmp_path: Path) -> None:
    """Sources are linear on the loop devices that the comments attach, gaps zero, bad areas error."""
    put(tmp_path / "a.img", 8192)
    manifest = put_manifest(tmp_path, [
        {"source": "a.img", "offset": 512, "length": 1024}, {"error": True, "length": 512},
        {"start": 4096, "source": "a.img", "length": 4096}])
    assert 0 == regionfs("export", "dmsetup", manifest, "disk.img", "-o", tmp_path / "t").exit_code
    text = (tmp_path / "t").read_text()
    assert [(0, 2, "linear", ["/dev/loop100", "1"]), (2, 1, "error", []), (3, 5, "zero", []),
            (8, 8, "linear", ["/dev/loop100", "0"])] == parse(text)
    assert [f"# losetup --read-only /dev/loop100 {tmp_path}/a.img",
            f"# dmsetup create --readonly disk.img {tmp_path}/t"] == text.splitlines()[:2]


def test_notes_are_the_commands_to_run(tmp_path: Path) -> None:
    """The losetup and dmsetup lines are printed, quoted for a shell."""
    put(tmp_path / "it's.img", 512)
    manifest = put_manifest(tmp_path, [{"source": "it's.img", "access": "rw"}])
    result = regionfs("export", "dmsetup", manifest, "disk.img", "-o", tmp_path / "t")
    quoted = str(tmp_path / "it's.img").replace("'", "'\"'\"'")
    assert [f"losetup /dev/loop100 '{quoted}'", f"dmsetup create disk.img {tmp_path}/t"] == \
        result.stderr.splitlines()


def test_inline_data_goes_into_the_side_file(tmp_path: Path) -> None:
    """Bytes no device holds are copied next to the table, which names them by a loop device."""
    manifest = put_manifest(tmp_path, [{"data": {"text": "boot"}}, {"start": 512, "length": 512, "hole": True}])
    assert 0 == regionfs("export", "dmsetup", manifest, "disk.img", "-o", tmp_path / "t").exit_code
    assert [(0, 1, "linear", ["/dev/loop100", "0"]), (1, 1, "zero", [])] == parse((tmp_path / "t").read_text())
    assert b"boot".ljust(512, b"\0") == (tmp_path / "t.side").read_bytes()


@pytest.mark.parametrize("access", ["ro", "rw"])
def test_export_then_import_is_the_same_map(tmp_path: Path, access: str) -> None:
    """The comments lead the reader back from loop devices to files, with their access."""
    put(tmp_path / "a b.img", 8192)
    manifest = put_manifest(tmp_path, [
        {"source": "a b.img", "offset": 512, "length": 1024, "access": access}, {"error": True, "length": 512},
        {"start": 4096, "source": "a b.img", "length": 4096, "access": access}])
    assert 0 == regionfs("export", "dmsetup", manifest, "disk.img", "-o", tmp_path / "t").exit_code
    assert 0 == regionfs("import", "auto", tmp_path / "t", "-o", tmp_path / "n.yaml", "--file", "disk.img").exit_code
    assert resolved(load(manifest)) == resolved(load(tmp_path / "n.yaml"))


def test_a_live_loop_device_becomes_its_file(
    tmp_path: Path, loop_device: Callable[..., AbstractContextManager[Path]],
) -> None:
    """An attached loop device, by path and by number, is its file at its offset."""
    put(tmp_path / "a.img", 16384)
    with loop_device(tmp_path / "a.img", "--offset", "1024", "--sizelimit", "8192") as device:
        number = (Path("/sys/block") / device.name / "dev").read_text().strip()
        (tmp_path / "t").write_text(f"0 8 linear {device} 2\n8 4 linear {number} 1\n")
        assert 0 == regionfs("import", "dmsetup", tmp_path / "t", "-o", tmp_path / "m.yaml").exit_code
        with pytest.raises(FormatError, match="which has 8192"):
            imported("dmsetup", f"0 17 linear {device} 0", tmp_path)
    image = tmp_path / "a.img"
    assert [(0, 4096, Kind.SOURCE, image, 2048, False), (4096, 6144, Kind.SOURCE, image, 1536, False)] == \
        resolved(load(tmp_path / "m.yaml"), "t.img")


def test_block_devices_are_named_as_they_are(
    tmp_path: Path, loop_device: Callable[..., AbstractContextManager[Path]],
) -> None:
    """A source that is a device needs no loop device of its own."""
    put(tmp_path / "a.img", 8192)
    with loop_device(tmp_path / "a.img") as device:
        manifest = put_manifest(tmp_path, [{"source": str(device), "offset": 512, "length": 1024}])
        text = exported("dmsetup", manifest, tmp_path / "t").content.decode()
    assert [(0, 2, "linear", [str(device), "1"])] == parse(text)
    assert "losetup" not in text


def test_sysfs_of_partitions_and_deleted_files(tmp_path: Path) -> None:
    """A partition of a loop device is its part of the file; a deleted file is refused."""
    loop = tmp_path / "devices/loop0"
    part = loop / "loop0p1"
    (loop / "loop").mkdir(parents=True)
    part.mkdir()
    links = tmp_path / "dev/block"
    links.mkdir(parents=True)
    (links / "7:0").symlink_to(loop)
    (links / "259:0").symlink_to(part)
    for path, text in ((loop / "uevent", "DEVNAME=loop0\n"), (part / "uevent", "DEVNAME=loop0p1\n"),
                       (loop / "loop/backing_file", "/x/a.img\n"), (loop / "loop/offset", "512\n"),
                       (loop / "loop/sizelimit", "0\n"), (part / "partition", "1\n"), (part / "start", "8\n"),
                       (part / "size", "4\n")):
        path.write_text(text)
    assert Device(Path("/x/a.img"), 512 + 4096, 2048) == from_system("259:0", tmp_path)
    (loop / "loop/backing_file").write_text("/x/a.img (deleted)\n")
    with pytest.raises(FormatError, match=r"/x/a\.img was deleted"):
        from_system("7:0", tmp_path)


def test_concise_form(tmp_path: Path) -> None:
    """Each device of a concise table is a file, with its flags and its escapes."""
    text = r"one,,,rw,0 8 linear 7:1 0,8 8 zero;tw\,o,uuid,3,ro,0 16 linear 7:1 8"
    manifest = read(Foreign(tmp_path / "in", text.encode(), tmp_path / "m.yaml"),
                    lambda name: Device(Path("/d") / name)).manifest
    source = Path("/d/7:1")
    assert {"one": [(0, 4096, Kind.SOURCE, source, 0, True), (4096, 8192, Kind.HOLE, False)],
            "tw,o": [(0, 8192, Kind.SOURCE, source, 4096, False)]} == {
                name: resolved(manifest, name) for name in manifest.files}


def test_table_of_all_devices(tmp_path: Path) -> None:
    """The names that `dmsetup table` puts before its lines become files."""
    manifest = imported("dmsetup", "a: 0 8 zero\nb-c: 0 8 error\nb-c: 8 8 zero\n", tmp_path, name="vg").manifest
    assert {"vg/a": 4096, "vg/b-c": 8192} == {
        name: file.regions.size for name, file in manifest.files.items() if isinstance(file.body, Mapped)}


@pytest.mark.parametrize(("text", "why"), [
    ("0 8 zero\n9 8 zero", ":2: the table goes on at sector 9, not at 8"),
    ("0 0 zero", "1 sector"),
    ("0 x zero", "count 'x'"),
    ("0 8 zero 1", "is not linear"),
    ("0 8 snapshot /dev/a /dev/b P 8", "'snapshot /dev/a"),
    ("0 8 linear /dev/no-such-device 0", "/dev/no-such-device: No such file"),
    ("0 8 linear /etc/hostname 0", "neither the path of a block device"),
    ("0 8 linear 4095:77 0", "no block device 4095:77"),
    ("0 8 linear", "is not linear"),
    ("nonsense", "is not START COUNT"),
    ("", "no lines"),
    ("# losetup /dev/loop100 'open\n0 8 zero", "No closing quotation"),
    ("# losetup /dev/loop100 a b\n0 8 zero", "is not losetup DEVICE FILE"),
    ("a,b,c", "is not START COUNT"),
    ("a,,,rx,0 8 zero", "is not NAME,UUID"),
    ("a,,,rw,0 8 zero,bad", "'bad' is not START"),
    ("0 36028797018963968 zero", "the count"),
])
def test_bad_tables_say_why(tmp_path: Path, text: str, why: str) -> None:
    """Every fault is a FormatError with its place."""
    with pytest.raises(FormatError) as caught:
        imported("dmsetup", text, tmp_path)
    assert why in str(caught.value)


def test_unaligned_error_region_is_named(tmp_path: Path) -> None:
    """Bad bytes off a sector cannot be said."""
    manifest = put_manifest(tmp_path, [{"error": True, "length": 700}, {"hole": True, "length": 324}])
    with pytest.raises(FormatError, match=r"regions\[0\] \[0, 700\).*unless both ends are multiples of 512"):
        exported("dmsetup", manifest, tmp_path / "t")


TABLE = "0 8 linear /d/a 0\n8 16 zero\n24 8 error\n32 1 linear /d/b 7\n"
CONCISE = r"one,,,rw,0 8 linear /d/a 0,8 8 zero;tw\,o,uuid,3,ro,0 16 linear /d/b 8"
WORDS = ("0", "8", "99999999999999999999", " ", "linear", "zero", "error", "7:9999", ",", ";", "\\", "\n", "rw", "a",
         "#", ":", "losetup", "/dev/loop100", "é", "\0")


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(WORDS), max_size=25).map("".join) | nearly(TABLE, WORDS) | nearly(CONCISE, WORDS))
@example(TABLE)
@example(CONCISE)
def test_anything_is_a_map_or_a_format_error(text: str) -> None:
    """Arbitrary text is read as a whole map or refused with its place; it ends in no other exception."""
    def named(name: str) -> Device:
        if not name.startswith("/d/"):
            raise FormatError(f"/tmp/in: no device {name}")
        return Device(Path(name))

    def parsed() -> Imported:
        return read(Foreign(Path("/tmp/in"), text.encode(), Path("/tmp/m.yaml")), named)

    assert [] == faults(lambda: imported("dmsetup", text, Path("/tmp")))
    assert [] == faults(parsed, valid=text in (TABLE, CONCISE))
