"""What the kernel shows of mounts."""

from __future__ import annotations

import os
from pathlib import Path

from regionfs.wire.mounts import Mount, abort_connection, list_all, list_mounts, raise_readahead, top, ways_into

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
        Mount(40, 22, os.makedev(0, 39), "/mnt/a b", "fuse.regionfs", "/tmp/a b,c\\d\n.yaml",
              "ro,user_id=0,group_id=0"),
        Mount(42, 22, os.makedev(0, 300), "/mnt/\u00e4", "fuse.regionfs", "m.yaml", "rw"),
    ] == list_mounts(MOUNTINFO)


STACK = """\
22 1 254:0 / / rw shared:1 - ext4 /dev/vda rw
40 22 0:39 / /mnt/a rw - fuse.regionfs m.yaml rw,user_id=7,group_id=8,default_permissions
43 22 0:39 /sub /mnt/bind rw - fuse.regionfs m.yaml rw
41 40 0:41 / /mnt/a rw - tmpfs over rw
42 22 0:42 / /mnt/b rw - tmpfs none rw
"""


def test_top() -> None:
    """What umount(2) of a path would end is what lies on top there, whatever it is; the kernel's order says nothing."""
    table = list_all(STACK)
    found = [top(Path(point), reversed(table)) for point in ("/mnt/a", "/mnt/b", "/mnt/bind", "/mnt/c", "/")]
    assert ["over", "none", "m.yaml", None, "/dev/vda"] == [mount and mount.source for mount in found]


def test_owner() -> None:
    """Whom the kernel lets in; root where it is no FUSE mount."""
    assert [(0, 0), (7, 8)] == [mount.owner for mount in list_all(STACK)[:2]]


def test_ways_into(tmp_path: Path) -> None:
    """Through a bind mount, symbolic links and `..`, by names only; not what is covered or only looks like it."""
    here = str(tmp_path)
    table = list_all(f"40 22 0:39 / {here}/mnt rw - fuse.regionfs m.yaml rw\n"
                     f"41 22 0:39 / {here}/covered rw - fuse.regionfs m.yaml rw\n"
                     f"42 41 0:42 / {here}/covered rw - tmpfs none rw\n"
                     f"43 22 0:39 / {here}/file.img rw - fuse.regionfs m.yaml rw\n")
    (tmp_path / "d").mkdir()
    for name, target in (("link", "d/more"), ("d/more", "../mnt"), ("loop", "loop"), ("far", f"{here}/link/x")):
        (tmp_path / name).symlink_to(target)
    inside = ways_into(os.makedev(0, 39), table)
    asked = ["mnt", "mnt/x", "file.img", "link/x/y", "d/../mnt/f", "d/more", "far", "mnt2/x", "covered/x", "d/x",
             "loop/x", ""]
    assert asked[:7] == [name for name in asked if inside(tmp_path / name)]


def test_this_machine() -> None:
    """The kernel's own text is understood."""
    assert all(mount.fstype == "fuse.regionfs" for mount in list_mounts())


def test_nothing_to_tune() -> None:
    """Knobs that are not there are reported, not raised."""
    assert (False, False) == (raise_readahead(NOWHERE, 1024), abort_connection(NOWHERE))
