"""`regionfs completion`: the script that makes a shell complete commands and files in manifests."""

from __future__ import annotations

import click

from regionfs.cli.common import emit, examples

# click's scripts take names apart at spaces (bash) and at commas (fish)
_REPAIRS = {
    "bash": {"read type value": "read -r type value", "COMPREPLY+=($value)": 'COMPREPLY+=("$(printf %q "$value")")'},
    "zsh": {},
    "fish": {'string split ","': 'string split --max 1 ","'},
}


@click.command(epilog=examples('eval "$(regionfs completion bash)"',
                               "regionfs completion fish > ~/.config/fish/completions/regionfs.fish"))
@click.argument("shell", type=click.Choice(list(_REPAIRS)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete regionfs commands.

    Names of files inside the manifest given before on the line are completed too.
    """
    emit(script(ctx.find_root().command, shell) + "\n")


def script(command: click.Command, shell: str) -> str:
    """The completion script of the whole command line `command` for "bash", "zsh" or "fish"."""
    from click.shell_completion import get_completion_class
    kind = get_completion_class(shell)
    assert kind is not None
    text = kind(command, {}, "regionfs", "_REGIONFS_COMPLETE").source()
    for broken, mended in _REPAIRS[shell].items():
        text = text.replace(broken, mended)
    return text
