"""The holder: the process that keeps a mount alive. It does almost nothing, so that it does not fail.

It owns the descriptor of /dev/fuse and the control socket, and starts a server that answers
requests. When the server dies it starts another, which takes over (serve.ledger, daemon.state); no
application notices. While none can be started it answers every request with EIO itself. It ends
when the mount is gone.

    starting --loaded: mount, handshake--> serving --server died--> waiting --backoff--> serving
        |                                                             |  ^
        failed: tell the caller, leave nothing                 failed: |  | retry, or reload
                                                                       v  |
                                                                      broken (EIO, reason in status)

One thread with a selector; only unmounting, which may wait for a server's write-back, has its own.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from regionfs.daemon import control, failure, logs, runtime
from regionfs.daemon.broken import Broken
from regionfs.daemon.config import MountConfig
from regionfs.daemon.link import Link
from regionfs.errors import MountError, RegionfsError
from regionfs.modes.probe import probe_iomap
from regionfs.serve.handshake import handshake
from regionfs.wire import device, mounts
from regionfs.wire.session import Negotiated, VersionError, Wanted

log = logging.getLogger("regionfs")

QUICK = 0.1            # seconds; a server that served for less makes the next one wait longer
LONGEST_WAIT = 5.0     # seconds between two tries to start a server


class Holder:
    """One mount from before mount(2) to its end."""

    def __init__(self, config: MountConfig, tell: Callable[[dict[str, Any]], None]) -> None:
        self._config = config
        self._tell = tell                 # reports {} when the mount answers, or why it cannot
        self._python = sys.executable     # of the next server
        self._engine = ""
        self._device = -1
        self._negotiated: Negotiated | None = None
        self._selector = selectors.DefaultSelector()
        self._server: subprocess.Popen[bytes] | None = None
        self._link: Link | None = None
        self._ready = self._finished = self._ended = False
        self._started = self._ready_at = self._due = self._wait = 0.0  # monotonic seconds; _wait is a span
        self._restarts = 0
        self._trouble = ""                # why no server runs
        self._broken: Broken | None = None
        self._mounted = False
        self._answered = False            # the mount has answered once

    def run(self) -> int:
        """Hold the mount until it is gone; the exit status."""
        lock = runtime.claim(self._config.mountpoint, self._config.manifest)
        try:
            self._clear_leftovers()
            self._listen_to_signals()
            listener = self._listen()
            self._spawn()
            while not self._ended:
                for key, _ in self._selector.select(self._timeout()):
                    key.data(key.fileobj)
                if self._server is None and self._due and time.monotonic() >= self._due:
                    self._spawn()
            listener.close()
        except BaseException:
            self._unmount_for_good()
            raise
        finally:
            runtime.clean(self._config.mountpoint)
            os.close(lock)
        return 0 if self._mounted else 1

    # the server's life

    def _spawn(self) -> None:
        """Start a server; it speaks first."""
        ours, theirs = Link.pair()
        command = [self._python, "-P", "-m", "regionfs.daemon.server", str(theirs.fileno()), self._config.to_json()]
        self._due, self._started, self._ready = 0.0, time.monotonic(), False
        try:
            self._server = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        except OSError as error:
            ours.close()
            self._server_lost({"error": f"{self._python}: {error.strerror}"})
            return
        finally:
            theirs.close()
        self._link = ours
        self._selector.register(ours, selectors.EVENT_READ, self._hear_server)

    def _hear_server(self, link: Any) -> None:
        received = link.receive()
        if received is None:
            self._server_ended()
            return
        words, _ = received
        if "loaded" in words:
            self._begin_service()
        elif "ready" in words:
            self._service_began()
        elif "failed" in words:
            self._trouble = words["failed"]["error"]
            if not self._replaceable:
                self._give_up(words["failed"])
        elif "manifest" in words:
            self._config = self._config.with_manifest(Path(words["manifest"]))
        elif "ended" in words:  # and flushes; its end of the line tells when it is done
            self._finished = True

    def _begin_service(self) -> None:
        """The server has read the manifest: mount if need be, and hand it the connection."""
        resume = self._mounted
        try:
            if not self._mounted:
                self._mount()
        except RegionfsError as error:
            self._give_up(failure.describe(error))
            return
        words: dict[str, Any] = {"engine": self._engine, "resume": resume}
        if self._negotiated is not None:
            words["negotiated"] = self._negotiated.values()
        self._say(words, [self._device] if self._device >= 0 else [])

    def _mount(self) -> None:
        """Make the connection for the native engine; pyfuse3 makes its own, in the server."""
        self._engine = "native" if self._config.engine == "auto" else self._config.engine
        if self._engine == "native":
            mountpoint = str(self._config.mountpoint)
            self._device = device.mount(mountpoint, self._config.options)
            self._mounted = True
            try:
                self._negotiated = handshake(self._device, Wanted(
                    max_write=self._config.options.max_read, passthrough=self._config.wants_backing,
                    iomap=self._config.wants_iomap and probe_iomap().available))
            except VersionError as error:
                if self._config.engine == "native":
                    raise
                log.warning("the native engine cannot serve here (%s); pyfuse3 does", error)
                self._unmount_for_good()
                self._engine = "pyfuse3"

    def _service_began(self) -> None:
        self._ready, self._ready_at, self._trouble = True, time.monotonic(), ""
        if self._broken is not None:
            self._broken.close()
            self._broken = None
        if self._answered:
            log.info("a new server took over after %.0f ms", 1000 * (time.monotonic() - self._started))
            return
        self._mounted = self._answered = True
        if mount := mounts.find(self._config.mountpoint):
            mounts.raise_readahead(mount.device)
        self._tell({})

    def _server_ended(self) -> None:
        """The line is cut: the server is gone, or about to be."""
        assert self._server is not None and self._link is not None
        self._selector.unregister(self._link)
        self._link.close()
        status = self._server.wait()
        if self._finished:
            self._ended = True
        else:
            self._server_lost({"error": self._trouble or f"the server ended with status {status}"})
        self._server = self._link = None

    def _server_lost(self, why: dict[str, Any]) -> None:
        if not self._replaceable:
            self._give_up(why)
            return
        self._restarts += 1
        served = self._ready and time.monotonic() - self._ready_at > QUICK
        self._wait = 0.0 if served else min(LONGEST_WAIT, max(0.05, 2 * self._wait))
        self._due = time.monotonic() + self._wait
        if self._ready:
            log.warning("%s; starting another", why["error"])
        elif self._broken is None:
            log.error("no server can be started: %s; requests get EIO meanwhile", why["error"])
            self._trouble = why["error"]
            self._broken = Broken(self._device, self._selector, self._gone)

    @property
    def _replaceable(self) -> bool:
        """True when another server can take over: not before the first, and libfuse's connection dies with its own."""
        return self._answered and self._engine != "pyfuse3"

    def _give_up(self, why: dict[str, Any]) -> None:
        self._tell(why)
        self._unmount_for_good()
        self._ended = True

    def _gone(self) -> None:
        self._ended = True

    def _say(self, words: dict[str, Any], fds: list[int]) -> bool:
        """Speak to the server; False when it is not there."""
        try:
            if self._link is not None:
                self._link.send(words, fds)
                return True
        except OSError:  # it just died: its end of the line tells
            pass
        return False

    # clients

    def _listen(self) -> socket.socket:
        path = runtime.socket_of(self._config.mountpoint)
        path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.bind(str(path))
        listener.listen(16)
        self._selector.register(listener, selectors.EVENT_READ, self._accept)
        return listener

    def _accept(self, listener: Any) -> None:
        """Read one request, as much as came with it; a slow client is not waited for long."""
        with suppress(OSError):
            client, _ = listener.accept()
            client.settimeout(0.5)
            try:
                control.check_peer(client)
                with client.makefile("rb") as stream:
                    line = stream.readline(control.REQUEST_LIMIT + 1)
                if len(line) > control.REQUEST_LIMIT:
                    raise control.Refused(f"the request is over {control.REQUEST_LIMIT} bytes")
                self._obey(control.parse(line), client)
            except (control.Refused, OSError) as error:
                control.reply(client, {"error": str(error)})

    def _obey(self, request: dict[str, Any], client: socket.socket) -> None:
        command = request["command"]
        if command == "status":
            words: dict[str, Any] = {"holder": self._status()}
        elif command == "reload":
            path = request.get("manifest") or str(self._config.manifest)
            words = {"manifest": path, "dry_run": bool(request.get("dry_run"))}
            if not self._ready:
                self._recover(Path(path), words["dry_run"])
        elif command == "upgrade":
            control.reply(client, self._upgrade(str(request.get("python") or sys.executable)))
            return
        else:
            raise control.Refused("no such command; known are status, reload, upgrade")
        if self._ready and self._say({**words, "command": command}, [client.fileno()]):
            client.close()
        else:
            control.reply(client, self._status() if command == "status" else {"unchanged": 0, "recovering": True})

    def _status(self) -> dict[str, Any]:
        return {"mountpoint": str(self._config.mountpoint), "manifest": str(self._config.manifest),
                "engine": self._engine, "pid": self._server.pid if self._server else None, "holder_pid": os.getpid(),
                "restarts": self._restarts, "trouble": self._trouble, "files": {}}

    def _upgrade(self, python: str) -> dict[str, Any]:
        """Replace the server as if it had died, by that of another interpreter."""
        if self._engine == "pyfuse3":
            return failure.describe(MountError("the pyfuse3 engine cannot be upgraded; unmount and mount again"))
        self._python = python
        if self._server is not None:
            self._server.kill()
        return {"upgrading": True}

    def _recover(self, manifest: Path, dry_run: bool) -> None:
        """No server could be started from what the last one left: begin anew with a manifest."""
        if not dry_run:
            self._config = self._config.with_manifest(manifest)
            stem = runtime.stem_of(self._config.mountpoint)
            for path in (*stem.parent.glob(f"{stem.name}.layer-*"), stem.with_suffix(".index")):
                path.unlink(missing_ok=True)
            self._due, self._wait = time.monotonic(), 0.0

    # signals and the end

    def _listen_to_signals(self) -> None:
        wake, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self._selector.register(wake, selectors.EVENT_READ, self._hear_signals)

    def _hear_signals(self, wake: Any) -> None:
        for number in os.read(wake, 64):
            if number == signal.SIGHUP:
                self._say({"command": "reload", "manifest": str(self._config.manifest), "dry_run": False},
                          [os.open(os.devnull, os.O_WRONLY)])
            elif not self._mounted:
                self._give_up({"error": "interrupted"})
            else:
                threading.Thread(target=self._unmount, daemon=True).start()

    def _unmount(self) -> None:
        """Unmount; a busy mount is detached, and served until its last file is closed."""
        try:
            device.unmount(str(self._config.mountpoint))
        except RegionfsError as error:
            log.warning("%s; it is detached, files still open are served until they are closed", error)
            with suppress(RegionfsError):
                device.unmount(str(self._config.mountpoint), lazy=True)

    def _unmount_for_good(self) -> None:
        """Nothing stays mounted."""
        if self._mounted or mounts.find(self._config.mountpoint):
            with suppress(RegionfsError):
                device.unmount(str(self._config.mountpoint), lazy=True)
        if self._device >= 0:
            os.close(self._device)
            self._device = -1
        self._mounted = False

    def _clear_leftovers(self) -> None:
        """What a holder that died left: a mount that answers nobody, files. The log stays."""
        if mounts.find(self._config.mountpoint):
            log.warning("%s: a dead mount was in the way; it is cleared", self._config.mountpoint)
            device.unmount(str(self._config.mountpoint), lazy=True)
        stem = runtime.stem_of(self._config.mountpoint)
        for path in stem.parent.glob(f"{stem.name}.*"):
            if path.suffix not in (".log", ".lock"):
                path.unlink(missing_ok=True)

    def _timeout(self) -> float | None:
        if self._server is None and self._due:
            return max(0.0, self._due - time.monotonic())
        return None


def hold(config: MountConfig, tell: Callable[[dict[str, Any]], None], log_format: str) -> int:
    """Hold a mount in this process until it is gone; the exit status.

    `tell` gets {} once the mount answers, or failure.describe's values when it cannot be made.
    """
    logs.begin(config.log_level, log_format)
    try:
        return Holder(config, tell).run()
    except (RegionfsError, OSError) as error:
        tell(failure.describe(error))
        return 1
