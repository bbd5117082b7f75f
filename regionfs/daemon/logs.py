"""Where a daemon's log lines go, and how many of them: stderr, a file, or the journal behind stderr.

What is logged names sources, files and processes, never a manifest's text or a source's bytes; `debug`
may quote both. Nothing is logged per read or write.
"""

from __future__ import annotations

import logging
import os
import sys
from typing import Any

from regionfs.printable import printable, printable_lines

LEVELS = ("debug", "info", "warning", "error")
FILE_FORMAT = "%(asctime)s regionfs[%(process)d] %(levelname)s: %(message)s"
TTY_FORMAT = "regionfs: %(message)s"

# sd-daemon(3): the journal takes a line's level from its beginning
_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


def begin(level: str, log_format: str) -> None:
    """Log to stderr from `level` on: in the journal's form if that reads stderr, else in `log_format`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JournalFormatter() if _goes_to_journal() else _Formatter(log_format))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


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
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"
