"""The native server's loop over a descriptor of the test's own: python -m tests.faults.fuzzed FD MANIFEST.

Everything in it is what a mount has, but that the kernel is on the other side of a socket pair.
"""

from __future__ import annotations

import logging
import resource
import sys
from pathlib import Path

from regionfs.fs import FileSystem
from regionfs.manifest.load import load
from regionfs.modes.choose import Choice, Mode
from regionfs.serve.ledger import Ledger
from regionfs.serve.native import Server
from regionfs.source import Sources
from regionfs.wire.requests import InitIn
from regionfs.wire.session import WANTED_FLAGS, Wanted, negotiate

LARGEST = 1 << 24        # bytes that a source may become
LARGEST_REPLY = 1 << 17  # bytes of data; a socket takes no larger message


def main() -> None:
    """Serve until the other side closes."""
    logging.basicConfig(level=logging.ERROR)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST, LARGEST))
    manifest = load(Path(sys.argv[2]))
    sources = Sources(manifest)
    fs = FileSystem(manifest, sources, dict.fromkeys(manifest.files, Choice(Mode.USERSPACE, "it is fuzzed")))
    init = InitIn(7, 45, 1 << 17, WANTED_FLAGS & 0xFFFFFFFF, WANTED_FLAGS >> 32)
    negotiated = negotiate(init, Wanted(max_write=LARGEST_REPLY))
    assert negotiated is not None
    Server(fs, int(sys.argv[1]), negotiated, Ledger()).run()


if __name__ == "__main__":
    main()
