"""The SVG document: every region to scale, for viewers without scripts; with them it becomes the page.

Positions are written as shares of the width. A region narrower than half a unit is as wide as that;
an error region is three units wide at least and lies on top of all others. The script has
every region, whatever is drawn without it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from html import escape
from itertools import chain

from regionfs.cli.common import access
from regionfs.cli.pictures import paint
from regionfs.cli.pictures.content import Pictured, embedded, hue, script, template, text
from regionfs.printable import printable
from regionfs.regions import ERROR, HOLE, Kind, Region, RegionMap
from regionfs.units import human_size

WIDTH = 1200
MARGIN = 24
BAR = 64        # height of a bar
ROW = 180       # height of a file
TITLE = 60      # height of what stands above the files
LEAST = 0.5     # width of a region
LEAST_ERROR = 3  # width of an error region, which must be seen on a disk of any size
THIN = 8        # width below which stripes would not be seen
CROWD = 5000    # regions of a file; of more not every one is drawn
CHARACTER = 7   # about the width of a letter

MEANINGS = {Kind.SOURCE: "source (a bar along the bottom: rw)", Kind.DATA: "inline data",
            Kind.HOLE: "hole: reads zeros", Kind.ERROR: "error: reads fail"}


def document(title: str, shown: Sequence[Pictured]) -> str:
    """An SVG document that needs nothing else."""
    height = TITLE + ROW * len(shown) + MARGIN
    return template("picture.svg").substitute(
        title=_safe(title), width=WIDTH, height=height, style=text("map.css"), script=script(),
        data=embedded(title, shown), still="\n".join(_still(title, shown, height)))


def _still(title: str, shown: Sequence[Pictured], height: int) -> Iterator[str]:
    yield f'<rect class="paper" width="{WIDTH}" height="{height}" fill="{paint.CARD}"/>'
    yield f'<text class="still title" x="{MARGIN}" y="38" {_font(21, paint.INK, bold=True)}>{_safe(title)}</text>'
    for number, item in enumerate(shown):
        yield from _bar(item, TITLE + ROW * number)


def _bar(item: Pictured, top: int) -> Iterator[str]:
    width, size, regions = WIDTH - 2 * MARGIN, max(item.regions.size, 1), item.regions
    facts = f"{human_size(regions.size)}, {len(regions)} region{'s' * (len(regions) != 1)}, {item.mode}: {item.reason}"
    yield (f'<text class="still name" x="{MARGIN}" y="{top + 14}" {_font(15, paint.INK, bold=True)}>'
           f"{_safe(item.path)}</text>")
    yield (f'<text class="still" x="{MARGIN}" y="{top + 32}" {_font(13, paint.SOFT)}>'
           f"{_safe(_fitted(facts, width))}</text>")
    y = top + 44
    yield f'<rect class="ground" x="{MARGIN}" y="{y}" width="{width}" height="{BAR}" fill="url(#dots)"/>'
    hues = {name: hue(index) for index, name in enumerate(regions.names)}
    for index, start, end in chain(_drawn(regions, width), _errors(regions, width)):
        region = regions[index]
        least = LEAST_ERROR if region.kind is Kind.ERROR else LEAST
        wide = max((end - start) / size * width, least)
        x = min(MARGIN + start / size * width, MARGIN + width - wide)
        yield from _region(region, f"Region {index} of 0 to {len(regions) - 1}", x, y, wide, hues.get(region.source, 0))
    for part in range(5):
        anchor = ("start", "middle", "middle", "middle", "end")[part]
        yield (f'<text class="scale" x="{MARGIN + part * width / 4:g}" y="{y + BAR + 16}" text-anchor="{anchor}" '
               f"{_font(12, paint.SOFT)}>{human_size(regions.size * part // 4) if part else 0}</text>")
    yield from _legend(regions, y + BAR + 26)


def _drawn(regions: RegionMap, width: int) -> Iterator[tuple[int, int, int]]:
    """(index, start, end) of what is drawn: every region, or of a crowd the one in the middle of each unit."""
    if len(regions) <= CROWD:
        yield from ((index, start, end) for index, (start, end, target, *_) in enumerate(regions.rows())
                    if target != ERROR)
        return
    for unit in range(width):
        start, end = regions.size * unit // width, regions.size * (unit + 1) // width
        index = regions.first_after((start + end) // 2)
        if index < len(regions) and regions.starts[index] < end and regions[index].kind is not Kind.ERROR:
            yield index, start, end


def _errors(regions: RegionMap, width: int) -> Iterator[tuple[int, int, int]]:
    """The same of error regions, which come last, on top of all others; of a crowd one in each unit."""
    unit, crowded = -1, len(regions) > CROWD
    for index, (start, end, target, *_) in enumerate(regions.rows()):
        if target == ERROR and not (crowded and start * width // regions.size == unit):
            unit = start * width // regions.size
            yield index, start, end


def _legend(regions: RegionMap, y: int) -> Iterator[str]:
    """What the kinds look like that are there, and how much of each; names stand in the boxes and their titles."""
    bytes_of: Counter[Kind] = Counter()
    for start, end, target, *_ in regions.rows():
        kind = Kind.SOURCE if target >= 0 else {HOLE: Kind.HOLE, ERROR: Kind.ERROR}.get(target, Kind.DATA)
        bytes_of[kind] += end - start
    if gap := regions.size - bytes_of.total():
        bytes_of[Kind.HOLE] += gap
    x = MARGIN
    for kind, words in MEANINGS.items():
        if kind in bytes_of:
            text = f"{words} {human_size(bytes_of[kind])}"
            yield (f'<g class="{kind}" style="--h:{hue(0)}"><rect class="box" x="{x}" y="{y}" width="20" height="11" '
                   f'{paint.box(kind, hue(0), 20)}/></g>')
            yield f'<text class="scale" x="{x + 26}" y="{y + 10}" {_font(12, paint.SOFT)}>{text}</text>'
            x += 26 + len(text) * CHARACTER + 24


def _region(region: Region, name: str, x: float, y: int, wide: float, colour: int) -> Iterator[str]:
    what = region.source or str(region.kind)
    place = f", from byte {region.offset} of it" if region.kind is Kind.SOURCE else ""
    line = f"{min(1, wide / 4):.3g}"
    narrow = " thin" if region.kind is Kind.ERROR and wide < THIN else ""
    yield (f'<g class="{region.kind}{narrow}" style="--h:{colour}"><title>{name}: {_safe(what)}{place}; '
           f"{region.length} bytes at {region.start}, {access(region.writable)}</title>"
           f'<rect class="box" x="{x:.6g}" y="{y}" width="{wide:.6g}" height="{BAR}" '
           f'{paint.box(region.kind, colour, wide)} style="stroke-width:{line}"/>')
    if region.writable:
        yield f'<rect class="rw" x="{x:.6g}" y="{y + BAR - 6}" width="{wide:.6g}" height="6" {paint.edge(colour)}/>'
    if label := _fitted(what, wide - 16):
        yield (f'<text class="label name" x="{x + 8:.6g}" y="{y + 27}" {paint.label(region.kind)} font-weight="600">'
               f"{_safe(label)}</text>")
    if label := _fitted(human_size(region.length), wide - 16):
        yield f'<text class="label" x="{x + 8:.6g}" y="{y + 45}" {paint.label(region.kind)}>{label}</text>'
    yield "</g>"


def _font(size: int, colour: str, *, bold: bool = False) -> str:
    weight = ' font-weight="600"' if bold else ""
    return f'fill="{colour}" font-family="sans-serif" font-size="{size}"{weight}'


def _fitted(words: str, width: float) -> str:
    """As much of `words` as has room; nothing when that is not worth showing."""
    room = int(width // CHARACTER)
    if len(words) <= room:
        return words
    return f"{words[:room - 1]}…" if room > 3 else ""


def _safe(words: str) -> str:
    return escape(printable(words))
