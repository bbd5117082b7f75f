"""docs/recipes.md: every recipe works as it stands, pasted block by block into one shell.

A block ```sh is run, a block ```yaml NAME is saved as NAME; other blocks are only to be read.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import PROJECT, REGIONFS

TEXT = (PROJECT / "docs" / "recipes.md").read_text()
RECIPES = dict(zip(*[iter(re.split(r"^## (.*)\n", TEXT, flags=re.MULTILINE)[1:])] * 2, strict=True))
WANTED = ("A VM disk from partitions", "A split forensic image", "A firmware layout", "A window into a block device",
          "A dataset from shards")


def script(recipe: str) -> Iterator[str]:
    """Its blocks as lines of one shell script."""
    for kind, name, body in re.findall(r"^```(\w+) ?(.*)\n((?:.*\n)*?)```$", recipe, re.MULTILINE):
        if kind == "sh":
            yield body
        elif kind == "yaml" and name:
            yield f"cat > {name} <<'END'\n{body}END\n"


def run(recipe: str, directory: Path) -> None:
    """Run all of it in `directory`; the first command that fails ends it."""
    environment = {**os.environ, "PATH": f"{Path(REGIONFS).parent}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
    # who reads from the script would eat it; a shell that ends early still leaves no device behind
    start = "set -euxo pipefail; exec < /dev/null; trap 'losetup -j backing -O NAME -n | xargs -r losetup -d' EXIT\n"
    path = directory / "recipe.sh"
    path.write_text(start + "".join(script(recipe)))
    with (directory / "recipe.log").open("w+") as log:
        done = subprocess.run(["bash", path], cwd=directory, env=environment, stdout=log, stderr=log, check=False,
                              timeout=50)
        log.seek(0)
        assert 0 == done.returncode, log.read()


def needs_mount(title: str) -> pytest.MarkDecorator | tuple[()]:
    """The mark of a recipe that mounts."""
    return pytest.mark.mounted if "regionfs mount" in "".join(script(RECIPES[title])) else ()


def test_all_recipes_are_there() -> None:
    """Those that were asked for, each with commands; the list on top leads to them."""
    assert WANTED == tuple(RECIPES)
    links = re.findall(r"^- \[(.*)\]\(#(.*)\)$", TEXT, re.MULTILINE)
    assert [(title, title.lower().replace(" ", "-")) for title in WANTED] == links


@pytest.mark.parametrize("title", [pytest.param(title, marks=needs_mount(title)) for title in WANTED])
def test_the_recipe_works(tmp_path: Path, title: str) -> None:
    """From the first command to the last."""
    if "losetup" in RECIPES[title] and (os.geteuid() != 0 or not Path("/dev/loop-control").exists()):
        pytest.skip("loop devices need root and /dev/loop-control")
    run(RECIPES[title], tmp_path)
