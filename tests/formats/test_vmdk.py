"""VMDK flat descriptors, against QEMU: what it writes is read, what we write it reads the same."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from regionfs.formats.values import FormatError
from regionfs.manifest.load import load
from regionfs.regions import Kind
from tests.formats.tools import (
    exported,
    faults,
    imported,
    nearly,
    put,
    put_manifest,
    random_manifest,
    regionfs,
    resolved,
    run,
)

HEAD = '# Disk DescriptorFile\nversion=1\nCID=2322c3a8\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'


@pytest.mark.parametrize("seed", range(40))
def test_convert_gives_the_composite_file(tmp_path: Path, seed: int) -> None:
    """qemu-img reads the export of a random map, off its sectors too, as the oracle's bytes."""
    manifest, file, expected = random_manifest(tmp_path, seed)
    result = regionfs("export", "vmdk", manifest, file, "-o", tmp_path / "out.vmdk")
    assert 0 == result.exit_code, result.output
    run("qemu-img", "convert", "-f", "vmdk", "-O", "raw", tmp_path / "out.vmdk", tmp_path / "raw")
    assert expected == (tmp_path / "raw").read_bytes()
    (tmp_path / "oracle").write_bytes(expected)
    run("qemu-img", "compare", "-f", "vmdk", "-F", "raw", tmp_path / "out.vmdk", tmp_path / "oracle")


def test_export_names_sources_in_place(tmp_path: Path) -> None:
    """Whole sectors of a source are named, not copied; only the rest takes room in the side file."""
    put(tmp_path / "a.img", 1 << 20)
    manifest = put_manifest(tmp_path, [{"source": "a.img", "offset": 512, "length": 8192, "access": "rw"},
                                       {"hole": True, "length": "1GiB"}])
    assert 0 == regionfs("export", "vmdk", manifest, "disk.img", "-o", tmp_path / "out.vmdk").exit_code
    lines = [line for line in (tmp_path / "out.vmdk").read_text().splitlines() if line.startswith("RW")]
    assert ['RW 16 FLAT "a.img" 1', 'RW 2097152 FLAT "out.vmdk.side" 0'] == lines
    assert (1 << 30, 0) == ((side := (tmp_path / "out.vmdk.side").stat()).st_size, side.st_blocks)


def test_import_then_export_is_the_same_map(tmp_path: Path) -> None:
    """What VMDK can say survives import and export."""
    put(tmp_path / "a.img", 8192)
    put(tmp_path / "b.img", 8192)
    text = HEAD + '\n# Extent description\nRW 4 FLAT "a.img" 2\nRW 16 FLAT "b.img" 0\nRW 8 FLAT "a.img" 6\n'
    (tmp_path / "in.vmdk").write_text(text)
    assert 0 == regionfs("import", "vmdk", tmp_path / "in.vmdk", "-o", tmp_path / "m.yaml").exit_code
    assert 0 == regionfs("export", "vmdk", tmp_path / "m.yaml", "in.img", "-o", tmp_path / "out.vmdk").exit_code
    again = regionfs("import", "vmdk", tmp_path / "out.vmdk", "-o", tmp_path / "n.yaml", "--file", "in.img")
    assert 0 == again.exit_code
    assert resolved(load(tmp_path / "m.yaml"), "in.img") == resolved(load(tmp_path / "n.yaml"), "in.img")


@pytest.mark.parametrize("subformat", ["monolithicFlat", "twoGbMaxExtentFlat"])
def test_reads_what_qemu_writes(tmp_path: Path, subformat: str) -> None:
    """A descriptor of qemu-img gives the disk's size, extents rw and in order."""
    run("qemu-img", "create", "-q", "-f", "vmdk", "-o", f"subformat={subformat}", tmp_path / "d.vmdk", "5G")
    assert 0 == regionfs("import", "auto", tmp_path / "d.vmdk", "-o", tmp_path / "m.yaml").exit_code
    tiles = resolved(load(tmp_path / "m.yaml"), "d.img")
    assert (5 << 30, True) == (tiles[-1][1], all(tile[-1] for tile in tiles))
    assert len(list(tmp_path.glob("d-*"))) == len(tiles)


def test_every_access_and_type(tmp_path: Path) -> None:
    """RDONLY is ro, NOACCESS an error region, ZERO a hole, VMFS a file whose offset may be left out."""
    text = HEAD + 'RDONLY 1 FLAT "a" 3\r\nNOACCESS 2 FLAT "a" 0\r\nRW 3 ZERO\r\nRW 4 VMFS "b"\r\n'
    regions = imported("vmdk", text, tmp_path).manifest.files["in.img"].regions
    assert regions is not None
    expected = [(0, 512, Kind.SOURCE, "a", False), (512, 1536, Kind.ERROR, "", False),
                (1536, 3072, Kind.HOLE, "", False), (3072, 5120, Kind.SOURCE, "b", True)]
    assert expected == [(one.start, one.end, one.kind, one.source, one.writable) for one in regions]


@pytest.mark.parametrize(("extent", "why"), [
    ("RW x FLAT \"a\" 0", "sector count 'x'"),
    ("RW 0 FLAT \"a\" 0", "1 sector"),
    ("RW 99999999999999999999 FLAT \"a\" 0", "sector count"),
    ("RW 36028797018963967 FLAT \"a\" 0\nRW 1 FLAT \"a\" 0\nRW 18014398509481984 ZERO", "sector count"),
    ("RW 1 FLAT \"a\"", "no offset"),
    ("RW 1 SPARSE \"a\"", "SPARSE extents are not flat"),
    ("RW 1 ZERO \"a\"", "ZERO extent has a file name"),
    ("RW 1 FLAT", "FLAT extent has no file name"),
    ("what is this", "neither an extent"),
    ("parentCID=12345678", "difference"),
    ("createType=\"streamOptimized\"", "createType"),
    ("version=9", "version '9'"),
    ("encoding=\"klingon\"\nddb.x = \"é\"", "encoding 'klingon' is not known"),
    ("encoding=\"unicode_escape\"\nddb.x = \"é\"", "encoding 'unicode_escape' is not known"),
    ("", "no extents"),
])
def test_bad_descriptors_say_why(tmp_path: Path, extent: str, why: str) -> None:
    """Every fault is a FormatError that names the file."""
    with pytest.raises(FormatError, match=r"in\.map") as caught:
        imported("vmdk", HEAD + extent + "\n", tmp_path)
    assert why in str(caught.value)


FLAT = 'version=1\nCID=1\nparentCID=ffffffff\n{}createType="twoGbMaxExtentFlat"\n\nRW 1 FLAT "{}" 0\n'


@pytest.mark.parametrize("head", [b"# Disk DescriptorFile\n", b"# Disk Descriptor File\r\n", b"#Disk DescriptorFile\n",
                                  b"\n  # Disk DescriptorFile\n", b"# made by hand\n# Disk DescriptorFile\n",
                                  b"# any comment\n", b"\xef\xbb\xbf# Disk DescriptorFile\n"])
@pytest.mark.parametrize("tail", [b"", b"\0" * 300, b'ddb.x = "a "quoted" word"\nddb.nothing\n', b'ddb.comment = \n'])
def test_descriptors_as_tools_write_them(tmp_path: Path, head: bytes, tail: bytes) -> None:
    """Titles that VirtualBox and QEMU take, a byte order mark, free text of tools, and NULs to the end of a sector."""
    text = head + FLAT.format("", "a").encode() + tail
    put(tmp_path / "a", 512)
    (tmp_path / "d").write_bytes(text)
    result = regionfs("import", "auto", tmp_path / "d", "-o", tmp_path / "m.yaml")
    assert 0 == result.exit_code, result.output
    assert [(0, 512, Kind.SOURCE, tmp_path / "a", 0, True)] == resolved(load(tmp_path / "m.yaml"), "d.img")


def test_a_descriptor_in_utf_16(tmp_path: Path) -> None:
    """As Windows' editors keep it; the mark counts, not the encoding that stands in it."""
    text = "\ufeff" + HEAD + FLAT.format('encoding="windows-1252"\n', "ä")
    put(tmp_path / "ä", 512)
    (tmp_path / "d").write_bytes(text.encode("utf-16-le"))
    assert 0 == regionfs("import", "auto", tmp_path / "d", "-o", tmp_path / "m.yaml").exit_code


@pytest.mark.parametrize(("declared", "codec", "name"), [
    ("GBK", "gbk", "系统盘"), ("GB2312", "gbk", "系统盘"), ("GB18030", "gb18030", "系统盘"), ("Big5", "cp950", "系統"),
    ("Shift_JIS", "cp932", "日本語―"), ("EUC-KR", "cp949", "디스크"), ("windows-949", "cp949", "디스크"),
    ("windows-1250", "cp1250", "dysk ź"), ("windows-1251", "cp1251", "диск"), ("windows-1252", "cp1252", "é€"),
    ("ISO-8859-1", "latin-1", "é"), ("ISO-8859-2", "latin2", "ź"), ("KOI8-R", "koi8-r", "диск"),
    ("IBM437", "cp437", "é"), ("UTF-8", "utf-8", "é日"), ("utf8", "utf-8", "é日"),
])
def test_names_are_read_in_the_declared_encoding(tmp_path: Path, declared: str, codec: str, name: str) -> None:
    """VMware writes the code page of the Windows that it ran on; the file's name here is UTF-8."""
    text = HEAD + FLAT.format(f'encoding="{declared}"\n', name)
    assert [name] == list(imported("vmdk", text.encode(codec), tmp_path).manifest.sources)


@pytest.mark.parametrize("declared", ["GBK", "klingon", "", "UTF-16"])
def test_ascii_needs_no_encoding(tmp_path: Path, declared: str) -> None:
    """Most descriptors have no other letters, whatever they declare."""
    assert ["a"] == list(imported("vmdk", HEAD + FLAT.format(f'encoding="{declared}"\n', "a"),
                                  tmp_path).manifest.sources)


@pytest.mark.parametrize("subformat", ["monolithicSparse", "streamOptimized", "twoGbMaxExtentSparse"])
@pytest.mark.parametrize("name", ["auto", "vmdk"])
def test_a_sparse_disk_is_called_so(tmp_path: Path, subformat: str, name: str) -> None:
    """With the command that makes a plain image of it."""
    run("qemu-img", "create", "-q", "-f", "vmdk", "-o", f"subformat={subformat}", tmp_path / "d.vmdk", "1M")
    result = regionfs("import", name, tmp_path / "d.vmdk", "-o", tmp_path / "m.yaml")
    assert (1, True, True) == (result.exit_code, "sparse VMDK" in result.stderr,
                               f"qemu-img convert -O raw {tmp_path}/d.vmdk {tmp_path}/d.raw" in result.stderr)


@pytest.mark.parametrize(("region", "why"), [
    ({"error": True, "length": 512}, "regions[0] [0, 512): the format cannot say that bytes are unreadable"),
    ({"source": "a.img", "length": 511}, "regions[0] [0, 511): the file's size 511 is not a multiple of 512"),
    ({"source": 'q"uote', "length": 512}, "regions[0] [0, 512): 'q\"uote' has a quote"),
])
def test_export_names_the_region_it_cannot_say(tmp_path: Path, region: dict[str, object], why: str) -> None:
    """A region VMDK has no words for is refused with its place, and nothing is written."""
    put(tmp_path / "a.img", 512)
    put(tmp_path / 'q"uote', 512)
    result = regionfs("export", "vmdk", put_manifest(tmp_path, [region]), "disk.img", "-o", tmp_path / "o.vmdk")
    assert (1, True, False) == (result.exit_code, why in result.output, (tmp_path / "o.vmdk").exists())


def test_lost_access_is_a_note(tmp_path: Path) -> None:
    """Bytes of a rw region off a sector, and ro regions, are told to the user."""
    put(tmp_path / "a.img", 4096)
    manifest = put_manifest(tmp_path, [{"source": "a.img", "length": 700, "access": "rw"},
                                       {"source": "a.img", "start": 1024, "length": 1024, "offset": 0}])
    notes = exported("vmdk", manifest, tmp_path / "o.vmdk").notes
    assert ['files["disk.img"].regions[0] [0, 700): 188 bytes lie off',
            'files["disk.img"].regions[1] [1024, 2048) is ro, but QEMU'] == [
                note[:len(start)] for note, start in zip(notes, (
                    'files["disk.img"].regions[0] [0, 700): 188 bytes lie off',
                    'files["disk.img"].regions[1] [1024, 2048) is ro, but QEMU'), strict=True)]


def test_many_extents_come_with_a_warning(tmp_path: Path) -> None:
    """QEMU's need of a descriptor per extent is told before it fails with too many open files."""
    put(tmp_path / "a.img", 4096)
    manifest = put_manifest(tmp_path, [{"source": "a.img", "offset": number % 2 * 2048, "length": 512}
                                       for number in range(1000)])
    assert exported("vmdk", manifest, tmp_path / "o.vmdk").notes[-1].endswith("ulimit -n 2000")


def test_sources_are_never_replaced(tmp_path: Path) -> None:
    """Not even --force writes over what the manifest is made of."""
    before = put(tmp_path / "a.img", 4096)
    manifest = put_manifest(tmp_path, [{"source": "a.img"}])
    result = regionfs("export", "vmdk", manifest, "disk.img", "-o", tmp_path / "a.img", "--force")
    assert (2, before) == (result.exit_code, (tmp_path / "a.img").read_bytes())


MAP = HEAD + '# Extent description\nRW 4 FLAT "a" 2\nRDONLY 1 FLAT "b" 0\nRW 8 ZERO\nNOACCESS 2 ZERO\nddb.x = "1"\n'
WORDS = ("RW", "RDONLY", "NOACCESS", " ", "1", "0", "99999999999999999999", "FLAT", "ZERO", "VMFS", '"a"', '"', "\n",
         "=", "version", "parentCID", "createType", "#", "é", "\0", "ddb.x")


@settings(max_examples=250, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(WORDS), max_size=30).map(lambda words: HEAD + "".join(words)) | nearly(MAP, WORDS))
@example(MAP)
def test_anything_is_a_map_or_a_format_error(text: str) -> None:
    """Arbitrary text is a whole map or refused with its place, and no other exception."""
    assert [] == faults(lambda: imported("vmdk", text, Path("/tmp")), valid=text == MAP)
