"""`regionfs check`: every problem of every manifest."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Cli, Command


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    """A manifest with two problems."""
    manifest = tmp_path / "bad.yaml"
    manifest.write_text("regionfs: 1\nfiles:\n  a: {whole: nowhere}\n  b: {whole: neither}\n")
    return manifest


def test_good_manifest_is_counted(run: Cli, disk: Path) -> None:
    """A `whole` file counts as one region."""
    result = run("check", disk)
    assert (0, f"{disk}: ok (2 files, 6 regions, 2 sources)\n", "") == (
        result.exit_code, result.stdout, result.stderr)


def test_one_bad_manifest_among_good_ones(run: Cli, disk: Path, bad: Path) -> None:
    """All are reported, and the exit status is 3."""
    result = run("check", bad, disk)
    assert (3, 1, 2) == (result.exit_code, len(result.stdout.splitlines()), len(result.stderr.splitlines()))


def test_missing_manifest_is_a_problem_like_others(run: Cli, disk: Path) -> None:
    """The manifests after it are still checked."""
    result = run("check", "missing.yaml", disk)
    assert 3 == result.exit_code
    assert result.stderr.startswith("missing.yaml:1:1: ")
    assert f"{disk}: ok" in result.stdout


def test_json(run: Cli, disk: Path, bad: Path) -> None:
    """Problems as values; a good manifest has none."""
    result = run("check", "--json", disk, bad)
    good, wrong = json.loads(result.stdout)["manifests"]
    assert (3, "") == (result.exit_code, result.stderr)
    assert {"manifest": str(disk), "ok": True, "files": 2, "regions": 6, "sources": 2, "problems": [],
            "warnings": []} == good
    assert (str(bad), False, 2) == (wrong["manifest"], wrong["ok"], len(wrong["problems"]))
    assert {"file": str(bad), "line": 3, "path": "files.a.whole"}.items() <= wrong["problems"][0].items()
    assert {"file", "line", "column", "path", "message"} == wrong["problems"][0].keys()


def test_no_manifest_is_wrong_usage(run: Cli) -> None:
    """Exit status 2."""
    assert 2 == run("check").exit_code


def test_a_pinned_source_that_is_not_built_yet_hides_nothing(run: Cli, tmp_path: Path) -> None:
    """Its size is known: what else is wrong is reported with it, once."""
    manifest = tmp_path / "m.yaml"
    manifest.write_text("regionfs: 1\nsources:\n  root: {path: root.img, size: 1MiB}\nfiles:\n  f:\n    regions:\n"
                        "      - {source: root, access: rw}\n      - {start: 0, length: 1, hole: true}\n"
                        "      - {start: 2MiB, source: root, offset: 1MiB}\n")
    result = run("check", manifest)
    assert (3, 3) == (result.exit_code, len(result.stderr.splitlines())), result.stderr
    for part in ("root.img does not exist", "overlaps regions[0]", "is at or past the end of root (1048576)"):
        assert 1 == result.stderr.count(part)


@pytest.mark.parametrize("source", [True, False])
def test_a_disk_of_odd_size_is_warned_of(run: Cli, tmp_path: Path, source: bool) -> None:
    """Inline or in a source; the size that rounds up is named, and taken; a file that is no disk may be of any size."""
    table = bytes(510) + b"\x55\xaa" + bytes(513)
    (tmp_path / "disk").write_bytes(table)
    (tmp_path / "plain").write_bytes(bytes(1025))
    manifest = tmp_path / "m.yaml"
    region = "source: disk" if source else f'data: {{hex: "{table.hex()}"}}'
    text = f"regionfs: 1\nfiles:\n  d: {{regions: [{{{region}}}]}}\n  p: {{regions: [{{source: plain}}]}}\n"
    manifest.write_text(text)
    told = ("warning: m.yaml: d looks like a disk, and its 1025 bytes are not whole sectors: QEMU with cache=none "
            "cannot write it; size: 3s rounds up\n")
    for words in (["check"], ["show"]):
        result = run(*words, manifest)
        assert (0, told) == (result.exit_code, result.stderr)
    report, = json.loads(run("check", "--json", manifest).stdout)["manifests"]
    assert [told.removeprefix("warning: ").strip()] == report["warnings"]
    manifest.write_text(text.replace("d: {", "d: {size: 3s, "))
    assert (0, "") == (run("check", manifest).exit_code, run("check", manifest).stderr)


def test_a_url_is_named_as_one(run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a source, a manifest, a foreign map and a piece."""
    monkeypatch.chdir(tmp_path)
    manifest = tmp_path / "m.yaml"
    manifest.write_text('regionfs: 1\nfiles: {a: {whole: "https://example.org/a.img"}}\n')
    for words in (["check", manifest], ["check", "https://example.org/m.yaml"],
                  ["import", "auto", "s3://bucket/a.vmdk", "-o", "x.yaml"],
                  ["stitch", "o.yaml", "--file", "f", "--concat", "nbd://host/a"]):
        result = run(*words)
        assert result.exit_code
        assert "; this is a URL: regionfs reads files and block devices of this machine" in result.stderr, result.output


def test_nothing_to_import(command: Command, tmp_path: Path) -> None:
    """An empty pipe or file is called that, whatever the format."""
    (tmp_path / "empty").touch()
    for words in (["auto", "-"], ["vmdk", "-"], ["qemu-map", tmp_path / "empty"]):
        done = command("import", *words, "-o", tmp_path / "o.yaml")
        name = "stdin" if words[1] == "-" else words[1]
        assert (1, f"regionfs: {name} is empty; there is no map to import\n") == (done.returncode, done.stderr)


def test_swapped_arguments_of_mount(run: Cli, disk: Path) -> None:
    """The right order is shown."""
    result = run("mount", disk.parent, disk)
    assert 2 == result.exit_code
    assert result.stderr.endswith(f"the manifest comes first: regionfs mount {disk} {disk.parent}\n")
