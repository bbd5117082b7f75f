"""Mirrors regionfs/disk."""
