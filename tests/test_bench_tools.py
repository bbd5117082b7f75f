"""What the benchmark starts, and what it says of what cannot be started; which files a layout's bytes lie in."""

import mmap
import os
import subprocess
from pathlib import Path

import pytest

from bench import pairs, placement, profile, trees
from bench.run import in_turn
from bench.servers import daemon
from bench.store import COARSE, FINE, PIECES, Layout, Store, trim
from bench.subjects import SUBJECTS
from bench.tools import MissingError, need, run
from bench.workloads import FILE_SIZE, WORKLOADS, Workload


def test_a_tool_that_fails_is_named_with_its_last_line() -> None:
    """Without the options of the command, without the paths after it, and without addresses."""
    with pytest.raises(MissingError) as caught:
        run("/bin/sh", "-c", "echo first >&2; echo no route to http://host/x >&2; exit 1", Path("/a"))
    assert "sh echo first >&2; echo no route to http failed: no route to (address)" == str(caught.value)


def test_a_tool_that_says_nothing_is_named_too() -> None:
    """Its status is enough."""
    with pytest.raises(MissingError, match=r"^false failed: no message$"):
        run("false")


def test_a_tool_that_is_not_there_is_missing() -> None:
    """Asked for, or run."""
    with pytest.raises(MissingError, match=r"^no-such-tool is not installed$"):
        need("no-such-tool")
    with pytest.raises(MissingError, match=r"^no-such-tool: .*No such file"):
        run("no-such-tool")


def test_a_daemon_that_ends_before_it_mounts_is_missing(tmp_path: Path) -> None:
    """With its own words."""
    command = ["sh", "-c", "echo no device >&2; exit 3"]
    with pytest.raises(MissingError, match=r"^no device$"), daemon(command, tmp_path):
        pass


@pytest.mark.parametrize("layout", [COARSE, FINE, PIECES], ids=lambda layout: layout.name)
def test_a_layout_names_every_file_that_its_regions_lie_in(layout: Layout) -> None:
    """Each once."""
    store = Store(Path("/d"))
    assert sorted({store.directory / str(row["source"]) for row in layout.manifest("ro")}) == \
        sorted(store.sources(layout))


def test_what_was_written_past_the_end_of_sources_is_cut_off(tmp_path: Path) -> None:
    """The others stay as they are."""
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, more in zip(paths, (0, 9), strict=True):
        path.touch()
        os.truncate(path, FILE_SIZE // 2 + more)
    trim(paths)
    assert [FILE_SIZE // 2] * 2 == [path.stat().st_size for path in paths]


def test_free_memory_is_kept_and_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the largest blocks are reported; afterwards all is as before."""
    knob = tmp_path / "order"
    knob.write_text("5\n")
    size = 4 * (mmap.PAGESIZE << placement.LARGEST)
    monkeypatch.setattr(placement, "REPORTING", knob)
    monkeypatch.setattr(placement, "MOST_FREE", size)
    with placement.free_memory(as_is=False) as kept:
        assert (size, "10") == (kept, knob.read_text())
    assert "5\n" == knob.read_text()
    with placement.free_memory(as_is=True) as kept:
        assert (None, "5\n") == (kept, knob.read_text())
    knob.write_text("11\n")
    with placement.free_memory(as_is=False) as kept:
        assert (None, "11\n") == (kept, knob.read_text()), "nothing is reported here"


def test_a_job_that_fails_or_takes_too_long_is_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is measured."""
    assert trees._timed(["true"]) < trees.LONGEST
    with pytest.raises(subprocess.CalledProcessError):
        trees._timed(["false"])
    monkeypatch.setattr(trees, "LONGEST", 0.1)
    with pytest.raises(subprocess.CalledProcessError, match="SIGKILL"):
        trees._timed(["sleep", "60"])


def test_a_profile_counts_functions_of_threads() -> None:
    """Not what is idle; a program's own functions together, whatever perf calls them."""
    text = """# Samples: 9  of event 'cpu-clock'
            40  swapper          [k] pv_native_safe_halt                -      -
            12  fio              [k] _copy_to_iter                      -      -
             3  fio              [.] 0x0000000000012345                 -      -
             2  fio              [.] main                               -      -
             1  passthrough_ll-  [k] fuse_copy_folio                    -      -
"""
    assert {("fio", "_copy_to_iter"): 12, ("fio", "(user space)"): 5, ("passthrough_ll-", "fuse_copy_folio"): 1} == \
        profile.samples(text)


def test_no_subject_has_a_place_of_its_own() -> None:
    """Over twice as many rounds as subjects each is at each place twice, whatever the number of workloads."""
    subjects, workloads = SUBJECTS[:4], [row for row in WORKLOADS if row.group == "short"][:4]
    places: dict[tuple[str, str], list[int]] = {}
    before: dict[str, set[str]] = {}
    for number in range(2 * len(subjects)):
        cells = in_turn(workloads, subjects, number)
        for workload in workloads:
            row = [subject.name for cell, subject in cells if cell is workload]
            for place, name in enumerate(row):
                places.setdefault((workload.name, name), []).append(place)
                before.setdefault(name, set()).add(row[place - 1])
    assert all(sorted(seen) == sorted([*range(len(subjects))] * 2) for seen in places.values())
    assert all(len(names) > 1 for names in before.values())


@pytest.mark.parametrize("row", pairs.ROWS, ids=lambda row: row.name)
def test_pairs_take_turns(row: Workload, tmp_path: Path) -> None:
    """Each has as many turns as the others, of a whole number of operations, and a write changes no size."""
    file = tmp_path / "file"
    file.write_bytes(bytes(24 << 20))
    turns = pairs.measure(row, {"one": file, "other": file, "third": file}, 5)
    assert [4, 4, 4] == list(map(len, turns.values())) or row.rw.startswith("rand")
    assert len({len(found) for found in turns.values()}) == 1 < min(map(min, turns.values()))
    assert file.stat().st_size == 24 << 20
    assert (file.read_bytes() == bytes(24 << 20)) is not row.writes


def test_pairs_compare_medians() -> None:
    turns = {"file": [10.0, 11.0, 90.0], "bind mount": [22.0, 1.0, 99.0]}
    assert pairs.ratio(turns, "bind mount") == 0.5
