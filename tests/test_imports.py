"""The architecture, read off the source: who imports whom, one door per library, sizes.

Imports inside functions and under TYPE_CHECKING count: a type is knowledge too.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "regionfs"
MODULES = sorted(PACKAGE.rglob("*.py"))

# docs/contract.md section 9: an area may import the areas in its row, and itself
STEPS = ("manifest", "regions", "plan", "modes", "source")
COMMON = {"errors", "units", "readahead", "printable", "digest", "appear"}
MAY_IMPORT = {
    "printable": set(),
    "appear": set(),
    "errors": {"printable"},
    "units": {"errors"},
    "manifest": COMMON | {"regions"},
    "regions": COMMON,
    "plan": COMMON | {"manifest", "regions"},
    "modes": COMMON | {"manifest", "regions", "plan"},
    "source": COMMON | {"manifest", "regions", "plan", "modes"},
    "fs": COMMON | set(STEPS),
    "readahead": set(),
    "digest": set(),
    "wire": {"errors", "readahead"},
    "serve": COMMON | set(STEPS) | {"fs", "wire"},
    "daemon": COMMON | set(STEPS) | {"fs", "wire", "serve"},
    "formats": COMMON | {"manifest", "regions"},
    "disk": COMMON | {"manifest", "regions"},
    "cli": COMMON | set(STEPS) | {"fs", "wire", "serve", "daemon", "formats", "disk"},
}
# modules beside the packages, and the area each belongs to
AREA_OF = {
    "execute": "source", "extents": "source", "descriptors": "source", "flatten": "source", "beneath": "source",
    "stamps": "source", "content": "source", "capabilities": "source",
    "tree": "fs", "index": "fs", "inodes": "fs", "sharing": "fs", "attributes": "fs",
}

# the areas that may touch a library
DOORS = {
    "yaml": {"manifest"},
    "ruamel": {"manifest"},
    "intervaltree": {"fs"},
    "struct": {"wire", "modes"},
    "pyfuse3": {"serve"},
    "trio": {"serve"},
}

IOCTL = {"wire", "modes"}  # the areas that may call ioctl(2)

WRITERS = {"cli/common.py"}  # the modules that may write text to a terminal

LONGEST_MODULE = 400
LONGEST_FUNCTION = 60


def name_of(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def area_of(module: str) -> str:
    """The area of a dotted name below regionfs: "modes.erofs" -> "modes"."""
    first = module.partition(".")[0]
    return AREA_OF.get(first, first)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), path)


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every module that `path` imports, wherever in it the statement stands."""
    package = ["regionfs", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = package[:len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            if module == "regionfs":
                yield from ((node.lineno, f"regionfs.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, module


def own_imports(path: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted name below regionfs) of what `path` imports from the package."""
    for line, module in imports(path):
        if module.startswith("regionfs.") and not module.startswith("regionfs.__"):
            yield line, module.removeprefix("regionfs.")


def area_of_file(path: Path) -> str:
    return area_of(path.relative_to(PACKAGE).with_suffix("").parts[0])


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_one_way(path: Path) -> None:
    """A module imports only what its area may know."""
    area = area_of_file(path)
    allowed = MAY_IMPORT.get(area, set()) | {area}
    wrong = [f"{name_of(path)}:{line}: {area} must not import {module}"
             for line, module in own_imports(path) if area_of(module) not in allowed]
    assert [] == wrong


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_each_library_has_one_door(path: Path) -> None:
    """yaml, intervaltree, struct, ioctl, pyfuse3 and trio stay where they belong."""
    area = area_of_file(path)
    wrong = [f"{name_of(path)}:{line}: {module} belongs in {' and '.join(sorted(DOORS[module.split('.')[0]]))}"
             for line, module in imports(path) if area not in DOORS.get(module.split(".")[0], {area})]
    assert [] == wrong


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_ioctl_has_one_door(path: Path) -> None:
    """Only the areas that know kernel structures call ioctl(2)."""
    calls = [f"{name_of(path)}:{node.lineno}" for node in ast.walk(tree_of(path))
             if (isinstance(node, ast.Attribute) and node.attr == "ioctl")
             or (isinstance(node, ast.alias) and node.name == "ioctl")]
    assert [] == (calls if area_of_file(path) not in IOCTL else [])


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_text_for_people_has_one_door(path: Path) -> None:
    """Only what escapes the text of others writes: no echo, print, write or prompt beside it."""
    calls = [f"{name_of(path)}:{node.lineno}" for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)
             and (ast.unparse(node.func) in ("click.echo", "print", "sys.stdout.write", "sys.stderr.write")
                  or (ast.unparse(node.func) == "click.prompt" and "printable" not in ast.unparse(node)))]
    assert [] == (calls if name_of(path) not in WRITERS else [])


def test_every_module_belongs_to_an_area() -> None:
    """A new module beside the packages must be given its place in the table."""
    areas = {area_of_file(path) for path in MODULES} - {"__init__", "__main__"}
    assert set() == areas - set(MAY_IMPORT)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_modules_and_functions_are_short(path: Path) -> None:
    """No module over 400 lines, no function over 60."""
    wrong = [f"{name_of(path)}:{node.lineno}: {node.name} has {node.end_lineno - node.lineno + 1} lines"
             for node in ast.walk(tree_of(path))
             if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
             and node.end_lineno is not None and node.end_lineno - node.lineno >= LONGEST_FUNCTION]
    if (lines := len(path.read_text().splitlines())) > LONGEST_MODULE:
        wrong.append(f"{name_of(path)} has {lines} lines")
    assert [] == wrong
