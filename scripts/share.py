"""What an installation has besides the package: manual pages and shell completions, below a directory.

    scripts/share.py build/share       makes man/man1/regionfs.1, bash-completion/completions/regionfs, ... there

setup.py puts the same files into the wheel, below PREFIX/share.
"""

from __future__ import annotations

import sys
from pathlib import Path

import manual  # first: it puts this checkout on the path

from regionfs.cli.completion import script
from regionfs.cli.main import cli

COMPLETIONS = {"bash": "bash-completion/completions/regionfs", "zsh": "zsh/site-functions/_regionfs",
               "fish": "fish/vendor_completions.d/regionfs.fish"}


def make(target: Path) -> list[Path]:
    """Write every file below `target`; their paths relative to it."""
    texts = {Path(COMPLETIONS[shell]): script(cli, shell) + "\n" for shell in COMPLETIONS}
    for source in sorted(manual.PAGES.glob("*.md")):
        text = "\n".join(manual.page(source.stem, source.read_text())) + "\n"
        texts[Path("man", f"man{source.stem[-1]}", source.stem)] = text
    for path, text in texts.items():
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (target / path).write_text(text)
    return list(texts)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
