"""The benchmark's tables, targets and picture say what the raw figures say."""

import copy
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from bench import plots, publish, table, targets
from bench.subjects import SUBJECTS
from bench.workloads import WORKLOADS

RESULT: table.Result = {
    "started": "2026-01-02T03:04:05", "rounds": 3,
    "machine": {"kernel": "6.18", "cores": 2, "cpu": "X", "libfuse": "3.14.0", "fio": "fio-3.33", "python": "3.11.2",
                "commit": "abc"},
    "workloads": [{"name": "seq", "unit": "bytes"}, {"name": "rand", "unit": "operations"}],
    "subjects": {"file": {"what": "the file itself", "baseline": "file", "missing": None},
                 "mine": {"what": "regions", "baseline": "file", "family": "regionfs", "missing": None},
                 "theirs": {"what": "a <peer>", "baseline": "file", "family": "peers", "missing": None},
                 "peer": {"what": "an example", "baseline": "file", "family": "peers", "missing": "no compiler"}},
    "runs": [
        *({"workload": "seq", "subject": "file", "bytes_per_second": value} for value in (2e9, 4e9, 3e9)),
        *({"workload": "seq", "subject": "mine", "bytes_per_second": value} for value in (1.5e9, 1.5e9, 9e9)),
        {"workload": "seq", "subject": "theirs", "bytes_per_second": 6e8},
        {"workload": "rand", "subject": "file", "operations_per_second": 152_000},
        {"workload": "rand", "subject": "mine", "error": "Invalid argument"},
    ],
}


def test_cells_are_medians_spreads_and_ratios() -> None:
    """One run out of line moves the spread, not the median; the baseline has no ratio to itself."""
    assert "3.00 GB/s ±33 %" == table.cell(RESULT, "seq", "file", "bytes")
    assert "1.50 GB/s ±250 %, **0.50**" == table.cell(RESULT, "seq", "mine", "bytes")


def test_the_table_says_how_many_runs_a_cell_has() -> None:
    """And of how many turns, where some take turns in a run."""
    assert "3 interleaved runs" == table.runs(RESULT)
    shared = [{"workload": "seq", "subject": "file", "bytes_per_second": 1, "turns": number} for number in (9, 700, 30)]
    assert "3 interleaved runs (of 9 to 700 turns each where a disk decides)" == table.runs({**RESULT, "runs": shared})


def test_what_was_refused_or_missing_is_named() -> None:
    """A refused operation has its word in the cell, a missing subject its reason below the table."""
    assert "refused" == table.cell(RESULT, "rand", "mine", "operations")
    text = table.markdown(RESULT)
    assert "|rand|152 k/s|refused|" in text
    assert "- peer: an example; **missing**: no compiler" in text


def test_peers_have_a_table_of_their_own() -> None:
    """It leaves out the rows that no peer took part in, and the subjects that are missing."""
    lines = table.markdown(RESULT).splitlines()
    start = lines.index("| |theirs|")
    assert ["|---|---:|", "|seq|600 MB/s, **0.20**|", ""] == lines[start + 1:start + 4]
    assert "| |file|mine|" in lines[:start]


def test_the_table_replaces_what_stands_between_the_markers() -> None:
    """The rest of the page stays byte for byte."""
    before = f"# Title\n{table.BEGIN}\nold\n{table.END}\nafter\n"
    assert f"# Title\n{table.BEGIN}\nnew\n{table.END}\nafter\n" == table.insert(before, "new")


def test_a_readme_without_markers_is_refused() -> None:
    """Nothing is written anywhere else."""
    with pytest.raises(ValueError, match="no <!-- bench:begin -->"):
        table.insert("# Title\n", "new")


def measured(**rates: dict[str, float]) -> table.Result:
    """A result of one round: subject to workload to bytes a second."""
    names = dict.fromkeys(name for rows in rates.values() for name in rows)
    return {"workloads": [{"name": name, "unit": "bytes"} for name in names],
            "runs": [{"workload": name, "subject": subject, "bytes_per_second": value}
                     for subject, rows in rates.items() for name, value in rows.items()]}


def test_a_target_is_held_against_the_best_of_the_others() -> None:
    """The ratio of a row is the one to the fastest; rows without either side do not count."""
    target = targets.Target("mine / theirs", 1.5, "mine", ("slow", "fast"), ("a", "b", "c"))
    result = measured(mine={"a": 30.0, "b": 30.0}, slow={"a": 10.0, "b": 10.0, "c": 10.0}, fast={"a": 15.0})
    assert {"a": 2.0, "b": 3.0} == target.ratios(result)


def test_a_target_without_rows_is_held_in_every_row() -> None:
    """That both sides were measured in."""
    target = targets.Target("mine / theirs", 1.5, "mine", ("theirs",))
    result = measured(mine={"a": 30.0, "b": 30.0}, theirs={"a": 10.0, "b": 60.0, "c": 1.0})
    assert {"a": 3.0, "b": 0.5} == target.ratios(result)


@pytest.mark.parametrize(("rate", "line"), [
    (0.99, "|passthrough / the file, eight workloads|0.99|**0.99**|read random 4 KiB, buffered|yes|"),
    (0.989, "|passthrough / the file, eight workloads|0.99|**0.989**|read random 4 KiB, buffered|1 of 2|"),
])
def test_a_target_names_its_lowest_row_and_is_not_rounded_up(rate: float, line: str) -> None:
    """What is almost enough is not enough."""
    result = measured(**{"file": {"read random 4 KiB, buffered": 1.0, "write random 4 KiB, buffered": 1.0},
                         "regionfs passthrough": {"read random 4 KiB, buffered": rate,
                                                  "write random 4 KiB, buffered": 2.0}})
    assert line in targets.markdown(result).splitlines()


def test_what_was_not_measured_is_no_target_met() -> None:
    """Nor is it one missed."""
    verdicts = {line.split("|")[-2] for line in targets.markdown(RESULT).splitlines()[2:]}
    assert {"not measured"} == verdicts


def test_the_names_in_the_targets_are_those_of_the_run() -> None:
    """A renamed row or subject would make a target vanish as not measured."""
    does = {subject.name: {row.name for row in WORKLOADS if subject.does(row)} for subject in SUBJECTS}
    for target in targets.TARGETS:
        for row in target.rows:
            assert row in does[target.mine], f"{target.what}: {row}"
            assert any(row in does[other] for other in target.others), f"{target.what}: {row}"
        assert {target.mine, *target.others} <= set(does), target.what


def circles(picture: str, subject: str) -> list[tuple[float, str]]:
    """(x, fill) of its marks, the legend's first."""
    space = "{http://www.w3.org/2000/svg}"
    marks = ElementTree.fromstring(picture).iter(f"{space}circle")
    return [(float(mark.attrib["cx"]), mark.attrib["fill"]) for mark in marks
            if mark.findtext(f"{space}title") == subject]


def test_the_picture_has_a_mark_for_every_ratio() -> None:
    """A slower subject stands further left; peers are hollow, whoever is missing or refused has none."""
    picture = plots.svg(RESULT)
    mine, theirs = circles(picture, "mine"), circles(picture, "theirs")
    assert (2, 2) == (len(mine), len(theirs))
    assert theirs[1][0] < mine[1][0]
    assert "none" == theirs[1][1] != mine[1][1]
    assert [] == circles(picture, "peer")


def test_the_picture_survives_names_with_markup() -> None:
    """Names are text."""
    result = copy.deepcopy(RESULT)
    result["subjects"]["a <b> & c"] = result["subjects"].pop("mine")
    result["runs"] = [{**run, "subject": run["subject"].replace("mine", "a <b> & c")} for run in result["runs"]]
    assert 2 == len(circles(plots.svg(result), "a <b> & c"))


def test_the_block_holds_tables_targets_and_the_picture() -> None:
    """Each with the place it comes from."""
    text = publish.block(RESULT, "bench/results/x.json", "bench/results/x.svg")
    assert text.startswith("From bench/results/x.json.\n")
    assert "![ratios to the file itself](bench/results/x.svg)" in text
    assert targets.markdown(RESULT) in text
    assert table.markdown(RESULT) in text


def test_a_result_is_kept_in_lines_and_read_back(tmp_path: Path) -> None:
    """A line for each run; figures are rounded to six digits."""
    table.keep({**RESULT, "runs": [{"workload": "a", "seconds": 0.123456789}, {"workload": "b", "bytes": 12345678}]},
               tmp_path / "x.json")
    read = json.loads((tmp_path / "x.json").read_text())
    assert {**RESULT, "runs": [{"workload": "a", "seconds": 0.123457}, {"workload": "b", "bytes": 12345678}]} == read
    assert '{"workload":"a","seconds":0.123457},\n' in (tmp_path / "x.json").read_text()
