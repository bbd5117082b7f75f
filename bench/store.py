"""The bytes that everyone shows, in every layout that a subject wants. Knows nothing of who reads them."""

from __future__ import annotations

import mmap
import os
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.workloads import FILE_SIZE
from regionfs.modes.pages import POPULATE_READ


@dataclass(frozen=True)
class Layout:
    """The file cut into equal regions that lie in several sources in turn, so that no two can be joined."""

    name: str
    regions: int
    sources: int

    @property
    def region(self) -> int:
        """Bytes of one."""
        return FILE_SIZE // self.regions

    def source(self, region: int) -> str:
        """The name of the file that holds it."""
        return f"{self.name}{region % self.sources:02}.img"

    def manifest(self, access: str) -> list[dict[str, object]]:
        """The region list of a manifest."""
        return [{"length": self.region, "source": self.source(number), "offset": number // self.sources * self.region,
                 "access": access} for number in range(self.regions)]

    def write(self, flat: Path, directory: Path) -> None:
        """Copy the bytes of `flat` into the sources."""
        with flat.open("rb") as whole:
            parts = [(directory / self.source(number)).open("wb") for number in range(self.sources)]
            for number in range(self.regions):
                parts[number % self.sources].write(whole.read(self.region))
            for part in parts:
                part.close()


COARSE = Layout("source", 64, 8)
FINE = Layout("fine", 1024, 8)
PIECES = Layout("piece", 64, 64)  # a file for each region: for those who cannot begin inside of one


@dataclass(frozen=True)
class Store:
    """A directory with the bytes: `flat` as one file, and in the sources of each layout."""

    directory: Path
    size: int = FILE_SIZE  # layouts are of this size only

    @property
    def flat(self) -> Path:
        return self.directory / "plain" / "flat.img"

    def sources(self, layout: Layout) -> tuple[Path, ...]:
        """The files that a layout's regions lie in."""
        return tuple(self.directory / layout.source(number) for number in range(layout.sources))

    def fill(self, *layouts: Layout) -> None:
        """Write random bytes."""
        self.flat.parent.mkdir(parents=True)
        with open("/dev/urandom", "rb") as random, self.flat.open("wb") as flat:
            for _ in range(64):
                flat.write(random.read(self.size // 64))
        for layout in layouts:
            layout.write(self.flat, self.directory)


def trim(paths: Collection[Path], total: int) -> None:
    """Cut off what was written past the end of sources, which hold `total` bytes in equal parts."""
    size = total // len(paths)
    for path in paths:
        if path.stat().st_size > size:
            os.truncate(path, size)


def warm(paths: Iterable[Path], *, single_pages: bool) -> None:
    """Read every byte that is not in the page cache into it: in single pages, or as read-ahead does."""
    buffer = bytearray(1 << 20)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            if single_pages:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            while file.readinto(buffer):
                pass


@contextmanager
def hold(paths: Iterable[Path]) -> Iterator[None]:
    """What is in the page cache of these files stays there: this process maps all of it, and reads what is missing.

    A kernel may page out what nobody maps, even if it was read a second ago: DAMON's `pageout` with an `unmapped`
    filter does. What is mapped is not dropped by drop_caches or POSIX_FADV_DONTNEED either. Raises OSError, also
    before Linux 5.14.
    """
    with ExitStack() as stack:
        for path in paths:
            with path.open("rb") as file:
                held = stack.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            held.madvise(mmap.MADV_RANDOM)  # nothing is read ahead
            held.madvise(POPULATE_READ)
        yield
