"""The bar picture of a map: to scale, every region of a small map visible, crowded maps summed up."""

from __future__ import annotations

from random import Random

import pytest

from regionfs.cli.picture import LETTERS, MARGIN, draw, style
from regionfs.regions import Kind, Region, RegionMap

GIB = 1 << 30
CELLS = 80 - MARGIN


def bars(regions: RegionMap, width: int = 80) -> list[str]:
    """The cells of each bar."""
    return [cells for _, cells in draw(regions, width).bars]


def source(start: int, end: int, name: str = "s", writable: bool = False) -> Region:
    """A region of a source."""
    return Region(start, end, Kind.SOURCE, name, 0, writable)


def test_to_scale() -> None:
    """Halves are halves; a capital is rw; a gap is a hole."""
    regions = RegionMap(CELLS * 4096, [source(0, 20 * 4096), source(20 * 4096, 50 * 4096, "t", True)])
    assert ["a" * 20 + "B" * 30 + "." * (CELLS - 50)] == bars(regions)


def test_a_partition_table_is_seen_on_a_large_disk() -> None:
    """512 bytes of 4 TiB at either end, and an error region of one sector."""
    size = 4096 * GIB
    table = bytes(512)
    regions = RegionMap(size, [
        Region(0, 512, Kind.DATA, data=table),
        source(1 << 20, 2048 * GIB, "root", True),
        Region(3000 * GIB, 3000 * GIB + 512, Kind.ERROR),
        Region(size - 512, size, Kind.DATA, shift=512 - size, data=table),
    ])
    bar, = bars(regions)
    assert (CELLS, "#", "#") == (len(bar), bar[0], bar[-1])
    assert bar[1:-1].strip("A.").count("!") == 1
    assert abs(bar.index("!") - CELLS * 3000 // 4096) <= 1


@pytest.mark.parametrize("seed", range(200))
def test_no_region_of_a_small_map_is_lost(seed: int) -> None:
    """Each non-hole region has a run of its own character, in order, however small it is."""
    random = Random(seed)
    count = random.randint(1, CELLS // 4)
    borders = sorted(random.sample(range(10**random.randint(3, 12)), 2 * count))
    regions = [source(start, end, str(number % len(LETTERS)))
               for number, (start, end) in enumerate(zip(borders[::2], borders[1::2], strict=True))]
    bar, = bars(RegionMap(borders[-1] + random.randint(0, 1000), regions))
    assert CELLS == len(bar)
    runs = [cell for index, cell in enumerate(bar) if cell != "." and bar[index - 1:index] != cell]
    assert [LETTERS[number] for number in range(count)] == runs


def test_a_crowded_map_shows_what_fills_most_of_each_cell() -> None:
    """Every third byte range belongs to another source; the picture takes more bars and says so."""
    regions = RegionMap(30_000, [source(start + shift, start + shift + length, name)
                                 for start in range(0, 30_000, 10)
                                 for shift, length, name in ((0, 2, "little"), (2, 8, "much"))])
    picture = draw(regions, 80)
    assert picture.crowded
    assert ["b" * CELLS] * 4 == [cells for _, cells in picture.bars]


def test_lines_fit_the_width() -> None:
    """At 40, 80 and 200 columns, for sizes with the longest labels."""
    regions = RegionMap(1023 * GIB + 12345, [source(start * GIB, (start + 1) * GIB) for start in range(1023)])
    for width in (40, 80, 200):
        for begin, cells in draw(regions, width).bars:
            assert len(f"{begin:>10} |{cells}|") <= width


def test_empty_and_tiny_files() -> None:
    """No bar for nothing; a cell is never less than a byte."""
    assert [] == bars(RegionMap(0, []))
    assert ["..."] == bars(RegionMap(3, []))


def test_sources_past_the_alphabet_share_a_letter() -> None:
    """The legend says how many."""
    regions = RegionMap(40 * 4096, [source(index * 4096, (index + 1) * 4096, f"n{index}") for index in range(40)])
    legend = dict(draw(regions, 80).legend)
    assert ("n0", "n24", "15 other sources") == (legend["a"], legend["y"], legend["z"])


def test_legend_has_what_the_bars_have() -> None:
    """One source ro and rw stands twice; signs only when drawn."""
    regions = RegionMap(8192, [source(0, 4096), source(4096, 8192, writable=True)])
    assert (("a", "s"), ("A", "s (rw)")) == draw(regions, 80).legend


def test_every_character_has_a_style_that_rich_knows() -> None:
    """And no source looks like an error."""
    from rich.style import Style
    for glyph in LETTERS + LETTERS.upper() + "#.!":
        assert (glyph == "!") == ("on red" in str(Style.parse(style(glyph))))
