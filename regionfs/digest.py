"""blake2b for names and numbers, from its own module: hashlib would load OpenSSL, 4 MB in every process of a mount."""

try:
    from _blake2 import blake2b
except ImportError:  # not CPython, or built without it
    from hashlib import blake2b

__all__ = ["blake2b"]
