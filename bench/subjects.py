"""Who is measured: one row per subject, each a way to see the same 64 regions of the same bytes.

A subject is started once per store and stays for the whole run; start() is a context manager that gives the
path to read and write, or raises MissingError. Knows nothing of workloads.

The bytes lie on a disk and, for those who hand O_DIRECT down to the file below, also in a tmpfs: so that
everyone's source is warm in every workload.
"""

from __future__ import annotations

import contextlib
import itertools
import select
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench import peers
from bench.workloads import FILE_SIZE
from tests.harness import Mount
from tests.sweep import mounts_below

REGIONS = 64
SOURCES = 8
REGION = FILE_SIZE // REGIONS
NUMBERS = itertools.count()


@dataclass(frozen=True)
class Store:
    """A directory with the bytes: `flat` as one file, and as SOURCES files that the regions lie in."""

    directory: Path

    @property
    def flat(self) -> Path:
        return self.directory / "plain" / "flat.img"

    def fill(self) -> None:
        """Write the bytes; neighbouring regions lie in different sources, so that none can be joined."""
        self.flat.parent.mkdir(parents=True)
        parts = [(self.directory / f"source{number}.img").open("wb") for number in range(SOURCES)]
        with open("/dev/urandom", "rb") as random, self.flat.open("wb") as flat:
            for region in range(REGIONS):
                data = random.read(REGION)
                flat.write(data)
                parts[region % SOURCES].write(data)
        for part in parts:
            part.close()

    def regions(self, access: str) -> list[dict[str, object]]:
        """The region list of a manifest."""
        return [{"length": REGION, "source": f"source{region % SOURCES}.img",
                 "offset": region // SOURCES * REGION, "access": access} for region in range(REGIONS)]


Start = Callable[[Store], AbstractContextManager[Path]]


@dataclass(frozen=True)
class Subject:
    """One column of the table."""

    name: str
    what: str          # a line for the README
    start: Start
    direct_store: str = "disk"  # where its bytes lie in O_DIRECT workloads; "disk" in all others
    baseline: str = "file"      # the subject that its ratios refer to
    writes: bool = True
    fresh: bool = False         # its cache can only be dropped by starting it anew


@contextlib.contextmanager
def plain(store: Store) -> Iterator[Path]:
    """The file itself."""
    yield store.flat


def regionfs(file: Callable[[Store], Mapping[str, object]], engine: str, modes: str) -> Start:
    """A regionfs mount of the one file that `file` describes, as a manifest would."""
    @contextlib.contextmanager
    def start(store: Store) -> Iterator[Path]:
        manifest = {"flat.img": file(store)}
        with Mount(store.directory, manifest, engine=engine, options=("--modes", modes),
                   name=f"{engine}-{modes}-{next(NUMBERS)}") as mount:
            mode = mount.status()["files"]["flat.img"]["mode"]
            if mode != modes:
                raise peers.MissingError(f"served in mode {mode}")
            yield mount.path / "flat.img"
    return start


def regions(store: Store) -> Mapping[str, object]:
    return {"regions": store.regions("rw")}


def regions_ro(store: Store) -> Mapping[str, object]:
    return {"regions": store.regions("ro")}


def whole(store: Store) -> Mapping[str, object]:
    return {"whole": str(store.flat), "access": "rw"}


def example(build: Callable[[], Path], arguments: Callable[[Path, Path], Sequence[str]]) -> Start:
    """One of libfuse's examples over the directory of the flat file, in its default settings."""
    @contextlib.contextmanager
    def start(store: Store) -> Iterator[Path]:
        program = build()
        point = store.directory / program.name
        point.mkdir()
        command = [str(program), *arguments(store.flat.parent, point)]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)
        try:
            _wait_for_mount(point, process)
            yield point / store.flat.name
        finally:
            process.terminate()
            process.communicate(timeout=20)
            if mounts_below(point):
                subprocess.run(["umount", "-l", point], check=True)
    return start


def _wait_for_mount(point: Path, process: subprocess.Popen[str]) -> None:
    """Until something is mounted at `point`; the kernel signals changes of mountinfo as POLLPRI."""
    with open("/proc/self/mountinfo") as table:
        poll = select.poll()
        poll.register(table, select.POLLPRI)
        while not mounts_below(point):
            if process.poll() is not None:
                assert process.stderr
                raise peers.MissingError(f"{point.name}: {process.stderr.read().strip()}")
            poll.poll(1000)


SUBJECTS = (
    Subject("file", "the file itself; with O_DIRECT this is the disk", plain),
    Subject("regionfs native", "64 regions, native engine, userspace mode",
            regionfs(regions, "native", "userspace")),
    Subject("regionfs pyfuse3", "64 regions, pyfuse3 engine, userspace mode",
            regionfs(regions, "pyfuse3", "userspace")),
    Subject("regionfs passthrough", "the file as `whole`", regionfs(whole, "native", "passthrough")),
    Subject("regionfs composed", "64 regions, read-only", regionfs(regions_ro, "native", "composed"),
            writes=False, fresh=True),
    Subject("passthrough_ll", "libfuse's C example over the file; with O_DIRECT over a tmpfs",
            example(peers.passthrough_ll, lambda source, point: ["-f", "-o", f"source={source}", str(point)]),
            direct_store="memory"),
    Subject("passthrough_hp", "libfuse's C++ example over the file; with O_DIRECT over a tmpfs",
            example(peers.passthrough_hp, lambda source, point: ["--foreground", str(source), str(point)]),
            direct_store="memory"),
)
