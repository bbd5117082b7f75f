"""Region lists in a table beside the manifest: what they mean, and every word about one that is wrong."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import pytest

from regionfs.errors import ManifestError, UsageError
from regionfs.manifest import table_text
from regionfs.manifest.describe import describe, dump
from regionfs.manifest.edit import edit_text
from regionfs.manifest.edit_ops import remove
from regionfs.manifest.load import load, loads
from regionfs.manifest.report import MAX_PROBLEMS
from regionfs.regions import Kind, Region, RegionMap
from tests.manifest.conftest import ordinary

MANIFEST = "regionfs: 1\nfiles:\n  f: {regions: {table: t.csv}}\n"
HEAD = "start,length,source,offset,access\n"

Write = Callable[..., RegionMap]


@pytest.fixture
def read(directory: Path) -> Write:
    """read(text of the table): the map of the file."""
    def read(text: str | bytes, manifest: str = MANIFEST, name: str = "t.csv") -> RegionMap:
        (directory / name).write_bytes(text.encode() if isinstance(text, str) else text)
        regions = loads(manifest.replace("t.csv", name), Path("disk.yaml")).files["f"].regions
        assert regions is not None
        return regions
    return read


def source(start: int, length: int, key: str = "a.img", offset: int = 0, rw: bool = False) -> Region:
    return Region(start, start + length, Kind.SOURCE, key, offset - start, rw)


def problems(read: Write, text: str | bytes) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        read(text)
    return str(caught.value).replace(str(Path.cwd()), "{dir}").split("\n")


# table -> regions
TABLES: Sequence[tuple[str, list[Region]]] = [
    (HEAD + "0,4096,a.img,0,ro\n4096,100,b.img,7,rw\n", [source(0, 4096), source(4096, 100, "b.img", 7, True)]),
    # columns in any order, those with a default left out
    ("source,length\na.img,10\nb.img,20\n", [source(0, 10), source(10, 20, "b.img")]),
    ("source\na.img\nb.img\n", [source(0, 4096), source(4096, 8192, "b.img")]),
    ("offset,source\n96,a.img\n", [source(0, 4000, offset=96)]),
    # empty cells
    (HEAD + ",,a.img,,\n1MiB,,a.img,4095,\n,1,a.img,,\n",
     [source(0, 4096), source(2**20, 1, offset=4095), source(2**20 + 1, 1)]),
    # the manifest's numbers
    (HEAD + "8s,0x10,a.img,1KB,ro\n1.5KiB,512B,a.img,0,ro\n",
     [source(1536, 512), source(4096, 16, offset=1000)]),
    # rows in any order; what none covers is a hole
    (HEAD + "8192,1,b.img,0,ro\n0,1,a.img,0,ro\n", [source(0, 1), source(8192, 1, "b.img")]),
    # quotes, line ends, a byte order mark, empty lines, no line end
    ("\ufeff" + HEAD.replace("\n", "\r\n") + '\r\n0,1,"a.img",0,ro\r\n\r\n"1",1,a.img,0,"ro"',
     [source(0, 1), source(1, 1)]),
    (HEAD, []),
]


@pytest.mark.parametrize(("text", "expected"), TABLES)
def test_a_table(read: Write, text: str, expected: list[Region]) -> None:
    """A row is a region, with the defaults of one."""
    assert expected == list(read(text))


# rows -> problems, without the table's name
ROWS: Sequence[tuple[str, list[str]]] = [
    ("0,0,a.img,0,ro", ["2:3: length: 0 is less than 1"]),
    ("0,4097,a.img,0,ro", ["2:3: length: 4097 reaches past the end of a.img (4096)"]),
    ("0,4096,a.img,1,ro", ["2:3: length: 4097 reaches past the end of a.img (4096)"]),
    ("0,1,a.img,4096,ro", ["2:11: offset: 4096 is at or past the end of a.img (4096)"]),
    ("0,,empty.img,,", ["2:4: source: empty.img is empty"]),
    ("0,1,no.img,0,ro", ["2:5: source: {dir}/no.img does not exist"]),
    ("0,1,no.img,0,ro\n1,1,no.img,1,ro", ["2:5: source: {dir}/no.img does not exist"]),
    ("0,1,,0,ro", ["2:5: source: a path cannot be empty"]),
    ("0,1,a.img,0,r", ["2:13: access: ro or rw is wanted here, found 'r'"]),
    ("010,1,a.img,0,ro", ["2:1: start: '010' starts with 0: octal or decimal? write '10' or 0x..."]),
    ("1_0,1,a.img,0,ro", ["2:1: start: '1_0' is not a number with a unit such as 4096, 64KiB, 10MB, 8s or 0x1000; "
                          "write 10"]),
    ("0,-1,a.img,0,ro", ["2:3: length: '-1' is negative"]),
    ("0,1,a.img,1kib,ro", ["2:11: offset: '1kib' has the unknown unit 'kib'; did you mean KiB?"]),
    ("9223372036854775808,1,a.img,0,ro", ["2:1: start: '9223372036854775808' is more than 9223372036854775807"]),
    ("9223372036854775807,1,a.img,0,ro",
     ["2:1: start: it would end at 9223372036854775808, after 9223372036854775807"]),
    ("٣,1,a.img,0,ro", ["2:1: start: '٣' is not a number with a unit such as 4096, 64KiB, 10MB, 8s or 0x1000"]),
    ("0,1,a.img,0", ["2:1: 4 cells; the header has 5"]),
    ("0,1,a.img,0,ro,", ["2:1: 6 cells; the header has 5"]),
    (" ", ["2:1: 1 cell; the header has 5"]),
    ('0,1,"a.img,0,ro', ["2:1: not CSV: unexpected end of data"]),
    ('"0",1,"no,where",0,ro', ["2:7: source: {dir}/no,where does not exist"]),
    # the later line is blamed, wherever it lies
    ("0,10,a.img,0,ro\n5,10,a.img,0,ro",
     ["3:1: [5, 15) overlaps line 2 [0, 10); no row of a table covers another"]),
    ("5,10,a.img,0,ro\n0,10,a.img,0,ro\n7,1,a.img,0,ro",
     ["3:1: [0, 10) overlaps line 2 [5, 15); no row of a table covers another",
      "4:1: [7, 8) overlaps line 2 [5, 15); no row of a table covers another"]),
    # several at once, in the order of the text, empty lines counted
    ("0,0,no.img,0,x\n\n,1,a.img,9KiB,ro",
     ["2:3: length: 0 is less than 1", "2:5: source: {dir}/no.img does not exist",
      "2:14: access: ro or rw is wanted here, found 'x'",
      "4:10: offset: 9216 is at or past the end of a.img (4096)"]),
]


@pytest.mark.parametrize(("rows", "expected"), ROWS)
def test_rows_with_a_mistake(read: Write, rows: str, expected: list[str]) -> None:
    """Every problem has the table's line and column, and the name of its column."""
    assert [f"t.csv:{line}" for line in expected] == problems(read, f"{HEAD}{rows}\n")


# table -> problems, without the table's name
HEADERS: Sequence[tuple[str | bytes, list[str]]] = [
    ("", ["1:1: the table is empty; it begins with start,length,source,offset,access"]),
    ("\n\n", ["1:1: the table is empty; it begins with start,length,source,offset,access"]),
    ("start,length\n", ["1:1: the header has no column source"]),
    ("start,lenght,source\n", ["1:7: 'lenght' is no column; did you mean length?"]),
    ("source,x\n", ["1:8: 'x' is no column; known are start, length, source, offset, access"]),
    ("source,source\n", ["1:8: the header names source twice"]),
    ("0,4096,a.img,0,ro\n", ["1:1: '0' is no column; known are start, length, source, offset, access",
                             "1:3: '4096' is no column; known are start, length, source, offset, access",
                             "1:8: 'a.img' is no column; known are start, length, source, offset, access",
                             "1:14: the header names 0 twice",
                             "1:16: 'ro' is no column; known are start, length, source, offset, access"]),
    (b"source\n\xffa.img\n", ["2:1: not text: byte 0xff is not UTF-8"]),
    (b"\x1f\x8b" + bytes(20), ["1:1: not gzip: Unknown compression method"]),
    (gzip.compress(b"source\n" + b"a.img\n" * 9999)[:-30],
     ["1:1: the gzip data are damaged: Compressed file ended before the end-of-stream marker was reached"]),
    ("source\n" + "a" * 70000, ["2:1: a line of more than 65536 bytes"]),
]


@pytest.mark.parametrize(("text", "expected"), HEADERS)
def test_a_table_that_cannot_be_read(read: Write, text: str | bytes, expected: list[str]) -> None:
    """What is wrong with the form is told once, where it begins."""
    assert [f"t.csv:{line}" for line in expected] == problems(read, text)


# the node after `regions:` -> problems
NODES: Sequence[tuple[str, list[str]]] = [
    ("{table: no.csv}", ["disk.yaml:3:24: files.f.regions.table: {dir}/no.csv does not exist"]),
    ("{table: .}", ["disk.yaml:3:24: files.f.regions.table: {dir} is a directory; a source is a regular file or a "
                    "block device"]),
    ("{tabel: t.csv}", ["disk.yaml:3:17: files.f.regions.tabel: unknown key; did you mean table?"]),
    ("{table: [t.csv]}", ["disk.yaml:3:24: files.f.regions.table: a path is wanted here, found a list"]),
    ("{}", ["disk.yaml:3:16: files.f.regions: table is missing; regions are a list, or {table: FILE}"]),
]


@pytest.mark.parametrize(("node", "expected"), NODES)
def test_a_table_that_is_not_there(directory: Path, node: str, expected: list[str]) -> None:
    """What is wrong with its name stands in the manifest."""
    with pytest.raises(ManifestError) as caught:
        loads(MANIFEST.replace("{table: t.csv}", node), Path("disk.yaml"))
    assert expected == str(caught.value).replace(str(Path.cwd()), "{dir}").split("\n")


@pytest.mark.parametrize("name", ["t.csv.gz", "t.csv"])
def test_gzip_by_name_or_by_content(read: Write, name: str) -> None:
    """A compressed table reads as the plain one."""
    text = HEAD + "0,4096,a.img,0,ro\n"
    assert list(read(text)) == list(read(gzip.compress(text.encode()), name=name))


def test_a_plain_table_that_is_called_gz(read: Write) -> None:
    """The name promises something else."""
    with pytest.raises(ManifestError, match=r"^t\.csv\.gz:1:1: not gzip: Not a gzipped file"):
        read(HEAD, name="t.csv.gz")


def test_names_of_sources_count(read: Write) -> None:
    """A cell may name what `sources` declares."""
    manifest = MANIFEST.replace("files:", "sources: {root: b.img}\nfiles:")
    assert [source(0, 8192, "root")] == list(read("source\nroot\n", manifest))


def test_the_file_may_be_larger_than_its_table(read: Write) -> None:
    """`size` means what it means beside a list."""
    regions = read("source\na.img\n", MANIFEST.replace("{regions", "{size: 1MiB, regions"))
    assert 2**20 == regions.size


def test_the_file_is_not_smaller_than_its_table(read: Write) -> None:
    """The problem is the manifest's."""
    with pytest.raises(ManifestError) as caught:
        read("source\na.img\n", MANIFEST.replace("{regions", "{size: 95, regions"))
    assert "disk.yaml:3:13: files.f.size: 95 is less than 4096, where the regions end" == str(caught.value)


def test_paths_are_relative_to_the_manifest(directory: Path) -> None:
    """Also in a table that lies elsewhere."""
    (directory / "tables").mkdir()
    (directory / "tables/t.csv").write_text("source\na.img\n")
    found = loads(MANIFEST.replace("t.csv", "tables/t.csv"), Path("disk.yaml"))
    assert directory / "a.img" == found.sources["a.img"].path


def test_problems_of_a_table_stand_where_it_is_named(directory: Path) -> None:
    """Among those of the manifest, in the order of the text."""
    (directory / "t.csv").write_text("source,length\na.img,0\n")
    text = "regionfs: 1\nfiles:\n  a: {mode: x, regions: []}\n  f: {regions: {table: t.csv}}\n  g: 7\n"
    with pytest.raises(ManifestError) as caught:
        loads(text, Path("disk.yaml"))
    assert ["disk.yaml:3", "t.csv:2", "disk.yaml:5"] == [
        ":".join(line.split(":")[:2]) for line in str(caught.value).split("\n")]


def test_problems_are_bounded(read: Write) -> None:
    """A table of nothing but mistakes ends after as many as are of use."""
    found = problems(read, HEAD + "0,0,a.img,0,ro\n" * 5000)
    assert MAX_PROBLEMS + 1 == len(found)
    assert f"t.csv:1001:3: stopped after {MAX_PROBLEMS} problems" == found[-1]


def test_lines_are_bounded(read: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bomb of empty lines ends."""
    monkeypatch.setattr("regionfs.manifest.table.MAX_LINES", 1000)
    assert ["t.csv:1001:1: more than 1000 lines"] == problems(read, gzip.compress(b"source\n" + b"\n" * 10**6))
    assert 1 << 24 == table_text.MAX_LINES


def test_unwritable_sources_are_reported_once(open_directory: Path) -> None:
    """Where rw is first asked for."""
    (open_directory / "a.img").write_bytes(bytes(9))
    (open_directory / "a.img").chmod(0o444)
    (open_directory / "t.csv").write_text("source,access,length\na.img,ro,1\na.img,rw,1\na.img,rw,1\n")
    with ordinary(), pytest.raises(ManifestError) as caught:
        loads(MANIFEST, open_directory / "disk.yaml")
    assert "{dir}/t.csv:3:7: access: {dir}/a.img cannot be written: permission denied" == (
        str(caught.value).replace(str(open_directory), "{dir}"))


def test_confined(directory: Path) -> None:
    """The table itself must lie beneath the directory."""
    (directory / "in").mkdir()
    (directory / "in/disk.yaml").write_text(MANIFEST)
    (directory / "t.csv").write_text("source\n")
    (directory / "in/t.csv").symlink_to("../t.csv")
    with pytest.raises(ManifestError, match="goes through a symbolic link"):
        load(directory / "in/disk.yaml", confine=directory / "in")


def test_describe_keeps_the_table(directory: Path, read: Write) -> None:
    """What describe writes names the table, and reads back to an equal manifest."""
    read(HEAD + "0,10,a.img,0,ro\n")
    manifest = loads(MANIFEST, Path("disk.yaml"))
    files = {"f": {"size": 10, "regions": {"table": "t.csv"}}}
    assert {"regionfs": 1, "files": files} == describe(manifest)
    assert manifest == loads(dump(manifest), Path("disk.yaml"))


def test_map_says_that_it_does_not_edit_tables(read: Write) -> None:
    """And what to do instead."""
    read(HEAD + "0,10,a.img,0,ro\n")
    with pytest.raises(UsageError) as caught:
        edit_text(MANIFEST, Path("disk.yaml"), "f", remove(["1"]))
    assert ("the regions of f stand in the table t.csv, which map does not edit: change its rows, then let check look "
            "at them") == str(caught.value)


def test_a_fifo_is_not_waited_for(directory: Path) -> None:
    """It is refused, as one that is a source."""
    os.mkfifo(directory / "t.csv")
    with pytest.raises(ManifestError, match="is a FIFO"):
        loads(MANIFEST, Path("disk.yaml"))


@pytest.mark.parametrize("seed", range(20))
def test_a_table_means_what_a_list_means(read: Write, seed: int) -> None:
    """The same rows as YAML give the same map or the same number of problems, whatever way they are read."""
    random = Random(seed)
    rows, pos = [], 0
    for _ in range(random.randrange(1, 200)):
        pos += random.choice((0, 0, 0, 512))
        length, offset = random.randrange(1, 900), random.randrange(0, 3000)
        cells = {"start": str(pos), "length": str(length), "source": random.choice(("a.img", "b.img")),
                 "offset": str(offset), "access": random.choice(("ro", "rw"))}
        if random.random() < 0.02 * (seed % 3):
            cells[random.choice(tuple(cells))] = random.choice(("x", "9000", "1KiB", "010"))
        rows.append(cells)
        pos += length
    listed = "regionfs: 1\nfiles:\n  f:\n    regions:\n" + "".join(
        f"      - {{{', '.join(f'{key}: {value}' for key, value in row.items())}}}\n" for row in rows)
    try:
        expected: object = loads(listed, Path("disk.yaml")).files["f"].regions
    except ManifestError as error:
        expected = len(error.problems)
    try:
        found: object = read(HEAD + "".join(",".join(row.values()) + "\n" for row in rows))
    except ManifestError as error:
        found = len(error.problems)
    assert expected == found


@pytest.mark.parametrize("seed", range(300))
def test_fuzz(read: Write, seed: int) -> None:
    """Damaged tables are read or refused with places; nothing else happens."""
    random = Random(seed)
    text = bytearray(HEAD.encode() + b'0,4096,a.img,0,ro\n4KiB,100,"b.img",7,rw\n,,a.img,,\n')
    for _ in range(random.randrange(1, 6)):
        at = random.randrange(len(text))
        text[at:at + random.randrange(0, 3)] = random.choice(
            (b"", b",", b'"', b"\n", b"\xff", b"0", b"-", b"\0", b"KiB", b"\x1f\x8b", random.randbytes(2)))
    try:
        regions = read(bytes(text))
    except ManifestError as error:
        assert all(problem.line > 0 and problem.column > 0 for problem in error.problems)
    else:
        assert regions == RegionMap(regions.size, list(regions))
