"""The commands import and export: what they replace, refuse, guess and print."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from regionfs.cli.export import copy_side
from regionfs.errors import RegionfsError
from regionfs.formats.table import FORMATS
from regionfs.manifest.load import load
from tests.formats.tools import composite, exported, put, put_manifest, regionfs

HEAD = '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\n'


def vmdk(directory: Path, name: str = "d.vmdk") -> Path:
    """A descriptor of one sector of a.img."""
    put(directory / "a.img", 512)
    (directory / name).write_text(HEAD + 'RW 1 FLAT "a.img" 0\n')
    return directory / name


@pytest.mark.parametrize("command", ["import", "export"])
def test_help_lists_every_format(command: str) -> None:
    """Each format stands in the help with what it cannot do."""
    text = " ".join(regionfs(command, "--help").stdout.split())
    rows = [row for row in FORMATS.values() if row.write or command == "import"]
    assert [] == [row.name for row in rows if f"{row.name}: {row.summary} {row.limits}" not in text]


def test_import_replaces_only_with_force(tmp_path: Path) -> None:
    """A manifest that exists stays, byte for byte, unless --force is given."""
    (tmp_path / "m.yaml").write_text("mine")
    first = regionfs("import", "vmdk", vmdk(tmp_path), "-o", tmp_path / "m.yaml")
    assert (2, "mine") == (first.exit_code, (tmp_path / "m.yaml").read_text())
    second = regionfs("import", "vmdk", vmdk(tmp_path), "-o", tmp_path / "m.yaml", "--force")
    assert (0, ["d.img"]) == (second.exit_code, list(load(tmp_path / "m.yaml").files))


def test_import_replaces_nothing_by_what_does_not_check(tmp_path: Path) -> None:
    """A result that does not load leaves the old manifest, --force or not."""
    vmdk(tmp_path)
    (tmp_path / "a.img").unlink()
    (tmp_path / "m.yaml").write_text("mine")
    result = regionfs("import", "vmdk", tmp_path / "d.vmdk", "-o", tmp_path / "m.yaml", "--force")
    assert (3, "mine", True) == (result.exit_code, (tmp_path / "m.yaml").read_text(), "a.img" in result.stderr)


@pytest.mark.parametrize("target", ["a.img", "d.vmdk"])
def test_import_never_replaces_its_own_parts(tmp_path: Path, target: str) -> None:
    """-o is not the foreign file or a source, not even with --force."""
    before = vmdk(tmp_path).parent.joinpath(target).read_bytes()
    result = regionfs("import", "vmdk", tmp_path / "d.vmdk", "-o", tmp_path / target, "--force")
    assert (2, before) == (result.exit_code, (tmp_path / target).read_bytes())


def test_export_replaces_only_with_force(tmp_path: Path) -> None:
    """Neither the export nor its side file is replaced unasked; nothing is left half done."""
    manifest = put_manifest(tmp_path, [{"data": {"text": "x" * 512}}])
    (tmp_path / "o.vmdk.side").write_text("mine")
    first = regionfs("export", "vmdk", manifest, "disk.img", "-o", tmp_path / "o.vmdk")
    assert (2, "mine", False) == (first.exit_code, (tmp_path / "o.vmdk.side").read_text(),
                                  (tmp_path / "o.vmdk").exists())
    second = regionfs("export", "vmdk", manifest, "disk.img", "-o", tmp_path / "o.vmdk", "--force")
    assert (0, "x" * 512) == (second.exit_code, (tmp_path / "o.vmdk.side").read_text())
    assert ["m.yaml", "o.vmdk", "o.vmdk.side"] == sorted(path.name for path in tmp_path.iterdir())


def test_export_of_an_export_does_not_eat_its_side_file(tmp_path: Path) -> None:
    """An imported export whose side file is a source is not written over itself."""
    manifest = put_manifest(tmp_path, [{"data": {"text": "x" * 700}}, {"hole": True, "length": 324}])
    assert 0 == regionfs("export", "vmdk", manifest, "disk.img", "-o", tmp_path / "o.vmdk").exit_code
    assert 0 == regionfs("import", "vmdk", tmp_path / "o.vmdk", "-o", tmp_path / "n.yaml").exit_code
    put(tmp_path / "b.img", 512)
    text = json.dumps({"regionfs": 1, "files": {"f": {"regions": [
        {"source": "o.vmdk.side", "length": 700}, {"source": "b.img", "length": 324}]}}})
    (tmp_path / "n.yaml").write_text(text)
    before = (tmp_path / "o.vmdk.side").read_bytes()
    result = regionfs("export", "vmdk", tmp_path / "n.yaml", "f", "-o", tmp_path / "o.vmdk", "--force")
    assert (2, before) == (result.exit_code, (tmp_path / "o.vmdk.side").read_bytes())


def test_a_source_that_shrank_leaves_nothing_behind(tmp_path: Path) -> None:
    """Bytes that went after the manifest was loaded are an error, never zeros, and no file stays."""
    put(tmp_path / "a.img", 4096)
    manifest = put_manifest(tmp_path, [{"source": "a.img", "offset": 1, "length": 4095}], size=4096)
    what = composite(manifest, tmp_path / "o.vmdk")
    side = exported("vmdk", manifest, tmp_path / "o.vmdk").side
    assert side is not None
    os.truncate(tmp_path / "a.img", 9)
    with pytest.raises(RegionfsError, match=r"source a\.img ends at 9"):
        copy_side(what.manifest, side)
    assert ["a.img", "m.yaml"] == sorted(path.name for path in tmp_path.iterdir())


def test_a_failed_copy_keeps_the_export_that_was_there(tmp_path: Path) -> None:
    """Neither file of an older export changes when the side file of its successor cannot be made."""
    manifest = put_manifest(tmp_path, [{"data": {"text": "x" * 512}}])
    assert 0 == regionfs("export", "vmdk", manifest, "disk.img", "-o", tmp_path / "o.vmdk").exit_code
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path != manifest}
    put_manifest(tmp_path, [{"hole": True, "length": 1 << 20}])
    command = [sys.executable, "-c", "from regionfs.cli.main import main; main()", "export", "vmdk",
               str(manifest), "disk.img", "-o", str(tmp_path / "o.vmdk"), "--force"]
    done = subprocess.run(["sh", "-c", 'ulimit -f 8; exec "$@"', "sh", *command], capture_output=True, timeout=50)
    assert (1, before) == (done.returncode, {path.name: path.read_bytes() for path in tmp_path.iterdir()
                                             if path != manifest})


def test_stdout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """-o - writes the manifest or the foreign file to stdout, notes to stderr."""
    monkeypatch.chdir(tmp_path)
    text = regionfs("import", "auto", vmdk(tmp_path), "-o", "-").stdout
    (tmp_path / "m.yaml").write_text(text)
    result = regionfs("export", "vmdk", "m.yaml", "d.img", "-o", "-")
    assert (0, True) == (result.exit_code, 'RW 1 FLAT "a.img" 0\n' in result.stdout)
    (tmp_path / "n.yaml").write_text('{"regionfs": 1, "files": {"f": {"regions": [{"hole": true, "length": 512}]}}}')
    refused = regionfs("export", "vmdk", "n.yaml", "f", "-o", "-")
    assert (2, "") == (refused.exit_code, refused.stdout)


def test_a_pipe_is_read_as_a_file_is(tmp_path: Path) -> None:
    """IN may be a FIFO, as a shell's <(...) gives; relative paths are then below the working directory."""
    text = vmdk(tmp_path).read_text()
    read, write = os.pipe()
    with open(write, "w") as stream:
        stream.write(text)
    done = subprocess.run([sys.executable, "-c", "from regionfs.cli.main import main; main()", "import", "auto",
                           f"/dev/fd/{read}", "-o", "m.yaml"], pass_fds=[read], cwd=tmp_path, timeout=50)
    os.close(read)
    assert (0, ["stdin.img"]) == (done.returncode, list(load(tmp_path / "m.yaml").files))


def test_a_disk_cannot_be_piped(tmp_path: Path) -> None:
    """sfdisk needs a file or device, which is said before it fails."""
    result = regionfs("import", "gpt", "-", "-o", tmp_path / "m.yaml", stdin=bytes(1 << 20))
    assert (2, True) == (result.exit_code, "sfdisk --json may be piped" in result.stderr)


def test_manifest_elsewhere_keeps_the_paths_right(tmp_path: Path) -> None:
    """Paths relative to the foreign file are found from a manifest in another directory."""
    (tmp_path / "maps").mkdir()
    (tmp_path / "vm").mkdir()
    for out in (tmp_path / "maps/m.yaml", tmp_path / "m.yaml"):
        assert 0 == regionfs("import", "vmdk", vmdk(tmp_path / "vm"), "-o", out).exit_code
        assert [tmp_path / "vm/a.img"] == [spec.path for spec in load(out).sources.values()]
    assert "source: vm/a.img" in (tmp_path / "m.yaml").read_text()


@pytest.mark.parametrize(("content", "why"), [(b"", "no format fits"), (b"hello\n", "no format fits")])
def test_what_cannot_be_guessed_is_said(tmp_path: Path, content: bytes, why: str) -> None:
    """auto names the formats it knows when none fits."""
    (tmp_path / "x").write_bytes(content)
    result = regionfs("import", "auto", tmp_path / "x", "-o", tmp_path / "m.yaml")
    assert (1, True) == (result.exit_code, why in result.stderr and "vmdk" in result.stderr)


def test_ro_overrules_the_format(tmp_path: Path) -> None:
    """Evidence is imported read-only even where the descriptor says RW."""
    assert 0 == regionfs("import", "vmdk", vmdk(tmp_path), "-o", tmp_path / "m.yaml", "--ro").exit_code
    assert not load(tmp_path / "m.yaml").files["d.img"].writable


def test_a_whole_file_is_one_region(tmp_path: Path) -> None:
    """`whole` is exported at the size its source has now."""
    put(tmp_path / "a.img", 1024)
    (tmp_path / "m.yaml").write_text('{"regionfs": 1, "files": {"f": {"whole": "a.img", "access": "rw"}}}')
    result = regionfs("export", "vmdk", tmp_path / "m.yaml", "f", "-o", tmp_path / "o.vmdk")
    assert (0, True) == (result.exit_code, 'RW 2 FLAT "a.img" 0\n' in (tmp_path / "o.vmdk").read_text())


def test_a_directory_that_is_missing_is_said(tmp_path: Path) -> None:
    """OUT below no directory is wrong usage, and says so in words."""
    manifest = put_manifest(tmp_path, [{"hole": True, "length": 512}])
    result = regionfs("export", "vmdk", manifest, "disk.img", "-o", tmp_path / "no/o.vmdk")
    assert (2, True) == (result.exit_code, f"{tmp_path}/no is not a directory" in result.stderr)


def test_a_bad_name_is_a_problem_of_the_manifest(tmp_path: Path) -> None:
    """--file is checked by the loader."""
    result = regionfs("import", "vmdk", vmdk(tmp_path), "-o", tmp_path / "m.yaml", "--file", "a/../b")
    assert (3, False) == (result.exit_code, (tmp_path / "m.yaml").exists())


def test_a_huge_foreign_file_is_refused(tmp_path: Path) -> None:
    """Text is read up to the limit and no further."""
    vmdk(tmp_path)
    os.truncate(tmp_path / "d.vmdk", 1 << 40)
    result = regionfs("import", "vmdk", tmp_path / "d.vmdk", "-o", tmp_path / "m.yaml")
    assert (1, True) == (result.exit_code, "larger than 67108864 bytes" in result.stderr)
