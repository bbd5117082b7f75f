"""Mount does what it promises: the real command, status, counters, and nothing left, for root and for a user."""

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import sweep
from tests.harness import Mount, User
from tests.worker import Worker

MANIFEST = {"dir/joined": {"regions": [{"source": "one.img", "offset": 1, "length": 3}, {"length": 2, "hole": True},
                                       {"source": "two.img", "access": "rw"}]}}


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    (tmp_path / "one.img").write_bytes(b"01234")
    (tmp_path / "two.img").write_bytes(b"abc")
    return tmp_path


def test_a_mount_answers_and_ends(sources: Path, engine: str, worker: Worker) -> None:
    """Bytes, status and counters while it is mounted; no mount and no process afterwards."""
    with Mount(sources, MANIFEST, engine=engine) as mount:
        assert b"123\0\0abc" == worker.pread(mount.path / "dir/joined", 0, 100)
        assert engine == mount.status()["engine"]
        assert (1, 0) == mount.served("dir/joined")
        pid = mount.status()["pid"]
    assert [] == sweep.mounts_below(sources)
    assert not Path(f"/proc/{pid}/exe").exists()


def test_a_daemon_killed_under_a_reader_is_an_error_there(
    sources: Path, mount: Callable[..., Mount], worker: Worker,
) -> None:
    """The tests survive the death of every process of a mount: I/O fails, nothing hangs."""
    with mount(MANIFEST) as mounted:
        mounted.kill()
        with pytest.raises(OSError) as error:
            worker.pread(mounted.path / "dir/joined", 0, 1)
        assert errno.ENOTCONN == error.value.errno
        sweep.unmount_all(mounted.path)


def test_an_ordinary_user_mounts(ordinary_user: User, engine: str) -> None:
    """Through fusermount3; the user's own processes read and write."""
    directory = ordinary_user.new_directory()
    for name, data in (("one.img", b"01234"), ("two.img", b"abc")):
        ordinary_user.write(directory / name, data)
    with (Mount(directory, MANIFEST, engine=engine, user=ordinary_user) as mount,
          Worker(ordinary_user.python, **ordinary_user.process) as worker):
        assert 1 == worker.pwrite(mount.path / "dir/joined", 5, b"A")
        assert b"123\0\0Abc" == worker.pread(mount.path / "dir/joined", 0, 100)
    assert b"Abc" == (directory / "two.img").read_bytes()
