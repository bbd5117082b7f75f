"""`regionfs check`: every problem of manifests, for people or programs. Mounts nothing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from regionfs.cli.common import examples, json_option, load_manifest, print_json, say
from regionfs.cli.sectors import warnings
from regionfs.errors import ManifestError, MountError, Problem
from regionfs.manifest.told import contents, counted


@click.command(epilog=examples("regionfs check disk.yaml", "regionfs check --json manifests/*.yaml",
                               "regionfs check /mnt/vm"))
@click.argument("manifests", metavar="MANIFEST...", nargs=-1, required=True,
                type=click.Path(path_type=Path))
@json_option
@click.pass_context
def check(ctx: click.Context, manifests: tuple[Path, ...], as_json: bool) -> None:
    """Report every problem of each MANIFEST, with its line and column.

    Sources are looked at but not read (only the first sectors of what may be a disk of an odd size), and nothing is
    mounted. Exit status 3 if any manifest is invalid. In a
    manifest's place may be the directory of a mount: then the files that cannot be opened now, with exit status 1.
    """
    reports = []
    for path in manifests:
        report = _report(path)
        reports.append(report)
        if not as_json:
            _print(report)
    if as_json:
        print_json({"manifests": [report | {"problems": [asdict(problem) for problem in report["problems"]]}
                                  for report in reports]})
    statuses = [MountError.exit_status if "mountpoint" in report else ManifestError.exit_status
                for report in reports if not report["ok"]]
    if statuses:
        ctx.exit(max(statuses))


def _report(path: Path) -> dict[str, Any]:
    report = {"manifest": str(path), "ok": True, "files": 0, "regions": 0, "sources": 0, "problems": (),
              "warnings": []}
    if (point := _mount_on(path)) is not None:
        return report | _of_mount(point)
    try:
        manifest = load_manifest(path)
    except ManifestError as error:
        return report | {"ok": False, "problems": error.problems}
    found = list(warnings(manifest, manifest.files.values()))
    return report | {**contents(manifest), "warnings": found}


def _mount_on(path: Path) -> Path | None:
    from regionfs.wire.mounts import find, settle
    point = settle(path)
    return point if find(point) else None


def _of_mount(point: Path) -> dict[str, Any]:
    """What fails in a running mount; there are no lines, so they are 0."""
    from regionfs.daemon.start import statuses
    status, = statuses(point)
    found = [Problem(str(point), 0, 0, path, f"cannot be opened: {file['trouble']}")
             for path, file in status["files"].items() if file.get("trouble")]
    if status["trouble"]:
        found.insert(0, Problem(str(point), 0, 0, "", status["trouble"]))
    return {"manifest": status["manifest"], "mountpoint": str(point), "ok": not found,
            "files": len(status["files"]), "problems": found}


def _print(report: dict[str, Any]) -> None:
    for problem in report["problems"]:
        where = f"{problem.file}: {problem.path}".removesuffix(": ")
        say(f"{where}: {problem.message}" if "mountpoint" in report else str(problem), err=True)
    for line in report["warnings"]:
        say(f"warning: {line}", err=True)
    if report["ok"] and "mountpoint" in report:
        say(f"{report['mountpoint']}: ok ({counted({'files': report['files']})} of {report['manifest']})")
    elif report["ok"]:
        counts = counted({what: report[what] for what in ("files", "regions", "sources")})
        say(f"{report['manifest']}: ok ({counts})")
