"""Attributes, extended attributes and the tree of a mount, row by row of docs/contract.md section 4."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.harness import Mount
from tests.mounted.conftest import FILES, PAGE, World, make_sources, opened

LARGE = 3000  # entries of one directory: more than one reply of readdir holds


def refused(call: Callable[..., object], *arguments: object) -> str:
    """The name of the errno that the call fails with."""
    with pytest.raises(OSError) as failed:
        call(*arguments)
    return errno.errorcode[failed.value.errno or 0]


def test_sizes_and_modes(world: World) -> None:
    """Size of the map or the source; 0444, or 0644 with a rw region; whole files have their source's."""
    (world.sources / "whole.img").chmod(0o5640)
    found = [(path.stat().st_size, oct(path.stat().st_mode)) for path in (
        world.disk, world.ro, world.sparse, world.whole, world.whole_ro)]
    assert [(10 * PAGE, "0o100644"), (2 * PAGE, "0o100444"), (1 << 20, "0o100444"),
            (1000, "0o105640"), (1000, "0o105440")] == found


def test_a_mode_in_the_manifest_is_shown(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """`mode` pins the permission bits, whatever its regions' access."""
    make_sources(tmp_path)
    files = {"a": {"mode": "0640", "regions": [{"source": "ro.img"}]},
             "b": {"mode": "0400", "regions": [{"source": "a.img", "access": "rw"}]}}
    with mount(files) as mounted:
        assert ["0o640", "0o400"] == [oct(stat.S_IMODE((mounted.path / name).stat().st_mode)) for name in files]


def test_times_are_the_newest_of_the_sources(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """Of a.img, b.img and ro.img the newest mtime, where it is newer than the map; of the whole file its source's."""
    make_sources(tmp_path)
    for seconds, name in enumerate(("ro", "b", "a", "whole"), 4_000_000_000):
        os.utime(tmp_path / f"{name}.img", ns=(0, seconds * 10**9 + 123_456_789))
    with mount(FILES) as mounted:
        times = [(mounted.path / name).stat().st_mtime_ns for name in ("disk.img", "ro.bin", "deep/er/whole.bin")]
    assert [(4_000_000_000 + n) * 10**9 + 123_456_789 for n in (2, 0, 3)] == times


def test_a_file_is_at_least_as_new_as_its_map(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """At the first mount: the newest of manifest, table and files of inline data. A whole file is its source."""
    (tmp_path / "a.img").write_bytes(b"a" * PAGE)
    (tmp_path / "t.csv").write_text("start,length,source,offset\n0,4096,a.img,0\n")
    (tmp_path / "d").write_bytes(b"d")
    os.utime(tmp_path / "a.img", ns=(0, 1_000_000_000_000_000_000))
    files = {"map": {"regions": [{"source": "a.img"}, {"data": {"file": "d"}}]},
             "table": {"regions": {"table": "t.csv"}}, "whole": {"whole": "a.img"}}
    mounting = mount(files)
    os.utime(mounting.manifest, ns=(0, 4_000_000_000_000_000_000))
    os.utime(tmp_path / "d", ns=(0, 4_100_000_000_000_000_000))
    os.utime(tmp_path / "t.csv", ns=(0, 4_200_000_000_000_000_000))
    with mounting as mounted:
        times = {name: (mounted.path / name).stat().st_mtime for name in files}
    assert {"map": 4.2e9, "table": 4.2e9, "whole": 1e9} == times


def test_a_write_moves_the_times(world: World) -> None:
    """After a write the file is as new as its source."""
    before = world.disk.stat()
    with opened(world.disk, os.O_RDWR) as fd:
        os.pwrite(fd, b"x", 3 * PAGE)
        os.fsync(fd)
        assert before.st_mtime_ns < os.fstat(fd).st_mtime_ns
    assert before.st_ctime_ns < world.disk.stat().st_ctime_ns


def test_inode_numbers_are_stable_across_mounts(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """The same path has the same number in the next mount, and no two files share one."""
    make_sources(tmp_path)
    seen = []
    for _ in range(2):
        with mount(FILES) as mounted:
            paths = [mounted.path, mounted.path / "deep", *(mounted.path / name for name in FILES)]
            seen.append([path.stat().st_ino for path in paths])
    assert (seen[0], len(seen[0])) == (seen[1], len(set(seen[1])))


def test_blocks_count_allocated_units(world: World) -> None:
    """Holes of the map and of the sources take no room, data and error regions do."""
    assert [8, 8 * 8, 16] == [path.stat().st_blocks for path in (world.sparse, world.disk, world.ro)]


def test_attribute_changes_of_a_whole_file_are_forwarded(world: World) -> None:
    """chmod, chown and utimens reach the source, and stat shows them at once."""
    source = world.sources / "whole.img"
    world.whole.chmod(0o600)
    os.chown(world.whole, os.getuid(), 1 if os.geteuid() == 0 else os.getgid())
    os.utime(world.whole, ns=(1_500_000_000_000_000_001, 1_600_000_000_000_000_002))
    for path in (source, world.whole):
        found = path.stat()
        assert (0o600, 1 if os.geteuid() == 0 else os.getgid(), 1_600_000_000_000_000_002) == (
            stat.S_IMODE(found.st_mode), found.st_gid, found.st_mtime_ns)


def test_attribute_changes_elsewhere_are_eperm(world: World) -> None:
    """A fixed-size file's and a ro whole file's attributes are the manifest's."""
    for path in (world.disk, world.ro, world.whole_ro):
        before = path.stat()
        answers = [refused(path.chmod, 0o777), refused(os.chown, path, 1, 1),
                   refused(os.utime, path, (1, 1)), refused(os.utime, path)]
        assert (["EPERM"] * 4, before) == (answers, path.stat())


def test_own_extended_attributes(world: World) -> None:
    """Every file tells its mode, and its map as JSON."""
    assert {b"userspace", b"passthrough", b"composed"} >= {
        os.getxattr(path, "user.regionfs.mode") for path in (world.disk, world.ro, world.whole)}
    kinds = ("start", "length", "kind", "access", "source", "offset")
    assert [
        dict(zip(kinds, (0, PAGE, "data", "ro", None, None), strict=True)),
        dict(zip(kinds, (PAGE, 2 * PAGE, "source", "ro", "ro.img", 0), strict=True)),
        dict(zip(kinds, (3 * PAGE, 2 * PAGE, "source", "rw", "a.img", 0), strict=True)),
        dict(zip(kinds, (5 * PAGE, 2 * PAGE, "source", "rw", "b.img", 0), strict=True)),
        dict(zip(kinds, (8 * PAGE, PAGE, "error", "ro", None, None), strict=True)),
    ] == json.loads(os.getxattr(world.disk, "user.regionfs.map"))
    assert [dict(zip(kinds, (0, 1000, "source", "rw", "whole.img", 0), strict=True))] == json.loads(
        os.getxattr(world.whole, "user.regionfs.map"))


def test_mode_attribute_agrees_with_status(world: World) -> None:
    """getfattr and `regionfs status` say the same of every file."""
    files = world.mount.status()["files"]
    assert {name: files[name]["mode"] for name in FILES} == {
        name: os.getxattr(world.mount.path / name, "user.regionfs.mode").decode() for name in FILES}


def test_extended_attributes_of_a_whole_file_are_its_sources(world: World) -> None:
    """Set, listed, read and removed through the mount and seen at the source."""
    source = world.sources / "whole.img"
    os.setxattr(world.whole, "user.colour", b"blue")
    assert (b"blue", b"blue") == (os.getxattr(source, "user.colour"), os.getxattr(world.whole_ro, "user.colour"))
    assert {"user.colour"} == {name for name in os.listxattr(world.whole) if name.startswith("user.")}
    os.removexattr(world.whole, "user.colour")
    assert (["ENODATA"] * 2, []) == ([refused(os.getxattr, path, "user.colour") for path in (source, world.whole)],
                                     [name for name in os.listxattr(source) if name.startswith("user.")])


def test_extended_attributes_elsewhere_are_eperm(world: World) -> None:
    """Nothing can be set or removed on other files, nor our own names anywhere; unknown ones are ENODATA."""
    for path in (world.disk, world.ro, world.whole_ro):
        assert ["EPERM", "EPERM", "ENODATA"] == [
            refused(os.setxattr, path, "user.colour", b"blue"), refused(os.removexattr, path, "user.regionfs.mode"),
            refused(os.getxattr, path, "user.colour")]
    assert "EPERM" == refused(os.setxattr, world.whole, "user.regionfs.mode", b"magic")


def test_our_own_extended_attributes_are_not_listed(world: World) -> None:
    """Who copies what is listed neither fails nor carries them along; one that a source has is never shown."""
    os.setxattr(world.sources / "whole.img", "user.regionfs.map", b"of another file")
    assert [] == [name for path in (world.disk, world.whole, world.whole_ro, world.mount.path)
                  for name in os.listxattr(path) if name.startswith("user.")]
    assert b"whole.img" in os.getxattr(world.whole, "user.regionfs.map")
    copy = world.sources / "copy"
    shutil.copy2(world.disk.parent / "ro.bin", copy)
    assert [] == [name for name in os.listxattr(copy) if name.startswith("user.")]


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o1777, 0o6711, 0o644])
def test_chmod_of_special_bits_reaches_the_source(world: World, mode: int) -> None:
    """All twelve bits, as on a local file; the mount is nosuid, so none is honoured."""
    world.whole.chmod(mode)
    assert {mode} == {stat.S_IMODE(path.stat().st_mode) for path in (world.whole, world.sources / "whole.img")}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may set the bit for a group it is not in")
def test_the_set_gid_bit_of_another_group_stays(world: World) -> None:
    """root's chmod of a file whose group the daemon is not in."""
    os.chown(world.sources / "whole.img", 0, 12345)
    world.whole.chmod(0o2775)
    assert 0o2775 == stat.S_IMODE((world.sources / "whole.img").stat().st_mode)


def test_chmod_leaves_the_other_bits(world: World) -> None:
    """What a program adds one bit to keeps the sticky bit that its source has."""
    (world.sources / "whole.img").chmod(0o1644)
    with opened(world.whole):  # which sees it
        world.whole.chmod(world.whole.stat().st_mode | 0o100)
    assert 0o1744 == stat.S_IMODE((world.sources / "whole.img").stat().st_mode)


def test_names_that_are_too_long(world: World) -> None:
    """ENAMETOOLONG above 255 bytes, wherever the name stands, and ENOENT up to there."""
    longest = os.statvfs(world.mount.path).f_namemax
    names = {longest * "n": "ENOENT", (longest + 1) * "n": "ENAMETOOLONG", 2000 * "n": "ENAMETOOLONG",
             (longest - 1) * "n" + "ä": "ENAMETOOLONG"}
    for directory in (world.mount.path, world.mount.path / "deep"):
        for name, expected in names.items():
            assert [expected] * 2 == [refused(os.stat, directory / name), refused(os.open, directory / name / "x", 0)]
        assert "ENAMETOOLONG" == refused(os.mkdir, directory / (256 * "n"))
        assert "ENAMETOOLONG" == refused(os.open, directory / (256 * "n"), os.O_CREAT | os.O_WRONLY)


def test_the_tree_is_read_only(world: World) -> None:
    """Every way to change the tree is EROFS, at the root and below."""
    for directory in (world.mount.path, world.mount.path / "deep"):
        new = directory / "new"
        answers = [
            refused(os.open, new, os.O_CREAT | os.O_WRONLY), refused(new.mkdir), refused(os.mknod, new),
            refused(os.mkfifo, new), refused(os.symlink, "x", new), refused(os.link, world.disk, new),
            refused(os.rename, world.disk, new), refused(os.unlink, world.disk),
            refused(os.rmdir, world.mount.path / "deep" / "er"),
        ]
        assert ["EROFS"] * len(answers) == answers
    assert ["bad.bin", "deep", "disk.img", "ro.bin", "sparse.bin"] == sorted(
        entry.name for entry in world.mount.path.iterdir())


def test_opening_with_o_creat_finds_what_is_there(world: World) -> None:
    """O_CREAT on an existing file is an ordinary open; with O_EXCL it is EEXIST."""
    with opened(world.disk, os.O_CREAT | os.O_RDWR) as fd:
        assert b"H" == os.pread(fd, 1, 0)
    assert "EEXIST" == refused(os.open, world.disk, os.O_CREAT | os.O_EXCL | os.O_RDWR)


def test_names_that_are_not_there(world: World) -> None:
    """ENOENT for unknown names, ENOTDIR below a file."""
    assert ["ENOENT", "ENOTDIR"] == [refused(os.stat, world.mount.path / "none"), refused(os.stat, world.disk / "x")]


def test_directories_list_and_nest(world: World) -> None:
    """Directories appear by themselves; entries carry the type and inode that stat shows."""
    listed = {}
    for directory, names, files in os.walk(world.mount.path):
        listed[os.path.relpath(directory, world.mount.path)] = sorted(names + files)
        for entry in os.scandir(directory):
            found = entry.stat(follow_symlinks=False)
            assert (found.st_ino, stat.S_ISDIR(found.st_mode)) == (entry.inode(), entry.is_dir())
    assert {".": ["bad.bin", "deep", "disk.img", "ro.bin", "sparse.bin"], "deep": ["er", "whole-ro.bin"],
            "deep/er": ["whole.bin"]} == listed
    above = world.mount.path / "deep" / "er" / ".." / ".." / "disk.img"
    assert world.disk.stat().st_ino == above.stat().st_ino


def test_a_large_directory(mount: Callable[..., Mount], tmp_path: Path) -> None:
    """Thousands of entries, each once, and each of them opens."""
    make_sources(tmp_path)
    names = [f"shard-{number:05}-of-{LARGE}.bin" for number in range(LARGE)]
    files = {f"data/{name}": {"regions": [{"source": "ro.img", "offset": n, "length": 1 + n}]}
             for n, name in enumerate(names)}
    with mount(files) as mounted:
        assert names == sorted(entry.name for entry in os.scandir(mounted.path / "data"))
        assert [1, LARGE] == [(mounted.path / "data" / name).stat().st_size for name in (names[0], names[-1])]
        assert b"r" * LARGE == (mounted.path / "data" / names[-1]).read_bytes()


def test_statfs(world: World) -> None:
    """Totals of the composite files, never zero blocks; df shows the mount."""
    found = os.statvfs(world.mount.path)
    total = sum(path.stat().st_size for path in (
        world.disk, world.ro, world.bad, world.sparse, world.whole, world.whole_ro))
    assert total <= found.f_blocks * found.f_frsize < total + len(FILES) * PAGE
    assert (0, 255) == (found.f_bavail, found.f_namemax)
    shown = subprocess.run(["df", "--output=target", world.mount.path], capture_output=True, text=True, check=True)
    assert str(world.mount.path) == shown.stdout.splitlines()[-1]


def test_an_empty_manifest_has_blocks(mount: Callable[..., Mount]) -> None:
    """A mount without a byte still has one block, so that no program divides by zero."""
    with mount({"empty": {"size": 0, "regions": []}}) as mounted:
        assert (1, b"") == (os.statvfs(mounted.path).f_blocks, (mounted.path / "empty").read_bytes())
