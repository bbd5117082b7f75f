"""Partition tables: synthesised by sfdisk, kept as inline regions."""
