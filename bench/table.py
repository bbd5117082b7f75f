"""The table: medians of a result file as markdown, put between two markers of README.md.

    python -m bench.table [RESULT.json]      the newest of bench/results by default

Each cell is the median, half the distance from the slowest to the fastest run in per cent of it, and the
ratio of the median to the baseline's in the same run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

BENCH = Path(__file__).resolve().parent
README = BENCH.parent / "README.md"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"

Result = dict[str, Any]


def figures(result: Result, workload: str, subject: str, unit: str) -> list[float]:
    """What the runs of one cell measured, in bytes or operations a second."""
    key = f"{unit}_per_second"
    return [run[key] for run in result["runs"]
            if run["workload"] == workload and run["subject"] == subject and key in run]


def ratio(result: Result, workload: str, subject: str, baseline: str) -> float | None:
    """Median of `subject` over median of `baseline`; None where one is missing."""
    unit = next(row["unit"] for row in result["workloads"] if row["name"] == workload)
    mine, theirs = (figures(result, workload, name, unit) for name in (subject, baseline))
    return median(mine) / median(theirs) if mine and theirs and median(theirs) else None


def amount(value: float, unit: str) -> str:
    """3.21 GB/s, 640 MB/s, 152 k/s, 840 /s."""
    for factor, prefix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= factor and (unit == "bytes" or prefix == "k"):
            break
    else:
        factor, prefix = 1, ""
    shown = value / factor
    text = f"{shown:.2f}" if shown < 10 else f"{shown:.0f}"
    return f"{text} {prefix}{'B' if unit == 'bytes' else ''}/s"


def cell(result: Result, workload: str, subject: str, unit: str) -> str:
    """One cell; "-" for a subject that does not do this."""
    values = figures(result, workload, subject, unit)
    if not values:
        refused = [run for run in result["runs"]
                   if run["workload"] == workload and run["subject"] == subject and "error" in run]
        return "refused" if refused else "-"
    middle = median(values)
    spread = f" ±{50 * (max(values) - min(values)) / middle:.0f} %" if len(values) > 1 else ""
    baseline = result["subjects"][subject]["baseline"]
    share = ratio(result, workload, subject, baseline)
    return amount(middle, unit) + spread + ("" if share is None or subject == baseline else f", **{share:.2f}**")


def markdown(result: Result) -> str:
    """The whole table, with what it was measured on and who was missing."""
    here = result["machine"]
    present = [name for name, entry in result["subjects"].items() if not entry["missing"]]
    lines = [
        f"Linux {here['kernel']}, {here['cores']} cores of {here['cpu']}, libfuse {here['libfuse']}, "
        f"{here['fio']}, Python {here['python']}; {result['started'][:10]}, commit {here['commit']}. "
        f"Medians of {result['rounds']} interleaved runs ± half their range; "
        "bold: ratio of medians to the file itself.",
        "",
        "| |" + "|".join(present) + "|",
        "|---|" + "---:|" * len(present),
    ]
    for row in result["workloads"]:
        cells = (cell(result, row["name"], subject, row["unit"]) for subject in present)
        lines.append(f"|{row['name']}|" + "|".join(cells) + "|")
    lines.append("")
    for name, entry in result["subjects"].items():
        lines.append(f"- {name}: {entry['what']}" + (f"; **missing**: {entry['missing']}" if entry["missing"] else ""))
    return "\n".join(lines)


def insert(text: str, block: str, first: str = BEGIN, last: str = END) -> str:
    """`text` with `block` between the markers. Raises ValueError when they are not there."""
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"no {first} ... {last}")
    return f"{before}{first}\n{block}\n{last}{after}"


def main() -> None:
    results = [Path(name) for name in sys.argv[1:]] or sorted((BENCH / "results").glob("*.json"))[-1:]
    if not results:
        sys.exit("no result yet: run `make bench`")
    block = markdown(json.loads(results[0].read_text()))
    try:
        README.write_text(insert(README.read_text(), f"From bench/results/{results[0].name}.\n\n{block}"))
    except (OSError, ValueError) as error:
        sys.exit(f"{README.name}: {error}")


if __name__ == "__main__":
    main()
