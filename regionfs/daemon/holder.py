"""The holder: the process that keeps a mount alive. It does almost nothing, so that it does not fail.

It owns the descriptor of /dev/fuse and the control socket, and starts a server that answers
requests. When the server dies a spare one, which stands by, takes over (team, serve.ledger, daemon.state);
no application notices. While none can be started it answers every request with EIO itself. It ends
when the mount is gone.

    starting --loaded: mount, handshake--> serving --server lost--> waiting --backoff--> serving
        |                                                             |  ^
        failed: tell the caller, leave nothing                 failed: |  | retry, or reload
                                                                       v  |
                                                                      broken (EIO, reason in status)

One thread with a selector, which waits for nobody; only unmounting, which may wait for a server's
write-back, has its own. Whatever fails in a round of the loop is logged, and ends that round's business alone.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from regionfs.daemon import adopt, failure, harden, logs, runtime, sd_notify
from regionfs.daemon.broken import Broken
from regionfs.daemon.config import MountConfig
from regionfs.daemon.desk import Desk
from regionfs.daemon.door import Door
from regionfs.daemon.keeper import Keeper
from regionfs.daemon.place import Place
from regionfs.daemon.team import Team
from regionfs.daemon.timers import Timers, take_turn
from regionfs.errors import MountError, RegionfsError
from regionfs.serve.handshake import handshake
from regionfs.serve.ledger import open_ledger
from regionfs.wire import device, mounts
from regionfs.wire.session import Negotiated, VersionError

log = logging.getLogger("regionfs")

QUICK = 0.1            # seconds; a server that served for less makes the next one wait longer
LONGEST_WAIT = 5.0     # seconds between two tries to start a server
TRIES = 5              # servers in a row that die without a word before they serve: then requests get EIO
AGAIN = 0.05           # seconds until a server that took nothing is asked again


class Holder:
    """One mount from before mount(2) to its end."""

    def __init__(self, config: MountConfig, lock: int, tell: Callable[[dict[str, Any]], None]) -> None:
        self._config = config
        self._lock = lock                 # our claim of the mount point
        self._place = Place(config.mountpoint, lock)
        self._tell = tell                 # {"serves": ...} when the mount answers, or why it cannot
        self._python = sys.executable     # of the next server
        self._engine = ""
        self._device = self._ledger = -1
        self._negotiated: Negotiated | None = None
        self._kept: list[int] = []        # descriptors that keep loop devices attached until the mount ends
        self._selector = selectors.DefaultSelector()
        self._timers = Timers()
        self._team = Team(self._selector, self._timers, self._hear_server, self._server_gone, self._may_replace)
        self._desk = Desk()
        self._ready = self._finished = self._ended = False
        self._started = self._ready_at = self._wait = 0.0  # monotonic seconds; _wait is a span
        self._restarts = 0
        self._upgrading = False           # the server's end is no death
        self._has_state = False           # servers have left some for the next one
        self._trouble: dict[str, Any] = {}  # why no server runs, as failure.describe has it
        self._failures = 0                # servers in a row that did not come to serve
        self._broken: Broken | None = None
        self._mounted = False
        self._answered = False            # the mount has answered once

    def run(self) -> int:
        """Hold the mount until it is gone; the exit status."""
        runtime.announce(self._lock, self._config.mountpoint, self._config.manifest, None)
        try:
            self._hold()
        except BaseException as error:
            if not isinstance(error, RegionfsError):
                log.exception("%s: the holder fails, and the mount ends", self._config.mountpoint)
            self._unmount_for_good()
            raise
        finally:
            adopt.discard()
            runtime.clean(*self._config.name)
            os.close(self._lock)
        return 0 if self._mounted else 1

    def _hold(self) -> None:
        if not self._adopt():
            self._place.clear_dead()
            runtime.clear_leftovers(*self._config.name)
        self._listen_to_signals()
        door = Door(runtime.socket_of(*self._config.name), self._selector, self._timers, self._obey)
        self._keeper = Keeper(runtime.stem_of(*self._config.name), self._lock, self._selector, self._timers,
                              door.reopen)
        self._spawn()
        while not self._ended:
            take_turn(self._selector, self._timers)
        self._keeper.close()
        door.close()

    def _adopt(self) -> bool:
        """Take over the mount of a holder that died, where a service manager kept its connection."""
        kept = adopt.take(self._config.mountpoint, runtime.connection_of(*self._config.name))
        if kept is None:
            return False
        if missing := runtime.missing(*self._config.name, ".index", ".ledger"):
            log.error("%s, where the last server left its state, was removed; the mount begins anew", missing)
            os.close(kept[0])
            return False
        self._device, self._negotiated = kept
        self._engine, self._mounted = "native", True
        self._config = self._place.note(self._config)
        log.info("%s: the mount of a holder that died is taken over", self._config.mountpoint)
        return True

    # the server's life

    def _spawn(self) -> None:
        """Let a server begin, the spare one if it is there; it speaks first."""
        self._started, self._ready, self._finished = time.monotonic(), False, False
        try:
            if self._has_state:
                self._keeper.restore_state()
                if missing := runtime.missing(*self._config.name, ".index"):
                    raise FileNotFoundError(f"{missing} was removed; regionfs reload begins anew")
            self._team.begin(self._python, self._config)
        except OSError as error:
            self._server_lost({"error": str(error)})

    def _spawn_in(self, seconds: float) -> None:
        self._timers.set("spawn", seconds, self._spawn)

    def _hear_server(self, words: dict[str, Any], fds: list[int]) -> None:
        if "loaded" in words:
            self._begin_service()
        elif "ready" in words:
            self._service_began(words.get("serves", {}))
        elif "failed" in words:
            self._trouble = words["failed"]
            if not self._may_replace():
                self._give_up(self._trouble)
        elif "manifest" in words:
            self._config = self._place.announce(self._config.with_manifest(Path(words["manifest"])))
        elif "state" in words:
            self._keeper.keep(words["state"], fds)
        elif "keep" in words:
            self._kept += fds
        elif "ended" in words:  # and flushes; its end of the line tells when it is done
            self._finished = True

    def _begin_service(self) -> None:
        """The server has read the manifest: mount if need be, and hand it the connection."""
        resume = self._mounted
        try:
            if not self._mounted:
                self._mount()
            if self._device >= 0 and self._ledger < 0:
                self._ledger = open_ledger(runtime.ledger_of(*self._config.name))
        except (RegionfsError, OSError) as error:
            self._give_up(failure.describe(error))
            return
        words: dict[str, Any] = {"engine": self._engine, "resume": resume}
        if self._negotiated is not None:
            words["negotiated"] = self._negotiated.values()
        self._team.hand_over(words, [self._device, self._ledger] if self._device >= 0 else [])

    def _mount(self) -> None:
        """Make the connection for the native engine; pyfuse3 makes its own, in the server."""
        self._engine = "native" if self._config.engine == "auto" else self._config.engine
        if self._engine == "native":
            mountpoint = str(self._config.mountpoint)
            self._device = device.mount(mountpoint, self._config.options)
            self._mounted = True
            self._config = self._place.note(self._config)
            try:
                self._negotiated = handshake(self._device, self._config.wanted())
            except VersionError as error:
                if self._config.engine == "native":
                    raise
                log.warning("the native engine cannot serve here (%s); pyfuse3 does", error)
                self._unmount_for_good()
                self._engine = "pyfuse3"

    def _service_began(self, serves: dict[str, Any]) -> None:
        self._ready, self._ready_at, self._trouble, self._failures = True, time.monotonic(), {}, 0
        self._upgrading, self._has_state = False, self._engine != "pyfuse3"
        if self._broken is not None:
            self._broken.close()
            self._broken = None
        self._desk.keep_promises(None)
        self._ask_again()
        if self._answered:
            log.info("a new server took over after %.0f ms", 1000 * (time.monotonic() - self._started))
        else:
            self._mount_answers(serves)
        if self._may_replace():
            self._team.stand_by(self._python)

    def _mount_answers(self, serves: dict[str, Any]) -> None:
        self._mounted = self._answered = True
        if self._place.mount is None:
            self._config = self._place.note(self._config)
        if mount := self._place.mount:
            mounts.raise_readahead(mount.device)
            if self._negotiated is not None:
                adopt.keep(mount, runtime.connection_of(*self._config.name), self._device, self._negotiated)
        self._tell({"serves": serves})

    def _server_gone(self, why: str) -> None:
        if self._finished:
            self._ended = True
        else:
            self._server_lost(self._trouble or {"error": why})

    def _server_lost(self, why: dict[str, Any]) -> None:
        if not self._may_replace():
            self._give_up(why)
            return
        upgraded = self._upgrading and self._ready
        self._restarts += not upgraded
        served = self._ready and time.monotonic() - self._ready_at > QUICK
        self._wait = 0.0 if served or upgraded else min(LONGEST_WAIT, max(0.05, 2 * self._wait))
        self._spawn_in(self._wait)
        if self._ready:
            log.log(logging.INFO if upgraded else logging.WARNING, "%s; starting another", failure.for_log(why))
        elif self._python != sys.executable:
            log.error("%s: %s; back to %s", self._python, failure.for_log(why), sys.executable)
            self._python, self._trouble = sys.executable, {}
            self._spawn_in(0.0)
            self._team.dismiss_spare()
            self._desk.keep_promises(why)
        else:
            self._start_failed(why)
        self._ready = False

    def _start_failed(self, why: dict[str, Any]) -> None:
        """A server said that it cannot serve, or too many were killed before they did: say so to everybody."""
        self._failures += 1
        if not self._trouble and self._failures < TRIES:
            return
        self._trouble = why
        if self._broken is None:
            log.error("no server can be started: %s; requests get EIO meanwhile", failure.for_log(why))
            resends = self._negotiated is not None and self._negotiated.resend
            self._broken = Broken(self._device, self._selector, self._gone, resends=resends)
        self._desk.keep_promises(why)
        self._ask_again()

    def _may_replace(self) -> bool:
        """True when another server can take over: not before the first, and libfuse's connection dies with its own."""
        return self._answered and self._engine != "pyfuse3"

    def _give_up(self, why: dict[str, Any]) -> None:
        self._tell(why)
        self._unmount_for_good()
        self._ended = True

    def _gone(self) -> None:
        self._ended = True

    # clients

    def _obey(self, request: dict[str, Any], client: socket.socket) -> None:
        command = request["command"]
        if command == "reload":
            self._ask({"command": command, "manifest": request.get("manifest") or str(self._config.manifest),
                       "dry_run": bool(request.get("dry_run"))}, client)
        elif command == "upgrade":
            self._upgrade(request.get("python") or sys.executable, client)
        elif command in ("status", "sync"):
            self._ask({"command": command}, client)
        else:
            self._desk.reply(client, {"error": "no such command; known are status, sync, reload, upgrade"})

    def _ask(self, words: dict[str, Any], client: socket.socket | None) -> None:
        """Pass a request on to the server, which answers the client; to the next one while none is ready.

        Without a server that could answer, do here what can be done. No client: a signal's request.
        """
        if self._broken is not None and words["command"] == "status":
            self._desk.reply(client, self._status())
        elif self._broken is not None and words["command"] == "sync":
            self._desk.reply(client, failure.describe(MountError(f"no server runs: {self._trouble['error']}")))
        elif self._broken is not None:
            self._recover(words, client)
        elif self._ready and self._team.say({**words, "holder": self._status()}, [client.fileno()] if client else []):
            if client is not None:
                client.close()
        else:
            self._desk.park(words, client)
            if self._ready:  # the server is just dying, or takes no more for the moment
                self._timers.set("ask", AGAIN, self._ask_again)

    def _ask_again(self) -> None:
        """A server is ready, or there will be none soon."""
        for words, client in self._desk.take():
            self._ask(words, client)

    def _status(self) -> dict[str, Any]:
        return {"mountpoint": str(self._config.mountpoint), "manifest": str(self._config.manifest),
                "engine": self._engine, "pid": self._team.pid, "holder_pid": os.getpid(), "restarts": self._restarts,
                "device": self._config.device, "trouble": self._trouble.get("error", ""), "log": logs.place(),
                "files": {}}

    def _upgrade(self, python: str, client: socket.socket) -> None:
        """Replace the server as if it had died, by that of another interpreter."""
        if self._engine == "pyfuse3":
            self._desk.reply(client, failure.describe(
                MountError("the pyfuse3 engine cannot be upgraded; unmount and mount again")))
            return
        self._python = python
        self._team.dismiss_spare()
        self._desk.promise(client, {"upgraded": True})
        self._upgrading, self._wait = self._ready, 0.0
        if self._team.pid is None:
            self._spawn_in(0.0)
        self._team.kill()

    def _recover(self, words: dict[str, Any], client: socket.socket | None) -> None:
        """No server could be started from what the last one left: begin anew with a manifest."""
        if words["dry_run"]:
            self._desk.reply(client, failure.describe(MountError(f"no server runs: {self._trouble['error']}")))
            return
        # inode numbers that were never given: the kernel may hold the others, and what they showed. No clock that
        # is set, and no reload, comes to a number of these again
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._config = self._place.announce(self._config.begin_anew(Path(words["manifest"]), now))
        self._has_state, self._wait = False, 0.0
        self._keeper.forget_state()
        runtime.discard_state(*self._config.name)
        self._desk.promise(client, {"unchanged": 0, "recovering": True})
        if self._team.pid is None:
            self._spawn_in(0.0)

    # signals and the end

    def _listen_to_signals(self) -> None:
        wake, self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        self._selector.register(wake, selectors.EVENT_READ, self._hear_signals)

    def _hear_signals(self, wake: Any) -> None:
        for number in os.read(wake, 64):
            if number == signal.SIGCHLD:
                self._team.look()
            elif number == signal.SIGHUP:
                self._ask({"command": "reload", "manifest": str(self._config.manifest), "dry_run": False}, None)
            elif not self._mounted:
                self._give_up({"error": "interrupted"})
            else:
                sd_notify.notify("STOPPING=1")
                self._unmount_beside()

    def _unmount_beside(self) -> None:
        try:
            threading.Thread(target=self._place.unmount, daemon=True).start()
        except RuntimeError:  # no thread left: what waits for nobody is done here
            log.warning("no thread can be started; the mount is detached")
            self._place.abandon()

    def _unmount_for_good(self) -> None:
        """Nothing of ours stays mounted."""
        self._place.abandon()
        if self._engine == "pyfuse3" and self._place.mount is None:  # its server may have mounted before it failed
            with suppress(RegionfsError):
                self._place.clear_dead()
        if self._device >= 0:
            os.close(self._device)
            self._device = -1
        self._mounted = False


def hold(config: MountConfig, lock: int, tell: Callable[[dict[str, Any]], None], log_format: str) -> int:
    """Hold a mount in this process until it is gone; the exit status. `lock` is its claim, runtime.claim.

    `tell` gets {"serves": Server.serves()} once the mount answers, or failure.describe's values when it cannot.
    """
    logs.begin(config.log_level, log_format)
    try:
        harden.become_flusher()  # its servers are so by themselves, and say where they may not
        harden.give_up(harden.ALWAYS | harden.KERNEL | harden.IOMAP)
        return Holder(config, lock, tell).run()
    except (RegionfsError, OSError) as error:
        tell(failure.describe(error))
        return 1
