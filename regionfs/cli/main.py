"""The command line's front door: the table of commands, and what each ending means to a shell.

Knows the commands' names, where each lives and one line about it, so that `--help` and completion
import nothing else: start-up is part of how long a mount takes. Every error a command raises is
turned into a message and an exit status here and nowhere else. Knows nothing of what commands do.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 the manifest is invalid, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from importlib import import_module
from io import TextIOWrapper
from typing import Any, NamedTuple, NoReturn, cast

import click

from regionfs import __version__
from regionfs.cli.names import Group
from regionfs.errors import ManifestError, RegionfsError
from regionfs.printable import printable

INTERRUPTED = 128 + 2  # as a shell reports a death by SIGINT


class Row(NamedTuple):
    """One command: where it lives, and what it does in a line."""

    target: str  # "module:function"
    help: str


COMMANDS = {
    "mount": Row("regionfs.cli.mount:mount", "Mount a manifest; returns when the mount answers."),
    "umount": Row("regionfs.cli.umount:umount", "Unmount, and wait until data is safe."),
    "reload": Row("regionfs.cli.reload:reload", "Read the manifest again, all or nothing."),
    "upgrade": Row("regionfs.cli.upgrade:upgrade", "Replace the running server by the installed version."),
    "status": Row("regionfs.cli.status:status", "Show mounts, and what their daemons served."),
    "check": Row("regionfs.cli.check:check", "Report every problem of manifests; nothing is mounted."),
    "show": Row("regionfs.cli.show:show", "Show the region maps: table, picture, mode and reason."),
    "plan": Row("regionfs.cli.plan:plan", "Show where the bytes of one request come from."),
    "cat": Row("regionfs.cli.cat:cat", "Write a composite file's bytes to stdout without mounting."),
    "flatten": Row("regionfs.cli.flatten:flatten", "Make a real file of a composite one: shared blocks, holes kept."),
    "map": Row("regionfs.cli.map:map_", "Edit a region map: add, rm, set, move, split, cut, insert, ..."),
    "stitch": Row("regionfs.cli.stitch:stitch", "Make a manifest: a disk out of partitions, a file out of pieces."),
    "import": Row("regionfs.cli.import_:import_", "Make a manifest of a foreign map: VMDK, dmsetup, GPT, split set..."),
    "export": Row("regionfs.cli.export:export", "Write a composite file's map in a foreign format."),
    "doctor": Row("regionfs.cli.doctor:doctor", "Show what this machine can do, and what would help."),
    "completion": Row("regionfs.cli.completion:completion", "Print the completion script for a shell."),
}


class Reporting(click.Command):
    """A command whose errors become messages and exit statuses."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except ManifestError as error:
            _fail(ctx, error.lines, error.exit_status)
        except RegionfsError as error:
            first, *rest = error.lines
            _fail(ctx, [f"regionfs: {first}", *rest], error.exit_status)
        except BrokenPipeError:
            raise  # click ends quietly
        except OSError as error:
            _fail(ctx, [f"regionfs: {_described(error)}"], 1)
        except click.exceptions.NoArgsIsHelpError:
            raise  # its message is the help page
        except click.UsageError as error:
            raise click.UsageError(printable(error.format_message()), error.ctx) from error
        except KeyboardInterrupt:
            ctx.exit(INTERRUPTED)


class Commands(Reporting, Group):
    """The commands of a table, each imported when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the table's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; None when the table has no such name."""
        if (row := COMMANDS.get(cmd_name)) is None:
            return None
        module, _, function = row.target.partition(":")
        return cast(click.Command, getattr(import_module(module), function))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by the table's own lines."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, row.help) for name, row in COMMANDS.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Names that begin with `incomplete`, else options."""
        from click.shell_completion import CompletionItem
        names = [CompletionItem(name, help=row.help) for name, row in COMMANDS.items()
                 if name.startswith(incomplete)]
        return [*names, *click.Command.shell_complete(self, ctx, incomplete)]


def _fail(ctx: click.Context, lines: Iterable[str], exit_status: int) -> NoReturn:
    from regionfs.cli.common import say
    for line in lines:
        say(line, err=True)
    ctx.exit(exit_status)


def _described(error: OSError) -> str:
    names = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    reason = error.strerror or str(error)
    if isinstance(error, FileNotFoundError):
        from regionfs.manifest.inspect import url_hint
        reason += url_hint(error.filename)
    return f"{names}: {reason}" if names else reason


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="'regionfs COMMAND --help' tells more, with an example.",
)
@click.version_option(__version__, "-V", "--version", message="regionfs %(version)s")
def cli() -> None:
    """Files made of byte ranges of other files and block devices.

    A YAML manifest says which range lives where; nothing is copied.
    """


def main() -> None:
    """Run the command line of this process and exit."""
    run(cli, "regionfs")


def run(command: click.Command, name: str) -> None:
    """Run `command` with this process's arguments and exit."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that lacks a name's letters still shows it
    try:
        command.main(prog_name=name, complete_var="_REGIONFS_COMPLETE")
    finally:
        _settle_stdout()


def _settle_stdout() -> None:
    """Python flushes stdout again at exit; what could not be written then was reported before."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
