"""The FUSE protocol, sans-io: abi (numbers and layouts), codec (bytes <-> messages), session (INIT).

Only device touches /dev/fuse, mount(2) and fusermount3.
"""
