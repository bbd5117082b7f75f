"""regionfs status: what running mounts do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from regionfs.cli.common import MOUNT_POINT, emit, examples, json_option, print_json, say, table
from regionfs.errors import UsageError
from regionfs.units import human_size


@click.command(epilog=examples("regionfs status", "regionfs status /mnt/vm --json",
                               "regionfs status --prometheus > /var/lib/prometheus/node-exporter/regionfs.prom"))
@click.argument("directory", required=False, type=MOUNT_POINT)
@json_option
@click.option("--prometheus", is_flag=True, help="Write metrics in Prometheus' text format.")
@click.pass_context
def status(ctx: click.Context, directory: Path | None, as_json: bool, prometheus: bool) -> None:
    """Show mounts; per file its mode, reason, opens, and what the daemon served.

    The exit status is 1 when there is trouble: no daemon, or none that answers or can serve, or a file that cannot
    be opened. Then the reason stands below.
    """
    from regionfs.daemon.start import statuses
    from regionfs.wire.mounts import settle

    if as_json and prometheus:
        raise UsageError("--json and --prometheus are two forms of the same; choose one")
    mounts = list(statuses(settle(directory) if directory is not None else None))
    if prometheus:
        from regionfs.cli.prometheus import expose
        emit("\n".join(expose(mounts)) + "\n")
    elif as_json:
        print_json({"mounts": mounts})
    elif not mounts:
        say("no mounts", err=True)
    else:
        for mount in mounts:
            _print(mount)
    if any(mount["trouble"] or any(_failing(mount)) for mount in mounts):
        ctx.exit(1)


def _failing(mount: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Files that cannot be opened, and why. A server of an older version does not tell."""
    for path, file in mount["files"].items():
        if trouble := file.get("trouble"):
            yield path, trouble


def _print(mount: dict[str, Any]) -> None:
    say(f"{mount['mountpoint']}: {mount['manifest']}, engine {mount['engine'] or 'none'}, pid {mount['pid']}, "
               f"{mount['restarts']} restarts")
    if mount["trouble"]:
        say(f"  {mount['trouble']}")
    for note in mount.get("notes", ()):
        say(f"  note: {note}")
    if log := mount.get("log"):
        say(f"  log: {log}")
    if mount["places"] and mount["mountpoint"] not in mount["places"]:
        say(f"  not mounted there any more; in use by {', '.join(mount['places'])}")
    rows = [(path, human_size(file["size"]), file["mode"], str(file["opens"]),
             f"{file['reads']} ({human_size(file['read_bytes'])})",
             f"{file['writes']} ({human_size(file['write_bytes'])})", file["reason"])
            for path, file in mount["files"].items()]
    if not rows:
        return
    for line in table(("file", "size", "mode", "opens", "reads", "writes", "reason"), rows):
        say(f"  {line}")
    for path, trouble in _failing(mount):
        say(f"  {path} cannot be opened: {trouble}")
