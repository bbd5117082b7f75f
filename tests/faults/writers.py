"""Who writes, and remembers what was acknowledged: run by test_writers.py as processes of their own.

`writers.py KIND PATH... SEED` goes on until its input ends, then checks what the paths show and prints how many
writes were acknowledged, or what is wrong. Numbers only grow, so an older one means that a write was undone.
"""

from __future__ import annotations

import os
import random
import select
import sys
import threading
from collections.abc import Iterator

BLOCK = 4096
BLOCKS = 64          # of each writer; the second one's come after the first one's
SHARED = 2 * BLOCKS  # where those begin that two handles write in turn
FRONT = (2 * BLOCKS + 4) * BLOCK  # bytes before what is appended


def rounds() -> Iterator[int]:
    """Numbers from 1 on, until the input ends; a line is printed after the first."""
    yield 1
    print("begun", flush=True)
    number = 1
    while not select.select([sys.stdin], [], [], 0)[0]:
        number += 1
        yield number


def pause() -> None:
    """Outside the mount all is faster: leave it some time."""
    threading.Event().wait(0.0005)


def write(path: str, first: int) -> int:
    """Blocks in random order, and sizes up to a few of them; each shows what was acknowledged last."""
    rng, fd, last = random.Random(first), os.open(path, os.O_RDWR), [0] * BLOCKS
    for number in rounds():
        place = rng.randrange(BLOCKS)
        count = rng.choice((1, 1, 1, 2, min(40, BLOCKS)))
        place = min(place, BLOCKS - count)
        data = number.to_bytes(8, "big") * (BLOCK // 8) * count
        assert len(data) == os.pwrite(fd, data, (first + place) * BLOCK)
        last[place:place + count] = [number] * count
        if first:
            pause()
        check(fd, first, last, place)
    for place in range(BLOCKS):
        check(fd, first, last, place)
    return number


def check(fd: int, first: int, last: list[int], place: int) -> None:
    shown = os.pread(fd, BLOCK, (first + place) * BLOCK)
    assert last[place].to_bytes(8, "big") * (BLOCK // 8) == shown, (
        f"block {first + place}: {last[place]} was acknowledged, {shown[:8]!r} is shown")


def overtake(path: str, other: str, source: str) -> int:
    """What one handle has stored, answered or not, is seen in the source and overwritten by another one."""
    mine, theirs, seen = os.open(path, os.O_RDWR), os.open(other, os.O_RDWR), os.open(source, os.O_RDONLY)
    at, wrong = SHARED * BLOCK, []
    for number in rounds():
        first = threading.Thread(target=os.pwrite, args=(mine, (2 * number).to_bytes(8, "big"), at))
        first.start()
        while int.from_bytes(os.pread(seen, 8, at), "big") != 2 * number:
            os.sched_yield()
        assert 8 == os.pwrite(theirs, (2 * number + 1).to_bytes(8, "big"), at)
        first.join()
        if int.from_bytes(os.pread(seen, 8, at), "big") != 2 * number + 1:
            wrong.append(number)
    assert not wrong, f"acknowledged and undone: {wrong}"
    return number


def append(path: str, name: str) -> int:
    """Lines that tell which they are, some longer than a page."""
    rng, fd = random.Random(name), os.open(path, os.O_WRONLY | os.O_APPEND)
    for number in rounds():
        line = f"{name} {number} {'x' * rng.choice((3, 50, 6000))}\n".encode()
        assert len(line) == os.write(fd, line)
        if name == "outside":
            pause()
    return number


def main() -> None:
    """As the module says."""
    kind, *rest = sys.argv[1:]
    if kind == "write":
        print(write(rest[0], int(rest[1])))
    elif kind == "overtake":
        print(overtake(*rest))
    else:
        print(append(*rest))


if __name__ == "__main__":
    main()
