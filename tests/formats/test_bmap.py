"""bmap files: whole, damaged, hostile."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regionfs.formats.values import FormatError, Imported
from regionfs.manifest.load import load
from regionfs.regions import Kind
from tests.formats.tools import faults, imported, put, regionfs, resolved

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
        <Range chksum="ab"> 0-1 </Range>
        <Range chksum="cd"> 4 </Range>
    </BlockMap>
</bmap>
"""


def signed(text: str = TEXT) -> str:
    """The text with its checksum filled in."""
    return text.format(sum=hashlib.sha256(text.format(sum="0" * 64).encode()).hexdigest())


def read(text: str) -> Imported:
    """The reader's answer."""
    return imported("bmap", text, Path("/d"), source=Path("/d/a.img"))


def test_mapped_blocks_are_the_image(tmp_path: Path) -> None:
    """Ranges show the image, the last one up to its size; the rest is holes; the lost sums are told."""
    put(tmp_path / "a.img", 20_000)
    (tmp_path / "a.bmap").write_text(signed())
    result = regionfs("import", "auto", tmp_path / "a.bmap", "-o", tmp_path / "m.yaml",
                      "--source", tmp_path / "a.img")
    note = "the checksums of 2 ranges are left out: a manifest has no place for them\n"
    assert (0, note) == (result.exit_code, result.stderr)
    image = tmp_path / "a.img"
    assert [(0, 8192, Kind.SOURCE, image, 0, False), (8192, 16384, Kind.HOLE, False),
            (16384, 20000, Kind.SOURCE, image, 16384, False)] == resolved(load(tmp_path / "m.yaml"), "a.img")


def test_a_changed_file_is_refused() -> None:
    """One digit edited after bmaptool summed it."""
    with pytest.raises(FormatError, match="BmapFileChecksum does not fit"):
        read(signed().replace("0-1", "0-2"))


@pytest.mark.parametrize(("old", "new", "why"), [
    ("2.0", "1.4", "bmap version '1.4'"),
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
    ("sha256", "md5", "is not a sha256 sum"),
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
    text = TEXT.replace("<BmapFileChecksum> {sum} </BmapFileChecksum>", "")
    assert [] == faults(lambda: read(text[:at] + more.encode("utf-8", "replace").decode() + text[at + 1:]))
