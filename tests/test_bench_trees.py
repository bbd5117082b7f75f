"""The table of the many-files benchmark says what the raw figures say."""

import json
from pathlib import Path

from bench import trees_table

RESULT: trees_table.Result = {
    "started": "2026-01-02T03:04:05", "rounds": 3,
    "machine": {"kernel": "6.18", "cores": 2, "cpu": "X", "libfuse": "3.14.0", "python": "3.11.2", "commit": "abc"},
    "workloads": [{"name": "open-read-close", "what": "opens", "files": 10_000},
                  {"name": "build", "what": "make", "files": 200}],
    "subjects": {"plain": {"what": "the tree itself", "missing": None},
                 "regionfs passthrough": {"what": "whole files", "missing": None},
                 "passthrough_hp": {"what": "an example", "missing": None},
                 "bindfs": {"what": "of Debian", "missing": "not installed"}},
    "runs": [{"workload": workload, "touch": touch, "subject": subject, "seconds": seconds, "load": 0.5}
             for workload, touch, subject, several in (
                 ("open-read-close", "first", "plain", (0.05, 0.04, 0.06)),
                 ("open-read-close", "first", "regionfs passthrough", (0.5, 0.5, 2.5)),
                 ("open-read-close", "first", "passthrough_hp", (0.25,)),
                 ("open-read-close", "again", "regionfs passthrough", (0.4,)),
                 ("open-read-close", "again", "passthrough_hp", (0.5,)),
                 ("build", "first", "plain", (2.0,)), ("build", "first", "regionfs passthrough", (2.2,)))
             for seconds in several],
}


def test_cells_are_median_times_spreads_and_ratios_to_the_plain_tree() -> None:
    """One run out of line moves the spread, not the median; the plain tree has no ratio to itself."""
    assert "50 ms ±20 %" == trees_table.cell(RESULT, "open-read-close", "first", "plain")
    assert "500 ms ±200 %, **10.00**" == trees_table.cell(RESULT, "open-read-close", "first", "regionfs passthrough")
    assert "2.2 s, **1.10**" == trees_table.cell(RESULT, "build", "first", "regionfs passthrough")
    assert "-" == trees_table.cell(RESULT, "build", "again", "plain")


def test_opens_are_compared_with_passthrough_hp_as_rates() -> None:
    """Twice its time is half its rate."""
    assert ("- open-read-close as files a second, of passthrough_hp's: regionfs passthrough first 0.50, again 1.25; "
            in trees_table.markdown(RESULT))


def test_what_is_missing_is_named() -> None:
    """It has no column, and its reason stands below the table."""
    text = trees_table.markdown(RESULT)
    assert "| |plain|regionfs passthrough|passthrough_hp|" in text
    assert "- bindfs: of Debian; **missing**: not installed" in text


def test_a_result_from_elsewhere_does_not_reach_the_readme(tmp_path: Path) -> None:
    """A quick run's figures are only for a look."""
    before = trees_table.table.PAGE.read_bytes()
    (result := tmp_path / "result.json").write_text(json.dumps(RESULT))
    trees_table.publish(result)
    assert before == trees_table.table.PAGE.read_bytes()
