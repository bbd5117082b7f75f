"""The worker does what the calls it is named after do, on a plain file."""

import errno
import os
import signal
from pathlib import Path

import pytest

from tests.worker import Worker, WorkerError


def test_results_come_in_order_and_errors_do_not_stop_the_rest(tmp_path: Path) -> None:
    """A failed call's result is its OSError; later calls of the list still run."""
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with Worker() as worker:
        results = worker.run([("pread", path, 2, 3), ("pread", tmp_path / "none", 0, 1),
                              ("pwrite", path, 9, b"xy")])
    assert b"234" == results[0]
    assert errno.ENOENT == results[1].errno
    assert 2 == results[2]
    assert b"012345678xy" == path.read_bytes()


def test_every_way_to_read_gives_the_same_bytes(tmp_path: Path) -> None:
    """pread, O_DIRECT, both mappings and sendfile agree."""
    path = tmp_path / "file"
    path.write_bytes(os.urandom(8192))
    with Worker() as worker:
        results = worker.run([("pread", path, 4096, 4096), ("pread_direct", path, 4096, 4096),
                              ("mmap_read", path, 4096, 4096), ("mmap_read", path, 4096, 4096, False),
                              ("sendfile", path, 4096, 4096)])
    assert [path.read_bytes()[4096:]] * 5 == results


def test_holes_are_found_after_punching(tmp_path: Path) -> None:
    """fallocate's bits and the offsets of SEEK_DATA and SEEK_HOLE reach the kernel as given."""
    path = tmp_path / "file"
    path.write_bytes(bytes([1]) * 3 * 65536)
    with Worker() as worker:
        worker.fallocate(path, 0x03, 65536, 65536)  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
        assert 65536 == worker.lseek_hole(path, 0)
        assert 131072 == worker.lseek_data(path, 65536)


def test_a_fault_in_a_mapping_is_reported_with_its_signal(tmp_path: Path) -> None:
    """A worker that dies of SIGBUS says so instead of hanging the test."""
    path = tmp_path / "file"
    path.write_bytes(bytes(8192))
    with Worker() as worker:
        handle = worker.open(path, os.O_RDWR)
        view = worker.map(handle)
        worker.truncate(path, 0)
        with pytest.raises(WorkerError) as death:
            worker.view_read(view, 4096, 1)
    assert -signal.SIGBUS == death.value.returncode
