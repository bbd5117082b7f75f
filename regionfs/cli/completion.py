"""`regionfs completion`: the script that makes a shell complete commands and files in manifests."""

from __future__ import annotations

import click

from regionfs.cli.common import examples


@click.command(epilog=examples('eval "$(regionfs completion bash)"',
                               "regionfs completion fish > ~/.config/fish/completions/regionfs.fish"))
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that makes SHELL complete regionfs commands.

    Names of files inside the manifest given before on the line are completed too.
    """
    from click.shell_completion import get_completion_class
    kind = get_completion_class(shell)
    if kind is None:
        ctx.fail(f"click has no completion for {shell}")
    click.echo(kind(ctx.find_root().command, {}, "regionfs", "_REGIONFS_COMPLETE").source())
