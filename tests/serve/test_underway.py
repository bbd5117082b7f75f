"""Tasks in shared words: begun, overtaken, done, given back, by Python and by the compiled loop alike."""

from __future__ import annotations

import errno
from random import Random

import pytest

from regionfs.serve import fast
from regionfs.serve.underway import NONE, OVERTAKEN, SIZE, TASKS, WORDS, Underway
from regionfs.sharing import Span

INO = 7


def make(words: memoryview, *, compiled: bool) -> Underway:
    """The tasks in these words, kept by a table or by Python alone."""
    made = Underway(words)
    if compiled:
        table = fast.table()
        assert table is not None
        made.share(table)
    return made


def finish(underway: Underway, task: int, count: int, places: list[Span]) -> None:
    """It is done, and waits for nobody."""
    assert underway.overtake(task, places)
    underway.done(task, count)


@pytest.fixture
def words() -> memoryview:
    """Nothing is under way."""
    return memoryview(bytearray(8 * SIZE)).cast("Q")


@pytest.fixture(params=[False, True], ids=["python", "compiled"])
def underway(request: pytest.FixtureRequest, words: memoryview) -> Underway:
    """The tasks in `words`."""
    return make(words, compiled=request.param)


def test_a_request_that_comes_again_finds_its_task(underway: Underway) -> None:
    """With what was begun, and what was done."""
    task = underway.begin(2, INO, 10, 20)
    assert (None, [], None) == (underway.result(task), underway.overtaken(task), underway.before(task))
    underway.remember(task, (5,))
    assert task == underway.begin(2, INO, 10, 20)
    assert 5 == (underway.before(task) or [])[0]
    finish(underway, task, 0, [Span(INO, 10, 10)])
    assert (0, True) == (underway.result(underway.begin(2, INO, 10, 20)), underway.certain(task))
    assert {2: (task, Span(INO, 10, 10))} == underway.left()


def test_a_task_that_was_given_back_is_another_ones(underway: Underway) -> None:
    """Nothing of the first one is left in it."""
    task = underway.begin(2, INO, 10, 20)
    underway.remember(task, (5,))
    finish(underway, underway.begin(4, INO, 0, 30), 30, [Span(INO, 0, 30)])
    underway.failed(task, errno.ENOSPC)
    with pytest.raises(OSError) as failed:
        underway.result(task)
    assert errno.ENOSPC == failed.value.errno
    underway.end(task)
    assert [4] == list(underway.left())
    assert task == underway.begin(6, INO, 1, 2)
    assert (None, [], None) == (underway.result(task), underway.overtaken(task), underway.before(task))


def test_what_overlaps_is_overtaken(underway: Underway) -> None:
    """As far as it does, on the same inode, once the other is done; ranges side by side are one."""
    task = underway.begin(2, INO, 10, 20)
    for unique, start, end in (4, 0, 12), (6, 12, 13), (8, 18, 99), (10, 20, 30), (12, 0, 10):
        other = underway.begin(unique, INO, start, end)
        finish(underway, other, end - start, [Span(INO, start, end - start), Span(INO + 1, 10, 10)])
        underway.end(other)
    assert [(10, 13), (18, 20)] == underway.overtaken(task)


def test_more_ranges_than_there_is_room_for(underway: Underway) -> None:
    """It is not known what is left then: EIO."""
    task = underway.begin(2, INO, 0, 1000)
    for number in range(OVERTAKEN):
        finish(underway, NONE, 1, [Span(INO, number * 10, 1)])
    assert OVERTAKEN == len(underway.overtaken(task))
    finish(underway, NONE, 1, [Span(INO, 500, 1)])
    with pytest.raises(OSError) as failed:
        underway.overtaken(task)
    assert errno.EIO == failed.value.errno


def test_who_overtakes_waits_for_an_older_one(underway: Underway) -> None:
    """Which has no room any more, until it is done; what it was told is enough then."""
    task, other = underway.begin(2, INO, 0, 1000), underway.begin(4, INO, 0, 1000)
    for number in range(OVERTAKEN):
        assert underway.overtake(other, [Span(INO, number * 10, 1)], waits=True)
    assert not underway.overtake(other, [Span(INO, 500, 1)], waits=True)
    assert not underway.overtake(NONE, [Span(INO, 500, 1)], waits=True)
    assert OVERTAKEN == len(underway.overtaken(task))
    underway.done(task, 1000)
    assert underway.overtake(other, [Span(INO, 500, 1)], waits=True)


def test_who_overtakes_waits_for_no_younger_one(underway: Underway) -> None:
    """Nor for one that is no plain write: it might wait for who overtakes it."""
    younger, appends = underway.begin(8, INO, 0, 1000), underway.begin(2, INO, 0, 1000)
    underway.remember(appends, (5,))
    for number in range(OVERTAKEN + 1):
        assert underway.overtake(underway.begin(4, INO, 0, 1000), [Span(INO, number * 10, 1)], waits=True)
    for task in younger, appends:
        with pytest.raises(OSError):
            underway.overtaken(task)


def test_no_room(underway: Underway) -> None:
    """A request without a task is done all the same, and written down nowhere."""
    tasks = [underway.begin(2 * number, INO, 0, 1) for number in range(1, TASKS + 2)]
    assert [*range(TASKS), NONE] == tasks
    assert (None, []) == (underway.result(NONE), underway.overtaken(NONE))
    underway.remember(NONE, (1,))
    underway.failed(NONE, errno.EIO)
    underway.end(NONE)
    assert TASKS == len(underway.left())
    underway.end(17)
    assert 17 == underway.begin(1 << 40, INO, 0, 1)


def test_python_and_the_loop_write_the_same() -> None:
    """Word for word, whatever comes."""
    rng, both = Random(11), [memoryview(bytearray(8 * SIZE)).cast("Q") for _ in range(2)]
    makers = [make(words, compiled=compiled) for words, compiled in zip(both, (False, True), strict=True)]
    alive: list[int] = []
    for unique in range(2, 4000, 2):
        start, length = rng.randrange(1000), rng.randrange(1, 200)
        one, other = (maker.begin(unique, INO, start, start + length) for maker in makers)
        assert one == other
        alive.append(one)
        while len(alive) > rng.randrange(1, 12):
            task = alive.pop(rng.randrange(len(alive)))
            for maker in makers:
                finish(maker, task, length, [Span(INO, start, length)])
                maker.end(task)
    assert both[0].tolist()[:50 * WORDS] == both[1].tolist()[:50 * WORDS]
    assert both[0] == both[1]
