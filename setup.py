"""The optional accelerator; everything else is in pyproject.toml. Without a C compiler all is done in Python."""

import subprocess

from setuptools import Extension, setup

LOOP = "regionfs/serve/loop"


def liburing() -> bool:
    """Whether answers can be sent together; without it they go one by one."""
    try:
        return subprocess.run(["pkg-config", "--exists", "liburing"], check=False).returncode == 0
    except OSError:
        return False


def files(names: str, suffix: str) -> list[str]:
    return [f"{LOOP}/{name}.{suffix}" for name in names.split()]


ring = liburing()
setup(ext_modules=[Extension(
    "regionfs.serve._fast",
    files("attributes bulk handles ledger loop module opens replies sources table turns windows", "c"),
    depends=files("attributes bulk ledger loop opens replies requests table turns windows", "h"),
    define_macros=[("_GNU_SOURCE", None), ("_FILE_OFFSET_BITS", "64")] + [("HAVE_LIBURING", None)] * ring,
    libraries=["uring"] * ring,
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-Wno-missing-field-initializers"], optional=True)])
