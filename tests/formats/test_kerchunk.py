"""kerchunk references: each kind of reference, and all that is no map of local bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regionfs.formats.values import FormatError, Imported
from tests.formats.tools import faults, imported, put, regionfs


def read(refs: Any, **keys: Any) -> Imported:
    """The reader's answer."""
    return imported("kerchunk", json.dumps({"version": 1, "refs": refs, **keys}), Path("/d"))


def test_every_kind_of_reference(tmp_path: Path) -> None:
    """A range, a whole file, text, base64 and nothing at all, read back as bytes."""
    data = put(tmp_path / "a b.nc", 1000)
    refs = {".zgroup": '{"zarr_format": 2}', "x/0.0": ["a b.nc", 100, 50], "x/0.1": [f"file://{tmp_path}/a%20b.nc"],
            "x/.b": "base64:AAEC", "x/empty": ""}
    (tmp_path / "r.json").write_text(json.dumps({"version": 1, "refs": refs}))
    assert 0 == regionfs("import", "auto", tmp_path / "r.json", "-o", tmp_path / "m.yaml", "--file", "z").exit_code
    expected = {".zgroup": b'{"zarr_format": 2}', "x/0.0": data[100:150], "x/0.1": data, "x/.b": b"\0\1\2",
                "x/empty": b""}
    assert expected == {name: regionfs("cat", tmp_path / "m.yaml", f"z/{name}").stdout_bytes for name in refs}


@pytest.mark.parametrize("format_name", ["auto", "kerchunk"])
@pytest.mark.parametrize("wrap", [lambda refs: refs, lambda refs: {"refs": refs},
                                  lambda refs: {"version": 1, "refs": refs}],
                         ids=["version 0", "no version", "version 1"])
def test_both_versions_give_the_same(tmp_path: Path, format_name: str, wrap: Callable[[Any], Any]) -> None:
    """Version 0 is the bare mapping; a value that is an object is the JSON of it, as fsspec has it."""
    data = put(tmp_path / "a.nc", 200)
    refs = {"x/.zarray": {"shape": [4], "é": None}, "x/0": ["a.nc", 16, 100]}
    (tmp_path / "r.json").write_text(json.dumps(wrap(refs)))
    assert 0 == regionfs("import", format_name, tmp_path / "r.json", "-o", tmp_path / "m.yaml").exit_code
    assert (data[16:116], refs["x/.zarray"]) == (
        regionfs("cat", tmp_path / "m.yaml", "x/0").stdout_bytes,
        json.loads(regionfs("cat", tmp_path / "m.yaml", "x/.zarray").stdout_bytes))


@pytest.mark.parametrize(("refs", "keys", "why"), [
    ({}, {}, "refs is empty"),
    ([], {}, "refs [] is not an object"),
    ({"a": "x"}, {"version": 2}, "version 2 is not 1"),
    ({"a": "x"}, {"templates": {"u": "x"}}, "templates must be worked out"),
    ({"a": ["{{u}}/a", 0, 1]}, {}, "has a template"),
    ({"a": ["s3://bucket/a", 0, 1]}, {}, "is not a local file"),
    ({"a": ["file://host/a", 0, 1]}, {}, "is not a local file"),
    ({"a": ["http://[", 0, 1]}, {}, "is not a URL"),
    ({"a": ["a", -1, 1]}, {}, "offset -1"),
    ({"a": ["a", 0, 0]}, {}, "length 0"),
    ({"a": ["a", 2**63 - 1, 1]}, {}, "the end in the file"),
    ({"a": ["a", 0]}, {}, "is not [URL]"),
    ({"a": 7}, {}, "is not [URL]"),
    ({"a": "base64:?"}, {}, "cannot be decoded"),
    ({"a": "\ud800"}, {}, "cannot be decoded"),
    ({"\ud800": "a"}, {}, "cannot be a path in a manifest"),
])
def test_bad_references_say_why(refs: Any, keys: dict[str, Any], why: str) -> None:
    """Every fault is a FormatError."""
    with pytest.raises(FormatError) as caught:
        read(refs, **keys)
    assert why in str(caught.value)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.dictionaries(st.text(max_size=4), st.one_of(
    st.text(max_size=9), st.lists(st.one_of(st.text(max_size=9), st.integers(), st.none()), max_size=4))))
def test_anything_is_a_map_or_a_format_error(refs: dict[str, Any]) -> None:
    """Arbitrary references are read as whole files or refused with their place; they end in no other exception."""
    assert [] == faults(lambda: read(refs))
