"""Statuses -> Prometheus' text exposition format, version 0.0.4. Pure.

Labels are mountpoint and, of a file's metrics, file (its path inside the mount). Counters begin anew with each
server, as Prometheus expects of a process that restarts.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from regionfs.printable import printable_lines

Sample = tuple[dict[str, str], float]

# name: (type, help); in this order
METRICS = {
    "regionfs_mount_info": ("gauge", "1 for each mount, with its manifest and engine."),
    "regionfs_mount_up": ("gauge", "1 while a server answers the mount's requests."),
    "regionfs_server_restarts_total": ("counter", "Servers that replaced one that died."),
    "regionfs_backing_ids": ("gauge", "Backing files registered with the kernel."),
    "regionfs_file_info": ("gauge", "1 for each file, with its mode."),
    "regionfs_file_failed": ("gauge", "1 while the file cannot be opened: a source is gone, or not what it was."),
    "regionfs_file_size_bytes": ("gauge", "Size of the composite file."),
    "regionfs_file_opens_total": ("counter", "Opens, by the mode that served them."),
    "regionfs_file_reads_total": ("counter", "Reads that the daemon served; the kernel's own are not among them."),
    "regionfs_file_read_bytes_total": ("counter", "Bytes of those reads."),
    "regionfs_file_writes_total": ("counter", "Writes that the daemon served."),
    "regionfs_file_write_bytes_total": ("counter", "Bytes of those writes."),
}
# of a file's status: the metric without its prefix
_FILE = {"size": "size_bytes", "reads": "reads_total", "read_bytes": "read_bytes_total", "writes": "writes_total",
         "write_bytes": "write_bytes_total"}


def expose(statuses: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Lines for `statuses`, entries of `status --json`; every metric is one group, as the format wants it."""
    samples: dict[str, list[Sample]] = {name: [] for name in METRICS}
    for status in statuses:
        _of_mount(status, samples)
    for name, (kind, text) in METRICS.items():
        yield f"# HELP {name} {text}"
        yield f"# TYPE {name} {kind}"
        for labels, value in samples[name]:
            words = ",".join(f'{label}="{_escaped(said)}"' for label, said in labels.items())
            yield f"{name}{{{words}}} {value}"


def _of_mount(status: Mapping[str, Any], samples: dict[str, list[Sample]]) -> None:
    mount = {"mountpoint": status["mountpoint"]}
    info = {**mount, "manifest": status["manifest"], "engine": status["engine"]}
    samples["regionfs_mount_info"].append((info, 1))
    samples["regionfs_mount_up"].append((mount, int(status["pid"] is not None and not status["trouble"])))
    samples["regionfs_server_restarts_total"].append((mount, status["restarts"]))
    samples["regionfs_backing_ids"].append((mount, status.get("backing_ids", 0)))
    for path, file in status["files"].items():
        labels = {**mount, "file": path}
        samples["regionfs_file_info"].append(({**labels, "mode": file["mode"]}, 1))
        samples["regionfs_file_failed"].append((labels, int(bool(file.get("trouble")))))
        for key, name in _FILE.items():
            samples[f"regionfs_file_{name}"].append((labels, file[key]))
        for mode, count in file["opens_by_mode"].items():
            samples["regionfs_file_opens_total"].append(({**labels, "mode": mode}, count))


def _escaped(value: str) -> str:
    """A label's value; only a newline has an escape in the format, whose backslashes are doubled."""
    return printable_lines(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
