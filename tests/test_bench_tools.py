"""What the benchmark starts, and what it says of what cannot be started; which files a layout's bytes lie in."""

import os
from pathlib import Path

import pytest

from bench.servers import daemon
from bench.store import COARSE, FINE, PIECES, Layout, Store, trim
from bench.tools import MissingError, need, run
from bench.workloads import FILE_SIZE


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
