"""Growth curves: a result of bench.scale as an SVG plot and as a part of docs/benchmark.md.

    python -m bench.growth [RESULT.json]      the newest of bench/results/scale by default
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from math import ceil, floor, log10
from pathlib import Path
from typing import Any, NamedTuple

from bench import table

RESULTS = table.BENCH / "results" / "scale"
BEGIN, END = "<!-- scale:begin -->", "<!-- scale:end -->"

Result = dict[str, Any]
Row = tuple[str, dict[str, float], dict[str, float], str, str]  # name, first, last, key, unit


class Panel(NamedTuple):
    """One plot: what of a result it shows."""

    title: str
    series: str                              # "regions" or "files"
    lines: Sequence[tuple[str, str]]         # (key of a point, label)


PANELS = (
    Panel("one random 4 KiB read, µs", "regions", (("read_us", "median"), ("read_us_least", "least"))),
    Panel("check and mount, s", "regions", (("mount_s", "mount"), ("check_s", "check"))),
    Panel("resident, MiB", "regions", (("server_mib", "server"), ("holder_mib", "holder"))),
    Panel("walk; open-read-close; per file, µs", "files", (("walk_us", "walk"), ("open_us", "open"))),
    Panel("check, mount and status, s", "files", (("mount_s", "mount"), ("check_s", "check"), ("status_s", "status"))),
    Panel("resident, MiB", "files", (("server_mib", "server"), ("holder_mib", "holder"))),
)
COLOURS = ("#1668b8", "#c2571a", "#3a7d34")
WIDTH, HEIGHT, LEFT, TOP, COLUMNS = 300, 220, 46, 34, 3
PLOT = (WIDTH - LEFT - 60, HEIGHT - TOP - 44)  # width and height of a panel's inside


def svg(result: Result) -> str:
    """All panels, both axes logarithmic."""
    rows = -(-len(PANELS) // COLUMNS)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH * COLUMNS}" height="{HEIGHT * rows}" '
             'font-family="system-ui, sans-serif" font-size="11">', '<rect width="100%" height="100%" fill="#fff"/>']
    for number, panel in enumerate(PANELS):
        x, y = number % COLUMNS * WIDTH, number // COLUMNS * HEIGHT
        parts += [f'<g transform="translate({x + LEFT},{y + TOP})">', *_panel(result, panel), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(result: Result, panel: Panel) -> Iterator[str]:
    points = {int(count): point for count, point in result[panel.series].items()}
    values = [point[key] for point in points.values() for key, _ in panel.lines]
    low, high = floor(log10(min(values))), ceil(log10(max(values)) + 1e-9)
    left, right = log10(min(points)), log10(max(points))
    width, height = PLOT

    def place(count: float, value: float) -> tuple[float, float]:
        return (log10(count) - left) / (right - left) * width, height - (log10(value) - low) / (high - low) * height

    yield f'<text x="0" y="-12" font-weight="600">{panel.title}</text>'
    for power in range(low, high + 1):
        y = place(max(points), 10.0 ** power)[1]
        yield f'<path d="M0 {y:.1f}h{width}" stroke="#ddd"/>'
        yield f'<text x="-5" y="{y + 4:.1f}" text-anchor="end">{10.0 ** power:g}</text>'
    for count in points:
        x = place(count, 10.0 ** low)[0]
        label = f"{count // 10**6}M" if count >= 10**6 else f"{count // 1000}k" if count >= 1000 else str(count)
        yield f'<text x="{x:.1f}" y="{height + 15}" text-anchor="middle">{label}</text>'
    yield f'<text x="{width / 2}" y="{height + 30}" text-anchor="middle">{panel.series}</text>'
    labels: list[float] = []  # where they stand; none upon another
    for (key, label), colour in zip(panel.lines, COLOURS, strict=False):
        line = [place(count, point[key]) for count, point in points.items()]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in line)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
        yield from (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{colour}"/>' for x, y in line)
        y = line[-1][1] + 4
        while any(abs(y - other) < 12 for other in labels):
            y += 4
        labels.append(y)
        yield f'<text x="{width + 6}" y="{y:.1f}" fill="{colour}">{label}</text>'


def markdown(result: Result, picture: str) -> str:
    """Figures at the ends of each curve, and how each grows."""
    here = result["machine"]
    regions, files = ({int(count): point for count, point in result[name].items()} for name in ("regions", "files"))
    few, many, one, all_files = regions[10], regions[10**6], files[1], files[10**4]
    loads = ", ".join(f"{load[0]:.1f}" for load in result["load_average"])
    per_region = (many["server_mib"] - few["server_mib"]) * 2**20 / 10**6
    per_file = (all_files["server_mib"] - one["server_mib"]) * 2**20 / 10**4
    rows = [
        ("random 4 KiB read, userspace, O_DIRECT", few, many, "read_us", "µs"),
        ("`check`", few, many, "check_s", "s"), ("`mount`", few, many, "mount_s", "s"),
        ("server, resident", few, many, "server_mib", "MiB"),
    ]
    of_files = [
        ("walk with stat, per file", one, all_files, "walk_us", "µs"),
        ("open-read-close, per file", one, all_files, "open_us", "µs"),
        ("`mount`", one, all_files, "mount_s", "s"), ("`status --json`", one, all_files, "status_s", "s"),
        ("server, resident", one, all_files, "server_mib", "MiB"),
    ]
    return "\n".join([
        f"Linux {here['kernel']}, {here['cores']} cores, Python {here['python']}; {result['started'][:10]}, commit "
        f"{here['commit']}; load average before, between and after: {loads}. Medians of {result['rounds']} interleaved "
        "rounds; check and mount once each.", "", f"![growth curves]({picture})", "",
        *_rows("10 regions", "1,000,000 regions", rows), "", *_rows("1 file", "10,000 files", of_files), "",
        f"- **A read** grows with the logarithm: {few['read_us'] / many['read_us']:.2f} of the speed with a hundred "
        "thousand times the regions. A map is sorted columns; a lookup is a bisection and a miss in each column.",
        f"- **Check and mount** grow with the rows of the table, {many['check_s'] - few['check_s']:.1f} and "
        f"{many['mount_s'] - few['mount_s']:.1f} µs a row: its text is parsed and checked column by column.",
        f"- **Memory** grows by {per_region:.0f} bytes a region (29 in columns) and {per_file:.0f} a file "
        "(its node, name, source and what stat said of that); the holder does not grow.",
        "- **Files**: a walk and an open cost the same per file, however many there are; mount, reload and status go "
        "through all.", "",
        _WALLS,
    ])


_WALLS = """The next walls, on paper:
- **A petabyte** in 64 MiB chunks is 16 million regions, as many as a table may have lines: 0.6 GB of memory, and half
  a minute to mount. Beyond that the text is the wall; columns that are mapped from a binary file would be the way on.
- **Composed mode** ends at 64 MiB of chunk index, 8 million chunks: 32 GiB in chunks of 4 KiB, 8 TiB in those of 1 MiB.
  A larger file is served in userspace.
- **Thousands of mounts** are thousands of times three processes (holder, server, and the spare that waits for the
  server's death): 44 MB together that nobody shares, so 1,000 mounts are 44 GB. Many files belong into one manifest.
- **Sources**: the limit of descriptors bounds how many are open at once, not how many there are; a file of 10,000
  sources asks for 10,000 stats when it is opened, a tenth of a second."""


def _rows(first: str, last: str, rows: Sequence[Row]) -> Iterator[str]:
    yield f"| |{first}|{last}|"
    yield "|---|---:|---:|"
    for name, few, many, key, unit in rows:
        yield f"|{name}|{few[key]:.3g} {unit}|{many[key]:.3g} {unit}|"


def publish(path: Path) -> None:
    """Write the plot beside the result, and both into the page."""
    result = json.loads(path.read_text())
    picture = path.with_suffix(".svg")
    picture.write_text(svg(result))
    if path.resolve().is_relative_to(RESULTS):
        table.put(path, markdown(result, table.from_page(picture)), BEGIN, END)


if __name__ == "__main__":
    publish(table.chosen(RESULTS, "python -m bench.scale"))
