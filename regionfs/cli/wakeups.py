"""How long it takes to wake a sleeping core, for who asks and who answers sleep on two of them.

A request that the daemon serves waits for one or two such wake-ups. On a virtual machine whose idle cores
sleep at once each costs 10 to 50 us, several times what the answer does; the mount's own `--poll` saves the
daemon's, and nobody but the kernel can save the client's.
"""

from __future__ import annotations

import contextlib
import os
import select
import statistics
import subprocess
import sys
import time
from pathlib import Path

from regionfs.modes.choose import Ability

SLOW = 10     # microseconds; a core of real hardware wakes within a few
ROUNDS = 200  # there and back
PATIENCE = 5  # seconds for one of them
CPUIDLE = Path("/sys/devices/system/cpu/cpuidle/current_driver")
HALT_POLL = Path("/sys/module/haltpoll/parameters/guest_halt_poll_ns")  # Documentation/virt/guest-halt-polling.rst
USUAL_HALT_POLL = 200_000  # the kernel's own default, ns

_ECHO = f"""
import os
os.sched_setaffinity(0, [int({{}})])
for _ in range({ROUNDS} + 1):
    os.write(1, os.read(0, 1))
"""


def wake_ups() -> Ability:
    """Whether sleeping cores wake fast enough, and what would help."""
    try:
        took = microseconds()
    except (OSError, subprocess.SubprocessError) as error:
        return Ability(False, f"not measured: {error}", "run it again")
    if took is None:
        return Ability(True, "one core: nobody is woken on another")
    said = f"a sleeping core wakes within {took:.0f} us"
    if round(took) <= SLOW:
        return Ability(True, said)
    return Ability(False, f"{said}; each request waits for one or two", _remedy())


def microseconds() -> float | None:
    """To wake a process on another core: the first two that this process may use; None with one. OSError."""
    here, *others = sorted(os.sched_getaffinity(0))
    return _measure(here, others[0]) if others else None


def _remedy() -> str:
    with contextlib.suppress(OSError, ValueError):
        if CPUIDLE.read_text().strip() == "haltpoll" and int(HALT_POLL.read_text()) < USUAL_HALT_POLL:
            return f"let idle cores wait awake a moment, the kernel's own default: echo {USUAL_HALT_POLL} > {HALT_POLL}"
    return ("keep idle cores from deep sleep: tuned-adm profile latency-performance, or cpupower idle-set -D 10; "
            "in a virtual machine: modprobe cpuidle-haltpoll")


def _measure(here: int, there: int) -> float:
    """Microseconds: half the median time to wake a process on core `there` and be woken by it.

    OSError, and TimeoutExpired where it does not answer.
    """
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [here])
    try:
        with subprocess.Popen([sys.executable, "-S", "-c", _ECHO.format(there)], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0) as other:
            try:
                times = [_ask(other) for _ in range(ROUNDS + 1)]
            finally:
                other.kill()
        return statistics.median(times[1:]) / 2 / 1000  # the first waited for its start
    finally:
        os.sched_setaffinity(0, before)


def _ask(other: subprocess.Popen[bytes]) -> int:
    """Nanoseconds until it answers."""
    assert other.stdin
    assert other.stdout
    begun = time.perf_counter_ns()
    other.stdin.write(b"?")
    if not select.select([other.stdout], [], [], PATIENCE)[0]:
        raise subprocess.TimeoutExpired("the other side", PATIENCE)
    if not other.stdout.read(1):
        raise BrokenPipeError("the other side ended")
    return time.perf_counter_ns() - begun
