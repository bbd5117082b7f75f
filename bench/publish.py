"""Put a result into docs/benchmark.md: its picture, its targets and its tables.

    python -m bench.publish [RESULT.json]      the newest of bench/results by default

The picture is written beside the result.
"""

from __future__ import annotations

import json
import sys

from bench import plots, table, targets

RESULTS = table.BENCH / "results"


def block(result: table.Result, where: str, picture: str) -> str:
    """What stands between the markers; `picture` is relative to the page."""
    return "\n\n".join([f"From {where}.", table.markdown(result), f"![ratios to the file itself]({picture})",
                        "Targets, from the same figures:", targets.markdown(result)])


def main() -> None:
    path = table.chosen(RESULTS, "make bench").resolve()
    result = json.loads(path.read_text())
    picture = path.with_suffix(".svg")
    picture.write_text(plots.svg(result))
    if not path.is_relative_to(RESULTS):
        sys.exit(f"{picture} is written; docs/benchmark.md shows only what lies in bench/results")
    text = block(result, str(path.relative_to(table.BENCH.parent)), table.from_page(picture))
    try:
        table.PAGE.write_text(table.insert(table.PAGE.read_text(), text))
    except (OSError, ValueError) as error:
        sys.exit(f"{table.PAGE.name}: {error}")


if __name__ == "__main__":
    main()
