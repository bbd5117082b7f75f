"""What was aimed at: ratios of medians within one result, each with the row where it is lowest."""

from __future__ import annotations

from dataclasses import dataclass

from bench import table

FILE, PASSTHROUGH, NATIVE, PYFUSE3 = "file", "regionfs passthrough", "regionfs native", "regionfs pyfuse3"
COMPOSED, THOUSAND = "regionfs composed", "composed, 1,024 regions"
C_EXAMPLES = ("passthrough_ll", "passthrough_hp")
USERSPACE = (*C_EXAMPLES, "nbdfuse", "qemu-storage-daemon", "mergerfs", "bindfs")

SEQUENTIAL = ("sequential 1 MiB", "sequential 128 KiB")
RANDOM = "random 4 KiB"
EIGHT = tuple(f"{verb} {shape}, {way}" for verb in ("read", "write") for shape in (SEQUENTIAL[1], RANDOM)
              for way in ("buffered", "O_DIRECT"))
FIRST_TOUCH = tuple(f"read {shape}, first touch" for shape in SEQUENTIAL)
WARM = tuple(f"read {shape}, buffered" for shape in SEQUENTIAL)
WRITES = tuple(f"write {shape}, {way}" for shape in (*SEQUENTIAL, RANDOM) for way in ("buffered", "O_DIRECT"))
DEEP = "read random 4 KiB, depth 16, O_DIRECT"
AUTHORS = tuple(f"patch author's {rw}" for rw in ("read", "randread", "write", "randwrite"))


@dataclass(frozen=True)
class Target:
    """`mine` is at least `least` times the best of `others`, in every row of `rows`; in all that there are if empty."""

    what: str
    least: float
    mine: str
    others: tuple[str, ...]
    rows: tuple[str, ...] = ()

    def ratios(self, result: table.Result) -> dict[str, float]:
        """Row to ratio, where both sides were measured."""
        found = {}
        for row in self.rows or tuple(entry["name"] for entry in result["workloads"]):
            shares = [share for other in self.others if (share := table.ratio(result, row, self.mine, other))]
            if shares:
                found[row] = min(shares)
        return found


TARGETS = (
    Target("passthrough / the file, eight workloads", 0.99, PASSTHROUGH, (FILE,), EIGHT),
    Target("passthrough / passthrough_hp with passthrough, the same eight", 1.0, PASSTHROUGH,
           ("passthrough_hp with passthrough",), EIGHT),
    Target("passthrough / the file, the patch author's four", 0.97, PASSTHROUGH, (FILE,), AUTHORS),
    Target("composed, 1,024 regions, warm / the file, sequential", 0.97, THOUSAND, (FILE,), WARM),
    Target("composed, 1,024 regions, warm / the file, random", 0.90, THOUSAND, (FILE,), (f"read {RANDOM}, buffered",)),
    Target("composed, first touch / best userspace peer", 2.5, COMPOSED, USERSPACE, FIRST_TOUCH),
    Target("composed, first touch / better C example", 2.0, COMPOSED, C_EXAMPLES, FIRST_TOUCH),
    Target("composed, first touch / native", 1.2, COMPOSED, (NATIVE,), FIRST_TOUCH),
    Target("native / better C example, random O_DIRECT, depth 16", 3.0, NATIVE, C_EXAMPLES, (DEEP,)),
    Target("native / pyfuse3, the same", 3.0, NATIVE, (PYFUSE3,), (DEEP,)),
    Target("native / better C example, sequential first touch", 1.5, NATIVE, C_EXAMPLES, FIRST_TOUCH),
    Target("native / better C example, sequential, warm", 1.0, NATIVE, C_EXAMPLES, WARM),
    Target("native / better C example, depth 1, same core", 0.85, NATIVE, C_EXAMPLES,
           (f"read {RANDOM}, O_DIRECT, same core",)),
    Target("native / better C example, depth 1, two cores", 1.0, NATIVE, C_EXAMPLES,
           (f"read {RANDOM}, O_DIRECT, two cores",)),
    Target("native / better C example, writes", 1.2, NATIVE, C_EXAMPLES, WRITES),
    Target("native / nbdfuse, every workload", 1.5, NATIVE, ("nbdfuse",)),
    Target("native / qemu-storage-daemon, every workload", 1.5, NATIVE, ("qemu-storage-daemon",)),
)


def markdown(result: table.Result) -> str:
    """A line for each target: the lowest ratio, where it was, and whether it is enough."""
    return "\n".join(["|ratio|target|lowest|in|met|", "|---|---:|---:|---|---|",
                      *(_line(target, target.ratios(result)) for target in TARGETS)])


def _line(target: Target, ratios: dict[str, float]) -> str:
    start = f"|{target.what}|{target.least:g}|"
    if not ratios:
        return f"{start}-|-|not measured|"
    lowest = min(ratios, key=lambda row: ratios[row])
    enough = sum(share >= target.least for share in ratios.values())
    return f"{start}**{ratios[lowest]:.3g}**|{lowest}|{_verdict(enough, len(ratios))}|"


def _verdict(enough: int, measured: int) -> str:
    if enough == measured:
        return "yes"
    return "no" if measured == 1 else f"{enough} of {measured}"
