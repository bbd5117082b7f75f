"""How each subject is started: a context manager that gives a View of the bytes, or raises MissingError.

Daemons run in their default settings, in the foreground, as children of this process. Knows nothing of workloads.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from bench.store import PIECES, Layout, Store
from bench.tools import MissingError, need, run
from tests.harness import REGIONFS, Mount
from tests.sweep import mounts_below

NUMBERS = itertools.count()


@dataclass(frozen=True)
class View:
    """Where a subject shows the bytes, the files it has them from, and the processes that serve them.

    Descendants of these processes are not named. `let_go`: have it map nothing of its sources any more.
    """

    path: Path
    sources: tuple[Path, ...]
    pids: tuple[int, ...] = ()
    let_go: Callable[[], object] = lambda: None


Start = Callable[[Store], AbstractContextManager[View]]


@contextlib.contextmanager
def plain(store: Store) -> Iterator[View]:
    """The file itself."""
    yield View(store.flat, (store.flat,))


@contextlib.contextmanager
def bind_mount(store: Store) -> Iterator[View]:
    """The directory of the file once more, by the kernel."""
    point = _new(store, "bind")
    point.mkdir()
    run("mount", "--bind", store.flat.parent, point)
    try:
        yield View(point / store.flat.name, (store.flat,))
    finally:
        run("umount", point)


def regionfs(layout: Layout | None, access: str, engine: str, modes: str) -> Start:
    """A regionfs mount of one file: the regions of `layout`, or the flat file as `whole`."""
    @contextlib.contextmanager
    def start(store: Store) -> Iterator[View]:
        file: dict[str, object] = {"whole": str(store.flat), "access": access}
        sources: tuple[Path, ...] = (store.flat,)
        if layout:
            file, sources = {"regions": layout.manifest(access)}, store.sources(layout)
        manifest = {"flat.img": file}
        with Mount(store.directory, manifest, engine=engine, options=("--modes", modes),
                   name=f"{engine}-{modes}-{next(NUMBERS)}") as mount:
            status = mount.status()
            mode = status["files"]["flat.img"]["mode"]
            if mode != modes:
                raise MissingError(f"served in mode {mode}")
            pids = (status["pid"], status.get("holder_pid") or status["pid"])
            yield View(mount.path / "flat.img", sources, pids, lambda: _forget_maps(mount))
    return start


def _forget_maps(mount: Mount) -> None:
    """What the native engine maps of its sources goes with its maps, which a reload has it forget."""
    if mount.engine == "native":
        mount.user.regionfs("reload", mount.path).check_returncode()


def over_directory(command: Callable[[Path, Path], Sequence[str | Path]], *, passthrough: bool = False) -> Start:
    """A daemon that shows the flat file's directory; `passthrough`: proved to leave reading to the kernel."""
    @contextlib.contextmanager
    def start(store: Store) -> Iterator[View]:
        point = _new(store, "peer")
        point.mkdir()
        with daemon(command(store.flat.parent, point), point) as process:
            path = point / store.flat.name
            if passthrough and not _reads_without(process, path):
                raise MissingError("its reads go to the daemon")
            yield View(path, (store.flat,), (process.pid,))
    return start


@contextlib.contextmanager
def nbdfuse(store: Store) -> Iterator[View]:
    """nbdkit's split plugin over a file for each region, mounted by nbdfuse."""
    for program in ("nbdfuse", "nbdkit"):
        need(program)
    point = _new(store, "nbdfuse")
    point.mkdir()
    path = point / "flat.img"
    pieces = store.sources(PIECES)
    with daemon(["nbdfuse", path, "[", "nbdkit", "--exit-with-parent", "split", *pieces, "]"], point) as process:
        yield View(path, pieces, (process.pid,))


@contextlib.contextmanager
def qemu(store: Store) -> Iterator[View]:
    """A VMDK of one flat extent for each region, written by regionfs, exported by qemu-storage-daemon."""
    need("qemu-storage-daemon")
    path, manifest, disk = (_new(store, "qemu", suffix) for suffix in ("", ".yaml", ".vmdk"))
    regions = "".join(f"      - {{source: {PIECES.source(number)}}}\n" for number in range(PIECES.regions))
    manifest.write_text(f"regionfs: 1\nfiles:\n  flat.img:\n    regions:\n{regions}")
    run(REGIONFS, "export", "vmdk", manifest, "flat.img", "-o", disk)
    path.touch()  # it is mounted over
    export = f"type=fuse,id=export,node-name=disk,mountpoint={path},writable=on"
    with daemon(["qemu-storage-daemon", "--blockdev", f"driver=file,filename={disk},node-name=text",
                 "--blockdev", "driver=vmdk,file=text,node-name=disk", "--export", export], path) as process:
        yield View(path, store.sources(PIECES), (process.pid,))


def tool(name: str, *options: str) -> Callable[[Path, Path], Sequence[str | Path]]:
    """The command of a tool that is on the PATH or missing."""
    def command(source: Path, point: Path) -> Sequence[str | Path]:
        need(name)
        return [name, *options, source, point]
    return command


def _new(store: Store, name: str, suffix: str = "") -> Path:
    """A path in the store that nobody has."""
    return store.directory / f"{name}-{next(NUMBERS)}{suffix}"


@contextlib.contextmanager
def daemon(command: Sequence[str | Path], point: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that mounts at `point` and unmounts when it is told to end."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               text=True)
    try:
        _wait_for_mount(point, process)
        yield process
    finally:
        process.terminate()
        try:
            process.communicate(timeout=20)
        finally:
            if mounts_below(point):
                subprocess.run(["umount", "-l", point], check=True)


def _wait_for_mount(point: Path, process: subprocess.Popen[str]) -> None:
    """Until something is mounted at `point`; the kernel signals changes of mountinfo as POLLPRI."""
    with open("/proc/self/mountinfo") as table, open(os.pidfd_open(process.pid)) as end:
        poll = select.poll()
        poll.register(table, select.POLLPRI)
        poll.register(end, select.POLLIN)
        while not mounts_below(point):
            if process.poll() is not None:
                assert process.stderr
                raise MissingError(process.stderr.read().strip() or f"ended with status {process.returncode}")
            poll.poll(1000)


def _reads_without(process: subprocess.Popen[str], path: Path) -> bool:
    """Whether what was never read before can be read while the daemon is stopped."""
    fd = os.open(path, os.O_RDONLY)
    with ThreadPoolExecutor(1) as pool:
        process.send_signal(signal.SIGSTOP)
        try:
            return len(pool.submit(os.pread, fd, 4096, 0).result(timeout=2)) == 4096
        except TimeoutError:
            return False
        finally:
            process.send_signal(signal.SIGCONT)
            pool.submit(os.close, fd)  # after the read
