"""Placing partitions: pure arithmetic and its limits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from regionfs.disk.layout import Layout, Part, lay_out
from regionfs.errors import UsageError

MIB = 2**20
ESP = Part("esp.img", 3 * MIB, type="esp")
ROOT = Part("root.img", 5 * MIB + 1)


def laid_out(*parts: Part, **changes: Any) -> Layout:
    given: dict[str, Any] = {"label": "gpt", "sector": 512, "align": MIB, "size": None, "seed": "s", **changes}
    return lay_out(parts, **given)


@pytest.mark.parametrize("sector, first, last, placed", [
    (512, 34, 20446, [(2048, 6144), (8192, 10241)]),
    (4096, 6, 2554, [(256, 768), (1024, 1281)]),
])
def test_partitions_follow_each_other_on_the_alignment(
    sector: int, first: int, last: int, placed: list[tuple[int, int]],
) -> None:
    """The second image ends inside a sector, which is the partition's whole; both tables have their room."""
    layout = laid_out(ESP, ROOT, sector=sector)
    assert (first, last, 10 * MIB) == (layout.first, layout.last, layout.size)
    assert placed == [(one.start, one.sectors) for one in layout.placed]


def test_mbr_has_no_backup() -> None:
    """One sector at the front, and the partitions to the very end."""
    layout = laid_out(Part("a", 2 * MIB), label="mbr", size=3 * MIB)
    assert (1, 6143, "0xc3d4babe") == (layout.first, layout.last, layout.disk_id)


def test_stated_start_and_size() -> None:
    """A partition may have more room than its image, and lie where it is put."""
    layout = laid_out(replace(ESP, start=7 * MIB, size=4 * MIB), ROOT)
    assert [(14336, 8192), (22528, 10241)] == [(one.start, one.sectors) for one in layout.placed]


def test_the_order_on_the_disk_is_free() -> None:
    """Numbers are those of the order given; one without a start goes after all that were given before it."""
    layout = laid_out(replace(ROOT, start=8 * MIB), replace(ESP, start=MIB), replace(ESP, uuid=None))
    assert [16384, 2048, 28672] == [one.start for one in layout.placed]
    assert 18 * MIB == layout.size


def test_ids_come_from_the_seed_alone() -> None:
    """The same again; another seed, other ids; a given uuid stays."""
    one, again, other = laid_out(ESP, ROOT), laid_out(ESP, ROOT), laid_out(ESP, ROOT, seed="t")
    assert one == again
    ids = {one.disk_id, *(part.uuid for part in one.placed)}
    assert 6 == len(ids | {other.disk_id, *(part.uuid for part in other.placed)})
    given = "12345678-1234-1234-1234-123456789abc"
    assert given.upper() == laid_out(replace(ESP, uuid=given)).placed[0].uuid


@pytest.mark.parametrize("parts, changes, message", [
    ([], {}, "0 partitions; gpt takes 1 to 128"),
    ([ESP] * 129, {}, "129 partitions; gpt takes 1 to 128"),
    ([ESP] * 5, {"label": "mbr"}, "5 partitions; mbr takes 1 to 4, more need --gpt"),
    ([ESP], {"align": 1000}, "--align 1000 is not a multiple of the sector size 512"),
    ([ESP], {"align": 0}, "--align 0 is not a multiple"),
    ([ESP], {"size": 4 * MIB}, "--size 4194304 is too small: partitions end at 4194304 and"),
    ([ESP], {"size": 8 * MIB + 1}, "--size 8388609 is not a multiple of the sector size 512"),
    ([ESP, replace(ROOT, start=MIB)], {},
     "partition 2 (root.img): start 1048576 lies before 4194304, where partition 1 (esp.img) ends"),
    ([replace(ROOT, start=2 * MIB), replace(ESP, start=MIB)], {},
     "partition 1 (root.img): start 2097152 lies before 4194304, where partition 2 (esp.img) ends"),
    ([replace(ROOT, start=MIB), replace(ESP, start=MIB)], {}, "lies before"),
    ([replace(ESP, start=512)], {},
     "partition 1 (esp.img): start 512 lies before 17408, where the partition table ends"),
    ([replace(ESP, start=MIB + 512)], {"sector": 4096}, "start 1049088 is not on a sector of 4096 bytes"),
    ([replace(ESP, size=MIB)], {}, "size 1048576 is less than the image's 3145728 bytes"),
    ([replace(ESP, length=0)], {}, "the image is empty; give the partition a size="),
    ([replace(ESP, name="x")], {"label": "mbr"}, "name, uuid and attrs exist in GPT only"),
    ([replace(ESP, name="x" * 37)], {}, "longer than 36 UTF-16 units"),
    ([replace(ESP, name="\U0001f600" * 19)], {}, "longer than 36 UTF-16 units"),
    ([replace(ESP, name='a"b')], {}, "has a quote"),
    ([replace(ESP, name="a\nb")], {}, "a character that cannot be printed"),
    ([replace(ESP, uuid="1234")], {}, "uuid=1234 is not a GUID such as"),
    ([replace(ESP, uuid="A" * 8 + "-1234-1234-1234-123456789ABC")] * 2, {}, "is given to two partitions"),
    ([replace(ESP, type="esq")], {}, "did you mean esp?"),
    ([replace(ESP, type="bios-boot")], {"label": "mbr"}, "type=bios-boot has no place in an MBR table"),
    ([replace(ESP, type="00")], {"label": "mbr"}, "one byte in hex, 01 to ff"),
    ([replace(ESP, size=2**41)], {"label": "mbr"}, "is more than an MBR can say (4294967296 sectors); use --gpt"),
])
def test_refused(parts: list[Part], changes: dict[str, Any], message: str) -> None:
    """Each limit, with the partition and both numbers."""
    with pytest.raises(UsageError) as caught:
        laid_out(*parts, **changes)
    assert message in str(caught.value)
