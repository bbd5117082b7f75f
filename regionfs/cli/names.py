"""How words of a command line become commands: near names are offered, `help` helps, nothing is given twice."""

from __future__ import annotations

import click


class Group(click.Group):
    """Commands by name."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """`help` and `help COMMAND` are --help and COMMAND --help."""
        return super().parse_args(ctx, [*args[1:], "--help"] if args[:1] == ["help"] else args)

    def resolve_command(
        self, ctx: click.Context, args: list[str],
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Refuse an unknown name with the nearest known one, and an option that is given twice."""
        known = self.list_commands(ctx)
        if args[0] not in known and not args[0].startswith("-") and not ctx.resilient_parsing:
            from regionfs.cli.common import nearest
            ctx.fail(f"there is no command {args[0]!r}{nearest(args[0], known)}")
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and not ctx.resilient_parsing:
            _refuse_twice(command, rest, ctx)
        return name, command, rest


def _refuse_twice(command: click.Command, args: list[str], above: click.Context) -> None:
    """The first of two values would be lost without a word; what takes several, or none, may be repeated."""
    ctx = click.Context(command, parent=above, info_name=command.name)
    _, _, given = command.make_parser(ctx).parse_args(list(args))
    seen: set[str | None] = set()
    for option in given:
        if not isinstance(option, click.Option) or option.multiple or option.is_flag:
            continue
        if option.name in seen:
            ctx.fail(f"{'/'.join(option.opts)} is given twice; it takes one value")
        seen.add(option.name)
