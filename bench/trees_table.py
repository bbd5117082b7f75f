"""The table of bench.trees: medians of a result file as markdown, put between two markers of docs/benchmark.md.

    python -m bench.trees_table [RESULT.json]      the newest of bench/results/trees by default

Each cell is the median time, half the distance from the slowest to the fastest in per cent of it, and the ratio of
the median to the plain tree's in the same run: times, so less is better.
"""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

from bench import table

RESULTS = table.BENCH / "results" / "trees"
BEGIN, END = "<!-- trees:begin -->", "<!-- trees:end -->"
TOUCHES = ("first", "again")

Result = dict[str, Any]


def seconds(result: Result, workload: str, touch: str, subject: str) -> list[float]:
    """What the runs of one cell took."""
    return [run["seconds"] for run in result["runs"]
            if (run["workload"], run["touch"], run["subject"]) == (workload, touch, subject)]


def ratio(result: Result, workload: str, touch: str, subject: str, baseline: str) -> float | None:
    """Median time of `subject` over that of `baseline`; None where one is missing."""
    mine, theirs = (seconds(result, workload, touch, name) for name in (subject, baseline))
    return median(mine) / median(theirs) if mine and theirs else None


def duration(value: float) -> str:
    """1.52 s, 94 ms, 3.1 ms."""
    shown, unit = (value, "s") if value >= 1 else (1000 * value, "ms")
    return f"{shown:.3g} {unit}" if shown < 100 else f"{shown:.0f} {unit}"


def cell(result: Result, workload: str, touch: str, subject: str) -> str:
    """One cell; "-" for what was not measured."""
    values = seconds(result, workload, touch, subject)
    if not values:
        return "-"
    middle = median(values)
    spread = f" ±{50 * (max(values) - min(values)) / middle:.0f} %" if len(values) > 1 else ""
    share = ratio(result, workload, touch, subject, "plain")
    return duration(middle) + spread + ("" if share is None or subject == "plain" else f", **{share:.2f}**")


def markdown(result: Result) -> str:
    """The whole table, with what it was measured on and who was missing."""
    here = result["machine"]
    present = [name for name, entry in result["subjects"].items() if not entry["missing"]]
    loads = [run["load"] for run in result["runs"]]
    lines = [
        f"Linux {here['kernel']}, {table.cores(here)}, libfuse {here['libfuse']}, Python "
        f"{here['python']}; {result['started'][:10]}, commit {here['commit']}; load average {min(loads):.1f} to "
        f"{max(loads):.1f}. Median times of {result['rounds']} interleaved rounds ± half their range; bold: ratio to "
        "the plain tree's, less is better. First: on a new mount; again: the same once more.",
        "",
        "| |" + "|".join(present) + "|",
        "|---|" + "---:|" * len(present),
    ]
    for row in result["workloads"]:
        for touch in TOUCHES:
            cells = (cell(result, row["name"], touch, subject) for subject in present)
            lines.append(f"|{row['name']}, {touch}|" + "|".join(cells) + "|")
    lines += ["", *(_against(result, peer) for peer in present if peer.startswith("passthrough_hp")), ""]
    lines += [f"- {row['name']}: {row['what']}, {row['files']:,} files" for row in result["workloads"]]
    lines += [f"- {name}: {entry['what']}" + (f"; **missing**: {entry['missing']}" if entry["missing"] else "")
              for name, entry in result["subjects"].items()]
    return "\n".join(lines)


def _against(result: Result, peer: str) -> str:
    """Open-read-close as a rate against a peer's: more is better."""
    words = []
    for subject in ("regionfs passthrough", "regionfs userspace"):
        shares = {touch: ratio(result, "open-read-close", touch, peer, subject) for touch in TOUCHES}
        words += [f"{subject} " + ", ".join(f"{touch} {share:.2f}" for touch, share in shares.items() if share)]
    return f"- open-read-close as files a second, of {peer}'s: {'; '.join(words)}"


def publish(path: Path) -> None:
    """Put a result of the results' directory into the page; others are only for a look."""
    if path.resolve().is_relative_to(RESULTS):
        table.put(path, markdown(json.loads(path.read_text())), BEGIN, END)


if __name__ == "__main__":
    publish(table.chosen(RESULTS, "python -m bench.trees"))
