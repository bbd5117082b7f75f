"""Foreign map formats. values holds what readers and writers exchange, table lists the formats, one module each.

A reader is pure: bytes and the paths around them -> a manifest. A writer is pure: a composite file ->
bytes, and descriptions of the side files that go with them. Formats know manifest and regions only;
who opens files, runs tools and copies bytes is the command line.
"""
