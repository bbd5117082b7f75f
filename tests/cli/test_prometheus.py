"""Metrics in the text format: names, labels and escapes."""

from __future__ import annotations

import re
from typing import Any

from regionfs.cli.prometheus import METRICS, expose

LINE = re.compile(r'([a-z_]+)\{((?:[a-z]+="(?:[^"\\\n]|\\[\\"n])*",?)+)\} ([0-9]+)')

FILE = {"mode": "composed", "reason": "", "trouble": "", "size": 4096, "opens": 3,
        "opens_by_mode": {"composed": 2, "userspace": 1}, "reads": 5, "read_bytes": 6, "writes": 7, "write_bytes": 8}


def status(**more: Any) -> dict[str, Any]:
    return {"mountpoint": "/mnt", "manifest": "/m.yaml", "engine": "native", "pid": 7, "restarts": 2, "trouble": "",
            "backing_ids": 1, "files": {"a": FILE}, **more}


def metrics(*statuses: dict[str, Any]) -> dict[tuple[str, str], int]:
    """(name, labels) -> value, of lines that keep the format."""
    found = {}
    for line in expose(statuses):
        if not line.startswith("# "):
            match = LINE.fullmatch(line)
            assert match, line
            found[match[1], match[2]] = int(match[3])
    return found


def test_every_counter_of_a_file() -> None:
    """Sizes, opens by mode, and what the daemon served."""
    label = 'mountpoint="/mnt",file="a"'
    expected = {"size_bytes": 4096, "reads_total": 5, "read_bytes_total": 6, "writes_total": 7, "write_bytes_total": 8}
    found = metrics(status())
    assert expected == {name: found[f"regionfs_file_{name}", label] for name in expected}
    opens = [found["regionfs_file_opens_total", f'{label},mode="{mode}"'] for mode in ("composed", "userspace")]
    assert [2, 1] == opens


def test_a_file_that_fails() -> None:
    """1 for it alone; a server of an older version says nothing, and that is 0."""
    older = {key: value for key, value in FILE.items() if key != "trouble"}
    found = metrics(status(files={"a": FILE, "b": FILE | {"trouble": "/b.img does not exist"}, "c": older}))
    failed = {labels[-2]: value for (name, labels), value in found.items() if name == "regionfs_file_failed"}
    assert {"a": 0, "b": 1, "c": 0} == failed


def test_a_dead_mount_is_down() -> None:
    """No pid, or a server that cannot be started."""
    found = metrics(status(), status(mountpoint="/dead", pid=None), status(mountpoint="/bad", trouble="no manifest"))
    up = {labels: value for (name, labels), value in found.items() if name == "regionfs_mount_up"}
    assert {'mountpoint="/mnt"': 1, 'mountpoint="/dead"': 0, 'mountpoint="/bad"': 0} == up


def test_each_metric_is_one_group() -> None:
    """HELP, TYPE and all samples of a name stand together."""
    names = [line.split("{")[0].split(" ")[2 if line.startswith("#") else 0]
             for line in expose([status(), status(mountpoint="/b")])]
    assert list(METRICS) == list(dict.fromkeys(names))
    assert list(METRICS) == [name for index, name in enumerate(names) if index == 0 or names[index - 1] != name]


def test_labels_are_escaped() -> None:
    """Quotes, backslashes, newlines, and bytes that are no UTF-8."""
    path = 'q"b\\n\nx\udcff'
    found = metrics(status(files={path: FILE}))
    assert 4096 == found["regionfs_file_size_bytes", 'mountpoint="/mnt",file="q\\"b\\\\n\\nx\\\\xff"']
