"""Sources: opened late, kept open, and refused when they are not what the manifest was loaded with."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from regionfs.descriptors import Pool
from regionfs.errors import SourceError
from regionfs.manifest.load import loads
from regionfs.manifest.schema import Manifest
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


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - the descriptors, not paths


def numbered(directory: Path, count: int) -> Manifest:
    """Sources 0.img, 1.img, ... with their numbers in them; only the first is written."""
    lines = []
    for number in range(count):
        (directory / f"{number}.img").write_text(f"{number:03}")
        lines.append(f"  f{number}: {{whole: {number}.img, access: {'ro' if number else 'rw'}}}")
    return loads("\n".join(["regionfs: 1", "files:", *lines]), directory / "m.yaml")


def test_descriptors_open_late_and_stay(sources: Sources) -> None:
    """No descriptor before it is asked for; then the same one until close(), which closes it."""
    before = open_descriptors()
    with sources:
        fd = sources.fd("a")
        assert (fd, b"a.img") == (sources.fd("a"), os.pread(fd, 5, 0))
        del fd
    assert before == open_descriptors()


def test_a_descriptor_in_use_outlives_close(sources: Sources) -> None:
    """Who still refers to it may read from it; then it is closed."""
    before = open_descriptors()
    with sources:
        fd = sources.fd("a")
    assert b"a.img" == os.pread(fd, 5, 0)
    del fd
    assert before == open_descriptors()


def test_open_descriptors_are_bounded(tmp_path: Path) -> None:
    """Of 100 sources no more than the bound are open at once; what is written stays open."""
    manifest = numbered(tmp_path, 100)
    pool, before = Pool(10), open_descriptors()
    with Sources(manifest, pool=pool) as sources:
        written = sources.fd_to_write("0.img")
        for number in (*range(100), *range(100)):
            assert f"{number:03}".encode() == os.pread(sources.fd(f"{number}.img"), 3, 0)
            assert open_descriptors() - before <= 11
        assert written is sources.fd("0.img")
    assert 0 == len(pool)


def test_sources_that_may_be_written_and_are_only_read_are_bounded_too(tmp_path: Path) -> None:
    """Only what was written stays open."""
    for number in range(30):
        (tmp_path / f"{number}.img").write_bytes(b"%03d" % number)
    manifest = loads("regionfs: 1\nfiles:\n" + "".join(
        f"  f{number}: {{whole: {number}.img, access: rw}}\n" for number in range(30)), tmp_path / "disk.yaml")
    before = open_descriptors()
    with Sources(manifest, pool=Pool(10)) as sources:
        keys = [spec.sources[0] for spec in manifest.files.values()]
        assert b"000" == os.pread(sources.fd(keys[0]), 3, 0)
        written = sources.fd_to_write(keys[0])
        for number, key in [*enumerate(keys)] * 2:
            assert b"%03d" % number == os.pread(sources.fd(key), 3, 0)
            assert open_descriptors() - before <= 11
        assert written is sources.fd(keys[0])


def test_two_manifests_share_a_bound(tmp_path: Path) -> None:
    """As those before and after a reload do."""
    manifest = numbered(tmp_path, 20)
    pool, before = Pool(10), open_descriptors()
    with Sources(manifest, pool=pool) as old, Sources(manifest, pool=pool) as new:
        for number in range(1, 20):
            old.fd(f"{number}.img"), new.fd(f"{number}.img")
        assert 10 == open_descriptors() - before
        new.close()
        assert [b"001", b"019"] == [os.pread(old.fd(f"{number}.img"), 3, 0) for number in (1, 19)]


def test_a_replaced_source_is_refused_when_opened_again(tmp_path: Path) -> None:
    """What was closed for want of descriptors may not come back as another file."""
    with Sources(numbered(tmp_path, 4), pool=Pool(2)) as sources:
        sources.fd("1.img")
        replaced(tmp_path / "1.img")
        assert b"001" == os.pread(sources.fd("1.img"), 3, 0)
        sources.fd("2.img"), sources.fd("3.img")
        with pytest.raises(SourceError, match=r"1\.img was replaced"):
            sources.fd("1.img")


def test_threads_never_read_from_a_descriptor_of_another_file(tmp_path: Path) -> None:
    """Eight threads read 64 sources through 4 descriptors: always the bytes of the source they asked for."""
    wrong: list[object] = []
    with Sources(numbered(tmp_path, 64), pool=Pool(4)) as sources:
        def read(seed: int) -> None:
            choose = random.Random(seed)
            for _ in range(3000):
                number = choose.randrange(1, 64)
                try:
                    found = os.pread(sources.fd(f"{number}.img"), 3, 0)
                except OSError as error:
                    wrong.append(error)
                else:
                    wrong.extend([found] if found != f"{number:03}".encode() else [])
        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [] == wrong


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
    """A source is opened for reading only until something is written, which needs a rw region."""
    with sources:
        for key in "ab":
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.pwrite(sources.fd(key), b"x", 0)
        assert 1 == os.pwrite(sources.fd_to_write("b"), b"x", 0)
        assert b"x" == os.pread(sources.fd("b"), 1, 0)
        assert sources.fd("b") is sources.fd_to_write("b")
        with pytest.raises(OSError, match="a is only read"):
            sources.fd_to_write("a")


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


@pytest.mark.parametrize("looks", [0, 1, 2])
@pytest.mark.parametrize("what", TROUBLE)
def test_look_names_the_trouble(sources: Sources, tmp_path: Path, what: str, looks: int) -> None:
    """A source that cannot serve any more raises SourceError with path and reason, however often it was fine before."""
    key, spoil, message = TROUBLE[what]
    with sources:
        for _ in range(looks):
            sources.look(key)
        spoil(tmp_path / f"{key}.img")
        with pytest.raises(SourceError) as trouble:
            sources.look(key, 30 if key == "b" else 0)
    assert message in str(trouble.value)


def rewritten(path: Path) -> None:
    """Other bytes, as many, and the old mtime."""
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of some file systems is coarse
        path.write_bytes(bytes(before.st_size))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], None]] = {
    "longer": lambda path: os.truncate(path, 300),
    "rewritten": rewritten,
    "mode": lambda path: path.chmod(0o640),
    "time": lambda path: os.utime(path, ns=(1, 1)),
    "nothing": lambda path: None,
}


@pytest.mark.parametrize("what", CHANGES)
def test_every_look_tells_what_a_first_look_would(sources: Sources, tmp_path: Path, what: str) -> None:
    """A change after a look, and after many, is seen by the next: its facts are those of sources opened now."""
    for key in ("a", "b"):
        before = sources.look(key), sources.look(key)
        CHANGES[what](tmp_path / f"{key}.img")
        after = sources.look(key)
        assert inspect_sources(loads(TEXT, tmp_path / "m.yaml"))[key] == after == sources.look(key)
        assert (what == "nothing") == (after == before[0] == before[1])


def test_status_needs_no_descriptor(sources: Sources, tmp_path: Path) -> None:
    """What stat(2) says of the path until the source was opened; of the open file from then on."""
    with sources:
        before = open_descriptors()
        assert (200, before) == (sources.status("a").st_size, open_descriptors())
        sources.fd("a")
        replaced(tmp_path / "a.img")
        os.truncate(tmp_path / "a.img", 300)
        assert 200 == sources.status("a").st_size


@pytest.mark.parametrize("what", ["vanished", "replaced", "became a fifo"])
def test_status_is_of_the_source_or_of_nothing(sources: Sources, tmp_path: Path, what: str) -> None:
    """Another file at the path of a source that was not opened is not mistaken for it."""
    _, spoil, _ = TROUBLE[what]
    with sources:
        spoil(tmp_path / "a.img")
        with pytest.raises((SourceError, OSError)):
            sources.status("a")


def test_shrinking_within_what_the_map_needs_is_fine(sources: Sources, tmp_path: Path) -> None:
    """A source may lose bytes that no region shows, and those that another file shows."""
    with sources:
        os.truncate(tmp_path / "b.img", 20)
        assert 20 == sources.look("b", 20).size
        with pytest.raises(SourceError, match=r"b\.img shrank to 20 bytes; the map needs 30"):
            sources.look("b", 30)


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
        os.pwrite(sources.fd_to_write("b"), b"x", 0)
        sources.sync(["a", "b"], data_only=False)
        sources.sync(["b"], data_only=True)


def test_inspect_sources_refuses_the_first_bad_one(tmp_path: Path, sources: Sources) -> None:
    """Facts of all sources, or a SourceError that names the one that is missing."""
    manifest = loads(TEXT, tmp_path / "m.yaml")
    assert ["a", "b", "pinned"] == sorted(inspect_sources(manifest))
    (tmp_path / "pinned.img").unlink()
    with pytest.raises(SourceError, match=r"pinned\.img does not exist"):
        inspect_sources(manifest)
