"""Which files of a mount fail, seen without opening them: for status, which must not hang with a source.

Their sources are looked at by threads of its own. One that does not return in time is left behind; its file
says so, and is not asked again until it does.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from regionfs.errors import RegionfsError
from regionfs.fs import FileSystem
from regionfs.tree import FileNode

PATIENCE = 1.0  # seconds for all files of a mount
THREADS = 4     # that look at the same time
STUCK = 32      # left behind; with so many of them nobody looks any more
SILENT = "its sources do not answer"


class Found(NamedTuple):
    """One file."""

    trouble: str  # why an open of it fails; "" for a file that can be opened
    size: int     # bytes


class Health:
    """Of the files of one file system."""

    def __init__(self, fs: FileSystem) -> None:
        self._fs = fs
        self._looking: dict[int, FileNode] = {}  # thread -> what it looks at now

    def examine(self, nodes: Iterable[FileNode]) -> dict[int, Found]:
        """What each file is like, by inode; within PATIENCE. Where nobody came to look it has its last trouble."""
        nodes = list(nodes)
        silent = {node.ino for node in list(self._looking.values())}
        jobs = deque(node for node in nodes if node.ino not in silent)
        found: dict[int, Found] = {}
        threads = self._start(jobs, found)
        self._wait(threads)
        silent |= {node.ino for thread in threads if (node := self._looking.get(id(thread))) is not None}
        jobs.clear()
        for node in nodes:
            if node.ino not in found:
                found[node.ino] = Found(SILENT if node.ino in silent else node.trouble, node.content.size_before())
        return found

    def _start(self, jobs: deque[FileNode], found: dict[int, Found]) -> list[threading.Thread]:
        threads = []
        with suppress(RuntimeError):  # no more threads for this user: then fewer look
            for _ in range(min(THREADS, len(jobs), STUCK - len(self._looking))):
                thread = threading.Thread(target=self._work, args=(jobs, found), name="health", daemon=True)
                thread.start()
                threads.append(thread)
        return threads

    def _wait(self, threads: list[threading.Thread]) -> None:
        until = time.monotonic() + PATIENCE
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _work(self, jobs: deque[FileNode], found: dict[int, Found]) -> None:
        me = id(threading.current_thread())
        with suppress(IndexError):
            while True:
                node = jobs.popleft()
                self._looking[me] = node
                try:
                    found[node.ino] = self._look(node)
                finally:
                    del self._looking[me]

    def _look(self, node: FileNode) -> Found:
        trouble = self._fs.look_for_trouble(node)
        try:
            return Found(trouble, self._fs.size(node))
        except (RegionfsError, OSError) as error:
            return Found(trouble or str(error), node.content.size_before())
