"""The optional accelerator, and what lies outside the package; everything else is in pyproject.toml.

Without a C compiler all is done in Python. The manual, the completions and the service's unit go to PREFIX/share and
PREFIX/lib, as scripts/share.py makes them.
"""

import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup

from distutils.command.install_data import install_data  # isort: skip - setuptools' own

HERE = Path(__file__).resolve().parent

LOOP = "regionfs/serve/loop"


def liburing() -> bool:
    """Whether answers can be sent together; without it they go one by one."""
    try:
        return subprocess.run(["pkg-config", "--exists", "liburing"], check=False).returncode == 0
    except OSError:
        return False


def files(names: str, suffix: str) -> list[str]:
    return [f"{LOOP}/{name}.{suffix}" for name in names.split()]


class InstallData(install_data):
    """The unit, and what is made from the commands themselves."""

    def run(self):
        sys.path.insert(0, str(HERE / "scripts"))
        from share import make
        share = HERE / "build" / "share"
        for path in make(share):
            self.data_files.append((f"share/{path.parent}", [str(share / path)]))
        super().run()


ring = liburing()
loop = Extension(
    "regionfs.serve._fast",
    files("attributes bulk handles ledger loop module opens replies sources table turns underway windows", "c"),
    depends=files("attributes bulk ledger loop opens replies requests table turns underway windows", "h"),
    define_macros=[("_GNU_SOURCE", None), ("_FILE_OFFSET_BITS", "64")] + [("HAVE_LIBURING", None)] * ring,
    libraries=["uring"] * ring,
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-Wno-missing-field-initializers"], optional=True)
setup(ext_modules=[loop], cmdclass={"install_data": InstallData},
      data_files=[("lib/systemd/system", ["systemd/regionfs@.service"]),
                  ("lib/tmpfiles.d", ["systemd/regionfs.conf"])])
