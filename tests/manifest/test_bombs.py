"""Texts made to exhaust whoever loads them: each ends soon, in bounded memory, with one clear problem.

Each runs in a process of its own whose address space is limited, so that going over the bound is a
failure and not a slow machine.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest
import yaml

MIB = 2**20
SECONDS = 60        # ten times what the slowest takes on a busy machine
MEMORY = 1500 * MIB  # address space, text included; the bound of parse.MAX_NODES is about 1 GB

LOAD = """
import json, sys
from pathlib import Path
from regionfs.errors import ManifestError
from regionfs.manifest.load import loads
text = eval(sys.argv[1])
try:
    loads(text, Path("bomb.yaml"))
except ManifestError as error:
    print(json.dumps([len(error.problems), str(error.problems[-1])]))
"""

DEPTH = "nested deeper than the 6 levels of a manifest"

# libyaml 0.2.6 looks for the end of a possible key and ends at 1000 levels, before the parser sees the first
LISTS = "1:1001" if yaml.__with_libyaml__ and yaml._yaml.get_version() >= (0, 2, 6) else "1:7: [0][0][0][0][0][0]"

BOMBS = {
    "a hundred million lists": ("b'[' * 10**8", 1, f"bomb.yaml:{LISTS}: {DEPTH}"),
    "mappings": ("b'{a: ' * (25 * 10**6)", 1, f"bomb.yaml:1:25: a.a.a.a.a.a: {DEPTH}"),
    "lists in lines": ("b'- ' * (5 * 10**7)", 1, f"bomb.yaml:1:13: [0][0][0][0][0][0]: {DEPTH}"),
    "keys in keys": ("b'? ' * (5 * 10**7)", 1, f"bomb.yaml:1:13: {DEPTH}"),
    "a billion laughs": (
        "'a0: &a0 x\\n' + ''.join(f'a{n}: &a{n} [' + f'*a{n - 1}, ' * 9 + ']\\n' for n in range(1, 10**5))",
        1001, "bomb.yaml:101:56: stopped after 1000 problems"),
    "many aliases": ("'a: &a []\\n' + 'b: *a\\n' * 10**7", 1001, None),
    "thirty million values": (
        "b'regionfs: 1\\nfiles: {f: {regions: [' + b'0,' * (30 * 10**6)", 1,
        "bomb.yaml:2:8000003: more than 4000000 values"),
    "a path of thirty million directories": (
        "b'regionfs: 1\\nfiles:\\n  ? ' + b'a/' * (30 * 10**6) + b'a\\n  : {regions: []}'", 1,
        f'bomb.yaml:3:5: files["{"a/" * 28}a..."]: a path of more than 4095 characters'),
    "a long number": (
        "b'regionfs: 1\\nfiles: {f: {regions: [], size: 1' + b'_' * (60 * 10**6) + b'x}}'", 1,
        f"bomb.yaml:2:32: files.f.size: '1{'_' * 36}...' is not a number with a unit such as "
        "4096, 64KiB, 10MB, 8s or 0x1000"),
    "one key twelve million times": ("b'a: 1\\n' * (12 * 10**6)", 1001,
                                     "bomb.yaml:1001:1: stopped after 1000 problems"),
    "a tag that grows": ("'%TAG ! ' + 'x' * (3 * 10**7) + '\\n---\\n' + '!a 1\\n'", 1,
                         "bomb.yaml:1:1: the directive %TAG is not allowed"),
}


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


@pytest.mark.timeout(2 * SECONDS)
@pytest.mark.parametrize("name", BOMBS)
def test_bomb(name: str) -> None:
    """It is refused within the bounds."""
    text, count, last = BOMBS[name]
    done = subprocess.run([sys.executable, "-c", LOAD, text], preexec_fn=limit_memory, timeout=SECONDS,
                          check=True, stdout=subprocess.PIPE)
    found = json.loads(done.stdout)
    assert [count, found[1] if last is None else last] == found
