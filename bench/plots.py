"""The picture of a result: for each workload a line, and on it every subject at its ratio to the file, logarithmic.

Filled circles are regionfs, hollow ones peers. Its colours follow the reader's light or dark theme.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import log10
from xml.sax.saxutils import escape

from bench import table

# colours that can be told apart on white and on black
COLOURS = ("#2f81f7", "#8957e5", "#d29922", "#3fb950", "#1f9e9e", "#f85149", "#db61a2", "#8b949e", "#bc8c5f", "#6e9f3a")
STYLE = """text { fill: #1f2328; } .axis { stroke: #d0d7de; } .one { stroke: #656d76; }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .axis { stroke: #30363d; } .one { stroke: #8b949e; } }"""
WIDTH, LEFT, RIGHT, LINE = 960, 330, 24, 17  # pixels
LOW, HIGH = -2, 1                            # powers of ten; what lies outside stands at the border


def svg(result: table.Result) -> str:
    """The whole picture; the baseline is the line at 1."""
    entries = result["subjects"]
    shown = [name for name, entry in entries.items() if not entry["missing"] and name != entry["baseline"]]
    legend = list(_legend(result, shown))
    top = LINE * ((len(shown) + 3) // 4 + 4)
    rows = list(_rows(result, shown))
    height = top + LINE * (len(rows) + 1)
    lines = (f'<g transform="translate(0,{LINE * number})">{row}</g>' for number, row in enumerate(rows))
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="11">', f"<style>{STYLE}</style>",
        *legend, f'<g transform="translate(0,{top})">', *_axis(len(rows) * LINE),
        *lines, "</g></svg>", ""])


def _place(share: float) -> float:
    """Where a ratio stands, from the left."""
    power = min(max(log10(share), LOW), HIGH)
    return LEFT + (power - LOW) / (HIGH - LOW) * (WIDTH - LEFT - RIGHT)


def _axis(height: int) -> Iterator[str]:
    for share in (0.01, 0.03, 0.1, 0.3, 1, 3, 10):
        x = _place(share)
        yield f'<path class="{"one" if share == 1 else "axis"}" d="M{x:.1f} -6V{height - LINE / 2:.0f}"/>'
        yield f'<text x="{x:.1f}" y="-10" text-anchor="middle">{share:g}</text>'


def _mark(result: table.Result, shown: Sequence[str], subject: str, x: float, y: float) -> str:
    """Its circle: filled for regionfs, hollow for a peer; with its name for those who point at it."""
    family = [name for name in shown if _is_peer(result, name) == _is_peer(result, subject)]
    colour = COLOURS[family.index(subject) % len(COLOURS)]
    inside = "none" if _is_peer(result, subject) else colour
    return (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{inside}" stroke="{colour}" stroke-width="1.6">'
            f"<title>{escape(subject)}</title></circle>")


def _is_peer(result: table.Result, subject: str) -> bool:
    return bool(result["subjects"][subject].get("family") == "peers")


def _legend(result: table.Result, shown: Sequence[str]) -> Iterator[str]:
    yield f'<text x="8" y="{LINE}" font-weight="600">Ratio to the file itself, medians</text>'
    for number, subject in enumerate(shown):
        x, y = 14 + number % 4 * (WIDTH - 14) / 4, (number // 4 + 2) * LINE - 4
        yield _mark(result, shown, subject, x, y)
        yield f'<text x="{x + 10:.0f}" y="{y + 4:.0f}">{escape(subject)}</text>'


def _rows(result: table.Result, shown: Sequence[str]) -> Iterator[str]:
    """One line for each workload that somebody besides the baseline was measured in."""
    for row in result["workloads"]:
        shares = {subject: share for subject in shown
                  if (share := table.ratio(result, row["name"], subject, result["subjects"][subject]["baseline"]))}
        if not shares:
            continue
        marks = "".join(_mark(result, shown, subject, _place(share), 0) for subject, share in shares.items())
        yield (f'<path class="axis" d="M{LEFT} 0H{WIDTH - RIGHT}"/><text x="{LEFT - 10}" y="4" text-anchor="end">'
               f'{escape(row["name"])}</text>{marks}')
