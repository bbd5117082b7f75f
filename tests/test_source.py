"""Sources: opened late, kept open, and refused when they are not what the manifest was loaded with."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from regionfs.errors import SourceError
from regionfs.manifest.load import loads
from regionfs.source import Sources, inspect_sources

TEXT = """
regionfs: 1
sources:
  a: {path: a.img}
  b: {path: b.img}
  pinned: {path: pinned.img, size: 100}
files:
  x: {regions: [{source: a, length: 100}, {source: b, offset: 10, length: 20, access: rw}]}
  y: {regions: [{source: b, length: 20}, {source: pinned}]}
"""


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """Sources of TEXT over files of 200, 200 and 100 bytes; closed by who needs it."""
    for name, size in ("a.img", 200), ("b.img", 200), ("pinned.img", 100):
        (tmp_path / name).write_bytes(name.encode().ljust(size, b"."))
    return Sources(loads(TEXT, tmp_path / "m.yaml"))


def test_descriptors_open_late_and_stay(sources: Sources) -> None:
    """No descriptor before it is asked for; then the same one until close(), which closes it."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the descriptors, not paths
    with sources:
        fd = sources.fd("a")
        assert (fd, b"a.img") == (sources.fd("a"), os.pread(fd, 5, 0))
    assert before == len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - as above


def test_threads_share_one_descriptor(sources: Sources) -> None:
    """Eight threads that ask at once get the same descriptor."""
    start, got = threading.Barrier(8), []

    def ask() -> None:
        start.wait()
        got.append(sources.fd("a"))
    with sources:
        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [sources.fd("a")] * 8 == got


def test_only_rw_sources_can_be_written(sources: Sources) -> None:
    """A source without a rw region is opened for reading only."""
    with sources:
        assert 1 == os.pwrite(sources.fd("b"), b"x", 0)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.pwrite(sources.fd("a"), b"x", 0)


def test_look_sees_growth_and_new_times(sources: Sources, tmp_path: Path) -> None:
    """What may change is told: size and times as they are now."""
    with sources:
        before = sources.look("a")
        (tmp_path / "a.img").write_bytes(bytes(300))
        assert (200, 300, False) == (before.size, sources.look("a").size, before.stamp == sources.look("a").stamp)
        assert before == sources.facts("a")


def replaced(path: Path) -> None:
    """Another file takes its name."""
    other = path.with_suffix(".other")
    other.write_bytes(path.read_bytes())
    other.rename(path)


def became_fifo(path: Path) -> None:
    """A FIFO without a writer, which a careless open would wait for."""
    path.unlink()
    os.mkfifo(path)


TROUBLE: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "vanished": ("a", lambda path: path.unlink(), "a.img does not exist"),
    "replaced": ("a", replaced, "a.img was replaced by another file since the mount"),
    "became a fifo": ("a", became_fifo, "a.img is a FIFO"),
    "shrank": ("b", lambda path: os.truncate(path, 29), "b.img shrank to 29 bytes; the map needs 30"),
    "grew past its pin": ("pinned", lambda path: os.truncate(path, 101),
                          "pinned.img has 101 bytes, the manifest pins 100"),
}


@pytest.mark.parametrize("what", TROUBLE)
def test_look_names_the_trouble(sources: Sources, tmp_path: Path, what: str) -> None:
    """A source that cannot serve any more raises SourceError with its path and the reason."""
    key, spoil, message = TROUBLE[what]
    with sources:
        spoil(tmp_path / f"{key}.img")
        with pytest.raises(SourceError) as trouble:
            sources.look(key)
    assert message in str(trouble.value)


def test_shrinking_within_what_the_map_needs_is_fine(sources: Sources, tmp_path: Path) -> None:
    """A source may lose bytes that no region shows."""
    with sources:
        os.truncate(tmp_path / "b.img", 30)
        assert 30 == sources.look("b").size


@pytest.mark.parametrize("spoil", [replaced, became_fifo], ids=["replaced", "fifo"])
def test_first_open_checks_identity(sources: Sources, tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """A source replaced between load and first use is not served, and nothing waits for a FIFO."""
    spoil(tmp_path / "a.img")
    with sources, pytest.raises(SourceError):
        sources.fd("a")


def test_other_sources_go_on(sources: Sources, tmp_path: Path) -> None:
    """One vanished source does not touch the others."""
    (tmp_path / "a.img").unlink()
    with sources:
        assert b"b.img" == os.pread(sources.fd("b"), 5, 0)
        assert 200 == sources.look("b").size


def test_an_open_source_outlives_its_name(sources: Sources, tmp_path: Path) -> None:
    """A descriptor in use still reads the file that was checked."""
    with sources:
        fd = sources.fd("a")
        replaced(tmp_path / "a.img")
        assert b"a.img" == os.pread(sources.fd("a"), 5, 0)
        assert fd == sources.fd("a")


def test_sync_reaches_every_source(sources: Sources) -> None:
    """fsync of several sources succeeds on all of them."""
    with sources:
        os.pwrite(sources.fd("b"), b"x", 0)
        sources.sync(["a", "b"], data_only=False)
        sources.sync(["b"], data_only=True)


def test_inspect_sources_refuses_the_first_bad_one(tmp_path: Path, sources: Sources) -> None:
    """Facts of all sources, or a SourceError that names the one that is missing."""
    manifest = loads(TEXT, tmp_path / "m.yaml")
    assert ["a", "b", "pinned"] == sorted(inspect_sources(manifest))
    (tmp_path / "pinned.img").unlink()
    with pytest.raises(SourceError, match=r"pinned\.img does not exist"):
        inspect_sources(manifest)
