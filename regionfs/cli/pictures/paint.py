"""Colours of the drawing for viewers without CSS variables and oklch(): what map.css says in its light scheme.

Presentation attributes: where a viewer understands the style sheet, that comes first. Pure.
"""

from __future__ import annotations

import math

from regionfs.regions import Kind

CARD, LINE, INK, SOFT = "#ffffff", "#d9dce3", "#171a21", "#565d6b"
DATA, DATA_INK, BAD, BAD_GROUND, DOTS = "#3f4656", "#ffffff", "#c4242b", "#fde4e4", "#a9b0bd"
FILL, EDGE = (0.87, 0.085), (0.5, 0.14)  # lightness and chroma of a source


def box(kind: Kind, degrees: int, wide: float) -> str:
    """Attributes of a region's box `wide` units wide; an error too narrow for stripes is red all over."""
    fill, stroke = {
        Kind.SOURCE: (oklch(*FILL, degrees), oklch(*EDGE, degrees)),
        Kind.DATA: (DATA, DATA),
        Kind.HOLE: ("url(#dots)", LINE),
        Kind.ERROR: (BAD if wide < 8 else "url(#stripes)", BAD),
    }[kind]
    return f'fill="{fill}" stroke="{stroke}"'


def edge(degrees: int) -> str:
    """Attributes of the bar that says rw."""
    return f'fill="{oklch(*EDGE, degrees)}"'


def label(kind: Kind) -> str:
    """Attributes of a region's words."""
    colour = {Kind.DATA: DATA_INK, Kind.ERROR: BAD}.get(kind, INK)
    return f'fill="{colour}" font-family="sans-serif" font-size="12"'


def oklch(lightness: float, chroma: float, degrees: float) -> str:
    """#rrggbb of an OKLCH colour, CSS Color 4, section 10.2 and the sample code of its section 9."""
    a, b = chroma * math.cos(math.radians(degrees)), chroma * math.sin(math.radians(degrees))
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    middle = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    linear = (4.0767416621 * long - 3.3077115913 * middle + 0.2309699292 * short,
              -1.2684380046 * long + 2.6097574011 * middle - 0.3413193965 * short,
              -0.0041960863 * long - 0.7034186147 * middle + 1.7076147010 * short)
    return "#" + "".join(f"{round(255 * _encoded(min(max(value, 0), 1))):02x}" for value in linear)


def _encoded(value: float) -> float:
    return 12.92 * value if value <= 0.0031308 else 1.055 * value ** (1 / 2.4) - 0.055
