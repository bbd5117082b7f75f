"""Two users: what the second one can neither read nor steer, and what a mount never gives to anybody."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import NOBODY, Mount, User, make_user
from tests.worker import Worker

ASK = """
import json, socket, sys
with socket.socket(socket.AF_UNIX) as peer:
    peer.settimeout(10)
    peer.connect(sys.argv[1])
    for command in sys.argv[2:]:
        peer.sendall(json.dumps({"command": command}).encode() + b"\\n")
        print(peer.makefile().readline(), end="")
"""

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="two users need root")


@pytest.fixture
def other(session_directory: Path, ordinary_user: User) -> User:
    """A second ordinary user."""
    return make_user(session_directory, NOBODY - 1)


@pytest.fixture(params=["root", "ordinary"])
def owner(request: pytest.FixtureRequest, ordinary_user: User) -> User:
    """Who mounts."""
    return ordinary_user if request.param == "ordinary" else User(directory=ordinary_user.directory)


@pytest.fixture
def directory(owner: User) -> Path:
    """Of the owner, with a source that everybody may read; every user can enter it."""
    place = owner.new_directory()
    owner.write(place / "a.img", b"a" * 4096).chmod(0o666)
    return place


@pytest.fixture
def second(other: User) -> Iterator[Worker]:
    """I/O by the second user."""
    with Worker(other.python, **other.process) as worker:
        yield worker


def test_others_are_kept_out(owner: User, directory: Path, engine: str, second: Worker) -> None:
    """Without allow_other the second user can neither read, list nor stat, though the source is open to all."""
    with Mount(directory, {"x": {"whole": "a.img", "access": "rw"}}, user=owner, engine=engine) as mounted:
        path = mounted.path / "x"
        results = second.run([("pread", path, 0, 1), ("pwrite", path, 0, b"x"), ("stat", path),
                              ("listdir", mounted.path), ("stat", mounted.path)])
        assert [13] * 5 == [getattr(result, "errno", result) for result in results]


def test_permissions_are_checked_for_others(ordinary_user: User, engine: str, second: Worker) -> None:
    """With allow_other the file's mode decides: default_permissions is on."""
    directory = ordinary_user.new_directory()
    ordinary_user.write(directory / "a.img", b"a" * 4096)
    files = {name: {"mode": mode, "regions": [{"source": "a.img", "access": "rw"}]}
             for name, mode in (("open", "0666"), ("shown", "0644"), ("closed", "0600"))}
    with Mount(directory, files, options=["--allow-other"], engine=engine) as mounted:
        calls = [(call, mounted.path / name, 0, argument)
                 for name in files for call, argument in (("pread", 1), ("pwrite", b"b"))]
        results = second.run(calls)
    assert [b"a", 1, b"b", 13, 13, 13] == [getattr(result, "errno", result) for result in results]


def test_set_id_bits_are_never_honoured(ordinary_user: User, engine: str, second: Worker, other: User) -> None:
    """A set-uid program of root's runs as who started it; the mount is nosuid and nodev besides."""
    directory = ordinary_user.new_directory()
    program = directory / "id"
    program.write_bytes(Path("/usr/bin/id").read_bytes())
    program.chmod(0o4755)
    with Mount(directory, {"id": {"whole": "id", "access": "rw"}}, options=["--allow-other"], engine=engine) as mounted:
        path = mounted.path / "id"
        assert 0o4755 == second.stat(path).st_mode & 0o7777
        done = other.run(path, "-u")
        assert (0, f"{other.process['user']}\n") == (done.returncode, done.stdout)
        assert {"nosuid", "nodev"} <= set(_options(mounted.path))


def test_set_id_bits_of_a_map_cannot_be_set(ordinary_user: User, engine: str) -> None:
    """A mode that the manifest asks for with set-id bits is refused."""
    directory = ordinary_user.new_directory()
    ordinary_user.write(directory / "a.img", b"a")
    with Mount(directory, {"x": {"whole": "a.img", "access": "rw"}}, engine=engine) as mounted:
        mounted.write_manifest({"x": {"mode": "4755", "regions": [{"source": "a.img"}]}})
        assert 3 == mounted.user.regionfs("check", mounted.manifest).returncode


def acl(*entries: tuple[int, int, int]) -> bytes:
    """system.posix_acl_access of (tag, permissions, id), linux/posix_acl_xattr.h."""
    packed = (tag | bits << 16 | who << 32 for tag, bits, who in entries)
    return (2).to_bytes(4, "little") + b"".join(entry.to_bytes(8, "little") for entry in packed)


NONE = 0xFFFFFFFF
OWNER, NAMED, GROUP, MASK, OTHERS = 1, 2, 4, 0x10, 0x20


@pytest.mark.parametrize("whole", [{"whole": "a.img", "access": "rw"}, {"whole": "a.img"}], ids=["rw", "ro"])
def test_the_acl_of_a_source_decides(ordinary_user: User, engine: str, second: Worker, other: User,
                                     whole: dict[str, str]) -> None:
    """The mask that stat shows as the group's bits is nobody's right: who is named has his own, the group its own.

    Again after the ACL was changed beside the mount and through it.
    """
    directory = ordinary_user.new_directory()
    source, me = directory / "a.img", other.process["user"]
    source.write_bytes(b"a")
    os.chown(source, 0, me)  # root's, and the second user is in its group
    source.chmod(0o600)
    group_has_nothing = acl((OWNER, 6, NONE), (NAMED, 6, 12345), (GROUP, 0, NONE), (MASK, 6, NONE), (OTHERS, 0, NONE))
    he_may_read = acl((OWNER, 6, NONE), (NAMED, 4, me), (GROUP, 0, NONE), (MASK, 6, NONE), (OTHERS, 0, NONE))
    os.setxattr(source, "system.posix_acl_access", group_has_nothing)
    with Mount(directory, {"x": whole}, options=["--allow-other"], engine=engine) as mounted:
        path = mounted.path / "x"
        calls = [("pread", path, 0, 1), ("pwrite", path, 0, b"b")]
        assert 0o660 & (0o777 if "access" in whole else 0o555) == path.stat().st_mode & 0o777
        assert [13, 13] == [getattr(result, "errno", result) for result in second.run(calls)]
        if "access" in whole:
            os.setxattr(path, "system.posix_acl_access", he_may_read)
            assert he_may_read == os.getxattr(source, "system.posix_acl_access")
            assert [b"a", 13] == [getattr(result, "errno", result) for result in second.run(calls)]
            os.removexattr(path, "system.posix_acl_access")
            path.chmod(0o600)
            assert 13 == getattr(second.run(calls)[0], "errno", None)
    assert b"a" == source.read_bytes()


def test_a_map_has_no_acl(ordinary_user: User, engine: str, second: Worker) -> None:
    """Its mode is the manifest's, whatever the ACLs of its sources."""
    directory = ordinary_user.new_directory()
    source = ordinary_user.write(directory / "a.img", b"a")
    os.setxattr(source, "system.posix_acl_access", acl((OWNER, 6, NONE), (NAMED, 0, 12345), (GROUP, 0, NONE),
                                                       (MASK, 0, NONE), (OTHERS, 0, NONE)))
    with Mount(directory, {"x": {"mode": "0444", "regions": [{"source": "a.img"}]}}, options=["--allow-other"],
               engine=engine) as mounted:
        assert [b"a"] == second.run([("pread", mounted.path / "x", 0, 1)])
        with pytest.raises(OSError, match="No data"):
            os.getxattr(mounted.path / "x", "system.posix_acl_access")


def test_sources_on_a_file_system_without_acls(ordinary_user: User, engine: str, second: Worker) -> None:
    """The kernel is told that there is none, and asks the mode."""
    directory = ordinary_user.new_directory()
    sources = directory / "ramfs"
    sources.mkdir()
    subprocess.run(["mount", "-t", "ramfs", "none", sources], check=True)
    try:
        (sources / "a.img").write_bytes(b"a")
        (sources / "a.img").chmod(0o664)
        with Mount(directory, {"x": {"whole": "ramfs/a.img"}}, options=["--allow-other"], engine=engine) as mounted:
            assert [b"a"] == second.run([("pread", mounted.path / "x", 0, 1)])
    finally:
        subprocess.run(["umount", sources], check=True)


def test_trusted_attributes_are_roots(ordinary_user: User, engine: str, other: User) -> None:
    """Neither listed nor told to an ordinary user; root sees them, and a root without CAP_SYS_ADMIN does not."""
    directory = ordinary_user.new_directory()
    source = ordinary_user.write(directory / "a.img", b"a")
    os.setxattr(source, "trusted.secret", b"1")
    os.setxattr(source, "user.open", b"2")
    with Mount(directory, {"x": {"whole": "a.img"}}, options=["--allow-other"], engine=engine) as mounted:
        show = ["python3", "-c", "import os, sys; print(*sorted(os.listxattr(sys.argv[1])))", mounted.path / "x"]
        drop = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]
        names = [user.run(*command).stdout.split() for user, command in (
            (other, show), (mounted.user, show), (mounted.user, [*drop, *show]))]
    assert [["user.open"], ["trusted.secret", "user.open"], ["user.open"]] == names


def _options(point: Path) -> list[str]:
    line = next(line for line in Path("/proc/self/mountinfo").read_text().splitlines() if f" {point} " in line)
    return line.split()[5].split(",")


# the daemon


def runtime_directory(owner: User) -> Path:
    environment = owner.process.get("env")
    return Path(environment["XDG_RUNTIME_DIR"], "regionfs") if environment else Path("/run/regionfs")


def test_the_runtime_directory_is_closed(owner: User, directory: Path, other: User) -> None:
    """The second user reaches neither socket nor log nor lock, and its own commands know nothing of the mount."""
    with Mount(directory, {"x": {"whole": "a.img"}}, user=owner) as mounted:
        assert 0o700 == runtime_directory(owner).stat().st_mode & 0o7777
        assert other.run("ls", runtime_directory(owner)).returncode != 0
        for command in (["status"], ["reload"], ["upgrade"], ["umount"]):
            done = other.regionfs(*command, mounted.path)
            assert 1 == done.returncode, f"{command}: {done.stdout}{done.stderr}"
        assert mounted.status()["restarts"] == 0 and mounted.mounted


def test_the_control_socket_asks_who_is_there(ordinary_user: User, other: User) -> None:
    """Even where its directory stands open: the owner and root are answered, the second user is not."""
    directory = ordinary_user.new_directory()
    ordinary_user.write(directory / "a.img", b"a")
    with Mount(directory, {"x": {"whole": "a.img"}}, user=ordinary_user) as mounted:
        runtime = runtime_directory(ordinary_user)
        path = next(file for file in runtime.glob("*.sock") if _asked(file)["mountpoint"] == str(mounted.path))
        runtime.chmod(0o755)
        path.chmod(0o777)
        try:
            for command in ("status", "reload", "upgrade"):
                done = other.run(*other.python, "-c", ASK, path, command)
                assert {"error": "only the daemon's own user and root may ask"} == json.loads(done.stdout), done.stderr
            for user in (ordinary_user, User()):
                done = user.run(*user.python, "-c", ASK, path, "status")
                assert str(mounted.path) == json.loads(done.stdout)["mountpoint"], done.stderr
        finally:
            runtime.chmod(0o700)
        assert 0 == mounted.status()["restarts"]


def _asked(path: Path) -> dict[str, object]:
    """A daemon's status, asked by root."""
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(path))
        peer.sendall(b'{"command": "status"}\n')
        return dict(json.loads(peer.makefile().readline()))


def test_the_second_user_cannot_signal_trace_or_read_the_daemon(owner: User, directory: Path, other: User) -> None:
    """Nor its memory, its descriptors, its environment."""
    with Mount(directory, {"x": {"whole": "a.img"}}, user=owner) as mounted:
        said = mounted.status()
        for pid in (said["pid"], said["holder_pid"]):
            for command in (["kill", "-9", f"{pid}"], ["ls", f"/proc/{pid}/fd/"], ["cat", f"/proc/{pid}/environ"],
                            ["head", "-c1", f"/proc/{pid}/mem"], ["cat", f"/proc/{pid}/maps"]):
                assert other.run(*command).returncode != 0, command
        assert said["pid"] == mounted.status()["pid"]


def test_another_users_umount_is_refused(owner: User, directory: Path, other: User) -> None:
    """By fusermount3 as well."""
    with Mount(directory, {"x": {"whole": "a.img"}}, user=owner) as mounted:
        assert other.run("fusermount3", "-u", mounted.path).returncode != 0
        assert mounted.mounted


def test_confine_holds_against_the_owner_of_the_directory(ordinary_user: User) -> None:
    """Root mounts a manifest over another user's directory: that user cannot make root's daemon read for him."""
    directory = ordinary_user.new_directory()
    ground = directory / "ground"
    ground.mkdir()
    ordinary_user.own(ground)
    secret = directory / "secret"
    secret.write_bytes(b"SECRET")
    secret.chmod(0o600)
    ordinary_user.write(ground / "a.img", b"public")
    options = ["--allow-other", "--confine", ground]
    with Mount(directory, {"x": {"whole": "ground/a.img"}}, options=options) as mounted, \
            Worker(ordinary_user.python, **ordinary_user.process) as user:
        assert b"public" == user.pread(mounted.path / "x", 0, 10)
        for trick in (["ln", "-sf", secret, ground / "a.img"], ["ln", "-sf", "../secret", ground / "a.img"]):
            assert 0 == ordinary_user.run(*trick).returncode
            with pytest.raises(OSError, match="Input/output error"):
                user.pread(mounted.path / "x", 0, 10)
        refused = ordinary_user.run("ln", "-f", secret, ground / "a.img")  # fs.protected_hardlinks
        if refused.returncode == 0:
            with pytest.raises(OSError, match="Input/output error"):  # another inode than the mount began with
                user.pread(mounted.path / "x", 0, 10)
