"""The process that serves a mount: joins manifest, sources, modes and file system, runs an engine.

Its main thread only waits for signals and the engine's end; the engine runs in threads of its own,
so that unmounting, which may wait for write-back, never waits for the thread that has to answer it.
"""

from __future__ import annotations

import logging
import os
import resource
import signal
import threading
from collections.abc import Callable
from typing import Any

from regionfs.daemon import runtime
from regionfs.daemon.config import MountConfig
from regionfs.daemon.control import ControlServer
from regionfs.errors import MountError, RegionfsError
from regionfs.fs import FileSystem
from regionfs.manifest.schema import Manifest
from regionfs.modes.choose import Ability, Kernel, Mode, choose_all
from regionfs.modes.probe import probe
from regionfs.source import Sources, inspect_sources
from regionfs.wire import device, mounts
from regionfs.wire.session import VersionError, Wanted

log = logging.getLogger("regionfs")

READ_AHEAD_KIB = 4096  # see bench/results: streaming through the page cache gains until here


class Daemon:
    """One mount from mount(2) to its end."""

    def __init__(self, config: MountConfig, manifest: Manifest) -> None:
        self.config = config
        self._manifest = manifest
        self._raise_limits()
        self._facts = inspect_sources(manifest)
        self._sources = Sources(manifest, self._facts)
        self.engine = ""
        self.fs: FileSystem
        self._wake_read, self._wake_write = os.pipe2(os.O_CLOEXEC)

    def run(self, ready: Callable[[], None]) -> None:
        """Mount, call `ready` when requests are being answered, serve until the mount is gone.

        Raises MountError before `ready` when it cannot be mounted; then nothing is left behind.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: os.write(self._wake_write, b"t"))
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        serve = self._mount()
        try:
            control = ControlServer(runtime.socket_of(self.config.mountpoint), {"status": self.status})
        except BaseException:
            device.unmount(str(self.config.mountpoint), lazy=True)
            raise
        try:
            engine = threading.Thread(target=self._serve, args=(serve,), name="engine")
            engine.start()
            self._raise_read_ahead()
            ready()
            self._wait()
            engine.join()
        finally:
            control.close()
            if mounts.find(self.config.mountpoint):  # the engine failed: leave no dead mount behind
                device.unmount(str(self.config.mountpoint), lazy=True)
            self._settle()

    def status(self, request: dict[str, Any]) -> dict[str, Any]:
        """The mount's entry of `status --json`, DESIGN section 8."""
        files = {}
        for path, node in self.fs.tree.files.items():
            counters = node.counters
            files[path] = {
                "mode": node.choice.mode.value, "reason": node.choice.reason,
                "size": self.fs.size(node), "opens": sum(counters.opens.values()),
                "opens_by_mode": {mode.value: count for mode, count in counters.opens.items() if count},
                "reads": counters.reads, "read_bytes": counters.read_bytes,
                "writes": counters.writes, "write_bytes": counters.write_bytes,
            }
        return {"mountpoint": str(self.config.mountpoint), "manifest": str(self.config.manifest),
                "engine": self.engine, "pid": os.getpid(), "holder_pid": os.getpid(), "restarts": 0, "files": files}

    def _mount(self) -> Callable[[], None]:
        """Mount by the engine asked for; what it returns serves until the end."""
        if self.config.engine != "pyfuse3":
            try:
                return self._mount_native()
            except VersionError as error:
                if self.config.engine == "native":
                    raise
                log.warning("the native engine cannot serve here (%s); pyfuse3 does", error)
        return self._mount_pyfuse()

    def _mount_native(self) -> Callable[[], None]:
        from regionfs.serve.native import Server, handshake
        mountpoint = str(self.config.mountpoint)
        fd = device.mount(mountpoint, self.config.options)
        try:
            wanted = Wanted(max_write=self.config.options.max_read,
                            passthrough=Mode.PASSTHROUGH in self.config.modes or Mode.COMPOSED in self.config.modes)
            negotiated = handshake(fd, wanted)
            self.fs = self._file_system(probe(device.Registry(fd).trial))
        except BaseException:
            device.unmount(mountpoint, lazy=True)
            raise
        self.engine = "native"
        return Server(self.fs, fd, negotiated).run

    def _mount_pyfuse(self) -> Callable[[], None]:
        from regionfs.serve import pyfuse
        none = Ability(False, "the pyfuse3 engine serves in userspace only", "--engine native")
        self.fs = self._file_system(Kernel(none, none, none))
        # libfuse sets max_read itself
        words = {word for word in self.config.options.words() if not word.startswith("max_read")}
        try:
            pyfuse.mount(self.fs, str(self.config.mountpoint), words)
        except RuntimeError as error:  # libfuse has told stderr why
            raise MountError(f"cannot mount on {self.config.mountpoint}: {error}") from error
        self.engine = "pyfuse3"
        return pyfuse.run

    def _file_system(self, kernel: Kernel) -> FileSystem:
        """The manifest's files over this machine's abilities."""
        choices = choose_all(self._manifest, self._facts, kernel, self.config.modes)
        return FileSystem(self._manifest, self._sources, choices)

    def _serve(self, serve: Callable[[], None]) -> None:
        try:
            serve()
        except BaseException:
            log.exception("the engine failed")
        finally:
            os.write(self._wake_write, b"e")

    def _wait(self) -> None:
        """Return when the engine has ended; SIGTERM and SIGINT unmount, and unmount at once when repeated."""
        asked = 0
        while os.read(self._wake_read, 1) != b"e":
            asked += 1
            try:
                device.unmount(str(self.config.mountpoint), lazy=asked > 1)
            except RegionfsError as error:
                log.warning("%s; files still open keep being served until they are closed", error)
                device.unmount(str(self.config.mountpoint), lazy=True)

    def _settle(self) -> None:
        """Everything written is on its disks before the process ends."""
        try:
            self.fs.sync()
        except OSError as error:
            log.error("flushing the sources at the end: %s", error)
        self._sources.close()

    def _raise_read_ahead(self) -> None:
        if mount := mounts.find(self.config.mountpoint):
            mounts.raise_readahead(mount.device, READ_AHEAD_KIB)

    def _raise_limits(self) -> None:
        """As many descriptors as we may have: a source each."""
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
