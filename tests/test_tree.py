"""What is kept beside a file's node."""

from __future__ import annotations

from regionfs.tree import Told

OLD, NEW = (1, 10, 10), (2, 20, 20)


def test_an_open_finds_an_answer_that_was_noted_before() -> None:
    """And nothing after the kernel forgot it."""
    told = Told()
    assert told.keep(OLD, told.opens)
    answers = told.begin_open()
    assert not told.wrong(OLD)
    assert told.wrong(NEW)
    told.forgotten(answers)
    assert not told.wrong(OLD)
    assert not told.wrong(NEW)


def test_an_answer_that_an_open_overtook_is_not_kept() -> None:
    """Its facts are from before; the open could not know of it."""
    told = Told()
    begun = told.opens
    told.begin_open()
    assert not told.wrong(NEW)
    assert not told.keep(OLD, begun)
    assert told.keep(NEW, told.opens)
    assert not told.wrong(NEW)


def test_an_open_beside_one_that_makes_the_kernel_forget_does_so_too() -> None:
    """Whoever is answered first: the kernel has forgotten by then."""
    told = Told()
    assert told.keep(OLD, told.opens)
    first = told.begin_open()
    assert told.wrong(NEW)
    second = told.begin_open()
    assert told.wrong(NEW)
    told.forgotten(first)
    told.forgotten(second)
    assert not told.wrong(NEW)


def test_answers_while_the_kernel_forgets_are_not_taken_for_forgotten() -> None:
    """Which ones it kept is not known: the next open makes it forget again."""
    told = Told()
    assert told.keep(OLD, told.opens)
    answers = told.begin_open()
    assert told.wrong(NEW)
    assert told.keep(NEW, told.opens)
    told.forgotten(answers)
    assert told.wrong(NEW)


def test_an_open_leaves_what_was_noted_after_it_began() -> None:
    """It may have looked before that: the loop tells it from then on."""
    told = Told()
    answers = told.begin_open()
    assert told.keep(NEW, told.opens)
    assert told.wrong(OLD)
    told.forgotten(answers)
    assert told.wrong((3, 30, 30))


def test_answers_that_differ_agree_with_nothing() -> None:
    """The kernel has kept one of them."""
    told = Told()
    assert told.keep(OLD, told.opens)
    assert told.keep(NEW, told.opens)
    assert told.wrong(OLD)
    assert told.wrong(NEW)
