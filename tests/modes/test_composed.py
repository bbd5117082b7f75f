"""Composed mode for real: detached mounts of images, read back and compared with the byte oracle."""

from __future__ import annotations

import errno
import fcntl
import gc
import mmap
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from regionfs import execute, readahead
from regionfs.errors import SourceError
from regionfs.manifest.load import loads
from regionfs.modes import composed
from regionfs.modes.choose import Ability, Kernel, Mode, choose
from regionfs.modes.composed import ComposeError, compose, image_directory
from regionfs.modes.geometry import measure
from regionfs.modes.probe import probe_composed
from regionfs.regions import Kind, Region, RegionMap
from regionfs.source import Sources, inspect_sources
from tests.cases import Case, manifest_text, random_case
from tests.oracle import Declared, Model, Source

YES = Ability(True, "")
CAN = Kernel(YES, YES, YES)
WANTED = 120  # maps of each flavour that must have been composed
CHUNK = 20

pytestmark = pytest.mark.mounted


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A directory that can hold images; without one the probe's reason is the skip's."""
    directory = tmp_path / "images"
    directory.mkdir(mode=0o700)
    ability = probe_composed([directory])
    if not ability.available:
        pytest.skip(f"composed: {ability.reason}; {ability.remedy}")
    return directory


@pytest.fixture(autouse=True)
def nothing_is_left(images: Path) -> Iterator[None]:
    """No descriptor, mount or image stays behind, however a test ends."""
    gc.collect()  # what tests before left to be collected
    before = descriptors()
    yield
    assert before == descriptors()
    assert [] == list(images.iterdir())
    assert str(images) not in Path("/proc/self/mountinfo").read_text()


def descriptors() -> dict[str, str]:
    """What this process has open, by number; not the listing itself."""
    return {entry.name: str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()}


def composed_bytes(regions: RegionMap, sources: Sources, images: Path) -> bytes:
    """All bytes of the composed file, and one more asked for."""
    def read(offset: int, length: int) -> bytes:
        buffer = bytearray(length)
        count = execute.read_into(regions, sources, offset, memoryview(buffer))
        return bytes(buffer[:count])

    fd = compose(regions, {key: sources.fd(key) for key in regions.names}, read, images)
    try:
        assert regions.size == os.fstat(fd).st_size
        return b"".join(iter(lambda: os.read(fd, 1 << 20), b""))
    finally:
        os.close(fd)


def compose_case(case: Case, images: Path) -> int:
    """Compose every file of the case that can be; how many there were."""
    case.put()
    manifest = loads(manifest_text([case]), case.directory / "m.yaml")
    facts = inspect_sources(manifest)
    done = 0
    with Sources(manifest, facts) as sources:
        for file in case.files:
            spec = manifest.files[file.path]
            if choose(spec, facts, CAN, (Mode.COMPOSED,)).mode is Mode.COMPOSED:
                assert file.model.read(0, file.model.size) == composed_bytes(spec.regions, sources, images)
                done += 1
    return done


@pytest.mark.parametrize("flavour", ["aligned512", "aligned4096"])
@pytest.mark.parametrize("first", range(0, WANTED, CHUNK))
def test_random_maps(tmp_path: Path, images: Path, flavour: str, first: int) -> None:
    """120 eligible random maps at 512 and at 4096 bytes, tails and inline data included, equal the oracle."""
    done, seed = 0, first * 1000
    while done < CHUNK:
        done += compose_case(random_case(seed, tmp_path, flavour), images)
        seed += 1


def test_a_thousand_regions_over_fifty_sources(tmp_path: Path, images: Path) -> None:
    """1,000 regions of 50 sources, borders on 512 bytes, with holes between them."""
    rng = Random(3)
    case = Case(3, "many", tmp_path)
    for number in range(50):
        case.sources.append(Source(f"s{number}", tmp_path / f"s{number}", bytearray(rng.randbytes(30_000))))
    case.put()
    regions: list[Region] = []
    declared: list[Declared] = []
    end = 0
    for _ in range(1000):
        start, source = end + 512 * rng.randint(0, 2), rng.choice(case.sources)
        offset, length = 512 * rng.randrange(50), 512 * rng.randint(1, 7)
        regions.append(Region(start, start + length, Kind.SOURCE, source.key, shift=offset - start))
        declared.append(Declared(start, length, "source", source, offset))
        end = start + length
    whole = RegionMap(end, regions)
    assert (1000, 50) == (len(whole), len(whole.names))
    fds = {source.key: os.open(source.path, os.O_RDONLY) for source in case.sources}
    fd = compose(whole, fds, no_bytes, images)
    close(*fds.values())
    try:
        assert Model(end, declared).read(0, end) == os.pread(fd, end, 0)
    finally:
        os.close(fd)


def test_the_kernel_reads_far_ahead_on_a_composed_file(images: Path) -> None:
    """As on the mount itself: EROFS begins with 128 KiB, and leaves pages in small folios."""
    before = readahead.names()
    with tempfile.TemporaryFile() as source:
        source.write(bytes(8192))
        source.flush()
        regions = RegionMap(8192, [Region(0, 8192, Kind.SOURCE, source="s", shift=0)])
        fd = compose(regions, {"s": source.fileno()}, no_bytes, images)
    try:
        new = readahead.names() - before
        assert [f"{readahead.READ_AHEAD_KIB}\n"] == [
            (readahead.BDI / name / "read_ahead_kb").read_text() for name in new if name.startswith("erofs-")]
    finally:
        os.close(fd)


def no_bytes(offset: int, length: int) -> bytes:
    """For a map of which nothing is copied."""
    raise AssertionError(f"asked for {length} bytes at {offset}")


def close(*fds: int) -> None:
    for fd in fds:
        os.close(fd)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    """A source of 64 KiB, open to read."""
    path = tmp_path / "source"
    path.write_bytes(Random(1).randbytes(65536))
    fd = os.open(path, os.O_RDONLY)
    yield fd
    os.close(fd)


def shown(length: int, offset: int = 0) -> RegionMap:
    """A file of one region."""
    return RegionMap(length, [Region(0, length, Kind.SOURCE, "s", shift=offset)])


def test_the_file_is_what_a_backing_file_must_be(source: int, images: Path) -> None:
    """A read-only, close-on-exec descriptor of a regular file that cannot be opened for writing."""
    fd = compose(shown(8192, 4096), {"s": source}, no_bytes, images)
    try:
        assert stat.S_ISREG(os.fstat(fd).st_mode)
        assert (False, os.O_RDONLY) == (os.get_inheritable(fd), fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE)
        with pytest.raises(OSError) as caught:
            os.open(f"/proc/self/fd/{fd}", os.O_RDWR)
        assert errno.EROFS == caught.value.errno
    finally:
        os.close(fd)


def test_sources_may_lose_their_name(tmp_path: Path, source: int, images: Path) -> None:
    """The mount keeps the files themselves: unlinked and closed, they still show their bytes."""
    mine = os.dup(source)
    (tmp_path / "source").unlink()
    fd = compose(shown(65536), {"s": mine}, no_bytes, images)
    os.close(mine)
    try:
        assert Random(1).randbytes(65536) == os.pread(fd, 65536, 0)
    finally:
        os.close(fd)


def test_nothing_shows_behind_the_end(source: int, images: Path) -> None:
    """The page that a mapping shows behind the end is zeros, though the source goes on there."""
    regions = shown(5000)
    fd = compose(regions, {"s": source}, lambda offset, length: os.pread(source, length, offset), images)
    try:
        with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as memory:
            assert os.pread(source, 5000, 0) == memory[:]
    finally:
        os.close(fd)


def test_a_source_that_shrank_is_an_error(tmp_path: Path, source: int, images: Path) -> None:
    """Bytes that are gone are EIO, not zeros."""
    fd = compose(shown(65536), {"s": source}, no_bytes, images)
    os.truncate(tmp_path / "source", 4096)
    try:
        with pytest.raises(OSError) as caught:
            os.pread(fd, 4096, 32768)
        assert errno.EIO == caught.value.errno
    finally:
        os.close(fd)


@pytest.fixture
def memory() -> Path:
    """A directory on tmpfs."""
    if not os.path.ismount("/dev/shm"):
        pytest.skip("no tmpfs at /dev/shm")
    return Path("/dev/shm")


def test_an_image_on_tmpfs_is_refused(source: int, memory: Path) -> None:
    """Where the kernel takes no image, the error carries its errno."""
    with pytest.raises(ComposeError) as caught:
        compose(shown(4096), {"s": source}, no_bytes, memory)
    assert errno.ENOTBLK == caught.value.code
    assert "fsconfig: Block device required" == str(caught.value)


def test_a_source_on_tmpfs_is_shown_or_refused(images: Path, memory: Path) -> None:
    """Linux 6.18 composes over tmpfs too; where a kernel does not, the error is a ComposeError."""
    with tempfile.TemporaryFile(dir=memory) as file:
        file.write(Random(2).randbytes(8192))
        file.flush()
        try:
            fd = compose(shown(8192), {"s": file.fileno()}, no_bytes, images)
        except ComposeError:
            return
        try:
            assert Random(2).randbytes(8192) == os.pread(fd, 8192, 0)
        finally:
            os.close(fd)


def test_what_is_no_regular_file_is_refused(images: Path) -> None:
    """A device or directory as a source is the kernel's EINVAL."""
    for path in ("/dev/null", str(images)):
        fd = os.open(path, os.O_RDONLY)
        try:
            with pytest.raises(ComposeError) as caught:
                compose(shown(4096), {"s": fd}, no_bytes, images)
            assert errno.EINVAL == caught.value.code
        finally:
            os.close(fd)


def test_the_kernel_says_why() -> None:
    """What the context of the file system has to say is in the error; EROFS 6.18 says most in dmesg only."""
    with pytest.raises(ComposeError) as caught, composed.context() as erofs:
        composed.configure(erofs, composed.SET_STRING, b"colour", b"blue")
    assert "fsconfig: Invalid argument (erofs: Unknown parameter 'colour')" == str(caught.value)


def test_an_image_that_is_none_is_refused(source: int, images: Path) -> None:
    """Zeros are no superblock."""
    with tempfile.TemporaryFile(dir=images) as zeros:
        zeros.truncate(8192)
        with pytest.raises(ComposeError) as caught:
            composed.mount(zeros.fileno(), [source])
    assert errno.EINVAL == caught.value.code


def test_too_large_an_index_is_refused(source: int, images: Path) -> None:
    """The limit is met before anything is written."""
    regions = RegionMap(1 << 54, [Region(0, 4096, Kind.SOURCE, "s")])
    with pytest.raises(ComposeError) as caught:
        compose(regions, {"s": source}, no_bytes, images)
    assert measure(regions).objection == str(caught.value)
    assert "over the limit of 64 MiB" in str(caught.value)


def test_a_short_read_is_refused(source: int, images: Path) -> None:
    """A source that cannot give the copied bytes ends it without a trace."""
    with pytest.raises(SourceError):
        compose(shown(5000), {"s": source}, lambda offset, length: b"", images)


def test_an_error_of_a_source_is_its_own(source: int, images: Path) -> None:
    """What fails while a source is read is not blamed on the image's directory."""
    def read(offset: int, length: int) -> bytes:
        raise OSError(errno.EIO, "bad disk")

    with pytest.raises(OSError, match="bad disk"):
        compose(shown(5000), {"s": source}, read, images)


def test_a_missing_directory_is_refused(source: int, images: Path) -> None:
    """The message names the directory."""
    with pytest.raises(ComposeError) as caught:
        compose(shown(4096), {"s": source}, no_bytes, images / "none")
    assert (errno.ENOENT, f"{images / 'none'} holds no image: No such file or directory") == (
        caught.value.code, str(caught.value))


def test_the_first_directory_that_can_is_taken(images: Path, memory: Path) -> None:
    """A missing directory or one in memory is passed over."""
    assert images == image_directory([images / "none", memory, images])
    with pytest.raises(ComposeError, match="No such file or directory"):
        image_directory([images / "none", memory])
