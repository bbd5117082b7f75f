"""The commands on large manifests: what is written stays bounded, or is refused with what to do."""

from __future__ import annotations

import json
from pathlib import Path

from regionfs.cli.pictures.svg import CROWD, WIDTH
from regionfs.cli.show import MOST_PICTURED
from tests.cli.conftest import Cli
from tests.scale import CHUNK, write_chunks, write_files

MANY = 20_000


def test_show_lists_the_ends_of_a_large_map(run: Cli, tmp_path: Path) -> None:
    """And says how many regions it left out."""
    lines = run("show", write_chunks(tmp_path, MANY, marked=False)).stdout.splitlines()
    assert f"... {MANY - 80} regions left out; --all shows them" in lines
    assert len(lines) < 120


def test_json_has_every_region(run: Cli, tmp_path: Path) -> None:
    """A region a line, in order."""
    shown = json.loads(run("show", "--json", write_chunks(tmp_path, MANY, marked=False)).stdout)["files"]["f"]
    assert [number * CHUNK for number in range(MANY)] == [region["start"] for region in shown["regions"]]
    assert MANY * CHUNK == shown["size"]


def test_an_svg_draws_no_more_than_there_is_room_for(run: Cli, tmp_path: Path) -> None:
    """Without its script it shows one region a unit; the script has all of them."""
    assert CROWD < MANY
    picture = tmp_path / "f.svg"
    run("show", "--svg", picture, write_chunks(tmp_path, MANY, marked=False))
    text = picture.read_text()
    assert 0 < text.count("<title>Region ") <= WIDTH
    assert MANY == text.count(",4096,0,")


def test_too_many_files_for_a_picture(run: Cli, tmp_path: Path) -> None:
    """One of them is drawn."""
    manifest = write_files(tmp_path, MOST_PICTURED + 1)
    result = run("show", "--html", tmp_path / "all.html", manifest)
    assert (2, "regionfs: 501 files are too many for one picture, which takes 500; name a FILE\n") == (
        result.exit_code, result.stderr)
    assert not (tmp_path / "all.html").exists()
    assert 0 == run("show", "--html", tmp_path / "one.html", manifest, "d0/7").exit_code


def test_map_refuses_a_table(run: Cli, tmp_path: Path) -> None:
    """It names the table and what to do."""
    result = run("map", "rm", write_chunks(tmp_path, 10, marked=False), "f", "0")
    assert (2, "regionfs: the regions of f stand in the table chunks.csv, which map does not edit: change its rows, "
               "then let check look at them\n") == (result.exit_code, result.stderr)


def test_check_counts_a_table(run: Cli, tmp_path: Path) -> None:
    """Its regions and its sources."""
    result = run("check", write_chunks(tmp_path, MANY, marked=False))
    assert f"{tmp_path}/chunks.yaml: ok (1 file, {MANY} regions, 8 sources)\n" == result.stdout
