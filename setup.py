"""The optional accelerator; everything else is in pyproject.toml. Without a C compiler all is done in Python."""

from setuptools import Extension, setup

LOOP = "regionfs/serve/loop"

setup(ext_modules=[Extension(
    "regionfs.serve._fast", [f"{LOOP}/{name}.c" for name in ("loop", "table", "module")],
    depends=[f"{LOOP}/{name}.h" for name in ("loop", "table")], define_macros=[("_GNU_SOURCE", None)],
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-Wno-missing-field-initializers"], optional=True)])
