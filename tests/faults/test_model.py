"""Random lives of mounts beside the plain model of tests/faults/model.py: no wrong byte, no error it does not know.

Files in every mode over shared sources; opens, reads, writes, closes; sources that change and are replaced; reloads,
kills and upgrades. `make torture` runs 20 seeds of 2,000 steps; what failed prints the steps before.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from regionfs.daemon import control, runtime
from tests.faults.lives import TORTURE, Lives
from tests.faults.model import SIZE, Model
from tests.harness import Mount, loop_device

pytestmark = [pytest.mark.mounted, pytest.mark.timeout(1800)]

SEEDS = range(int(os.environ.get("REGIONFS_SEEDS", "20" if TORTURE else "2")))
STEPS = 2000 if TORTURE else 150
USUAL = {"open": 20, "compare": 20, "read": 30, "write": 12, "change": 8, "replace": 1, "shut": 8}


@contextmanager
def devices(directory: Path) -> Iterator[dict[str, Path]]:
    """A block device, where there may be one."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        yield {}
        return
    path = directory / "disk.img"
    path.write_bytes(Random(0).randbytes(SIZE))
    with loop_device(path) as device:
        yield {"device": device}


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.both_paths
def test_what_is_shown_is_what_the_model_says(tmp_path: Path, engine: str, fast: bool, seed: int) -> None:
    """Each handle its own map over the bytes that its sources hold, and new opens the newest of both."""
    with devices(tmp_path) as block:
        model = Model(tmp_path / "mnt", tmp_path, Random(seed), block)
        with Mount(tmp_path, model.manifest(), engine=engine, fast=fast) as mount:
            try:
                live(model, mount)
            except BaseException as error:
                error.add_note("\n".join(model.steps[-80:]))
                error.add_note("\n".join(runtime.log_of(mount.path.resolve()).read_text().splitlines()[-10:]))
                raise
            finally:
                model.close()
            print(f"{engine}, fast {fast}, seed {seed}: {STEPS} steps, {model.checks} checks")


def live(model: Model, mount: Mount) -> None:
    """Take STEPS steps."""
    lives, socket = Lives(mount), runtime.socket_of(mount.path.resolve())

    def reload() -> None:
        model.edit()
        mount.write_manifest(model.manifest())
        try:
            control.call(socket, "reload", manifest=str(mount.manifest), dry_run=False)
        except control.Unanswered:  # by a server that was killed just now
            control.call(socket, "reload", manifest=str(mount.manifest), dry_run=False)
        model.loaded()

    def kill() -> None:
        model.steps.append("kill")
        model.orphan()
        lives.kill()

    def upgrade() -> None:
        model.steps.append("upgrade")
        model.orphan()
        control.call(socket, "upgrade")

    steps: dict[str, Callable[[], None]] = {name: getattr(model, name) for name in USUAL}
    weights = dict(USUAL)
    if mount.engine == "native":
        steps |= {"reload": reload, "kill": kill, "upgrade": upgrade}
        weights |= {"reload": 3, "kill": 2, "upgrade": 1}
    names, chances = list(weights), list(weights.values())
    for _ in range(STEPS):
        name, = model.chance.choices(names, chances)
        steps[name]()
