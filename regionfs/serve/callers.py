"""What a request's caller may see: the kernel tells who asks, not what he may.

Knows /proc, and nothing of messages or files.
"""

from __future__ import annotations

from pathlib import Path

_SYS_ADMIN = 21  # linux/capability.h


def sees_trusted(uid: int, pid: int) -> bool:
    """Whether a task (as the kernel names it to the server) may see trusted.* attributes, as on a local file.

    That is root with CAP_SYS_ADMIN. False where /proc does not show the task: then nobody is known to be that.
    """
    if uid != 0 or pid <= 0:
        return False
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return False
    return any(int(line.split()[1], 16) >> _SYS_ADMIN & 1 for line in lines if line.startswith("CapEff:"))
