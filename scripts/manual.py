"""The manual pages: docs/manual/*.md and the commands' own help -> man(7), written into a directory.

    scripts/manual.py build/man        makes regionfs.1 and regionfs-manifest.5 there

A page's file name is its name and section. The Markdown is a small part of CommonMark: headings, paragraphs, lists,
code blocks, `code`, **bold**, *italic*, and definitions as in pandoc (a line, then ":   text"). The line
{{commands}} stands for every command, taken from the table that the command line itself uses.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(PROJECT))  # of this checkout, whatever is installed

import click  # noqa: E402

from regionfs import __version__  # noqa: E402
from regionfs.cli.main import COMMANDS, cli  # noqa: E402

PAGES = PROJECT / "docs" / "manual"
_INLINE = re.compile(r"`(?P<code>[^`]+)`|\*\*(?P<bold>[^*]+)\*\*|(?<![\w*])\*(?P<italic>[^*\s][^*]*)\*(?!\w)")
_OPTION = re.compile(r"(?P<option>(?<![\w-])--?[A-Za-z][\w-]*)|(?P<word>[^,\s]+)")
_GROFF = {"\\": "\\e", "-": "\\-", "'": "\\(aq", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti"}


def main() -> None:
    """Write every page into the directory that the command line names."""
    target = Path(sys.argv[1])
    target.mkdir(parents=True, exist_ok=True)
    for source in sorted(PAGES.glob("*.md")):
        (target / source.stem).write_text("\n".join(page(source.stem, source.read_text())) + "\n")


def page(name: str, text: str) -> Iterator[str]:
    """The lines of one manual page."""
    title, section = name.rsplit(".", 1)
    book = {"1": "User Commands", "5": "File Formats"}[section]
    yield f'.TH {title.upper()} {section} "" "regionfs {__version__}" "{book}"'
    yield from [".nh", ".ad l"]
    for block in blocks(text):
        yield from written_commands() if block == ["{{commands}}"] else written(block)


def blocks(text: str) -> Iterator[list[str]]:
    """Runs of lines between empty ones; a code block is one run, whatever is in it."""
    run: list[str] = []
    code = False
    for line in [*text.splitlines(), ""]:
        code ^= line.startswith("```")
        if code or line.strip():
            run.append(line)
        elif run:
            yield run
            run = []


def written(block: list[str]) -> Iterator[str]:
    """One block as man(7)."""
    first = block[0]
    if first.startswith("```"):
        yield from code(block[1:-1])
    elif first.startswith("## "):
        yield f'.SH "{plain(first[3:]).upper()}"'
    elif first.startswith("### "):
        yield f'.SS "{inline(first[4:])}"'
    elif first.startswith("- "):
        for item in re.split(r"^- ", "\n".join(block), flags=re.MULTILINE)[1:]:
            yield from [".IP \\(bu 2", *paragraph(item)]
    elif len(block) > 1 and block[1].startswith(":   "):
        # several definitions may follow each other without an empty line
        for term, text in re.findall(r"^(\S.*)\n:   ((?:.*\n?)(?:    .*\n?)*)", "\n".join(block), re.MULTILINE):
            yield from [".TP", inline(term), *paragraph(text)]
    else:
        yield from [".PP", *paragraph("\n".join(block))]


def written_commands() -> Iterator[str]:
    """Every command with its usage, help, options and examples."""
    context = click.Context(cli, info_name="regionfs")
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        yield from written_command(command, click.Context(command, context, info_name=name))


def written_command(command: click.Command, context: click.Context) -> Iterator[str]:
    """One command; those below it follow."""
    usage = " ".join(command.collect_usage_pieces(context))
    yield f'.SS "\\fB{plain(context.command_path)}\\fR {plain(usage)}"'
    yield from help_text(command.help or "")
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and isinstance(parameter, click.Option) and "--help" not in parameter.opts:
            yield from [".TP", _OPTION.sub(_option, record[0]), *paragraph(record[1])]
    yield from help_text(command.epilog or "")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            yield from written_command(below, click.Context(below, context, info_name=name))


def help_text(text: str) -> Iterator[str]:
    """Paragraphs as click reads them; \\b keeps the lines of one."""
    for part in re.split(r"\n\s*\n", text.strip()):
        if part.startswith("\b"):
            title, *lines = part.splitlines()[1:]
            yield from [".PP", plain(title), *code([line.removeprefix("  ") for line in lines])]
        elif part:
            yield from [".PP", *paragraph(part)]


def code(lines: list[str]) -> Iterator[str]:
    """Lines as they are."""
    yield from [".RS 4", ".EX", *(guarded(plain(line)) for line in lines), ".EE", ".RE"]


def paragraph(text: str) -> list[str]:
    """Text to be filled; a sentence a line does not matter to man(7)."""
    return [guarded(inline(" ".join(line.strip() for line in text.strip().splitlines())))]


def inline(text: str) -> str:
    """Text with its `code`, **bold** and *italic* as fonts."""
    pieces, at = [], 0
    for match in _INLINE.finditer(text):
        font = "I" if match["italic"] else "B"
        pieces += [plain(text[at:match.start()]), f"\\f{font}{plain(match[match.lastgroup or 0])}\\fR"]
        at = match.end()
    return "".join([*pieces, plain(text[at:])])


def plain(text: str) -> str:
    """Text that means itself, also between the quotes of a macro's argument."""
    return "".join(_GROFF.get(character, character) for character in text).replace('"', "\\(dq")


def guarded(line: str) -> str:
    """A line that is no request, whatever it begins with."""
    return f"\\&{line}" if line.startswith((".", "'")) else line


def _option(match: re.Match[str]) -> str:
    return f"\\fB{plain(match[0])}\\fR" if match["option"] else f"\\fI{plain(match[0])}\\fR"


if __name__ == "__main__":
    main()
