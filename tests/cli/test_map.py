"""`regionfs map`: words, messages, --dry-run and the editor; what edits mean is tested in tests/manifest."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import pytest

from regionfs.manifest.load import load
from tests.cli.conftest import DISK, MIB, Cli, Command
from tests.harness import REGIONFS, Mount

FILE = "vm/disk.img"


def rows(manifest: Path) -> list[tuple[int, int, str]]:
    """(start, end, kind) of each region of the disk."""
    regions = load(manifest).files[FILE].regions
    assert regions is not None
    return [(region.start, region.end, str(region.kind)) for region in regions]


@pytest.mark.parametrize("words, line", [
    (["add", FILE, "start=32MiB", "source=esp.img", "rw"],
     "      - {start: 32MiB, source: esp.img, access: rw}"),
    (["add", FILE, "start=33MiB", "length=512", "hex=33c0", "length=2"], ""),
    (["add", FILE, "start=33MiB", "hex=33c0"], '      - {start: 33MiB, data: {hex: "33c0"}}'),
    (["add", FILE, "source=esp.img", "align=1MiB"], "      - {source: esp.img, align: 1MiB}"),
    (["set", FILE, "@1MiB", "rw"], "      - {start: 1MiB, source: esp.img, access: rw}"),
    (["set", FILE, "0", "error", "length=4"], "      - {start: 0, length: 4, error: true}"),
    (["move", FILE, "1", "30MiB"], "      - {start: 30MiB, source: esp.img}"),
    (["split", FILE, "1.5MiB"], "      - {start: 1536KiB, source: esp.img, offset: 512KiB}"),
    (["cut", FILE, "1MiB", "64KiB"], "      - {start: 1088KiB, source: esp.img, offset: 64KiB}"),
    (["cut", FILE, "8s", "512KiB", "--close"], "      - {start: 512KiB, source: esp.img}"),
    (["insert", FILE, "0", "length=1MiB"], "      - {start: 2MiB, source: esp.img}"),
    (["resize", FILE, "@1MiB", "64KiB"], "      - {start: 1MiB, length: 64KiB, source: esp.img}"),
    (["resize", FILE, "128MiB"], "    size: 128MiB"),
    (["rm", FILE, "0", "regions[1]"], "      - {start: 2MiB, source: root, access: rw}"),
])
def test_edit(run: Cli, disk: Path, words: list[str], line: str) -> None:
    """Each command does what it says, and says so in a line."""
    result = run("map", words[0], disk, *words[1:])
    if not line:
        assert (2, "regionfs: length is given twice\n") == (result.exit_code, result.stderr)
        return
    assert (0, "", 1) == (result.exit_code, result.stdout, len(result.stderr.splitlines()))
    assert result.stderr.startswith(f"{disk}: {FILE}: ")
    assert line in disk.read_text().splitlines()


@pytest.mark.parametrize("words, told", [
    (["split", FILE, "1.5MiB"], "5 -> 6 regions: - [1MiB, 2MiB) esp.img + [1MiB, 1536KiB) esp.img + [1536KiB, 2MiB) "
                                "esp.img at 512KiB"),
    (["set", FILE, "2", "access=ro"], "5 regions: - [2MiB, 6MiB) rw root + [2MiB, 6MiB) root"),
    (["rm", FILE, "4", "3"], "5 -> 3 regions: - [6MiB, 22MiB) hole - [22MiB, 22532KiB) error"),
    (["resize", FILE, "128MiB"], "size 64MiB -> 128MiB"),
    (["insert", FILE, "0", "length=1MiB"], "5 regions: - 5 regions + 5 regions; size 64MiB -> 65MiB"),
    (["set", FILE, "1", "length=1048576"], "the same map in other words"),
])
def test_what_an_edit_says(run: Cli, disk: Path, words: list[str], told: str) -> None:
    """What went and what came, on stderr; nothing with -q."""
    before = disk.read_text()
    result = run("map", words[0], disk, *words[1:])
    assert (0, "", f"{disk}: {FILE}: {told}\n") == (result.exit_code, result.stdout, result.stderr)
    disk.write_text(before)
    assert "" == run("map", words[0], "-q", disk, *words[1:]).output


def test_a_larger_source_under_the_old_length(run: Cli, disk: Path) -> None:
    """The region shows a part of it only, which is said; without a length it shows all."""
    run("map", "set", disk, FILE, "1", "length=1MiB")
    (disk.parent / "new.img").write_bytes(bytes(3 * MIB))
    result = run("map", "set", disk, FILE, "1", "source=new.img")
    told = "[1MiB, 2MiB) shows 1048576 of 3145728 bytes of new.img: its length is as it was; length= takes that away"
    assert (0, told) == (result.exit_code, result.stderr.splitlines()[1])
    (disk.parent / "new.img").write_bytes(bytes(MIB))
    assert 1 == len(run("map", "set", disk, FILE, "1", "source=esp.img").stderr.splitlines())


def test_insert_keeps_the_unit_as_typed(run: Cli, disk: Path) -> None:
    """Of its place as of its length."""
    run("map", "insert", disk, FILE, "2049s", "source=root", "length=512KB")
    assert "      - {start: 2049s, length: 512KB, source: root}" in disk.read_text().splitlines()


@pytest.mark.mounted
def test_who_has_it_mounted_is_told_how_to_see_it(run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit of a mounted manifest, also through another name of it, names the command; stitch --force does too."""
    (tmp_path / "a.img").write_bytes(bytes(8192))
    monkeypatch.setenv("VISUAL", "sed -i s/4KiB/4095/")
    with Mount(tmp_path, {"f": {"regions": [{"source": "a.img"}]}}) as mount:
        other = tmp_path / "other.yaml"
        other.symlink_to(mount.manifest)
        hint = f"{mount.path} shows the manifest as it was until: regionfs reload {mount.path}"
        assert hint == run("map", "split", other, "f", "4KiB").stderr.splitlines()[1]
        assert hint == run("map", "edit", mount.manifest).stderr.splitlines()[-1]
        stitched = run("stitch", mount.manifest, "--force", "--file", "g", "--concat", tmp_path / "a.img")
        assert hint == stitched.stderr.splitlines()[-1]
    assert 1 == len(run("map", "rm", other, "g", "0").stderr.splitlines())


def test_merge_undoes_split(run: Cli, disk: Path) -> None:
    """The same map again, by name and without."""
    before = rows(disk)
    for names in ([], ["1", "2", "@1792KiB"]):
        assert 0 == run("map", "split", disk, FILE, "1.5MiB", "1.75MiB").exit_code
        assert len(before) + 2 == len(rows(disk))
        assert 0 == run("map", "merge", disk, FILE, *names).exit_code
        assert before == rows(disk)


def test_dry_run_shows_text_and_map(run: Cli, disk: Path) -> None:
    """Two diffs on stdout, and the file as it was."""
    result = run("map", "split", "--dry-run", disk, FILE, "1.5MiB")
    assert (0, DISK) == (result.exit_code, disk.read_text())
    shown = [line for line in result.stdout.splitlines() if line[0] in "+-" and line[:3] not in ("+++", "---")]
    assert ["-      - {start: 1MiB, source: esp.img}",
            "+      - {start: 1MiB, length: 512KiB, source: esp.img}",
            "+      - {start: 1536KiB, source: esp.img, offset: 512KiB}",
            "-        1MiB         1MiB  source ro esp.img at 0",
            "+        1MiB       512KiB  source ro esp.img at 0",
            "+     1536KiB       512KiB  source ro esp.img at 512KiB"] == shown


def test_nothing_to_change(run: Cli, disk: Path) -> None:
    """Said on stderr, and the file is not even replaced."""
    before = disk.stat().st_ino
    result = run("map", "merge", disk, FILE)
    assert (0, f"{disk}: nothing to change\n", before) == (result.exit_code, result.stderr, disk.stat().st_ino)


@pytest.mark.parametrize("words, status, message", [
    (["add", FILE, "sauce=x"], 2, "'sauce' is no key of a region; did you mean 'source'?"),
    (["add", FILE, "holle"], 2, "'holle' is no KEY=VALUE; did you mean 'hole'?"),
    (["add", FILE, "source="], 2, "source= has no value"),
    (["add", FILE, "hex=00", "text=x"], 2, "text is given twice"),
    (["add", FILE, "hex=0"], 2, "not hex"),
    (["add", FILE, "start=1MiB", "source=esp.img"], 1, "say over: true to cover it"),
    (["insert", FILE, "0", "start=1", "length=1"], 2, "insert takes no start"),
    (["resize", FILE, "1", "2", "3"], 2, "resize takes a SIZE for the file, or a REGION and a SIZE, not 3 words"),
    (["resize", FILE, "5m"], 2, "'5m' has the unknown unit 'm'"),
    (["move", FILE, "7", "0"], 2, "no region 7; they count from 0 to 4"),
    (["split", FILE, "1MiB"], 2, "regions[1] [1MiB, 2MiB) starts there already"),
    (["rm", "vm/disc.img", "0"], 2, "did you mean 'vm/disk.img'?"),
    (["rm", "data.bin", "0"], 2, "data.bin shows the whole of a source and has no region map"),
])
def test_refused(run: Cli, disk: Path, words: list[str], status: int, message: str) -> None:
    """The manifest stays as it was, to the byte."""
    result = run("map", words[0], disk, *words[1:])
    assert (status, DISK) == (result.exit_code, disk.read_text())
    assert message in result.stderr


def test_invalid_manifest(run: Cli, disk: Path) -> None:
    """Its own problems, with status 3; map edit is the way to mend it."""
    disk.write_text(DISK.replace("esp.img", "gone.img"))
    result = run("map", "rm", disk, FILE, "0")
    problem = f'{disk}:9:31: files["vm/disk.img"].regions[1].source: {disk.parent}/gone.img does not exist\n'
    assert (3, problem) == (result.exit_code, result.stderr)


def test_missing_manifest(run: Cli, tmp_path: Path) -> None:
    """A sentence, no trace."""
    result = run("map", "rm", tmp_path / "none.yaml", "f", "0")
    assert (1, f"regionfs: {tmp_path}/none.yaml: No such file or directory\n") == (result.exit_code, result.stderr)


def editor(tmp_path: Path, *scripts: str) -> dict[str, str]:
    """An editor that runs one sed script after the other, one each time it is opened."""
    for number, script in enumerate(scripts):
        (tmp_path / f"sed{number}").write_text(script)
    path = tmp_path / "an editor"
    path.write_text('#!/bin/sh\nn=$(cat "$0.count" 2>/dev/null || echo 0)\necho $((n + 1)) > "$0.count"\n'
                    f'sed -i -f "{tmp_path}/sed$n" "$1"\n')
    path.chmod(0o755)
    return {"EDITOR": f"'{path}'", "VISUAL": ""}


def test_editor_saves_what_checks(command: Command, disk: Path, tmp_path: Path) -> None:
    """The file has what the editor left; the copy had its name, so that the editor knows its kind."""
    result = command("map", "edit", disk, env=editor(tmp_path, "s/64MiB/65MiB/"))
    assert (0, DISK.replace("64MiB", "65MiB")) == (result.returncode, disk.read_text())


def test_editor_that_changes_nothing(command: Command, disk: Path) -> None:
    """VISUAL comes before EDITOR."""
    result = command("map", "edit", disk, env={"VISUAL": "true", "EDITOR": "false"})
    assert (0, f"{disk}: unchanged\n", DISK) == (result.returncode, result.stderr, disk.read_text())


@pytest.mark.parametrize("name, message", [
    ("false", "the editor 'false' ended with status 1; nothing was changed"),
    ("/none/ed", "the editor '/none/ed' cannot be started"),
    ("'", "cannot be started: No closing quotation; set EDITOR"),
])
def test_editor_that_fails(command: Command, disk: Path, name: str, message: str) -> None:
    """As git does it: no saving after a failure."""
    result = command("map", "edit", disk, env={"VISUAL": name})
    assert (1, True, DISK) == (result.returncode, message in result.stderr, disk.read_text())


def test_editor_without_answers_does_not_save(disk: Path, tmp_path: Path) -> None:
    """The problem with its place, and the old text."""
    result = subprocess.run([REGIONFS, "map", "edit", disk], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                            env={**os.environ, **editor(tmp_path, "s/64MiB/1MiB/")}, check=False, timeout=30)
    assert (1, DISK) == (result.returncode, disk.read_text())
    assert f"{disk}:6:11: files[\"vm/disk.img\"].size: 1048576 is less than {22 * MIB + 4096}" in result.stderr


@pytest.mark.parametrize("answers, size", [("x\ne\n", "65MiB"), ("q\n", "64MiB")])
def test_editor_asks_what_now(disk: Path, tmp_path: Path, answers: str, size: str) -> None:
    """On a terminal: e opens the same copy again, q gives up, anything else is asked again."""
    environment = {**os.environ, **editor(tmp_path, "s/64MiB/1MiB/", "s/ 1MiB$/ 65MiB/")}
    ours, theirs = pty.openpty()
    os.write(ours, answers.encode())
    try:
        done = subprocess.run([REGIONFS, "map", "edit", disk], stdin=theirs, capture_output=True, text=True,
                              env=environment, check=False, timeout=30)
    finally:
        os.close(ours)
        os.close(theirs)
    assert ("65MiB" == size, DISK.replace("64MiB", size)) == (done.returncode == 0, disk.read_text())
    assert answers.count("\n") == done.stderr.count("What now?")


def test_help_has_an_example(run: Cli) -> None:
    """Every subcommand, and the names of regions where it takes them."""
    for name in ("add", "rm", "set", "move", "split", "cut", "insert", "resize", "merge", "edit"):
        assert f"regionfs map {name}" in run("map", name, "--help").stdout.split("Example")[1]
