"""What stat(2) shows of a file whose entry in the manifest changed, and of one whose entry did not."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regionfs.daemon import control, runtime
from tests.harness import Mount, User

PAGE = 4096
OLD = 1_000_000_000  # seconds since the epoch: long before any manifest here

pytestmark = pytest.mark.timeout(300)  # many mounts, one after the other


def prepare(directory: Path) -> None:
    """Sources, older than every map."""
    for name in ("a", "b", "d"):
        (directory / name).write_bytes(name.encode() * PAGE)
        os.utime(directory / name, (OLD, OLD))
    (directory / "t.csv").write_text("start,length,source,offset\n0,4096,a,0\n")


def files() -> dict[str, Any]:
    """One of each kind, in a directory of its own each; and one in the root."""
    return {"map/f": {"regions": [{"source": "a", "length": 100}, {"source": "a", "offset": 200, "length": 100}]},
            "inline/f": {"regions": [{"data": {"text": "abc"}}]},
            "read/f": {"regions": [{"data": {"file": "d"}}]},
            "table/f": {"regions": {"table": "t.csv"}},
            "whole/f": {"whole": "a"},
            "rw/f": {"whole": "a", "access": "rw"},
            "mode/f": {"mode": "0444", "regions": [{"source": "b"}]},
            "f": {"regions": [{"source": "b"}]}}


def edit_map(_directory: Path, edited: dict[str, Any]) -> None:
    edited["map/f"]["regions"][1]["offset"] = 300


def edit_inline(_directory: Path, edited: dict[str, Any]) -> None:
    edited["inline/f"]["regions"][0]["data"]["text"] = "abd"


def edit_read(directory: Path, _edited: dict[str, Any]) -> None:
    (directory / "d").write_bytes(b"D" * PAGE)
    os.utime(directory / "d", (OLD, OLD))


def edit_table(directory: Path, _edited: dict[str, Any]) -> None:
    (directory / "t.csv").write_text("start,length,source,offset\n0,4096,b,0\n")
    os.utime(directory / "t.csv", (OLD, OLD))


def edit_whole(_directory: Path, edited: dict[str, Any]) -> None:
    edited["whole/f"]["whole"] = "b"


def edit_rw(_directory: Path, edited: dict[str, Any]) -> None:
    edited["rw/f"]["whole"] = "b"


def edit_mode(_directory: Path, edited: dict[str, Any]) -> None:
    edited["mode/f"]["mode"] = "0400"


def replace_source(directory: Path, _edited: dict[str, Any]) -> None:
    """By a file of the same size that is just as old."""
    (directory / "new").write_bytes(b"n" * PAGE)
    os.utime(directory / "new", (OLD, OLD))
    (directory / "new").replace(directory / "d2")
    (directory / "d2").replace(directory / "d")


EDITS = {"map/f": edit_map, "inline/f": edit_inline, "read/f": edit_read, "table/f": edit_table,
         "whole/f": edit_whole, "rw/f": edit_rw, "mode/f": edit_mode}


def shown(mounted: Mount) -> dict[str, tuple[int, ...]]:
    """Inode, whole seconds of both times, and nanoseconds, of everything in the mount."""
    paths = sorted([mounted.path, *mounted.path.rglob("*")])
    found = {str(path.relative_to(mounted.path)): path.stat() for path in paths}
    return {name: (stat.st_ino, int(stat.st_mtime), int(stat.st_ctime), stat.st_mtime_ns, stat.st_ctime_ns)
            for name, stat in found.items()}


def moved(before: dict[str, tuple[int, ...]], after: dict[str, tuple[int, ...]]) -> set[str]:
    """Whose seconds of both times went on. Of the others nothing may have changed."""
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in changed if all(before[name][n] < after[name][n] for n in (1, 2))}
    return changed


def test_edits_are_seen_after_a_remount(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """mtime and ctime move, even in whole seconds; everything else, directories too, looks as before."""
    prepare(tmp_path)
    edited = files()
    with mount(edited) as mounted:
        before = shown(mounted)
    for path, edit in EDITS.items():
        edit(tmp_path, edited)
        with mount(edited) as mounted:
            after = shown(mounted)
        assert {path} == moved(before, after), path
        before = after


@pytest.mark.parametrize("engine", ["native"], indirect=True)
def test_edits_are_seen_after_a_reload(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """The same at once, after the server died, and after the next mount: the times of the reload stay."""
    prepare(tmp_path)
    edited = files()
    with mount(edited) as mounted:
        before = shown(mounted)
        for path, edit in EDITS.items():
            edit(tmp_path, edited)
            mounted.write_manifest(edited)
            assert 0 == mounted.user.regionfs("reload", mounted.path).returncode
            after = shown(mounted)
            assert {path} == moved(before, after), path
            before = after
        os.kill(mounted.status()["pid"], signal.SIGKILL)
        assert before == shown(mounted)
    with mount(edited) as mounted:
        after = shown(mounted)
    assert {name: times[1:] for name, times in before.items()} == {name: times[1:] for name, times in after.items()}


def test_nothing_moves_without_an_edit(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """A remount, also after the manifest was touched and laid out anew."""
    prepare(tmp_path)
    with mount(files()) as mounted:
        before = shown(mounted)
        mounted.write_manifest("# a comment\n" + mounted.manifest.read_text().replace("\n ", " "))
    with mount((tmp_path / "mnt.yaml").read_text()) as mounted:
        assert before == shown(mounted)


def test_a_directory_moves_with_its_names(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """The one in which a name came or went, and no other."""
    prepare(tmp_path)
    edited = files()
    with mount(edited) as mounted:
        before = shown(mounted)
    edited["map/g"] = edited["f"]
    with mount(edited) as mounted:
        after = shown(mounted)
        assert {"map"} == moved(before, {name: after[name] for name in before})
    del edited["map/g"]
    with mount(edited) as mounted:
        assert {"map"} == moved(before, shown(mounted))


def test_a_source_that_was_replaced_moves_its_files(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """Though the new one is as large and as old: it is another file."""
    prepare(tmp_path)
    with mount({"f": {"regions": [{"source": "d"}]}, "g": {"regions": [{"source": "a"}]}}) as mounted:
        before = shown(mounted)
    replace_source(tmp_path, {})
    with mount(mounted.manifest.read_text()) as mounted:
        assert {"f"} == moved(before, shown(mounted))


def test_another_manifest_on_the_same_mount_point(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """An older manifest, whose own time stamps say nothing new: what it shows otherwise moves."""
    prepare(tmp_path)
    (tmp_path / "old.yaml").write_text('{"regionfs": 1, "files": {"f": {"regions": [{"source": "a"}]}}}')
    with mount({"f": {"regions": [{"source": "b"}]}}) as mounted:
        before = shown(mounted)
    mounted.manifest = tmp_path / "old.yaml"
    with mounted:
        assert {"f"} == moved(before, shown(mounted))


def test_edits_in_a_row_all_move(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """Each a second later than the one before, however fast they come: rsync compares seconds."""
    prepare(tmp_path)
    edited, seen = files(), []
    for turn in range(4):
        edited["map/f"]["regions"][1]["offset"] = turn
        with mount(edited) as mounted:
            seen.append(int((mounted.path / "map/f").stat().st_mtime))
    assert sorted(set(seen)) == seen


def test_without_a_place_for_records(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """All files of an edited manifest move; without an edit, none."""
    prepare(tmp_path)
    (tmp_path / "file").write_text("no directory")
    user = User().with_environment(XDG_STATE_HOME=str(tmp_path / "file"))
    edited = files()
    with mount(edited, user=user) as mounted:
        before = shown(mounted)
    with mounted:
        assert before == shown(mounted)
    edit_map(tmp_path, edited)
    with mount(edited, user=user) as mounted:
        assert "map/f" in {name for name, times in shown(mounted).items() if times[3:] > before[name][3:]}
        assert before["whole/f"] == shown(mounted)["whole/f"]


def test_a_damaged_record_is_no_record(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """The mount goes on, and writes a new one."""
    prepare(tmp_path)
    state = tmp_path / "state"
    user = User().with_environment(XDG_STATE_HOME=str(state))
    for text in (b"{", b'{"f": 1}', b"\xff"):
        with mount(files(), user=user) as mounted:
            before = shown(mounted)
        with mounted:
            assert before == shown(mounted)
        records = [*(state / "regionfs").iterdir()]
        assert 2 == len(records)
        for record in records:
            record.write_bytes(text)


def test_times_of_a_whole_file_can_be_set(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """After its entry came to show another source, and touch(1) through the mount: what was asked for."""
    prepare(tmp_path)
    edited = files()
    with mount(edited):
        pass
    edit_rw(tmp_path, edited)
    with mount(edited) as mounted:
        path = mounted.path / "rw/f"
        assert OLD < path.stat().st_mtime
        os.utime(path, (OLD + 7, OLD + 7))
        assert OLD + 7 == path.stat().st_mtime == (tmp_path / "b").stat().st_mtime


@pytest.mark.parametrize("engine", ["native"], indirect=True)
def test_after_edits_in_a_row_sources_have_their_say(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """Though the edits are shown ahead of the clock: times can be set, and what is written moves them."""
    prepare(tmp_path)
    edited = files()
    with mount(edited) as mounted:
        socket = runtime.socket_of(mounted.path.resolve())
        for turn in range(6):
            edited["rw/f"]["whole"] = "ab"[turn % 2]
            edited["map/f"]["regions"][1]["offset"] = turn
            mounted.write_manifest(edited)
            control.call(socket, "reload", manifest=str(mounted.manifest), dry_run=False)
        os.utime(mounted.path / "rw/f", (OLD + 7, OLD + 7))
        assert OLD + 7 == (mounted.path / "rw/f").stat().st_mtime
        os.utime(tmp_path / "a")
        written = (tmp_path / "a").stat().st_mtime_ns
        with open(mounted.path / "map/f", "rb") as shown_now:
            assert written == os.fstat(shown_now.fileno()).st_mtime_ns
        os.kill(mounted.status()["pid"], signal.SIGKILL)
        assert OLD + 7 == (mounted.path / "rw/f").stat().st_mtime
        assert written == (mounted.path / "map/f").stat().st_mtime_ns
