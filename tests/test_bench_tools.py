"""What the benchmark starts, and what it says of what cannot be started; which files a layout's bytes lie in."""

import mmap
import os
import re
import subprocess
from itertools import product
from pathlib import Path

import pytest

from bench import placement, profile, trees, turns
from bench.run import in_order
from bench.servers import daemon
from bench.store import COARSE, FINE, PIECES, Layout, Store, hold, trim
from bench.subjects import SUBJECTS
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
    """Over twice as many rounds as subjects each is at each place twice, and follows more than one."""
    subjects, workload = SUBJECTS[:4], next(row for row in WORKLOADS if row.group == "short")
    places: dict[str, list[int]] = {}
    before: dict[str, set[str]] = {}
    for number in range(2 * len(subjects)):
        row = [subject.name for subject in in_order(workload, subjects, number)]
        for place, name in enumerate(row):
            places.setdefault(name, []).append(place)
            before.setdefault(name, set()).add(row[place - 1])
    assert all(sorted(seen) == sorted([*range(len(subjects))] * 2) for seen in places.values())
    assert all(len(names) > 1 for names in before.values())


def test_who_meets_the_disk_takes_turns() -> None:
    """In the patch author's rows and the short ones with O_DIRECT, on a file of their own."""
    found = {(row.name, subject.name): subject.store(row) for row in WORKLOADS for subject in SUBJECTS
             if subject.does(row) and subject.takes_turns(row)}
    direct = [f"{shape}, O_DIRECT" for shape in ("read sequential 128 KiB", "read random 4 KiB",
                                                 "write sequential 128 KiB", "write random 4 KiB")]
    author = [f"patch author's {rw}" for rw in ("read", "randread", "write", "randwrite")]
    names = ("file", "regionfs passthrough", "bind mount")
    cells = [*product(direct + author, names), *product(direct, ["passthrough_hp with passthrough"])]
    assert dict.fromkeys(cells, "large") == found


@pytest.mark.parametrize("row", [row for row in WORKLOADS if row.turn], ids=lambda row: row.name)
def test_all_have_as_many_turns_on_places_of_their_own(row: Workload, tmp_path: Path) -> None:
    """As many as the file has room for, if there is time; what is written changes no size."""
    size = 9 * (row.turn if not row.sequential or row.writes or row.direct else row.turn + (16 << 20)) // 2
    files = {name: tmp_path / name for name in ("one", "other")}
    for file in files.values():
        with file.open("wb") as opened:
            opened.truncate(size)
    found = turns.run(row, files, 60)
    assert {"one": 2, "other": 2} == {name: len(taken) for name, taken in found.items()}
    for file in files.values():
        assert size == file.stat().st_size
        assert 2 * row.turn * row.writes == file.read_bytes().count(b"b")


def test_a_turn_needs_room(tmp_path: Path) -> None:
    """What cannot be measured is no figure."""
    row = next(row for row in WORKLOADS if row.turn)
    file = tmp_path / "file"
    file.write_bytes(bytes(row.turn))
    with pytest.raises(RuntimeError, match="no room for a turn each"):
        turns.run(row, {"one": file, "other": file}, 1)
    with pytest.raises(RuntimeError, match="No such file"):
        turns.run(row, {"one": tmp_path / "nothing"}, 1)


def test_the_median_turn_counts() -> None:
    """In bytes and in operations a second."""
    row = next(row for row in WORKLOADS if row.turn)
    found = turns.figures(row, [10, row.turn, 10 ** 12])
    assert (10 ** 9, 10 ** 9 / row.block, 3) == (
        found["bytes_per_second"], found["operations_per_second"], found["turns"])


def test_a_profile_takes_the_place_of_an_older_one(tmp_path: Path) -> None:
    """The others stay; they lie in order."""
    file = tmp_path / "profiles.txt"
    for title, text in (("b; x:", "b; x: 1\n\n 9 %  f\n"), ("a; x:", "a; x: 2\n"), ("b; x:", "b; x: 3\n")):
        profile.keep(file, title, text)
    assert "a; x: 2\n\n\nb; x: 3\n" == file.read_text()
