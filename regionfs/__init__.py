"""regionfs: files made of byte ranges of other files and block devices."""

__version__ = "0.2.0.dev0"
