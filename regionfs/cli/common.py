"""What several commands share: arguments, loading, JSON and tables on stdout.

Imports what it needs at the call, because every command pays for this module's imports.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from regionfs.errors import UnitError, UsageError
from regionfs.printable import printable

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from regionfs.manifest.schema import FileSpec, Manifest
    from regionfs.regions import RegionMap

F = TypeVar("F", bound=Callable[..., Any])

COMPLETION_LIMIT = 1 << 20  # bytes; reading a larger manifest would make the Tab key slow
TABLE_BLOCK = 1000          # rows aligned together
NOTHING = "-"               # a cell that has no value


class Size(click.ParamType[int]):
    """Bytes with a unit, as in a manifest."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number of bytes; wrong usage when it is none."""
        from regionfs.units import parse_size
        try:
            return parse_size(value)
        except UnitError as error:
            self.fail(str(error), param, ctx)


class SizeText(Size):
    """The same, as it was written."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The text; wrong usage when it is no number of bytes."""
        super().convert(value, param, ctx)
        return value


class MountPoint(click.ParamType[Path]):
    """A directory that is not looked at: whoever is mounted there may not answer."""

    name = "directory"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """The path as it was given."""
        return Path(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Directories, by the shell."""
        from click.shell_completion import CompletionItem
        return [CompletionItem(incomplete, type="dir")]


SIZE = Size()
SIZE_TEXT = SizeText()
MOUNT_POINT = MountPoint()


def examples(*lines: str) -> str:
    """The end of a command's help page."""
    return "\n".join(["\b", "Examples:" if lines[1:] else "Example:", *(f"  {line}" for line in lines)])


def manifest_argument(function: F) -> F:
    """MANIFEST as the parameter `manifest`."""
    return click.argument("manifest", type=click.Path(path_type=Path))(function)


def file_argument(*, required: bool = True) -> Callable[[F], F]:
    """FILE as the parameter `file`, completed from the manifest before it."""
    return click.argument("file", required=required, shell_complete=_complete_file)


quiet_option = click.option("-q", "--quiet", is_flag=True, help="Do not say what was done.")
json_option = click.option("--json", "as_json", is_flag=True, help="Write JSON for programs.")


def load_manifest(path: Path) -> Manifest:
    """The manifest at `path`. Raises ManifestError with every problem, OSError when unreadable."""
    from regionfs.manifest.load import load
    return load(path)


def find_file(manifest: Manifest, name: str) -> FileSpec:
    """The composite file `name`. Raises UsageError with the nearest known one."""
    if (found := manifest.files.get(name.strip("/"))) is None:
        raise UsageError(f"{manifest.path} has no file {name!r}{nearest(name, manifest.files)}")
    return found


def nearest(name: str, known: Iterable[str]) -> str:
    """'; did you mean ...?' for a name that is close to a known one, else ''."""
    from difflib import get_close_matches
    close = get_close_matches(name, islice(known, 10_000), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def whole_map(file: FileSpec, sizes: Callable[[str], int]) -> RegionMap:
    """Its region map; for a `whole` file one region over the `sizes(source)` bytes it has now."""
    from regionfs.manifest.body import Whole
    return file.body.as_map(sizes(file.body.source) if isinstance(file.body, Whole) else 0)


def access(writable: bool) -> str:
    """The manifest's word."""
    return "rw" if writable else "ro"


def say(line: str = "", *, err: bool = False) -> None:
    """Write one line for people to stdout or stderr; nothing in it is obeyed by a terminal."""
    click.echo(printable(line), err=err)


def emit(text: str) -> None:
    """Write `text` to stdout as it is: a form for programs, which has escapes of its own."""
    click.echo(text, nl=False)


def print_json(value: Any) -> None:
    """Write `value` to stdout as JSON: indented for people at a terminal, a line for programs."""
    import json
    emit(json.dumps(value, indent=2 if sys.stdout.isatty() else None) + "\n")


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Aligned lines that only show; numbers go to the right. Rows pass in blocks, each as wide as it needs."""
    pending: list[Sequence[str]] = [header]
    shown = (tuple(map(printable, row)) for row in rows)
    widths, right = [0] * len(header), [True] * len(header)
    while pending:
        block = [*pending, *islice(shown, TABLE_BLOCK)]
        body = block[1:] if block[0] is header else block
        for index in range(len(header)):
            widths[index] = max(widths[index], *(len(row[index]) for row in block))
            right[index] = right[index] and all(_numeric(row[index]) for row in body)
        for row in block:
            yield "  ".join(cell.rjust(width) if is_right else cell.ljust(width)
                            for cell, width, is_right in zip(row, widths, right, strict=True)).rstrip()
        pending = list(islice(shown, 1))


def _numeric(cell: str) -> bool:
    return cell == NOTHING or cell[:1].isdigit()


def _complete_file(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from click.shell_completion import CompletionItem
    try:
        path = Path(ctx.params["manifest"]).expanduser()
        files = load_manifest(path).files if path.stat().st_size <= COMPLETION_LIMIT else {}
    except Exception:  # whatever is wrong: a Tab key must not print
        return []
    return [CompletionItem(name) for name in files if name.startswith(incomplete) and printable(name) == name]
