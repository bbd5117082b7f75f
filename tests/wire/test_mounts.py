"""What the kernel shows of mounts."""

from __future__ import annotations

import os

from regionfs.wire.mounts import Mount, abort_connection, list_mounts, raise_readahead

MOUNTINFO = """\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
40 22 0:39 / /mnt/a\\040b ro,nosuid,nodev - fuse.regionfs /tmp/a\\040b,c\\134d\\012.yaml ro,user_id=0,group_id=0
41 22 0:40 / /mnt/sshfs rw shared:7 master:3 - fuse.sshfs host: rw,user_id=0
42 22 0:300 / /mnt/\u00e4 rw shared:7 master:3 - fuse.regionfs m.yaml rw
43 22 0:44 / /mnt/c rw - fuse.regionfs2 m.yaml rw
"""
NOWHERE = os.makedev(4095, 4095)


def test_list_mounts() -> None:
    """Only ours, with the kernel's octal escapes undone and minors above 255 in the right place."""
    assert [
        Mount(os.makedev(0, 39), "/mnt/a b", "fuse.regionfs", "/tmp/a b,c\\d\n.yaml", "ro,user_id=0,group_id=0"),
        Mount(os.makedev(0, 300), "/mnt/\u00e4", "fuse.regionfs", "m.yaml", "rw"),
    ] == list_mounts(MOUNTINFO)


def test_this_machine() -> None:
    """The kernel's own text is understood."""
    assert all(mount.fstype == "fuse.regionfs" for mount in list_mounts())


def test_nothing_to_tune() -> None:
    """Knobs that are not there are reported, not raised."""
    assert (False, False) == (raise_readahead(NOWHERE, 1024), abort_connection(NOWHERE))
