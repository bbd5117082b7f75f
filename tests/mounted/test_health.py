"""Files that fail are seen from outside, without anybody opening them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.test_sources import slowfs
from tests.harness import Mount
from tests.mounted.conftest import opened


@pytest.fixture
def mounted(mount: Callable[..., Mount], tmp_path: Path) -> Iterator[Mount]:
    """A file of each kind, none of them opened."""
    for name in ("whole", "mapped", "rw", "good"):
        (tmp_path / f"{name}.img").write_bytes(b"s" * 8192)
    with mount({"whole": {"whole": "whole.img"}, "mapped": {"regions": [{"source": "mapped.img", "offset": 1}]},
                "rw": {"whole": "rw.img", "access": "rw"}, "good": {"whole": "good.img"}}) as made:
        yield made


def troubles(mounted: Mount) -> dict[str, str]:
    """What `status --json` says of files that fail."""
    return {path: file["trouble"] for path, file in mounted.status()["files"].items() if file["trouble"]}


def test_a_source_that_is_gone_shows_everywhere(mounted: Mount, tmp_path: Path) -> None:
    """In status as text, JSON and metrics and in check, with the reason and exit status 1, until it is back."""
    assert {} == troubles(mounted)
    assert (0, 0) == tuple(mounted.user.regionfs(word, mounted.path).returncode for word in ("status", "check"))
    for name in ("whole", "mapped", "rw"):
        (tmp_path / f"{name}.img").rename(tmp_path / f"{name}.away")
    reasons = {name: f"{tmp_path}/{name}.img does not exist" for name in ("whole", "mapped", "rw")}
    assert reasons == troubles(mounted)
    told, checked = (mounted.user.regionfs(word, mounted.path) for word in ("status", "check"))
    assert (1, 1) == (told.returncode, checked.returncode)
    for name, reason in reasons.items():
        assert f"  {name} cannot be opened: {reason}\n" in told.stdout
        assert f"{mounted.path}: {name}: cannot be opened: {reason}\n" in checked.stderr
    metrics = mounted.user.regionfs("status", "--prometheus", mounted.path)
    failed = [line[-1] for line in metrics.stdout.splitlines() if line.startswith("regionfs_file_failed")]
    assert (1, ["1", "1", "1", "0"]) == (metrics.returncode, failed)
    for name in reasons:
        (tmp_path / f"{name}.away").rename(tmp_path / f"{name}.img")
    assert {} == troubles(mounted)


def test_what_was_open_does_not_hide_it(mounted: Mount, tmp_path: Path) -> None:
    """A file that is open goes on, and status says that the next open would fail, which it does for the same reason."""
    with opened(mounted.path / "whole") as fd:
        os.pread(fd, 1, 0)
        (tmp_path / "whole.img").unlink()
        (tmp_path / "whole.img").write_bytes(b"another")
        reason, = troubles(mounted).values()
        with pytest.raises(OSError, match="whole"):
            os.open(mounted.path / "whole", os.O_RDONLY)
        assert {"whole": reason} == troubles(mounted)
        assert "was replaced by another file" in reason


def test_check_of_a_mount_as_json(mounted: Mount, tmp_path: Path) -> None:
    """The manifest's entry, with the mount point and each file that fails."""
    (tmp_path / "mapped.img").unlink()
    report, = json.loads(mounted.user.regionfs("check", "--json", mounted.path).stdout)["manifests"]
    problem: dict[str, Any]
    problem, = report["problems"]
    assert (str(mounted.path), str(mounted.manifest), False) == (report["mountpoint"], report["manifest"], report["ok"])
    assert "mapped" == problem["path"]


def test_a_source_that_does_not_answer(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """status says so of its files, whatever else it asks of them, answers for all others, and sees its end."""
    (tmp_path / "good.img").write_bytes(b"g")
    with slowfs(tmp_path / "slow", "one=4096") as fs, mount(
            {"slow": {"whole": "slow/one"}, "rw": {"whole": "slow/one", "access": "rw"},
             "gone": {"whole": "good.img"}, "good": {"whole": "good.img"}}) as mounted:
        fs.order("delay 8 lookup getattr")
        silent = dict.fromkeys(("slow", "rw"), "its sources do not answer")
        assert silent == troubles(mounted)
        assert silent == troubles(mounted)
        fs.order("delay 0 lookup getattr")
        while troubles(mounted):
            pass


def test_what_may_hang_is_said_beforehand(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """Where the daemon may not mark itself as what writes for others: in doctor, and of rw mounts in status and log."""
    (tmp_path / "s.img").write_bytes(b"s")
    with mount({"f": {"whole": "s.img"}}, name="ro") as ro, mount({"f": {"whole": "s.img", "access": "rw"}}) as rw:
        status = rw.status()
        told = rw.user.regionfs("status", rw.path)
        ability = json.loads(rw.user.regionfs("doctor", "--json").stdout)["machine"]["write-back"]
        assert [] == ro.status()["notes"]
        assert ([] if ability["available"] else [f"{ability['reason']}; {ability['remedy']}"]) == status["notes"]
        for note in status["notes"]:
            assert (0, True) == (told.returncode, f"  note: {note}\n" in told.stdout)
            assert 1 == Path(status["log"]).read_text().count(note)
