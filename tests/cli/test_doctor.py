"""`regionfs doctor`: honest about what is there."""

from __future__ import annotations

import json
import os
import platform
import re
from pathlib import Path

from regionfs.cli.wakeups import SLOW, wake_ups
from regionfs.modes.choose import Ability
from tests.cli.conftest import Cli, Command


def test_json(command: Command) -> None:
    """Every check has an answer, a reason, and a remedy where the answer is no."""
    done = command("doctor", "--json")
    found = json.loads(done.stdout)
    assert (platform.python_version(), platform.release()) == (found["python"], found["kernel"])
    assert ["iomap", "passthrough", "composed", "userspace"] == list(found["modes"])
    for ability in (*found["machine"].values(), *found["modes"].values()):
        assert ability["reason"]
        assert ability["available"] == (ability["remedy"] == "")
    assert {"soft", "hard"} == found["open_files"].keys()
    assert (0 if found["engine"] else 1) == done.returncode


def test_the_device_is_as_it_is(run: Cli) -> None:
    """The answer agrees with access(2)."""
    found = json.loads(run("doctor", "--json").stdout)
    assert os.access("/dev/fuse", os.R_OK | os.W_OK) == found["machine"]["/dev/fuse"]["available"]


def test_a_missing_helper_is_named_with_its_package(command: Command, tmp_path: Path) -> None:
    """With nothing on PATH the answer is no, and says what to install."""
    found = json.loads(command("doctor", "--json", env={"PATH": str(tmp_path)}).stdout)
    helper = found["machine"]["fusermount3"]
    assert (False, "install the package fuse3") == (helper["available"], helper["remedy"])


def test_a_missing_accelerator_is_reported(command: Command, tmp_path: Path) -> None:
    """Whether it was not built or is turned off; nothing else depends on it."""
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['regionfs.serve._fast'] = None\n")
    for environment, reason, remedy in (
            ({"PYTHONPATH": str(tmp_path), "REGIONFS_FAST": ""}, "not built", "install gcc"),
            ({"REGIONFS_FAST": "0"}, "REGIONFS_FAST=0", "unset REGIONFS_FAST")):
        done = command("doctor", "--json", env=environment)
        found = json.loads(done.stdout)
        accelerator = found["machine"]["accelerator"]
        assert (False, True, True) == (accelerator["available"], accelerator["reason"].startswith(reason),
                                       accelerator["remedy"].startswith(remedy))
        assert (0 if found["engine"] else 1) == done.returncode


def test_the_accelerator_is_built_where_tests_run(command: Command) -> None:
    """A build that failed is not noticed otherwise: it is optional."""
    accelerator = json.loads(command("doctor", "--json", env={"REGIONFS_FAST": ""}).stdout)["machine"]["accelerator"]
    assert (True, "") == (accelerator["available"], accelerator["remedy"])


def test_wake_ups_are_measured() -> None:
    """Between two cores; slow ones have a remedy. Where there is one core there is nothing to measure."""
    before = os.sched_getaffinity(0)
    found = wake_ups()
    words = re.fullmatch(r"a sleeping core wakes within (\d+) us(; each request waits for one or two)?", found.reason)
    assert words or len(before) == 1
    assert before == os.sched_getaffinity(0)
    if words:
        assert found.available == (int(words[1]) <= SLOW) == (words[2] is None) == (not found.remedy)
    os.sched_setaffinity(0, [min(before)])
    try:
        assert Ability(True, "one core: nobody is woken on another") == wake_ups()
    finally:
        os.sched_setaffinity(0, before)


def test_text(run: Cli) -> None:
    """Remedies stand below what they would help. (Wake-ups are measured anew each time.)"""
    lines = run("doctor").stdout.splitlines()
    found = json.loads(run("doctor", "--json").stdout)
    assert found["machine"].pop("wake-ups")
    assert any(line.startswith("  wake-ups ") for line in lines)
    for name, ability in {**found["machine"], **found["modes"]}.items():
        index = next(number for number, line in enumerate(lines) if line.split()[:1] == [name])
        assert ability["reason"] in lines[index]
        assert not ability["remedy"] or f"-> {ability['remedy']}" in lines[index + 1]


def test_a_helper_that_fails_is_reported_with_what_it_says(command: Command, tmp_path: Path) -> None:
    """A broken installation is an answer, not a crash."""
    helper = tmp_path / "fusermount3"
    helper.write_text("#!/bin/sh\necho 'no libfuse here' >&2\nexit 3\n")
    helper.chmod(0o4755)
    found = json.loads(command("doctor", "--json", env={"PATH": str(tmp_path)}).stdout)["machine"]["fusermount3"]
    assert (False, f"{helper}: no libfuse here") == (found["available"], found["reason"])
