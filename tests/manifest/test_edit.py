"""Edits as they look in the text: each case is the regions before, an edit, and the regions after."""

from __future__ import annotations

from pathlib import Path

import pytest

from regionfs.errors import ManifestError, RegionfsError, UsageError
from regionfs.manifest.edit import edit_text
from regionfs.manifest.edit_draft import Change
from regionfs.manifest.edit_ops import (
    add,
    assign,
    cut,
    insert,
    merge,
    move,
    remove,
    resize,
    resize_file,
    split,
)
from regionfs.manifest.edit_words import scalar

HEAD = "regionfs: 1\nfiles:\n  f:\n"

CASES = {
    "split keeps the comment with the first part": (
        "    regions:\n    - {source: a.img}   # whole\n",
        split([1024]),
        "    regions:\n    - {length: 1KiB, source: a.img}   # whole\n    - {source: a.img, offset: 1KiB}\n"),
    "units stay as they were written": (
        "    regions:\n    - {start: 0x400, source: a.img, length: 2s}\n    - {start: 4096, source: b.img}\n",
        insert(0, {"length": "512"}),
        "    regions:\n    - {start: 0x600, source: a.img, length: 2s}\n"
        "    - {start: 4608, source: b.img}\n"),
    "a block region gets its keys in order": (
        "    size: 1MiB\n    regions:\n      - source: a.img  # here\n        access: ro\n",
        move("0", 4096),
        "    size: 1MiB\n    regions:\n      - start: 4KiB\n        source: a.img  # here\n        access: ro\n"),
    "a new region follows its neighbour's style": (
        "    size: 1MiB\n    regions:\n      -   start: 0\n          source: a.img\n",
        add({"start": "64KiB", "data": {"hex": "00"}}),
        "    size: 1MiB\n    regions:\n      -   start: 0\n          source: a.img\n"
        "      -   start: 64KiB\n          data: {hex: \"00\"}\n"),
    "what would slip gets a start": (
        "    regions:\n    - {source: a.img}\n    - {source: b.img, align: 4096}\n",
        remove(["0"]),
        "    regions:\n    - {start: 4KiB, source: b.img}\n"),
    "a file that would shrink gets a size": (
        "    regions:\n    - {source: a.img}\n    - {source: b.img}\n",
        remove(["@4KiB"]),
        "    size: 12KiB\n    regions:\n    - {source: a.img}\n"),
    "the last region leaves an empty list": (
        "    size: 4KiB\n    regions:  # none left\n    # said before\n    - {source: a.img}\n",
        remove(["0"]),
        "    size: 4KiB\n    regions: []  # none left\n    # said before\n"),
    "an empty list becomes a block": (
        "    size: 4KiB\n    regions: []   # soon\n",
        add({"source": "a.img"}),
        "    size: 4KiB\n    regions:\n      - {source: a.img}   # soon\n"),
    "JSON stays JSON": (
        '    regions: [{"source": "a.img"}]\n',
        split([512]),
        '    regions: [{"length": 512, "source": "a.img"}, {"source": "a.img", "offset": 512}]\n'),
    "lines of a flow list keep their comments": (
        "    regions: [\n      {source: a.img}, # one\n      # two follows\n      {source: b.img} # two\n    ]\n",
        cut(5000, 1000),
        "    regions: [\n      {source: a.img}, # one\n      # two follows\n"
        "      {length: 904, source: b.img}, # two\n      {start: 6000, source: b.img, offset: 1904}\n    ]\n"),
    "a literal block goes with its region": (
        "    size: 1KiB\n    regions:\n    - data:\n        text: |\n          hello\n\n    # end of list\n",
        assign("0", {"hole": "true"}),
        "    size: 1KiB\n    regions:\n    - length: 6\n      hole: true\n\n    # end of list\n"),
    "the last line may have no end": (
        "    regions:\n    - {source: a.img}",
        add({"source": "b.img"}),
        "    regions:\n    - {source: a.img}\n    - {source: b.img}"),
    "a key is taken away": (
        "    size: 1MiB\n    regions:\n    - source: a.img\n      # not all of it\n"
        "      length: 512 # why\n      over: true\n",
        assign("0", {"length": None}),
        "    size: 1MiB\n    regions:\n    - source: a.img\n      # not all of it\n      over: true\n"),
    "merge joins what goes on": (
        "    regions:\n    - {source: a.img, length: 100}\n    # between\n    - {source: a.img, offset: 100}\n",
        merge(),
        "    regions:\n    - {source: a.img, length: 4096}\n    # between\n"),
    "cut and close moves up what is written and what follows": (
        "    size: 16KiB\n    regions:\n    - {source: a.img}\n    - {start: 8KiB, length: 1KiB, source: b.img}\n"
        "    - {length: 7KiB, hole: true}\n",
        cut(0, 1024, close=True),
        "    size: 15KiB\n    regions:\n    - {source: a.img, offset: 1KiB}\n"
        "    - {start: 7KiB, length: 1KiB, source: b.img}\n    - {length: 7KiB, hole: true}\n"),
    "merge leaves apart what another layer lies between": (
        "    regions:\n    - {source: b.img}\n    - {start: 0, length: 10, source: a.img, over: true}\n"
        "    - {start: 5, length: 10, hole: true, over: true}\n"
        "    - {start: 10, length: 10, source: a.img, offset: 10, over: true}\n",
        merge(),
        "    regions:\n    - {source: b.img}\n    - {start: 0, length: 10, source: a.img, over: true}\n"
        "    - {start: 5, length: 10, hole: true, over: true}\n"
        "    - {start: 10, length: 10, source: a.img, offset: 10, over: true}\n"),
    "an added region goes over what it covers": (
        "    regions:\n    - {source: a.img}\n    - {source: b.img}\n",
        add({"start": "4000", "source": "a.img", "length": "200", "over": "true"}),
        "    regions:\n    - {source: a.img}\n    - {source: b.img}\n"
        "    - {start: 4000, length: 200, source: a.img, over: true}\n"),
}


@pytest.mark.parametrize("name", CASES)
def test_text(directory: Path, name: str) -> None:
    """Exactly these bytes change."""
    before, change, after = CASES[name]
    assert HEAD + after == edit_text(HEAD + before, directory / "m.yaml", "f", change).new


@pytest.mark.parametrize("ending", ["\r\n", "\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_line_ends_and_byte_order_mark(directory: Path, ending: str, mark: str) -> None:
    """Both stay; places are counted in characters, also after letters of several bytes."""
    before = "# ünï 漢 \U0001f600\n" + HEAD + "    regions:\n    - {source: a.img}\n"
    after = before.replace("{s", "{length: 512, s") + "    - {source: a.img, offset: 512}\n"
    result = edit_text(mark + before.replace("\n", ending), directory / "m.yaml", "f", split([512]))
    assert mark + after.replace("\n", ending) == result.new


PLAIN = "    regions:\n    - {source: a.img}\n    - {source: b.img}\n"
SIZED = "    size: 1MiB\n" + PLAIN
LAYERS = "    regions:\n    - {source: b.img}\n    - {start: 0, source: a.img, length: 1, over: true}\n"

REFUSED: dict[str, tuple[str, Change, str]] = {
    "no such index": (PLAIN, remove(["2"]), "no region 2; they count from 0 to 1"),
    "no such item": (PLAIN, remove(["regions[2]"]), "no regions[2]; they count from 0 to 1"),
    "no such start": (PLAIN, remove(["@5000"]), "no region starts at 5000; it lies in regions[1] [4KiB, 12KiB)"),
    "no name": (PLAIN, remove(["-1"]), "'-1' names no region"),
    "two of that start": (LAYERS, remove(["@0"]), "regions[0] and regions[1] start at 0; write which"),
    "bad unit": (PLAIN, remove(["@5Mib"]), "did you mean MiB"),
    "border already": (PLAIN, split([4096]), "regions[1] [4KiB, 12KiB) starts there already"),
    "nothing to split": (SIZED, split([65536]), "no region at 64KiB; there is nothing to split"),
    "cut past the end": (PLAIN, cut(8192, 8192), "[8192, 16384) is empty or ends after the file"),
    "empty cut": (PLAIN, cut(0, 0), "[0, 0) is empty"),
    "insert past the end": (PLAIN, insert(20000, {"length": "1"}), "20000 is after the file's end at 12288"),
    "past the source": (PLAIN, resize("1", 10000), "length: 10000 reaches past the end of b.img (8192)"),
    "no length": (PLAIN, resize("1", 0), "length: 0 is less than 1"),
    "overlap": (PLAIN, move("0", 4096), "overlaps regions[0] [4096, 8192); say over: true to cover it"),
    "past the size": (SIZED, move("0", 2**20), "1048576 is less than 1052672, where the regions end"),
    "past the largest offset": (PLAIN, move("0", 2**63 - 1), "after 9223372036854775807"),
    "file too small": (PLAIN, resize_file(5000), "regions[1] [4KiB, 12KiB) would reach past a size of 5000"),
    "no source": (PLAIN, add({"source": "c.img"}), "c.img does not exist"),
    "no kind": (PLAIN, add({"start": "1"}), "a region has exactly one of source, data, hole, error; here none"),
    "not contiguous": (PLAIN, merge(["0", "1"]), "regions[1] [4KiB, 12KiB) does not go on where regions[0] [0, 4KiB)"),
    "no such key": (PLAIN, assign("0", {"offset": None}), "regions[0] [0, 4KiB) has no offset"),
    "bad access": (PLAIN, assign("0", {"access": "rx"}), "access: ro or rw is wanted here, found 'rx'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(directory: Path, name: str) -> None:
    """The message says what, where and the limit."""
    text, change, message = REFUSED[name]
    with pytest.raises(RegionfsError) as caught:
        edit_text(HEAD + text, directory / "m.yaml", "f", change)
    assert message in str(caught.value)


def test_numbers_are_those_of_show(directory: Path) -> None:
    """By place, not by the order of the text; a number means the declared region that shows there."""
    text = (HEAD + "    regions:\n    - {start: 4KiB, source: b.img}\n    - {start: 0, source: a.img}\n"
            "    - {start: 1KiB, length: 1KiB, hole: true, over: true}\n")
    for number, line in (("0", "source: a.img"), ("1", "hole"), ("2", "source: a.img"), ("3", "source: b.img")):
        new = edit_text(text, directory / "m.yaml", "f", remove([number])).new
        gone = set(text.splitlines()) - set(new.splitlines())
        assert (1, True) == (len(gone), line in gone.pop())


def test_invalid_result_names_every_problem(directory: Path) -> None:
    """By path, since the lines of the new text exist nowhere."""
    with pytest.raises(RegionfsError) as caught:
        edit_text(HEAD + SIZED, directory / "m.yaml", "f", move("0", 2**20))
    assert (f"{directory}/m.yaml was not changed; it would not be valid:\n"
            "  files.f.size: 1048576 is less than 1052672, where the regions end") == str(caught.value)


def test_unknown_file_and_whole_file(directory: Path) -> None:
    """Neither has a map to edit."""
    text = "regionfs: 1\nfiles:\n  data.bin: {whole: a.img}\n"
    with pytest.raises(UsageError, match=r"no file 'date.bin' in the manifest; did you mean 'data.bin'\?"):
        edit_text(text, directory / "m.yaml", "date.bin", merge())
    with pytest.raises(UsageError, match=r"data\.bin shows the whole of a source and has no region map"):
        edit_text(text, directory / "m.yaml", "data.bin", merge())


def test_invalid_manifest_is_reported_as_it_is(directory: Path) -> None:
    """With the lines of the text on disk."""
    with pytest.raises(ManifestError, match=r"m.yaml:5:8: "):
        edit_text(HEAD + "    regions:\n    - {sauce: a.img}\n", directory / "m.yaml", "f", merge())


@pytest.mark.parametrize("text, written", [
    ("images/a.img", "images/a.img"), ("a b.img", "a b.img"), ("010", '"010"'), ("yes", '"yes"'), ("", '""'),
    ("a: b", '"a: b"'), ("a #b", '"a #b"'), ('say "x"', '"say \\"x\\""'), ("a\\b", '"a\\\\b"'),
    ("a\nb\t\x07", '"a\\nb\\t\\U00000007"'), ("é", '"é"'), ("-a", '"-a"'), ("null", '"null"'), ("~", '"~"'),
])
def test_scalar(text: str, written: str) -> None:
    """Plain only where no reader of YAML sees something else."""
    assert written == scalar(text)
