"""kerchunk references: each kind of reference, and all that is no map of local bytes."""

from __future__ import annotations

import json
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


@pytest.mark.parametrize(("refs", "keys", "why"), [
    ({}, {}, "refs is empty"),
    ([], {}, "refs [] is not an object"),
    ({"a": "x"}, {"version": 0}, "version 0 is not 1"),
    ({"a": "x"}, {"templates": {"u": "x"}}, "templates must be worked out"),
    ({"a": ["{{u}}/a", 0, 1]}, {}, "has a template"),
    ({"a": ["s3://bucket/a", 0, 1]}, {}, "is not a local file"),
    ({"a": ["file://host/a", 0, 1]}, {}, "is not a local file"),
    ({"a": ["http://[", 0, 1]}, {}, "is not a URL"),
    ({"a": ["a", -1, 1]}, {}, "offset -1"),
    ({"a": ["a", 0, 0]}, {}, "length 0"),
    ({"a": ["a", 2**63 - 1, 1]}, {}, "the end in the file"),
    ({"a": ["a", 0]}, {}, "is not [URL]"),
    ({"a": {"b": 1}}, {}, "is not [URL]"),
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
