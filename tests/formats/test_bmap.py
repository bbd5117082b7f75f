"""bmap files: whole, damaged, hostile."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regionfs.formats.values import FormatError, Imported
from regionfs.manifest.load import load
from regionfs.regions import Kind
from tests.formats.tools import faults, imported, regionfs, resolved, run

TEXT = """<?xml version="1.0" ?>
<!-- as bmaptool writes it -->
<bmap version="2.0">
    <ImageSize> 20000 </ImageSize>
    <BlockSize> 4096 </BlockSize>
    <BlocksCount> 5 </BlocksCount>
    <MappedBlocksCount> 3 </MappedBlocksCount>
    <ChecksumType> sha256 </ChecksumType>
    <BmapFileChecksum> {sum} </BmapFileChecksum>
    <BlockMap>
        <Range chksum="{first}"> 0-1 </Range>
        <Range chksum="{last}"> 4 </Range>
    </BlockMap>
</bmap>
"""


IMAGE = Random(0).randbytes(20_000)


def signed(text: str = TEXT, image: bytes = IMAGE) -> str:
    """The text with the checksums of the ranges and its own filled in."""
    text = text.replace("{first}", hashlib.sha256(image[:8192]).hexdigest())
    text = text.replace("{last}", hashlib.sha256(image[16384:]).hexdigest())
    return text.format(sum=hashlib.sha256(text.format(sum="0" * 64).encode()).hexdigest())


def read(text: str) -> Imported:
    """The reader's answer."""
    return imported("bmap", text, Path("/d"), source=Path("/d/a.img"))


def test_mapped_blocks_are_the_image(tmp_path: Path) -> None:
    """Ranges show the image, the last one up to its size; the rest is holes; the sums were compared."""
    (tmp_path / "a.img").write_bytes(IMAGE)
    (tmp_path / "a.bmap").write_text(signed())
    result = regionfs("import", "auto", tmp_path / "a.bmap", "-o", tmp_path / "m.yaml",
                      "--source", tmp_path / "a.img", "--quiet")
    note = "the checksums of 2 ranges fit; a manifest has no place for them\n"
    assert (0, note) == (result.exit_code, result.stderr)
    image = tmp_path / "a.img"
    assert [(0, 8192, Kind.SOURCE, image, 0, False), (8192, 16384, Kind.HOLE, False),
            (16384, 20000, Kind.SOURCE, image, 16384, False)] == resolved(load(tmp_path / "m.yaml"), "a.img")


@pytest.mark.parametrize(("data", "why"), [
    (IMAGE[:-1], "a.img has 19999 bytes, but the map is of an image of 20000"),
    (IMAGE + b"x", "a.img has 20001 bytes, but the map is of an image of 20000"),
    (b"x" + IMAGE[1:], "a.bmap:11: bytes 0 to 8192 of "),
    (IMAGE[:-1] + bytes(1), "a.bmap:12: bytes 16384 to 20000 of "),
    (gzip.compress(IMAGE), "is compressed with gzip, whose bytes are not the image's; first run gzip -dc "),
])
def test_another_image_is_refused(tmp_path: Path, data: bytes, why: str) -> None:
    """Its size and every range with a checksum are compared, and it is no container; the line is named."""
    (tmp_path / "a.img").write_bytes(data)
    (tmp_path / "a.bmap").write_text(signed())
    result = regionfs("import", "bmap", tmp_path / "a.bmap", "-o", tmp_path / "m.yaml", "--source", tmp_path / "a.img")
    assert (3, True, False) == (result.exit_code, why in result.stderr, (tmp_path / "m.yaml").exists()), result.stderr


def test_bytes_between_the_ranges_are_not_compared(tmp_path: Path) -> None:
    """A copy may hold anything there; --no-verify takes other bytes in the ranges too, and says so."""
    (tmp_path / "a.img").write_bytes(IMAGE[:8192] + bytes(8192) + IMAGE[16384:])
    (tmp_path / "a.bmap").write_text(signed())
    command = ("import", "bmap", tmp_path / "a.bmap", "-o", tmp_path / "m.yaml", "--force", "--source",
               tmp_path / "a.img", "--quiet")
    assert 0 == regionfs(*command).exit_code
    (tmp_path / "a.img").write_bytes(bytes(20_000))
    result = regionfs(*command, "--no-verify")
    assert (0, "the checksums of 2 ranges were not compared, and a manifest has no place for them\n") == \
        (result.exit_code, result.stderr)


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2", "1.3", "1.4"])
def test_older_versions(tmp_path: Path, version: str) -> None:
    """Before 1.3 there were no checksums, in 1.3 SHA-1 under other names; 1.4 is 2.0 before its release."""
    (tmp_path / "a.img").write_bytes(IMAGE)
    text = TEXT.replace("2.0", version)
    if version == "1.4":
        text = signed(text)
    else:
        own = "<BmapFileSHA1> {sum} </BmapFileSHA1>" if version == "1.3" else ""
        text = text.replace("<ChecksumType> sha256 </ChecksumType>", "")
        text = text.replace("<BmapFileChecksum> {sum} </BmapFileChecksum>", own)
        sums = {"first": hashlib.sha1(IMAGE[:8192]).hexdigest(), "last": hashlib.sha1(IMAGE[16384:]).hexdigest()}
        text = text.replace("chksum=", "sha1=").replace("{first}", sums["first"]).replace("{last}", sums["last"])
        text = text if version == "1.3" else re.sub(' sha1="[0-9a-f]*"', "", text)
        text = text.replace("{sum}", hashlib.sha1(text.replace("{sum}", "0" * 40).encode()).hexdigest())
    (tmp_path / "a.bmap").write_text(text)
    command = ("import", "auto", tmp_path / "a.bmap", "-o", tmp_path / "m.yaml", "--source", tmp_path / "a.img")
    result = regionfs(*command)
    assert (0, version > "1.2") == (result.exit_code, "2 ranges fit" in result.stderr), result.output
    (tmp_path / "a.img").write_bytes(bytes(20_000))
    assert (3 if version > "1.2" else 0) == regionfs(*command, "--force").exit_code


def test_a_signed_map_is_called_so() -> None:
    """bmaptool takes those too, with the key."""
    with pytest.raises(FormatError, match="the bmap is signed"):
        read("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n" + signed())


def test_reads_what_bmaptool_writes(tmp_path: Path) -> None:
    """Its map, its sums, and an image that is sparse."""
    with (tmp_path / "a.img").open("wb") as file:
        file.write(IMAGE)
        file.truncate(1 << 20)
        file.seek(1 << 19)
        file.write(IMAGE)
    run("bmaptool", "create", tmp_path / "a.img", "-o", tmp_path / "a.bmap")
    result = regionfs("import", "auto", tmp_path / "a.bmap", "-o", tmp_path / "m.yaml", "--source", tmp_path / "a.img")
    assert 0 == result.exit_code, result.output
    assert (tmp_path / "a.img").read_bytes() == regionfs("cat", tmp_path / "m.yaml", "a.img").stdout_bytes


def test_a_changed_file_is_refused() -> None:
    """One digit edited after bmaptool summed it."""
    with pytest.raises(FormatError, match="own checksum does not fit"):
        read(signed().replace("0-1", "0-2"))


@pytest.mark.parametrize(("old", "new", "why"), [
    ("2.0", "3.0", "bmap version '3.0'"),
    ("<ImageSize> 20000 </ImageSize>", "", "ImageSize is missing"),
    ("20000", "x", "ImageSize 'x'"),
    ("20000", "99999999999999999999", "ImageSize"),
    ("> 4096 <", "> 0 <", "BlockSize 0"),
    ("> 4096 <", "> 4096000000000 <", "BlockSize 4096000000000 is more"),
    ("> 5 <", "> 6 <", "BlocksCount is not 5"),
    ("> 3 <", "> 2 <", "MappedBlocksCount is not 3"),
    ("0-1", "0-5", ":11: blocks 0-5 are outside"),
    ("0-1", "1-0", "blocks 1-0"),
    ("0-1", "4-4", "block 4 is not after 4"),
    ("0-1", "all", "'all' is not a block"),
    ("sha256", "md5", "is not a md5 sum"),
    ("sha256", "crc32", "type 'crc32' are not one of"),
    ("{last}", "ab", "'ab' is not a sha256 sum"),
    ("</bmap>", "", "not XML"),
    ("<BlockMap>", "<a><a><a><a><a><a><a><a>", "elements deeper"),
])
def test_bad_files_say_why(old: str, new: str, why: str) -> None:
    """Every fault is a FormatError."""
    with pytest.raises(FormatError) as caught:
        read(signed(TEXT.replace(old, new)))
    assert why in str(caught.value)


def test_entities_are_never_expanded() -> None:
    """A document with a DOCTYPE, as entity bombs and external entities need, is refused at once."""
    bomb = '<?xml version="1.0"?>\n<!DOCTYPE b [<!ENTITY a "aa"><!ENTITY c "&a;&a;">]>\n<bmap version="2.0">&c;</bmap>'
    with pytest.raises(FormatError, match=":2: a DOCTYPE is not part of the format"):
        read(bomb)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(0, len(TEXT) - 1), st.text(max_size=4))
def test_anything_is_a_map_or_a_format_error(at: int, more: str) -> None:
    """With text put anywhere it is a whole map or refused with its place, and no other exception."""
    text = signed(TEXT.replace("<BmapFileChecksum> {sum} </BmapFileChecksum>", ""))
    assert [] == faults(lambda: read(text[:at] + more.encode("utf-8", "replace").decode() + text[at + 1:]))
