"""`regionfs map`: edits of a region map from the command line. Knows words, not what edits mean.

Every subcommand turns its arguments into one change (manifest.edit_ops) and hands it to `_edit`,
which locks, checks, and saves or shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from difflib import unified_diff
from inspect import cleandoc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from regionfs.cli.common import (
    SIZE,
    SIZE_TEXT,
    F,
    access,
    examples,
    file_argument,
    manifest_argument,
    quiet_option,
    say,
)
from regionfs.cli.mounted import tell_written
from regionfs.cli.names import Group
from regionfs.errors import UsageError

if TYPE_CHECKING:
    from regionfs.manifest.edit import Edited
    from regionfs.manifest.edit_draft import Change, Value
    from regionfs.manifest.schema import FileSpec

_DATA = ("hex", "base64", "text", "file")
_WORDS = {"rw": ("access", "rw"), "ro": ("access", "ro"), "hole": ("hole", "true"),
          "error": ("error", "true"), "over": ("over", "true")}
_REGION = """A REGION is named by its number in show, which counts from 0, such as 2, by its start, such as @1MiB, or as
messages do: regions[2]."""
_KEYS = """KEY=VALUE are the manifest's own keys: start, length, source, offset, access, align, over, hole,
error, and hex, base64, text or file for data. rw, hole, error and over may stand alone. Paths are
relative to the manifest's directory."""


@click.group("map", cls=Group, epilog=examples(
    "regionfs map add disk.yaml vm/disk.img start=1MiB source=images/esp.img rw",
    "regionfs map cut --close --dry-run disk.yaml vm/disk.img 1MiB 64KiB"))
def map_() -> None:
    """Edit the region map of a composite file.

    Nothing moves but what the command names or says it moves: a region that is placed by the one
    before it gets a start of its own where it would slip. Every edit is checked as a whole before
    anything is written; comments, order and untouched lines stay as they are.
    """


def _editing(name: str, *lines: str, notes: str = "") -> Callable[[F], click.Command]:
    """A subcommand on MANIFEST and FILE with --dry-run; `lines` are examples."""
    def decorate(function: F) -> click.Command:
        option = click.option("--dry-run", is_flag=True, help="Show what would change; write nothing.")
        command = map_.command(name, epilog=examples(*lines), help=f"{cleandoc(function.__doc__ or '')}\n\n{notes}")
        return command(manifest_argument(file_argument()(option(quiet_option(function)))))
    return decorate


@_editing("add", "regionfs map add disk.yaml vm/disk.img start=1MiB source=images/esp.img rw",
          "regionfs map add disk.yaml vm/disk.img start=0 hex=33c0 over",
          notes=_KEYS)
@click.argument("keys", metavar="KEY=VALUE...", nargs=-1, required=True)
def add(keys: tuple[str, ...], **place: Any) -> None:
    """Add a region; without a start it goes after the last one of the text."""
    from regionfs.manifest.edit_ops import add as change
    _edit(change(_given(keys)), **place)


@_editing("rm", "regionfs map rm disk.yaml vm/disk.img @1MiB",
          notes=_REGION)
@click.argument("regions", metavar="REGION...", nargs=-1, required=True)
def rm(regions: tuple[str, ...], **place: Any) -> None:
    """Remove regions. Nothing moves; where nothing else lies is a hole."""
    from regionfs.manifest.edit_ops import remove
    _edit(remove(regions), **place)


@_editing("set", "regionfs map set disk.yaml vm/disk.img 2 access=rw", "regionfs map set disk.yaml data.bin 0 length=",
          notes=f"{_REGION}\n\n{_KEYS}")
@click.argument("region")
@click.argument("keys", metavar="KEY=VALUE...", nargs=-1, required=True)
def set_(region: str, keys: tuple[str, ...], **place: Any) -> None:
    """Change keys of a region; KEY= takes the key away. Another kind replaces the old one."""
    from regionfs.manifest.edit_ops import assign
    fields = _parsed(keys)
    _edit(assign(region, fields), source=fields.get("source"), **place)


@_editing("move", "regionfs map move disk.yaml vm/disk.img @1MiB 2MiB",
          notes=_REGION)
@click.argument("region")
@click.argument("start", type=SIZE)
def move(region: str, start: int, **place: Any) -> None:
    """Give a region another start. Nothing else moves."""
    from regionfs.manifest.edit_ops import move as change
    _edit(change(region, start), **place)


@_editing("split", "regionfs map split data.yaml data.bin 1GiB 2GiB")
@click.argument("positions", metavar="POSITION...", type=SIZE, nargs=-1, required=True)
def split(positions: tuple[int, ...], **place: Any) -> None:
    """Split the region that shows at each POSITION of the file in two."""
    from regionfs.manifest.edit_ops import split as change
    _edit(change(positions), **place)


@_editing("cut", "regionfs map cut data.yaml data.bin 1GiB 64KiB", "regionfs map cut --close data.yaml data.bin 0 512")
@click.argument("start", type=SIZE)
@click.argument("length", type=SIZE)
@click.option("--close", is_flag=True, help="Move up what follows; the file gets smaller.")
def cut(start: int, length: int, close: bool, **place: Any) -> None:
    """Take LENGTH bytes at START out of the map, whatever lies there, and leave a hole."""
    from regionfs.manifest.edit_ops import cut as change
    _edit(change(start, length, close=close), **place)


@_editing("insert", "regionfs map insert data.yaml data.bin 512 source=part.bin",
          "regionfs map insert data.yaml data.bin 0 length=1MiB",
          notes=_KEYS)
@click.argument("start", type=SIZE_TEXT)
@click.argument("keys", metavar="KEY=VALUE...", nargs=-1, required=True)
def insert(start: str, keys: tuple[str, ...], **place: Any) -> None:
    """Insert a region at START, or a hole when only length= is given.

    What follows moves down and the file grows; a region across START is split.
    """
    from regionfs.manifest.edit_ops import insert as change
    fields = _given(keys)
    if taken := {"start", "align", "over"} & set(fields):
        raise UsageError(f"insert takes no {', '.join(sorted(taken))}: START is the place and what follows moves down")
    _edit(change(start, fields), **place)


@_editing("resize", "regionfs map resize disk.yaml vm/disk.img 8GiB",
          "regionfs map resize disk.yaml vm/disk.img @1MiB 64MiB",
          notes=_REGION)
@click.argument("words", metavar="[REGION] SIZE", nargs=-1, required=True)
def resize(words: tuple[str, ...], **place: Any) -> None:
    """Give the file, or a REGION of it, another size. Nothing moves."""
    from regionfs.manifest.edit_ops import resize as change
    from regionfs.manifest.edit_ops import resize_file
    from regionfs.units import parse_size
    if len(words) > 2:
        raise UsageError(f"resize takes a SIZE for the file, or a REGION and a SIZE, not {len(words)} words")
    size = parse_size(words[-1])
    _edit(resize_file(size) if len(words) == 1 else change(words[0], size), **place)


@_editing("merge", "regionfs map merge data.yaml data.bin", "regionfs map merge data.yaml data.bin 2 3 4",
          notes=_REGION)
@click.argument("regions", metavar="[REGION...]", nargs=-1)
def merge(regions: tuple[str, ...], **place: Any) -> None:
    """Join regions that go on in each other, in the file and in their source.

    Without a REGION, all that do.
    """
    from regionfs.manifest.edit_ops import merge as change
    _edit(change(regions), **place)


@map_.command("edit", epilog=examples("EDITOR=nano regionfs map edit disk.yaml"))
@manifest_argument
@quiet_option
def edit(manifest: Path, quiet: bool) -> None:
    """Open MANIFEST in $VISUAL or $EDITOR; what does not check is not saved.

    The editor gets a copy. Other edits wait until it is closed.
    """
    from regionfs.cli.editor import edit_copy
    from regionfs.manifest.edit_save import locked
    with locked(manifest, lambda: _waiting(manifest)) as held:
        old = held.read()
        new = edit_copy(old, manifest)
        if new == old:
            say(f"{manifest}: unchanged", err=True)
        else:
            held.replace(new)
            tell_written(manifest, _saved(old, new, manifest), quiet=quiet)


def _saved(old: str, new: str, manifest: Path) -> str:
    """What a person's edit comes to; the old text may not have been valid."""
    from regionfs.errors import ManifestError
    from regionfs.manifest.load import loads
    from regionfs.manifest.told import contents, counted, files_change
    after = loads(new, manifest)
    try:
        return f"saved; {files_change(loads(old, manifest), after)}"
    except ManifestError:
        return f"saved; {counted(contents(after))}"


def _edit(change: Change, *, manifest: Path, file: str, dry_run: bool, quiet: bool,
          source: Value | None = None) -> None:
    """Make the change, say what came of it; `source` is one that a region was given in the place of another."""
    from regionfs.manifest.edit import edit_text
    from regionfs.manifest.edit_save import locked
    with locked(manifest, lambda: _waiting(manifest)) as held:
        edited = edit_text(held.read(), manifest, file.strip("/"), change)
        if edited.new == edited.old:
            say(f"{manifest}: nothing to change", err=True)
        elif dry_run:
            for line in _differences(edited, manifest):
                say(line.rstrip("\n").expandtabs())
        else:
            held.replace(edited.new)
            tell_written(manifest, _told(edited), quiet=quiet)
        if isinstance(source, str):
            _warn_of_rest(edited, source)


def _told(edited: Edited) -> str:
    from regionfs.manifest.told import map_change
    before, after = edited.before.regions, edited.after.regions
    return f"{edited.after.path}: {map_change(before, after)}"


def _warn_of_rest(edited: Edited, source: str) -> None:
    """A region keeps its length when it gets another source, which may be larger."""
    from regionfs.manifest.inspect import inspect_source
    from regionfs.manifest.told import shortened
    size = inspect_source(edited.manifest.sources[source].path).size
    if note := shortened(edited.after, source, size):
        say(f"{note}: its length is as it was; length= takes that away", err=True)


def _waiting(manifest: Path) -> None:
    say(f"{manifest} is being edited by someone else; waiting", err=True)


def _differences(edited: Edited, manifest: Path) -> Iterator[str]:
    yield from _diff(edited.old.splitlines(keepends=True), edited.new.splitlines(keepends=True), str(manifest))
    yield from _diff(_rows(edited.before), _rows(edited.after), f"map of {edited.before.path}")


def _diff(old: Sequence[str], new: Sequence[str], name: str) -> Iterator[str]:
    for line in unified_diff(old, new, f"{name} (before)", f"{name} (after)", n=1):
        yield line if line.endswith("\n") else f"{line}\n"


def _rows(file: FileSpec) -> list[str]:
    from regionfs.units import format_size
    rows = [f"{format_size(one.start):>12} {format_size(one.length):>12}  {one.kind}"
            + (f" {access(one.writable)} {one.source} at {format_size(one.offset)}" if one.source else "") + "\n"
            for one in file.regions]
    return [*rows, f"{format_size(file.regions.size):>12} {'':>12}  end\n"]


def _given(words: Sequence[str]) -> dict[str, Value]:
    """KEY=VALUE words without KEY=."""
    fields = {}
    for key, value in _parsed(words).items():
        if value is None:
            raise UsageError(f"{key}= has no value")
        fields[key] = value
    return fields


def _parsed(words: Sequence[str]) -> dict[str, Value | None]:
    """KEY=VALUE words as a region's fields; None for KEY=. Raises UsageError."""
    from regionfs.cli.common import nearest
    from regionfs.manifest.region import KEYS
    known = [key for key in KEYS if key != "data"]
    fields: dict[str, Value | None] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            if word not in _WORDS:
                raise UsageError(f"{word!r} is no KEY=VALUE{nearest(word, (*known, *_DATA, *_WORDS))}")
            key, value = _WORDS[word]
        if key not in known and key not in _DATA:
            raise UsageError(f"{key!r} is no key of a region{nearest(key, (*known, *_DATA))}")
        name = "data" if key in _DATA else key
        if name in fields:
            raise UsageError(f"{key} is given twice")
        fields[name] = ({key: value} if name == "data" else value) if value else None
    return fields
