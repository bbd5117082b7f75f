"""Every problem of a manifest, in the words of bad.py, and how problems are gathered."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from regionfs.errors import ManifestError
from regionfs.manifest import inline
from regionfs.manifest.load import load, loads
from regionfs.manifest.report import MAX_PROBLEMS
from tests.manifest.bad import DOCUMENTS, FILES, REGIONS
from tests.manifest.conftest import ordinary
from tests.manifest.test_confine import swapping

FILES_HEAD = "regionfs: 1\nfiles:\n  "
REGIONS_HEAD = "regionfs: 1\nfiles:\n  f:\n    regions:\n"


@pytest.fixture(autouse=True)
def _fifo(directory: Path) -> None:
    os.mkfifo(directory / "fifo")


def problems(text: str | bytes) -> list[str]:
    """The message lines for this manifest."""
    with pytest.raises(ManifestError) as caught:
        loads(text, Path("disk.yaml"))
    return str(caught.value).replace(str(Path.cwd()), "{dir}").split("\n")


@pytest.mark.parametrize(("text", "expected"), DOCUMENTS)
def test_document(text: str | bytes, expected: list[str]) -> None:
    """A document that is wrong as a whole, or outside of its files."""
    assert expected == problems(text)


@pytest.mark.parametrize(("text", "expected"), FILES)
def test_file(text: str, expected: list[str]) -> None:
    """A composite file with a mistake."""
    assert expected == problems(f"{FILES_HEAD}{text}\n")


@pytest.mark.parametrize(("regions", "expected"), REGIONS)
def test_regions(regions: tuple[str, ...], expected: list[str]) -> None:
    """A list of regions with a mistake."""
    assert expected == problems(REGIONS_HEAD + "".join(f"    - {{{region}}}\n" for region in regions))


def test_all_problems_at_once_in_the_order_of_the_text() -> None:
    """Sources are read first, but a problem stands where the text has it."""
    expected = [
        "disk.yaml:1:11: regionfs: version 1 is wanted here, found '3'",
        "disk.yaml:4:11: files.one.size: '10 kib' has the unknown unit 'kib'; did you mean KiB?",
        "disk.yaml:6:15: files.one.regions[0].source: {dir}/no.img does not exist",
        "disk.yaml:7:26: files.one.regions[1].length: 5000 reaches past the end of a.img (4096)",
        "disk.yaml:8:3: files.one: given twice; first on line 3",
        "disk.yaml:10:6: sources.x: {dir}/fifo is a FIFO; a source is a regular file or a block device",
    ]
    assert expected == problems("""regionfs: 3
files:
  one:
    size: 10 kib
    regions:
    - source: no.img
    - {start: 0, length: 5000, source: a.img}
  one: {whole: a.img}
sources:
  x: fifo
""")


def test_source_is_blamed_once() -> None:
    """A source that fails is one problem, however many regions use it."""
    text = "regionfs: 1\nfiles:\n" + "".join(f"  f{index}: {{whole: no.img}}\n" for index in range(50))
    assert ["disk.yaml:3:15: files.f0.whole: {dir}/no.img does not exist"] == problems(text)


def test_access_is_blamed_once(open_directory: Path) -> None:
    """A source that cannot be written is one problem, at the first rw."""
    file = open_directory / "a.img"
    file.touch(mode=0o444)
    text = "regionfs: 1\nfiles:\n" + "".join(f"  {name}: {{access: rw, whole: {file}}}\n" for name in "fg")
    with ordinary():
        expected = [f"disk.yaml:3:15: files.f.access: {file} cannot be written: permission denied"]
        assert expected == problems(text)


def test_after_a_faulty_region_places_are_unknown() -> None:
    """A region that follows a faulty one is not blamed for where it may lie."""
    text = REGIONS_HEAD + "    - {source: no.img}\n    - {source: a.img}\n    - {start: 0, source: b.img}\n"
    assert ["disk.yaml:5:16: files.f.regions[0].source: {dir}/no.img does not exist"] == problems(text)


def test_many_problems_end() -> None:
    """After a thousand problems loading stops and says so."""
    found = problems(REGIONS_HEAD + "    - {start: x}\n" * 100_000)
    assert MAX_PROBLEMS + 1 == len(found)
    assert found[-1].endswith(f"stopped after {MAX_PROBLEMS} problems")


def test_inline_files_are_bounded(directory: Path) -> None:
    """A file too large to be taken in is refused unread, with the limit."""
    with (directory / "large").open("wb") as file:
        file.truncate(inline.FILE_LIMIT + 1)
    expected = ["disk.yaml:5:21: files.f.regions[0].data.file: large has 67108865 bytes; "
                "inline files may hold 64MiB together: make it a source"]
    assert expected == problems(f"{REGIONS_HEAD}    - {{data: {{file: large}}}}\n")


def test_inline_files_are_bounded_together(directory: Path) -> None:
    """The limit is for all inline files of a manifest; one used twice counts once."""
    for name in ("x", "y"):
        with (directory / name).open("wb") as file:
            file.truncate(inline.FILE_LIMIT // 2 + 1)
    lines = "".join(f"    - {{data: {{file: {name}}}}}\n" for name in ("x", "x", "y"))
    assert ["disk.yaml:7:21"] == [line.partition(": ")[0] for line in problems(REGIONS_HEAD + lines)]


def problems_of_file(path: Path, **arguments: int) -> str:
    with pytest.raises(ManifestError) as caught:
        load(path, **arguments)
    return str(caught.value)


def test_missing_manifest() -> None:
    """A manifest that is not there is a problem at its first line."""
    assert "no.yaml:1:1: cannot be read: No such file or directory" == problems_of_file(Path("no.yaml"))


def test_directory_as_manifest(directory: Path) -> None:
    """A directory is no manifest."""
    assert f"{directory}:1:1: cannot be read: Is a directory" == problems_of_file(directory)


def test_large_manifest_is_refused_unread(directory: Path) -> None:
    """The limit is checked by the size of the file."""
    with (directory / "large.yaml").open("wb") as file:
        file.truncate(2**40)
    expected = "large.yaml:1:1: 1099511627776 bytes are over the limit of 64MiB"
    assert expected == problems_of_file(Path("large.yaml"))


def test_manifest_that_is_no_regular_file_is_refused_unread() -> None:
    """Nothing else is sure to answer, or to end."""
    assert ["fifo:1:1: cannot be read: it is a FIFO, not a regular file",
            "/dev/zero:1:1: cannot be read: it is a character device, not a regular file"] == [
        problems_of_file(Path(name)) for name in ("fifo", "/dev/zero")]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["m.yaml", "t.csv", "a.img"])
def test_files_that_become_fifos_stop_nobody(directory: Path, name: str) -> None:
    """Manifest, table, inline file: exchanged with a FIFO again and again while they are loaded."""
    (directory / "t.csv").write_text("source,length\nb.img,1\n")
    (directory / "m.yaml").write_text(
        "regionfs: 1\nfiles:\n  f: {regions: {table: t.csv}}\n  g: {regions: [{data: {file: a.img}}]}\n")
    with swapping(directory / name, directory / "fifo"):
        for _ in range(300):
            with suppress(ManifestError):
                load(directory / "m.yaml")


def test_limit_can_be_lifted(directory: Path) -> None:
    """Who asks for it may load more."""
    text = "regionfs: 1\nfiles: {f: {whole: a.img}}\n"
    (directory / "m.yaml").write_text(text)
    assert problems_of_file(Path("m.yaml"), limit=len(text) - 1).endswith("over the limit of 38")
    assert ["f"] == list(load(Path("m.yaml"), limit=None).files)
