"""`regionfs check`: every problem of manifests, for people or programs. Mounts nothing."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from regionfs.cli.common import examples, json_option, load_manifest, print_json, say
from regionfs.errors import ManifestError
from regionfs.manifest.told import contents, counted


@click.command(epilog=examples("regionfs check disk.yaml", "regionfs check --json manifests/*.yaml"))
@click.argument("manifests", metavar="MANIFEST...", nargs=-1, required=True,
                type=click.Path(path_type=Path))
@json_option
@click.pass_context
def check(ctx: click.Context, manifests: tuple[Path, ...], as_json: bool) -> None:
    """Report every problem of each MANIFEST, with its line and column.

    Sources are looked at but not read, and nothing is mounted. Exit status 3 if any manifest is invalid.
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
    if not all(report["ok"] for report in reports):
        ctx.exit(ManifestError.exit_status)


def _report(path: Path) -> dict[str, Any]:
    report = {"manifest": str(path), "ok": True, "files": 0, "regions": 0, "sources": 0, "problems": ()}
    try:
        manifest = load_manifest(path)
    except ManifestError as error:
        return report | {"ok": False, "problems": error.problems}
    return report | contents(manifest)


def _print(report: dict[str, Any]) -> None:
    for problem in report["problems"]:
        say(str(problem), err=True)
    if report["ok"]:
        counts = counted({what: report[what] for what in ("files", "regions", "sources")})
        say(f"{report['manifest']}: ok ({counts})")
