"""The manual pages: complete, without a warning from groff or man, and with examples that hold."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from regionfs.cli.main import cli
from regionfs.manifest.load import FILE_KEYS, load
from regionfs.manifest.region import KEYS
from tests.harness import PROJECT

PAGES = ("regionfs.1", "regionfs-manifest.5")


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the pages, made as `make man` does."""
    target = tmp_path_factory.mktemp("man")
    subprocess.run([sys.executable, PROJECT / "scripts" / "manual.py", target], check=True, timeout=60)
    return target


def rendered(path: Path) -> str:
    """What a reader sees, in one line a paragraph."""
    if shutil.which("man") is None:
        pytest.skip("no man(1)")
    done = subprocess.run(["man", "--warnings", "-l", path], capture_output=True, text=True, check=True, timeout=30,
                          env={"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "MANWIDTH": "2000"})
    assert "" == done.stderr
    return done.stdout


def joined(text: str) -> str:
    """Words with one space between them."""
    return " ".join(text.split())


def commands(command: click.Command, name: str) -> Iterator[tuple[str, click.Command]]:
    """Every command with the words that call it."""
    context = click.Context(command, info_name=name)
    if not isinstance(command, click.Group):
        yield name, command
        return
    for below in command.list_commands(context):
        found = command.get_command(context, below)
        assert found is not None
        yield from commands(found, f"{name} {below}")


@pytest.mark.parametrize("name", PAGES)
def test_no_warnings(manual: Path, name: str) -> None:
    """groff with every warning on has nothing to say, nor has man."""
    if shutil.which("groff") is None:
        pytest.skip("no groff(1)")
    done = subprocess.run(["groff", "-man", "-ww", "-z", "-Kutf8", "-Tutf8", manual / name], capture_output=True,
                          text=True, check=True, timeout=30)
    assert "" == done.stderr
    assert "{{" not in rendered(manual / name)


@pytest.mark.parametrize("name", PAGES)
def test_apropos_can_find_them(manual: Path, name: str) -> None:
    """The NAME section has the form that whatis reads."""
    if shutil.which("lexgrog") is None:
        pytest.skip("no lexgrog(1)")
    done = subprocess.run(["lexgrog", manual / name], capture_output=True, text=True, check=True, timeout=30)
    assert f': "{name.rpartition(".")[0]} - ' in done.stdout


def test_every_command_and_option_is_in_the_manual(manual: Path) -> None:
    """With its usage, each option's names and help, and the lines of its example."""
    page = rendered(manual / "regionfs.1")
    sections = dict(zip(*[iter(re.split(r"^   (regionfs [\w-]+.*?)$", page, flags=re.MULTILINE)[1:])] * 2, strict=True))
    for words, command in commands(cli, "regionfs"):
        section = next((text for head, text in sections.items() if f"{head} ".startswith(f"{words} ")), None)
        assert section is not None, words
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                for option in (*parameter.opts, *parameter.secondary_opts):
                    assert re.search(rf"(?<![\w-]){option}(?![\w-])", section), f"{words} {option}"
                assert joined(parameter.help or "") in joined(section), f"{words} {parameter.name}"
        for line in (command.epilog or "").splitlines():
            if line.startswith("  "):
                assert line.strip() in section


def test_every_key_is_in_the_manual(manual: Path) -> None:
    """Of sources, of files, of regions, and of inline data, as the loader knows them."""
    page = rendered(manual / "regionfs-manifest.5")
    described = set(re.findall(r"^       ([a-z]+)(?:\s|$)", page, re.MULTILINE))
    assert set() == {"path", "size", "loop", *FILE_KEYS, *KEYS} - described
    for word in ("hex", "base64", "text", "file"):
        assert word in page


def test_the_example_is_a_valid_manifest(tmp_path: Path) -> None:
    """As it stands in the page, with sources of the sizes it speaks of."""
    text = (PROJECT / "docs" / "manual" / "regionfs-manifest.5.md").read_text()
    example, = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    (tmp_path / "images").mkdir()
    for name, size in (("images/root.img", 2 << 30), ("images/esp.img", 64 << 20), ("vdb", 1 << 20)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    manifest = tmp_path / "disk.yaml"
    manifest.write_text(example.replace("/dev/vdb", "vdb"))
    assert ["vm/disk.img", "data.bin"] == list(load(manifest).files)
