"""What a mount was asked for: options of -o that are regionfs's own, and the way to a server and back."""

from __future__ import annotations

from pathlib import Path

import pytest

from regionfs.daemon.config import LONGEST_POLL, POLL, MountConfig
from regionfs.errors import UsageError
from tests.harness import User


@pytest.mark.parametrize(("text", "poll"), [("", POLL), ("ro", POLL), ("poll=0", 0), ("poll=7,ro", 7),
                                            (f"poll={LONGEST_POLL}", LONGEST_POLL)])
def test_poll(tmp_path: Path, text: str, poll: int) -> None:
    """Microseconds; the server that it is sent to reads the same."""
    config = MountConfig.from_options(tmp_path / "m.yaml", tmp_path, text)
    assert poll == config.poll
    assert config == MountConfig.from_json(config.to_json())


@pytest.mark.parametrize("value", ["", "abc", "-1", "1.5", "50us", " 5", "1001", "\u0665", "9" * 5000])
def test_poll_that_is_none(tmp_path: Path, value: str) -> None:
    """Says what is wanted."""
    with pytest.raises(UsageError, match=f"^poll={value}: give microseconds, up to 1000$"):
        MountConfig.from_options(tmp_path / "m.yaml", tmp_path, f"poll={value}")


def test_the_option_of_mount(tmp_path: Path) -> None:
    """Is the same as that of -o."""
    for words in (("--poll", "1001"), ("-o", "poll=1001")):
        done = User().regionfs("mount", tmp_path / "m.yaml", tmp_path, *words)
        assert (2, True) == (done.returncode, "poll=1001: give microseconds, up to 1000" in done.stderr), done.stderr
