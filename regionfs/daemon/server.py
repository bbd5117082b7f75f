"""The server: the process that answers a mount's requests, started by the holder and again if it dies.

It joins manifest, sources, modes and file system, runs an engine in threads of its own, and listens
to the holder in its main thread. What must outlive it stands in the ledger and the store.
"""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regionfs.capabilities import Capability
from regionfs.daemon import control, failure, harden, heart, history, logs, memory, rivals, runtime
from regionfs.daemon.config import MountConfig
from regionfs.daemon.health import Health
from regionfs.daemon.link import Link
from regionfs.daemon.reload import Difference, all_names, build, compare, generations, stale_names
from regionfs.daemon.state import Snapshot, Store
from regionfs.daemon.teller import Teller
from regionfs.errors import MountError, RegionfsError
from regionfs.fs import FileSystem
from regionfs.index import Index
from regionfs.inodes import directories_of, files_of
from regionfs.manifest.schema import Manifest
from regionfs.modes.choose import Ability, Choice, Kernel, Mode, choose_all
from regionfs.modes.loop import attach_loops
from regionfs.modes.probe import probe, probe_iomap
from regionfs.serve.threads import begin, insist
from regionfs.source import inspect_sources
from regionfs.wire import device, mounts
from regionfs.wire.session import Negotiated

if TYPE_CHECKING:
    from regionfs.serve.native import Server as Native

log = logging.getLogger("regionfs")

ANSWERS = 32  # requests answered at once; the others wait with the holder
INSIDE = "lies inside this very mount, of {}: nothing can be made of itself"


class Server:
    """One life of the process that serves a mount."""

    def __init__(self, link: Link, config: MountConfig, told: Callable[[Path], None], flusher: bool) -> None:
        """`told` is called after each change of a file that keeps our state. `flusher`: we are one, see harden."""
        self._flusher = flusher
        self._link = link
        self._config = config
        self._store = Store(runtime.stem_of(*config.name), told)
        self._native: Native | None = None
        self._kernel: Callable[[], Kernel]
        self._loops: list[Path] = []       # devices attached for sources
        self._history: history.History     # of the manifest that was read last
        self.fs: FileSystem
        self._health: Health
        self._reloading = threading.Lock()  # one at a time
        self._places = threading.Semaphore(ANSWERS)

    def run(self) -> None:
        """Load, report, serve as the holder says, until the mount or the holder is gone."""
        found = self._store.load()
        index, snapshot = found or (None, self._read(self._config.manifest, self._config.device))
        self._loops = [spec.device for spec in snapshot.manifest.sources.values() if spec.device is not None]
        if found and snapshot.manifest.path != self._config.manifest:  # of a reload, before the holder was replaced
            self._link.send({"manifest": str(snapshot.manifest.path)})
        self._link.send({"loaded": True})
        message = self._link.receive()
        if message is None:
            return
        words, fds = message
        serve = self._start(words, fds, index, snapshot)
        insist(self._serve, serve, name="engine")
        if index is None:
            rivals.announce(self._config.name, rivals.written(snapshot.manifest, snapshot.facts))
        self._link.send({"ready": True, "serves": self.serves() if index is None else {}})
        if self._native is not None and not self.fs.index.told:
            begin(self._tell_again, self._native, name="teller")
        for note in self._notes():
            log.warning("%s", note)
        self._listen()

    # start

    def _read(self, path: Path, own: int) -> Snapshot:
        """A manifest and its sources as they are. ManifestError, SourceError, MountError.

        `own` is the st_dev of the mount, 0 before there is one: a call on what lies in there would wait for us.
        """
        from regionfs.manifest.load import load
        confine, inside = self._config.confine, mounts.ways_into(own) if own else lambda path: False
        manifest = load(path if confine is None or inside(path) else path.parent.resolve() / path.name, confine=confine,
                        avoid=lambda path: INSIDE.format(self._config.mountpoint) if inside(path) else "")
        self._check_sources(manifest)
        manifest = self._with_loops(manifest)
        facts = inspect_sources(manifest)
        self._history = history.read(self._config.mountpoint, manifest, facts)
        return Snapshot(manifest, facts, time.time_ns(), since=self._history.since)

    def _with_loops(self, manifest: Manifest) -> Manifest:
        """Loop devices where sources ask for them and iomap can use them; the holder keeps them attached."""
        wanted = self._config.wants_iomap and any(spec.loop for spec in manifest.sources.values())
        if not wanted or self._config.engine == "pyfuse3" or not probe_iomap().available:
            return manifest
        manifest, kept = attach_loops(manifest, self._loops)
        self._loops += [spec.device for spec in manifest.sources.values() if spec.device is not None]
        for fd in kept:
            self._link.send({"keep": True}, [fd])
            os.close(fd)
        return manifest

    def _check_sources(self, manifest: Manifest) -> None:
        point = self._config.mountpoint
        for spec in manifest.sources.values():
            if spec.path.resolve().is_relative_to(point):
                raise MountError(f"source {spec.path} lies inside the mount point {point}, "
                                 "where the mount would hide it")

    def _start(self, words: dict[str, Any], fds: list[int], index: Index | None,
               snapshot: Snapshot) -> Callable[[], None]:
        """Make the file system and the engine; what it returns serves until the end. No index: no predecessor."""
        if words["engine"] == "pyfuse3":
            none = Ability(False, "the pyfuse3 engine serves in userspace only", "--engine native")
            self._kernel = lambda: Kernel(none, none, none)
            self._make_fs(Index(), self._decided(snapshot))
            self._history.write()
            return self._mount_pyfuse()
        from regionfs.serve.ledger import Ledger
        from regionfs.serve.native import Server as Native
        fd, negotiated = fds[0], Negotiated.from_values(words["negotiated"])
        # a holder of an older version leaves the ledger to us
        ledger = fds[1] if len(fds) > 1 else runtime.ledger_of(*self._config.name)

        def trial(source: int) -> None:
            if not negotiated.passthrough:
                raise OSError(errno.EOPNOTSUPP, "the kernel did not grant passthrough")
            device.Registry(fd).trial(source)

        self._kernel = cache(lambda: _abilities(negotiated, trial))
        if index is None:
            index = Index.begin(self._config.generation)
            snapshot = self._decided(snapshot)
            self._store.add(index.snapshot, snapshot)
            self._history.write()
        self._make_fs(index, snapshot)
        self._native = native = Native(self.fs, fd, negotiated, Ledger(ledger), leaving=fds[2:],
                                       before_first=self._raise_read_ahead, poll=self._config.poll)
        self.fs.knows = native.forget_attributes  # which says so
        self.fs.persist = self._store.write
        self.fs.persist(index)
        self._store.revive(self.fs)
        self.fs.on_change = lambda: self._store.close_unused(self.fs.tree)
        return lambda: native.run(resume=words["resume"])

    def _make_fs(self, index: Index, snapshot: Snapshot) -> None:
        fallbacks = {path: Choice(Mode.USERSPACE, why) for path, why in index.fallbacks.items()}
        self.fs = FileSystem(snapshot.manifest, self._store.sources(index.snapshot, snapshot),
                             snapshot.choices | fallbacks, {**snapshot.generations, **index.renewed}, snapshot.loaded,
                             snapshot.since)
        self.fs.index = index
        self._health = Health(self.fs)
        self.fs.userspace = Mode.USERSPACE in self._config.modes

    def _decided(self, snapshot: Snapshot) -> Snapshot:
        """A manifest that was just read, with the modes of its files; they are all of the mount's first generation."""
        first = self._config.generation
        return replace(snapshot, choices=self._choices(snapshot),
                       generations=dict.fromkeys(snapshot.manifest.files, first) if first else {})

    def _choices(self, snapshot: Snapshot) -> dict[str, Choice]:
        return choose_all(snapshot.manifest, snapshot.facts, self._kernel(), self._config.modes)

    def _mount_pyfuse(self) -> Callable[[], None]:
        from regionfs.serve import pyfuse
        # libfuse sets max_read itself
        words = {word for word in self._config.options.words() if not word.startswith("max_read")}
        try:
            pyfuse.mount(self.fs, str(self._config.mountpoint), words)
        except RuntimeError as error:  # libfuse has told stderr why
            raise MountError(f"cannot mount on {self._config.mountpoint}: {error}") from error
        return pyfuse.run

    def _raise_read_ahead(self) -> None:
        """Again once iomap is in use: it gives the mount a new backing device."""
        if mount := mounts.find(self._config.mountpoint):
            mounts.raise_readahead(mount.device)

    # life

    def _serve(self, serve: Callable[[], None]) -> None:
        """Run the engine; when the mount is gone, put everything on disk and end the process."""
        status = 0
        try:
            serve()
            self._link.send({"ended": True})
        except BaseException:
            log.exception("the engine failed")
            status = 1
        self._flush()
        os._exit(status)

    def _flush(self) -> None:
        """Everything that was written is on its disks, or the log says why not."""
        try:
            self.fs.sync()
        except OSError as error:
            log.error("flushing the sources at the end: %s", error)

    def _listen(self) -> None:
        """Answer what the holder passes on. Without a holder nobody keeps the mount: flush and end."""
        while (message := self._link.receive()) is not None:
            self._places.acquire()
            if not begin(self._answer, *message, name="answer"):
                self._answer(*message)
        log.error("the holder is gone; the mount ends")
        self._flush()
        os._exit(1)

    def _answer(self, words: dict[str, Any], fds: list[int]) -> None:
        """Tell the client whose connection came along, or the log where a signal asked."""
        try:
            answer = self._commands[words["command"]](self, words)
        except (RegionfsError, OSError) as error:
            answer = failure.describe(error)
        except Exception as error:  # a bug of ours: the client shall not wait in vain
            log.exception("answering %s", words["command"])
            answer = failure.describe(error)
        for client in fds:
            control.reply(client, answer)
        if not fds and "error" in answer:
            log.error("%s", failure.for_log(answer))
        self._places.release()

    def serves(self) -> dict[str, Any]:
        """What to tell who mounts: {"modes": {mode: files}, "warnings": [sentence]}."""
        return {"modes": Counter(node.choice.mode.value for node in list(self.fs.tree.files.values())),
                "warnings": rivals.warnings(self._config.name)}

    def status(self, words: dict[str, Any]) -> dict[str, Any]:
        """The mount's entry of `status --json`, docs/contract.md section 8; `words` bring what the holder knows."""
        if self._native:
            self._native.count()
        files = {}
        nodes = dict(self.fs.tree.files)
        health = self._health.examine(nodes.values())
        for path, node in nodes.items():
            counters, found = node.counters, health[node.ino]
            files[path] = {
                "mode": node.choice.mode.value, "reason": node.choice.reason, "trouble": found.trouble,
                "size": found.size, "opens": sum(counters.opens.values()),
                "opens_by_mode": {mode.value: count for mode, count in counters.opens.items() if count},
                "reads": counters.reads, "read_bytes": counters.read_bytes,
                "writes": counters.writes, "write_bytes": counters.write_bytes,
            }
        return {**words["holder"], "pid": os.getpid(), "backing_ids": self._native.backing_ids if self._native else 0,
                "retired": len(self.fs.tree.retired()), "notes": self._notes(), "files": files}

    def _notes(self) -> list[str]:
        """What may go wrong in this mount, and what would help."""
        writes = any(node.spec.writable for node in list(self.fs.tree.files.values()))
        slow = [f"{harden.NO_FLUSHER}; {harden.FLUSHER_REMEDY}"] if writes and not self._flusher else []
        return slow + rivals.warnings(self._config.name)

    def reload(self, words: dict[str, Any]) -> dict[str, Any]:
        """Read the manifest, or another one, again: all or nothing. With `dry_run` only say what would change."""
        if self._native is None:
            raise MountError("the pyfuse3 engine cannot reload; unmount and mount again")
        with self._reloading:
            snapshot = self._read(Path(words["manifest"]), words["holder"].get("device", 0))
            choices = self._choices(snapshot)
            with self.fs.changing:
                difference = compare(self.fs, snapshot.manifest, snapshot.facts, choices)
                writes = rivals.written(snapshot.manifest, snapshot.facts)
                if words["dry_run"]:
                    return {**difference.describe(), "warnings": rivals.warnings(self._config.name, writes)}
                names = self._put(replace(snapshot, choices=choices), difference)
            self._history.write()
            rivals.announce(self._config.name, writes)
            self._link.send({"manifest": words["manifest"]})
            self._tell(self._native, names)
        log.info("%s: %d files added, %d removed, %d changed", words["manifest"], len(difference.added),
                 len(difference.removed), len(difference.changed))
        return {**difference.describe(), "warnings": rivals.warnings(self._config.name)}

    def _put(self, snapshot: Snapshot, difference: Difference) -> list[tuple[int, bytes]]:
        """Serve another manifest from now on; names that the kernel must look up again. OSError: nothing changed."""
        fs, number = self.fs, self.fs.index.given + 1
        snapshot = replace(snapshot, generations=generations(fs, difference, number))
        self._store.add(number, snapshot)
        sources = self._store.sources(number, snapshot)
        try:
            tree = build(fs, snapshot.manifest, sources, snapshot.choices, snapshot.generations, difference,
                         snapshot.since)
            nameless = tree.retired()
            names = stale_names(fs.tree, tree) if fs.index.told else all_names(tree)
            fs.swap(tree, fs.index.reload(files_of(nameless), directories_of(nameless)))
        finally:  # the new ones, or those from before
            self._store.close_unused(fs.tree)
            self._store.clear(fs.index)
        for path in difference.unchanged:
            tree.files[path].choice = snapshot.choices[path]
        fs.sweep()
        return names

    def _tell(self, native: Native, names: list[tuple[int, bytes]]) -> None:
        """Have the kernel ask again for names, and for attributes that it kept while nothing wrote the source."""
        for parent, name in names:
            native.forget_name(parent, name)
        for ino in self.fs.followers():
            native.forget_attributes(ino)
        self.fs.told()

    def _tell_again(self, native: Native) -> None:
        """A server died over it."""
        with self._reloading:
            if not self.fs.index.told:
                self._tell(native, all_names(self.fs.tree))

    def sync(self, _: dict[str, Any]) -> dict[str, Any]:
        """Put on disk what was written; whether the mount is still there, here or elsewhere."""
        self.fs.sync()
        return {"serving": any(map(device.is_connected, device.descriptors()))}

    _commands = {"status": status, "sync": sync, "reload": reload}  # noqa: RUF012  # a constant table


def _abilities(negotiated: Negotiated, trial: Callable[[int], None]) -> Kernel:
    """What this connection can do. With iomap passthrough is tried later: one may exclude the other."""
    if negotiated.iomap:
        return probe()
    kernel = probe(trial)
    if kernel.iomap.available:
        return replace(kernel, iomap=Ability(False, "the kernel did not grant fuse-iomap to this mount"))
    return kernel


def _needed(config: MountConfig) -> frozenset[Capability]:
    """What a server of this mount does that an ordinary process may not."""
    kernel = config.wants_backing or config.engine != "native"  # libfuse mounts in this process
    return harden.ALWAYS | (harden.KERNEL if kernel else frozenset()) | (
        harden.IOMAP if config.wants_iomap else frozenset())


def main() -> None:
    """`python -m regionfs.daemon.server LINK-FD`, as the holder starts it; the line tells what to serve, and when."""
    memory.settle()
    link = Link.adopt(int(sys.argv[1]))
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the holder hears them
    from regionfs.serve import native  # noqa: F401  # who stands by has everything at hand
    message = link.receive()
    if message is None:
        return
    config = MountConfig.from_json(message[0]["serve"])
    logs.begin(config.log_level, logs.FILE_FORMAT)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a descriptor for each source
    try:
        flusher = harden.become_flusher()
        harden.give_up(_needed(config))
        if (beating := heart.beat()) is not None:
            link.send({"heart": True}, [beating])
            os.close(beating)
        else:
            link.send({"heart": False})
        told = Teller(link).tell if message[0].get("keeps_state") else lambda path: None
        Server(link, config, told, flusher).run()
    except (RegionfsError, OSError) as error:
        link.send({"failed": failure.describe(error)})
        raise SystemExit(1) from error


if __name__ == "__main__":
    main()
