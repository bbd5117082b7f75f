"""regionfs reload: read a mount's manifest again."""

from __future__ import annotations

from pathlib import Path

import click

from regionfs.cli.common import MOUNT_POINT, examples, json_option, print_json, say


@click.command(epilog=examples("regionfs reload /mnt/vm", "regionfs reload --dry-run /mnt/vm new.yaml"))
@click.argument("directory", type=MOUNT_POINT)
@click.argument("manifest", required=False, type=click.Path(path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say what would change, and change nothing.")
@json_option
def reload(directory: Path, manifest: Path | None, dry_run: bool, as_json: bool) -> None:
    """Swap the map of the mount on DIRECTORY, all or nothing.

    Files whose map changed get a new inode: what is open keeps the old bytes, new opens see the new.
    """
    from regionfs.daemon.start import ask
    from regionfs.wire.mounts import settle

    path = str(manifest.absolute()) if manifest is not None else None
    answer = ask(settle(directory), "reload", manifest=path, dry_run=dry_run)
    for warning in answer.get("warnings", ()):
        say(f"warning: {warning}", err=True)
    if as_json:
        print_json(answer)
        return
    for word in ("added", "removed", "changed"):
        for name in answer.get(word, ()):
            say(f"{word} {name}")
    say(f"{answer['unchanged']} files unchanged" if not answer.get("recovering") else "a new server is starting")
