"""What the benchmark starts, and what it says of what cannot be started; which files a layout's bytes lie in."""

import mmap
import os
import re
import subprocess
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from bench import pairs, placement, profile, trees
from bench.run import in_turn
from bench.servers import daemon
from bench.store import COARSE, FINE, PIECES, Layout, Store, hold, trim
from bench.subjects import SUBJECTS, TURNS
from bench.tools import MissingError, need, run
from bench.workloads import FILE_SIZE, WORKLOADS, Workload, command


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
    trim(paths, FILE_SIZE)
    assert [FILE_SIZE // 2] * 2 == [path.stat().st_size for path in paths]


def mapped(path: Path) -> list[int]:
    """KiB in page tables, for each mapping of the file by this process."""
    areas = re.split(r"^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text(), flags=re.MULTILINE)
    return [int(area.partition("\nRss:")[2].split()[0]) for area in areas if f" {path}\n" in area]


def test_what_is_held_is_mapped_to_its_end(tmp_path: Path) -> None:
    """Every page of each file, and none of them afterwards."""
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, size in zip(paths, (8 << 20, mmap.PAGESIZE + 1), strict=True):
        path.write_bytes(bytes(size))
    with hold(paths):
        assert [[8 << 10], [2 * mmap.PAGESIZE >> 10]] == [mapped(path) for path in paths]
    assert [[], []] == [mapped(path) for path in paths]


@pytest.mark.parametrize("row", WORKLOADS, ids=lambda row: row.name)
def test_nothing_is_held_that_is_to_be_dropped(row: Workload) -> None:
    """Sources in reads through warm page caches; the mount's own page cache where fio leaves it alone."""
    ways = {"first touch": (True, False), "buffered": (True, True), "mmap": (True, True)}
    way = row.name.rpartition(", ")[2]
    assert (row.held, row.warm) == ((False, False) if row.writes else ways.get(way, (False, False)))
    drops = "--invalidate=1" in command(row, Path("/f"), 1, drop_cache=True)
    assert not (drops and row.warm)


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


def test_what_waits_for_the_disk_is_limited_and_let_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In bytes; afterwards what was in force before is written last: shares of the memory, or bytes."""
    monkeypatch.setattr(placement, "DIRTY", tmp_path)
    names = [f"dirty_{kind}" for kind in ("bytes", "background_bytes", "ratio", "background_ratio")]

    def values(*wanted: str) -> list[str]:
        for name, value in zip(names, wanted, strict=False):
            (tmp_path / name).write_text(value)
        return [(tmp_path / name).read_text() for name in names]

    values("0\n", "0\n", "20\n", "10\n")
    with placement.dirty_limit(1 << 20):
        assert ["1048576", "524288"] == values()[:2]
        values(*values()[:2], "0\n", "0\n")  # as the kernel does
    assert ["20\n", "10\n"] == values()[2:]
    values("4096\n", "2048\n", "0\n", "0\n")
    with placement.dirty_limit(1 << 20):
        assert ["1048576", "524288"] == values()[:2]
    assert ["4096\n", "2048\n", "0\n", "0\n"] == values()


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
            row = [subject.name for cell, subject, turn in cells if cell is workload and turn == 0]
            for place, name in enumerate(row):
                places.setdefault((workload.name, name), []).append(place)
                before.setdefault(name, set()).add(row[place - 1])
    assert all(sorted(seen) == sorted([*range(len(subjects))] * 2) for seen in places.values())
    assert all(len(names) > 1 for names in before.values())


@pytest.mark.parametrize("row", [row for row in WORKLOADS if row.disk_decides], ids=lambda row: row.name)
def test_further_turns_have_no_places_of_their_own(row: Workload) -> None:
    """Those who meet the disk go through the row again, each at each place as often, and nobody follows himself."""
    able = [subject.name for subject in SUBJECTS if subject.does(row)]
    more = ["file", "regionfs passthrough", "bind mount"]
    places: Counter[tuple[str, int]] = Counter()
    for rounds in range(2 * len(more)):
        cells = in_turn([row], SUBJECTS, rounds)
        passes = [[subject.name for _, subject, number in cells if number == turn] for turn in range(TURNS)]
        assert [sorted(able), *[sorted(more)] * (TURNS - 1)] == [sorted(names) for names in passes]
        assert [name for names in passes for name in names] == [subject.name for _, subject, _ in cells]
        further = [name for names in passes[1:] for name in names]
        assert all(one != other for one, other in pairwise(further))
        places.update((name, place) for names in passes[1:] for place, name in enumerate(names))
    assert {2 * (TURNS - 1)} == set(places.values())
    assert len(more) ** 2 == len(places)


def test_only_who_meets_the_disk_has_more_turns() -> None:
    """In the patch author's rows and the short ones with O_DIRECT; everyone else has one in each row."""
    cells = Counter((row.name, subject.name) for row, subject, _ in in_turn(WORKLOADS, SUBJECTS, 0))
    more = {row for (row, _), turns in cells.items() if turns > 1}
    assert {*(f"{verb} {shape}, O_DIRECT" for verb in ("read", "write")
              for shape in ("sequential 128 KiB", "random 4 KiB")),
            *(f"patch author's {rw}" for rw in ("read", "randread", "write", "randwrite"))} == more
    assert {1, TURNS} == set(cells.values())


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
