"""Who is measured: one row per subject, each a way to see the same regions of the same bytes.

The bytes lie on a disk and, for the O_DIRECT rows of servers in userspace, also in a tmpfs: some hand the flag
down to the file below, and so everyone's source is warm in every workload.
"""

from __future__ import annotations

from dataclasses import dataclass

from bench import peers
from bench.servers import Start, bind_mount, nbdfuse, over_directory, plain, qemu, regionfs, tool
from bench.store import COARSE, FINE
from bench.workloads import Workload

# groups of workloads
FEW = frozenset(("short",))
MANY = FEW | {"depth 16", "mmap", "clients", "placement"}
MOST = MANY | {"1 MiB"}


@dataclass(frozen=True)
class Subject:
    """One column of a table."""

    name: str
    what: str          # a line under the table
    start: Start
    groups: frozenset[str] = MOST  # of workloads that it takes part in
    family: str = "regionfs"    # "peers" stand in a table of their own
    direct_store: str = "disk"  # where its bytes lie in O_DIRECT workloads; "disk" in all others
    baseline: str = "file"      # the subject that its ratios refer to
    own_cache: bool = True      # besides the page cache of its source; first touch drops it
    reads_only: bool = False
    fresh: bool = False         # its cache can only be dropped by starting it anew
    keeps_cache: bool = True    # when it is opened again; else there is nothing to hold
    on_disk: bool = False       # takes turns where the disk decides

    def does(self, workload: Workload) -> bool:
        return workload.group in self.groups and not (workload.writes and self.reads_only)

    def store(self, workload: Workload) -> str:
        """Where its bytes lie."""
        return "large" if self.takes_turns(workload) else self.direct_store if workload.direct else "disk"

    def takes_turns(self, workload: Workload) -> bool:
        """With others, in one run."""
        return self.on_disk and workload.turn > 0


def peer(name: str, what: str, start: Start, groups: frozenset[str] = MOST, *, direct_store: str = "disk",
         keeps_cache: bool = False) -> Subject:
    return Subject(name, what, start, groups, "peers", direct_store, keeps_cache=keeps_cache)


SUBJECTS = (
    Subject("file", "the file itself; with O_DIRECT this is the disk", plain, MOST | {"author"}, own_cache=False,
            on_disk=True),
    Subject("regionfs native", "64 regions, native engine, userspace mode; O_DIRECT over a tmpfs",
            regionfs(COARSE, "rw", "native", "userspace"), direct_store="memory"),
    Subject("regionfs pyfuse3", "64 regions, pyfuse3 engine, userspace mode; O_DIRECT over a tmpfs",
            regionfs(COARSE, "rw", "pyfuse3", "userspace"), FEW | {"depth 16"}, direct_store="memory"),
    Subject("regionfs passthrough", "the file as `whole`", regionfs(None, "rw", "native", "passthrough"),
            MOST - {"placement"} | {"author"}, on_disk=True),
    Subject("regionfs composed", "64 regions, read-only", regionfs(COARSE, "ro", "native", "composed"),
            MOST - {"placement"}, reads_only=True, fresh=True),
    Subject("composed, 1,024 regions", "read-only, regions of 256 KiB",
            regionfs(FINE, "ro", "native", "composed"), FEW | {"1 MiB"}, reads_only=True, fresh=True),
    Subject("bind mount", "the file's directory, bound", bind_mount, FEW | {"author"}, "peers", own_cache=False,
            on_disk=True),
    peer("passthrough_ll", "libfuse's C example over the file; O_DIRECT over a tmpfs",
         over_directory(lambda source, point: [peers.passthrough_ll(), "-f", "-o", f"source={source}", point]),
         direct_store="memory"),
    peer("passthrough_hp", "libfuse's C++ example over the file; O_DIRECT over a tmpfs",
         over_directory(lambda source, point: [peers.passthrough_hp(), "--foreground", source, point]),
         direct_store="memory", keeps_cache=True),
    Subject("passthrough_hp with passthrough", "the same of a newer libfuse, which lets the kernel read and write",
            over_directory(lambda source, point: [peers.passthrough_hp_newer(), "--foreground", source, point],
                           passthrough=True), FEW, "peers", on_disk=True),
    peer("nbdfuse", "nbdkit's split plugin, a file for each of 64 regions, under nbdfuse; O_DIRECT over a tmpfs",
         nbdfuse, MANY, direct_store="memory"),
    peer("qemu-storage-daemon", "its FUSE export of a VMDK, an extent for each of 64 regions; O_DIRECT over a tmpfs",
         qemu, MANY, direct_store="memory"),
    peer("mergerfs", "over the file; O_DIRECT over a tmpfs", over_directory(tool("mergerfs", "-f")), FEW,
         direct_store="memory"),
    peer("bindfs", "over the file", over_directory(tool("bindfs", "-f")), FEW),
)
