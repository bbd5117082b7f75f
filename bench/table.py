"""The tables: medians of a result file as markdown, and where in docs/benchmark.md they stand.

Each cell is the median, half the distance from the slowest to the fastest run in per cent of it, and the
ratio of the median to the baseline's in the same run.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

BENCH = Path(__file__).resolve().parent
PAGE = BENCH.parent / "docs" / "benchmark.md"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"

Result = dict[str, Any]


def figures(result: Result, workload: str, subject: str, unit: str) -> list[float]:
    """What the runs of one cell measured, in bytes or operations a second."""
    key = f"{unit}_per_second"
    return [run[key] for run in result["runs"]
            if run["workload"] == workload and run["subject"] == subject and key in run]


def ratio(result: Result, workload: str, subject: str, baseline: str) -> float | None:
    """Median of `subject` over median of `baseline`; None where one is missing."""
    unit = next((row["unit"] for row in result["workloads"] if row["name"] == workload), "bytes")
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


def cores(machine: Mapping[str, Any]) -> str:
    """How many of which, how soon they wake, for which a request waits once or twice, and what a first touch meets."""
    woken = f", woken within {machine['wake_up_us']:.0f} us" if machine.get("wake_up_us") else ""
    if machine.get("halt_poll_ns_before") is not None:
        woken += (f" (guest_halt_poll_ns {machine['halt_poll_ns']}, the kernel's default; before it was "
                  f"{machine['halt_poll_ns_before']})")
    kept = f", {machine['kept_free'] >> 30} GiB of free memory kept from the host" if machine.get("kept_free") else ""
    return f"{machine['cores']} cores of {machine['cpu']}{woken}{kept}"


def runs(result: Result) -> str:
    """How many there are of a cell; and how many turns where several subjects share them."""
    turns = [run["turns"] for run in result["runs"] if "turns" in run]
    shared = f" (of {min(turns)} to {max(turns)} turns each where a disk decides)" if turns else ""
    return f"{result['rounds']} interleaved runs{shared}"


def markdown(result: Result) -> str:
    """A table for regionfs and one for the peers, with what they were measured on and who was missing."""
    here = result["machine"]
    present = [name for name, entry in result["subjects"].items() if not entry["missing"]]
    peers = [name for name in present if result["subjects"][name].get("family") == "peers"]
    newer = f" (in passthrough_hp with passthrough {here['libfuse_newer']})" if here.get("libfuse_newer") else ""
    lines = [
        f"Linux {here['kernel']}, {cores(here)}, libfuse {here['libfuse']}{newer}, "
        f"{here['fio']}, Python {here['python']}; {result['started'][:10]}, commit {here['commit']}. "
        f"Medians of {runs(result)} ± half their range; "
        "bold: ratio of medians to the file itself.",
        *_table(result, [name for name in present if name not in peers]),
        *_table(result, peers), "",
        "-: no row of this subject's, or a write to one that only reads; refused: the open or the call fails.", "",
    ]
    for name, entry in result["subjects"].items():
        lines.append(f"- {name}: {entry['what']}" + (f"; **missing**: {entry['missing']}" if entry["missing"] else ""))
    return "\n".join(lines)


def _table(result: Result, subjects: Sequence[str]) -> Iterator[str]:
    """The rows that one of `subjects` took part in."""
    if not subjects:
        return
    yield from ("", "| |" + "|".join(subjects) + "|", "|---|" + "---:|" * len(subjects))
    for row in result["workloads"]:
        cells = [cell(result, row["name"], subject, row["unit"]) for subject in subjects]
        if set(cells) != {"-"}:
            yield f"|{row['name']}|" + "|".join(cells) + "|"


def insert(text: str, block: str, first: str = BEGIN, last: str = END) -> str:
    """`text` with `block` between the markers. Raises ValueError when they are not there."""
    before, begin, rest = text.partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"no {first} ... {last}")
    return f"{before}{first}\n{block}\n{last}{after}"


def keep(result: Result, path: Path) -> None:
    """Write a result with a line for each run; figures of a run to six digits, which is more than they are worth."""
    head = json.dumps({name: value for name, value in result.items() if name != "runs"}, indent=1)
    runs = ",\n".join(json.dumps({name: float(f"{value:.6g}") if isinstance(value, float) else value
                                  for name, value in run.items()}, separators=(",", ":")) for run in result["runs"])
    path.write_text(f'{head[:-2]},\n "runs": [\n{runs}\n]\n}}\n')


def from_page(picture: Path) -> str:
    """Where a picture is, as the page names it."""
    return os.path.relpath(picture.resolve(), PAGE.parent)


def put(path: Path, text: str, first: str, last: str) -> None:
    """Put what the result at `path` says between two markers of docs/benchmark.md, with the place it comes from."""
    block = f"From {path.resolve().relative_to(BENCH.parent)}.\n\n{text}"
    PAGE.write_text(insert(PAGE.read_text(), block, first, last))


def chosen(results: Path, maker: str) -> Path:
    """The result that the command line names, else the newest of a directory; exits when there is none."""
    paths = [Path(name) for name in sys.argv[1:]] or sorted(results.glob("*.json"))[-1:]
    if not paths:
        sys.exit(f"no result yet: run `{maker}`")
    return paths[0]
