"""Where a daemon's log lines go, and how many of them: stderr, a file, or the journal behind stderr.

What is logged names sources, files and processes, never a manifest's text or a source's bytes; `debug`
may quote both. Nothing is logged per read or write, and what is said again and again is counted instead.
A log that cannot be written (a full disk, a reader that stalls) loses lines, and keeps nobody waiting.
"""

from __future__ import annotations

import logging
import os
import select
import stat
import time
from typing import Any

from regionfs.printable import printable, printable_lines

LEVELS = ("debug", "info", "warning", "error")
FILE_FORMAT = "%(asctime)s regionfs[%(process)d] %(levelname)s: %(message)s"
TTY_FORMAT = "regionfs: %(message)s"
LARGEST = 1 << 20   # bytes of a log file; then its older half goes
OFTEN = 10          # lines from one place in the code before the next ones of its period are only counted
PERIOD = 60.0       # seconds

_PIECE = select.PIPE_BUF  # bytes that a writable pipe takes without waiting
# sd-daemon(3): the journal takes a line's level from its beginning
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def begin(level: str, log_format: str) -> None:
    """Log to stderr from `level` on: in the journal's form if that reads stderr, else in `log_format`."""
    handler = _Stderr()
    handler.setFormatter(_JournalFormatter() if _goes_to_journal() else _Formatter(log_format))
    if level != "debug":
        handler.addFilter(Seldom())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def place() -> str:
    """Where the lines go, for people: a file's path, or what stderr is."""
    if _goes_to_journal():
        return "the journal"
    try:
        regular = stat.S_ISREG(os.fstat(2).st_mode)
        return os.readlink("/proc/self/fd/2") if regular else "stderr"  # noqa: PTH115  # no path: a link's text
    except OSError:
        return "stderr"


class Seldom(logging.Filter):
    """Lets the first lines of a place in the code pass, and of the others only how many there were."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int], tuple[float, int]] = {}  # place -> its period's begin, lines in it

    def filter(self, record: logging.LogRecord) -> bool:
        """True for what is to be logged."""
        where, now = (record.pathname, record.lineno), time.monotonic()
        begun, lines = self._seen.get(where, (now, 0))
        if now - begun > PERIOD:
            if lines > OFTEN:
                record.msg, record.args = f"{record.getMessage()} (and {lines - OFTEN} like it before)", ()
            begun, lines = now, 0
        self._seen[where] = begun, lines + 1
        return lines < OFTEN


class _Stderr(logging.Handler):
    """Writes to descriptor 2, if that takes it at once."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = (self.format(record) + "\n").encode(errors="backslashreplace")
            _bound()
            for start in range(0, len(line), _PIECE):
                if not select.select([], [2], [], 0)[1]:
                    return
                os.write(2, line[start:start + _PIECE])
        except Exception:  # whom should it be told
            pass


def _bound() -> None:
    """Let the older half of a log file go before it fills its file system."""
    found = os.fstat(2)
    if stat.S_ISREG(found.st_mode) and found.st_size > LARGEST:
        with open("/proc/self/fd/2", "r+b", buffering=0) as log:  # our own descriptor's file
            log.seek(-LARGEST // 2, os.SEEK_END)
            newer = log.read(LARGEST // 2)
            log.truncate(0)
            log.seek(0)
            log.write(newer[newer.find(b"\n") + 1:])


class _Formatter(logging.Formatter):
    """A message is one line that only shows, whatever it names; what follows it is indented, as no message is."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's own name
        record.message = printable(record.message)
        return super().formatMessage(record)

    def formatException(self, ei: Any) -> str:  # noqa: N802  # logging's own name
        return "\n".join(f"  {line}" for line in printable_lines(super().formatException(ei)).split("\n"))


class _JournalFormatter(_Formatter):
    """Every line with its priority; the journal knows time and process."""

    def format(self, record: logging.LogRecord) -> str:
        prefix = f"<{_PRIORITIES.get(record.levelno, 6)}>"
        return "\n".join(prefix + line for line in super().format(record).split("\n"))


def _goes_to_journal() -> bool:
    """True when stderr is the stream that systemd connected to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
