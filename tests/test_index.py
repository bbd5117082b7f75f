"""The index: generations are given once, snapshots needed while a file is of them, and text brings all back."""

from __future__ import annotations

import json
from random import Random

import pytest

from regionfs.index import Index, Kept


@pytest.mark.parametrize("seed", range(20))
def test_no_number_is_given_twice(seed: int) -> None:
    """By reloads, renewals and servers that read what the last one wrote, in any order."""
    chance, index, names = Random(seed), Index.begin(0), dict.fromkeys("abc", 0)
    retired: set[tuple[str, int]] = set()
    given = {(name, 0) for name in names}
    for _ in range(200):
        whom = sorted(chance.sample(sorted(names), chance.randrange(1, 4)))
        match chance.randrange(4):
            case 0:
                index = index.renew(whom[0], names[whom[0]])
                whom = whom[:1]
            case 1:
                nameless = [*retired, *((name, names[name]) for name in whom)]
                index = index.reload(nameless, [])
            case 2:
                gone = set(chance.sample(sorted(retired), len(retired) // 2))
                index, retired, whom = index.forget(gone, []), retired - gone, []
            case _:
                index, whom = Index.from_json(index.to_json()), []
        for name in whom:
            retired.add((name, names[name]))
            names[name] = index.given
            assert (name, index.given) not in given
            given.add((name, index.given))
        assert retired == {(kept.path, kept.generation) for kept in index.retired}


def test_a_snapshot_is_needed_while_a_file_is_of_it() -> None:
    """One that lost its name is of the newest snapshot of that moment, whichever reload had made it."""
    first = Index.begin(0)
    other = first.reload([], [])           # x stays what it is
    changed = other.reload([("x", 0)], [])  # x changes
    assert {1, 2} == changed.needed
    renewed = changed.renew("x", 2)
    assert (Kept(1, "x", 0), Kept(2, "x", 2)) == renewed.retired
    assert {"x": 3} == renewed.renewed
    assert {1, 2} == renewed.needed
    assert {2} == renewed.forget([("x", 0)], []).needed
    last = renewed.reload([("x", 0), ("x", 2), ("x", 3)], ["d"])
    assert ({1, 2, 4}, {}, ("d",)) == (last.needed, last.renewed, last.directories)


def test_a_fallback_stays_with_its_file() -> None:
    """Also when that loses its name; a later file of the path has none."""
    fallen = Index.begin(0).fall_back({"x": 0}, "why")
    assert {"x": "why"} == fallen.fallbacks
    assert ("why", {"x": "why"}) == (fallen.renew("x", 0).retired[0].fallback, fallen.renew("x", 0).fallbacks)
    gone = fallen.reload([("x", 0)], [])
    assert ((Kept(0, "x", 0, "why"),), {}) == (gone.retired, gone.fallbacks)
    nameless = Index.begin(0).reload([("x", 0)], []).fall_back({"x": 0}, "late")
    assert ((Kept(0, "x", 0, "late"),), {}) == (nameless.retired, nameless.fallbacks)


def test_text_brings_all_back() -> None:
    """Names that are no text, too; another version is refused with a sentence."""
    name = "caf\udce9"
    index = Index.begin(5).renew(name, 5).fall_back({name: 6}, "why").reload([(name, 6), (name, 5)], [name])
    assert index == Index.from_json(index.to_json())
    later = json.dumps({**json.loads(index.to_json()), "regionfs index": 2})
    for text, words in ((later, "of version 2"), ("{}", "no index"), ("[1]", "no index")):
        with pytest.raises(ValueError, match=words):
            Index.from_json(text)


def test_names_are_to_be_told_after_a_reload() -> None:
    """Also by the next server; renewals in between do not tell them."""
    changed = Index.begin(0).reload([("x", 0)], [])
    later = Index.from_json(changed.renew("y", 0).to_json())
    assert [True, False, False] == [Index.begin(0).told, changed.told, later.told]
