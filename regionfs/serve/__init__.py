"""Engines: thin adapters between a way of speaking FUSE and the file system of regionfs.fs."""
