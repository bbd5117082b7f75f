"""Tables made and read by the system's own tools."""

from __future__ import annotations

import os
import subprocess
import zlib
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regionfs.disk.layout import Layout, Part, lay_out
from regionfs.disk.read import Partition, parse_dump, read_table
from regionfs.disk.table import Piece, synthesise
from regionfs.disk.types import TYPES, type_id, type_name
from regionfs.errors import RegionfsError, UsageError

MIB = 2**20
PARTS = (Part("a", MIB, type="esp", name="EFI système", bootable=True),
         Part("b", 2 * MIB + 1, type="linux-root", attrs=("RequiredPartition", "GUID:60")))
PLAIN = (Part("a", MIB, type="fat32", bootable=True), Part("b", 2 * MIB + 1, type="basic-data"))
BOTH = pytest.mark.parametrize("sector", [512, 4096])


def made(label: str, sector: int, size: int | None = None) -> Layout:
    return lay_out(PARTS if label == "gpt" else PLAIN, label=label, sector=sector, align=MIB, size=size, seed="s")


def image(layout: Layout, pieces: list[Piece], path: Path) -> Path:
    with path.open("wb") as file:
        file.truncate(layout.size)
        for piece in pieces:
            file.seek(piece.start)
            file.write(piece.data)
    return path


@BOTH
@pytest.mark.parametrize("label", ["gpt", "mbr"])
def test_same_layout_same_bytes(label: str, sector: int) -> None:
    """Nothing random, no time, nothing of the temporary file's name."""
    assert synthesise(made(label, sector)) == synthesise(made(label, sector))


@BOTH
def test_gpt_pieces_are_the_whole_table(tmp_path: Path, sector: int) -> None:
    """Primary and backup are complete: what reads them finds every name, type, id and attribute."""
    layout = made("gpt", sector, 64 * MIB)
    primary, backup = synthesise(layout)
    table = read_table(image(layout, primary + backup, tmp_path / "disk"), sector)
    assert ("gpt", layout.disk_id, sector) == (table.label, table.id, table.sector)
    meant = tuple(Partition(number, one.start, one.sectors, one.type, one.part.name, one.uuid)
                  for number, one in enumerate(layout.placed, 1))
    assert meant == table.partitions
    assert primary[2].data == backup[0].data  # entries
    assert b"EFI PART" == primary[1].data[:8] == backup[1].data[:8]


@BOTH
def test_gpt_checksums(sector: int) -> None:
    """The header's own CRC and that of 128 entries, computed here (UEFI 2.10, 5.3.2)."""
    (_, header, entries), backup = synthesise(made("gpt", sector))
    for one in (header, backup[1]):
        header = one.data[:92]
        assert int.from_bytes(header[16:20], "little") == zlib.crc32(header[:16] + bytes(4) + header[20:])
        assert int.from_bytes(header[88:92], "little") == zlib.crc32(entries.data.ljust(128 * 128, b"\0"))


@BOTH
def test_mbr(tmp_path: Path, sector: int) -> None:
    """One piece, the whole of sector 0; both entries and the active flag."""
    layout = made("mbr", sector)
    primary, backup = synthesise(layout)
    assert ([(0, sector)], []) == ([(piece.start, len(piece.data)) for piece in primary], backup)
    table = read_table(image(layout, primary, tmp_path / "disk"), sector)
    assert ("dos", layout.disk_id) == (table.label, table.id)
    assert ["c", "7"] == [one.type for one in table.partitions]
    assert 0x80 == primary[0].data[446]


@BOTH
def test_pieces_are_whole_sectors(sector: int) -> None:
    """No data begins or ends inside a sector: readers that ask for data and holes by sectors find none halved."""
    primary, backup = synthesise(made("gpt", sector, 64 * MIB))
    assert [0, 0, 0, 0, 0] == [(piece.start | len(piece.data)) % sector for piece in primary + backup]
    assert [0, sector, 2 * sector] == [piece.start for piece in primary]


def test_boot_code_goes_before_the_table() -> None:
    """440 bytes at most, in the same piece as the table."""
    (table,), _ = synthesise(made("mbr", 512), b"\x33\xc0" + bytes(400))
    (plain,), _ = synthesise(made("mbr", 512))
    assert ("boot code and partition table", b"\x33\xc0" + plain.data[2:]) == (table.what, table.data)
    with pytest.raises(UsageError, match="441 bytes of boot code; there is room for 440"):
        synthesise(made("mbr", 512), bytes(441))


def test_types_are_sfdisks() -> None:
    """Every GUID and every byte is one that sfdisk lists."""
    lists = {label: {line.split()[0].upper() for line in subprocess.run(
        ["sfdisk", "--list-types", "-X", label], capture_output=True, text=True, check=True).stdout.splitlines()
        if line.strip()} for label in ("gpt", "dos")}
    assert [] == [name for name, known in TYPES.items() if known.gpt not in lists["gpt"]]
    assert [] == [name for name, known in TYPES.items() if known.mbr and known.mbr.upper() not in lists["dos"]]


def test_type_names_and_values() -> None:
    """A GUID or a byte is taken as it is; a known one has a name again."""
    guid = "01234567-89ab-cdef-0123-456789abcdef"
    assert (guid.upper(), "a5", "a5") == (type_id(guid, "gpt"), type_id("A5", "mbr"), type_id("0xa5", "mbr"))
    assert ("esp", "linux", "a5") == (type_name(TYPES["esp"].gpt), type_name("83"), type_name("a5"))


@pytest.mark.parametrize("sector", [None, 512, 4096])
def test_no_table(tmp_path: Path, sector: int | None) -> None:
    """Zeros are no table, at any sector size."""
    path = tmp_path / "zeros"
    path.write_bytes(bytes(MIB))
    with pytest.raises(RegionfsError, match=r"does not contain a recognized partition table|has no partition table"):
        read_table(path, sector)


def test_sector_size_is_found(tmp_path: Path) -> None:
    """A GPT of 4096-byte sectors in a plain file is no puzzle."""
    layout = made("gpt", 4096)
    primary, backup = synthesise(layout)
    table = read_table(image(layout, primary + backup, tmp_path / "disk:p1.img"))
    assert (4096, [1, 2]) == (table.sector, [one.number for one in table.partitions])
    with pytest.raises(RegionfsError, match="no GPT for sectors of 512 bytes"):
        read_table(tmp_path / "disk:p1.img", 512)


@BOTH
def test_a_gpt_that_was_cut_short_is_read(tmp_path: Path, sector: int) -> None:
    """Without its backup the primary table still says everything, and for which size it is."""
    layout = made("gpt", sector, 64 * MIB)
    path = image(layout, [piece for part in synthesise(layout) for piece in part], tmp_path / "disk")
    whole = read_table(path, sector)
    os.truncate(path, 3 * MIB)
    cut = read_table(path)
    assert (whole, True, False) == (cut, cut.is_cut(3 * MIB), cut.is_cut(64 * MIB))


def test_a_gpt_cut_inside_its_table_is_called_so(tmp_path: Path) -> None:
    """The entries are needed; the message gives both sizes."""
    layout = made("gpt", 512, 64 * MIB)
    path = image(layout, synthesise(layout)[0], tmp_path / "disk")
    os.truncate(path, 1100)
    with pytest.raises(RegionfsError, match="was cut short: its GPT is for 67108864 bytes, it has 1100, and the table"):
        read_table(path)


NEW = """label: dos
label-id: 0x1
device: /dev/sda
unit: sectors
sector-size: 512

/dev/sda1 : start=        2048, size=        8192, type=83, bootable
/dev/sda2 : start=       10240, size=      120832, type=5
"""
OLD = """# partition table of /dev/sda
unit: sectors

/dev/sda1 : start=     2048, size=     8192, Id=83, bootable
/dev/sda2 : start=    10240, size=   120832, Id= 5
/dev/sda3 : start=        0, size=        0, Id= 0
"""


@pytest.mark.parametrize("text", [NEW, OLD], ids=["today", "before 2.26"])
def test_dumps_that_people_keep(text: str) -> None:
    """Both forms of `sfdisk -d` give the table and the disk it was made of."""
    table = parse_dump(text, Path("t"))
    assert ("dos", "/dev/sda", 512) == (table.label, table.device, table.sector)
    assert [(1, 2048, 8192, "83"), (2, 10240, 120832, "5")] == [
        (one.number, one.start, one.sectors, one.type) for one in table.partitions]


@pytest.mark.parametrize(("old", "new", "why"), [
    ("8192", "8x", "t:7: start=2048, size=8x are not two numbers"),
    ("8192", "9" * 30, "t:7: start=2048"),
    ("/dev/sda1", "here", "t:7: 'here' is not the name of a partition"),
    ("unit: sectors", "unit: cylinders", "the unit 'cylinders' is not sectors"),
    ("sector-size: 512", "sector-size: x", "t: sector-size x is not a number"),
])
def test_bad_dumps_say_why(old: str, new: str, why: str) -> None:
    """With the line of the dump."""
    with pytest.raises(RegionfsError) as caught:
        parse_dump(NEW.replace(old, new, 1), Path("t"))
    assert why in str(caught.value)


def test_missing_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is named."""
    monkeypatch.setattr("regionfs.disk.tool._PATH", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(RegionfsError, match="sfdisk is not installed; it comes with the package fdisk"):
        synthesise(made("gpt", 512))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(0, len(NEW) - 1), st.sampled_from(
    ["", "0", "9" * 25, "\n", '"', "\\x", "=", ":", "é", "\0", "-", " ", "\udcff"])), max_size=6))
def test_any_dump_is_a_table_or_an_error(edits: list[tuple[int, str]]) -> None:
    """Changed anywhere it is read, or refused in words; it ends in no other exception."""
    text = list(NEW)
    for at, more in edits:
        text[at] = more
    with suppress(RegionfsError):
        assert parse_dump("".join(text), Path("t")).sector >= 1
