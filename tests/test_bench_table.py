"""The benchmark's table says what the raw figures say."""

import pytest

from bench import table

RESULT: table.Result = {
    "started": "2026-01-02T03:04:05", "rounds": 3,
    "machine": {"kernel": "6.18", "cores": 2, "cpu": "X", "libfuse": "3.14.0", "fio": "fio-3.33", "python": "3.11.2",
                "commit": "abc"},
    "workloads": [{"name": "seq", "unit": "bytes"}, {"name": "rand", "unit": "operations"}],
    "subjects": {"file": {"what": "the file itself", "baseline": "file", "missing": None},
                 "mine": {"what": "regions", "baseline": "file", "missing": None},
                 "peer": {"what": "an example", "baseline": "file", "missing": "no compiler"}},
    "runs": [
        *({"workload": "seq", "subject": "file", "bytes_per_second": value} for value in (2e9, 4e9, 3e9)),
        *({"workload": "seq", "subject": "mine", "bytes_per_second": value} for value in (1.5e9, 1.5e9, 9e9)),
        {"workload": "rand", "subject": "file", "operations_per_second": 152_000},
        {"workload": "rand", "subject": "mine", "error": "Invalid argument"},
    ],
}


def test_cells_are_medians_spreads_and_ratios() -> None:
    """One run out of line moves the spread, not the median; the baseline has no ratio to itself."""
    assert "3.00 GB/s ±33 %" == table.cell(RESULT, "seq", "file", "bytes")
    assert "1.50 GB/s ±250 %, **0.50**" == table.cell(RESULT, "seq", "mine", "bytes")


def test_what_was_refused_or_missing_is_named() -> None:
    """A refused operation has its word in the cell, a missing subject its reason below the table."""
    assert "refused" == table.cell(RESULT, "rand", "mine", "operations")
    text = table.markdown(RESULT)
    assert "|rand|152 k/s|refused|" in text
    assert "- peer: an example; **missing**: no compiler" in text


def test_the_table_replaces_what_stands_between_the_markers() -> None:
    """The rest of the README stays byte for byte."""
    before = f"# Title\n{table.BEGIN}\nold\n{table.END}\nafter\n"
    assert f"# Title\n{table.BEGIN}\nnew\n{table.END}\nafter\n" == table.insert(before, "new")


def test_a_readme_without_markers_is_refused() -> None:
    """Nothing is written anywhere else."""
    with pytest.raises(ValueError, match="no <!-- bench:begin -->"):
        table.insert("# Title\n", "new")
