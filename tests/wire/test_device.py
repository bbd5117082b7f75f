"""/dev/fuse itself: mount, INIT, requests of a real kernel, unmount; by root and by an ordinary user."""

from __future__ import annotations

import errno
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from regionfs.errors import MountError
from regionfs.wire import device
from regionfs.wire.abi import FOPEN_DIRECT_IO, FOPEN_PASSTHROUGH, UNANSWERED, UNIQUE_RESEND, NotifyCode, Opcode
from regionfs.wire.codec import OUT_HEADER, OUT_HEADER_SIZE, direntplus, error, fill, notify, pack, reply
from regionfs.wire.mounts import list_mounts, raise_readahead
from regionfs.wire.options import MountOptions, parse_options
from regionfs.wire.parse import IO_REQUEST, Request, parse
from regionfs.wire.replies import Attr, AttrOut, EntryOut, OpenOut, WriteOut
from regionfs.wire.requests import InitIn
from regionfs.wire.session import Negotiated, Wanted, negotiate
from tests.harness import TIMEOUT, User

pytestmark = pytest.mark.mounted
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="backing ids need root")

SIZE = 300_000
CONTENT = bytes(number % 251 for number in range(SIZE))
DIRECTORY = Attr(1, 0, 0, 0, 0, 0, 0, 0, 0, 0o40755, 2, 0, 0, 0, 4096)
FILE = Attr(2, SIZE, 0, 0, 0, 0, 0, 0, 0, 0o100666, 1, 0, 0, 0, 4096)


class Server:
    """Answers a real kernel about one file, "data", while another process uses it."""

    def __init__(self, mountpoint: Path, wanted: Wanted | None = None) -> None:
        self.fd = device.mount(str(mountpoint), MountOptions(fsname="test"))
        self.buffer = bytearray(2 << 20)
        self.opened = OpenOut(7, FOPEN_DIRECT_IO)
        self.seen: list[Request] = []
        self.negotiated = self._init(wanted or Wanted())

    def _init(self, wanted: Wanted) -> Negotiated:
        request = self.next()
        assert isinstance(request.body, InitIn)
        negotiated = negotiate(request.body, wanted)
        assert negotiated is not None
        assert device.send(self.fd, reply(request.header.unique, pack(negotiated.reply())))
        return negotiated

    def next(self) -> Request:
        """Wait for a request."""
        return parse(self.buffer, device.receive(self.fd, self.buffer))

    def answer(self, request: Request) -> None:
        """Reply to it, unless it wants none."""
        self.seen.append(request._replace(data=bytes(request.data)))
        if request.header.opcode not in UNANSWERED:
            device.send(self.fd, self._reply(request))

    def _reply(self, request: Request) -> list[bytes | bytearray | memoryview]:
        unique, opcode = request.header.unique, request.header.opcode
        entry = EntryOut(2, 0, 1, 1, 0, 0, FILE)
        match opcode:
            case Opcode.LOOKUP if request.names == (b"data",):
                return reply(unique, pack(entry))
            case Opcode.LOOKUP:
                return [error(unique, errno.ENOENT)]
            case Opcode.GETATTR:
                return reply(unique, pack(AttrOut(1, 0, DIRECTORY if request.header.nodeid == 1 else FILE)))
            case Opcode.OPENDIR:
                return reply(unique, pack(OpenOut(0, 0)))
            case Opcode.OPEN:
                return reply(unique, pack(self.opened))
            case Opcode.READDIR | Opcode.READDIRPLUS:
                size, offset = IO_REQUEST.unpack_from(self.buffer)[9], IO_REQUEST.unpack_from(self.buffer)[8]
                return reply(unique, fill([] if offset else [direntplus(entry, 1, b"data")], size)[0])
            case Opcode.READ:
                return [self._read()]
            case Opcode.WRITE:
                return reply(unique, pack(WriteOut(len(request.data))))
            case Opcode.RELEASE | Opcode.RELEASEDIR | Opcode.FLUSH:
                return reply(unique)
        return [error(unique, errno.ENOSYS)]

    def _read(self) -> bytearray:
        """As a fast server does: one unpack, one buffer whose header is put in place."""
        _, _, unique, _, _, _, _, _, offset, size, *_ = IO_REQUEST.unpack_from(self.buffer)
        data = CONTENT[offset:offset + size]
        answer = bytearray(OUT_HEADER_SIZE) + data
        OUT_HEADER.pack_into(answer, 0, len(answer), 0, unique)
        return answer

    def serve(self, script: str, *arguments: object) -> str:
        """Answer until another process has run this Python; returns what it printed."""
        with subprocess.Popen([sys.executable, "-c", f"import os, sys; {script}", *map(str, arguments)],
                              stdout=subprocess.PIPE, text=True) as process:
            ended = os.pidfd_open(process.pid)
            poll = select.poll()
            poll.register(ended)
            poll.register(self.fd, select.POLLIN)
            while ended not in (ready := dict(poll.poll(TIMEOUT * 1000))):
                assert ready, "neither a request nor the end of the process"
                self.answer(self.next())
            os.close(ended)
            return process.communicate(timeout=TIMEOUT)[0].strip()


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    """A directory to mount on, unmounted in the end."""
    directory = tmp_path / "a b,c\\d"
    directory.mkdir()
    yield directory
    if any(mount.mountpoint == str(directory) for mount in list_mounts()):
        device.unmount(str(directory), lazy=True)


def served(opcode: Opcode, server: Server) -> list[Request]:
    return [request for request in server.seen if request.header.opcode == opcode]


def test_mount_and_unmount(point: Path) -> None:
    """Mounted, answered, shown with its name and options, unmounted: then receive() says so."""
    options = parse_options("ro,noexec", fsname="/x/a b,c\\d.yaml")
    fd = device.mount(str(point), options)
    buffer = bytearray(8192)
    request = parse(buffer, device.receive(fd, buffer))
    assert isinstance(request.body, InitIn)
    negotiated = negotiate(request.body)
    assert negotiated is not None
    assert device.send(fd, reply(request.header.unique, pack(negotiated.reply())))
    found, = (mount for mount in list_mounts() if mount.mountpoint == str(point))
    assert ("fuse.regionfs", "/x/a b,c\\d.yaml") == (found.fstype, found.source)
    assert not os.get_inheritable(fd)
    device.unmount(str(point))
    assert 0 == device.receive(fd, bytearray(negotiated.buffer_size))
    assert [] == [mount for mount in list_mounts() if mount.mountpoint == str(point)]
    os.close(fd)


def test_read(point: Path) -> None:
    """A real kernel's READs are understood, and its reader gets the bytes."""
    server = Server(point)
    script = "d = open(sys.argv[1], 'rb').read(); print(len(d), all(b == i % 251 for i, b in enumerate(d)))"
    assert f"{SIZE} True" == server.serve(script, point / "data")
    assert served(Opcode.READ, server)


def test_write(point: Path) -> None:
    """A real kernel's WRITE carries offset and data."""
    server = Server(point)
    script = "fd = os.open(sys.argv[1], os.O_RDWR); print(os.pwrite(fd, b'0123456789' * 20000, 512))"
    assert "200000" == server.serve(script, point / "data")
    request, = served(Opcode.WRITE, server)
    assert b"0123456789" * 20000 == request.data
    assert request.body is not None
    assert (7, 512, 200_000) == request.body[:3]


def test_list(point: Path) -> None:
    """READDIRPLUS entries are read by the kernel, and spare a LOOKUP."""
    server = Server(point)
    assert f"['data'] {SIZE}" == server.serve("p = sys.argv[1]; print(os.listdir(p), os.stat(p + '/data').st_size)",
                                             point)
    assert served(Opcode.READDIRPLUS, server)
    assert [] == served(Opcode.LOOKUP, server)


def test_errno(point: Path) -> None:
    """An errno reaches the application; an operation we do not know fails as unsupported."""
    server = Server(point)
    script = """
p = sys.argv[1]
for call in (lambda: os.stat(p + '/none'), lambda: os.mkdir(p + '/new'), lambda: os.listxattr(p + '/data')):
    try: call()
    except OSError as error: print(error.errno)
"""
    assert f"{errno.ENOENT} {errno.ENOSYS} {errno.ENOTSUP}" == " ".join(server.serve(script, point).split())


def test_resend(point: Path) -> None:
    """An unanswered request comes again after RESEND, marked, and its reply is taken."""
    server = Server(point)
    if not server.negotiated.resend:
        pytest.skip("the kernel has no FUSE_NOTIFY_RESEND (Linux 6.9)")
    with subprocess.Popen(["stat", "-c", "%s", point / "data"], stdout=subprocess.PIPE, text=True) as process:
        first = server.next()
        while first.header.opcode != Opcode.LOOKUP:
            server.answer(first)
            first = server.next()
        assert device.send(server.fd, notify(NotifyCode.RESEND))
        again = server.next()
        assert first.header.unique | UNIQUE_RESEND == again.header.unique
        assert first.names == again.names
        server.answer(again)
        assert f"{SIZE}\n" == process.communicate(timeout=TIMEOUT)[0]


def test_reply_to_nobody(point: Path) -> None:
    """A reply that nobody waits for is reported, not raised; a malformed one raises."""
    server = Server(point)
    assert not device.send(server.fd, reply(999))
    with pytest.raises(OSError, match="Invalid argument"):
        device.send(server.fd, [b"short"])


def test_clone(point: Path) -> None:
    """A cloned descriptor receives the same connection's requests."""
    server = Server(point)
    original, server.fd = server.fd, device.clone(server.fd)
    assert str(SIZE) == server.serve("print(os.stat(sys.argv[1]).st_size)", point / "data")
    os.close(original)


@needs_root
def test_passthrough(point: Path, tmp_path: Path) -> None:
    """With a backing id the kernel reads the file itself: the server sees no READ."""
    server = Server(point, Wanted(passthrough=True))
    if not server.negotiated.passthrough:
        pytest.skip("the kernel does not offer FUSE_PASSTHROUGH (Linux 6.9)")
    source = tmp_path / "source"
    source.write_bytes(CONTENT[::-1])
    with source.open("rb") as file:
        backing_id = device.backing_open(server.fd, file.fileno())
    server.opened = OpenOut(7, FOPEN_PASSTHROUGH, backing_id)
    assert str(CONTENT[-1]) == server.serve("print(open(sys.argv[1], 'rb').read()[0])", point / "data")
    assert [] == served(Opcode.READ, server)
    device.backing_close(server.fd, backing_id)
    with pytest.raises(OSError, match="No such file"):
        device.backing_close(server.fd, backing_id)


@needs_root
def test_backing_refused(point: Path, tmp_path: Path) -> None:
    """Only regular files can be registered, and only where passthrough was negotiated."""
    server = Server(point, Wanted(passthrough=True))
    if not server.negotiated.passthrough:
        pytest.skip("the kernel does not offer FUSE_PASSTHROUGH (Linux 6.9)")
    directory = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError) as caught:
        device.backing_open(server.fd, directory)
    os.close(directory)
    assert caught.value.errno in (errno.EISDIR, errno.EINVAL)


@needs_root
def test_readahead(point: Path) -> None:
    """Read-ahead is raised above what INIT grants, and never lowered."""
    server = Server(point)
    found, = (mount for mount in list_mounts() if mount.mountpoint == str(point))
    knob = Path(f"/sys/class/bdi/{os.major(found.device)}:{os.minor(found.device)}/read_ahead_kb")
    assert (True, "4096\n") == (raise_readahead(found.device, 4096), knob.read_text())
    assert (True, "4096\n") == (raise_readahead(found.device, 512), knob.read_text())
    os.close(server.fd)


def test_unmount_nothing(tmp_path: Path) -> None:
    """Unmounting what is no mount says so."""
    with pytest.raises(MountError, match=r"cannot unmount .*mounted"):
        device.unmount(str(tmp_path))


@pytest.mark.parametrize(("name", "why"), [("missing", "No such|no such"), ("file", "ot a directory")])
def test_bad_mountpoint(name: str, why: str, tmp_path: Path) -> None:
    """A mount point that is missing or no directory is named with the reason; nothing is left open."""
    (tmp_path / "file").touch()
    before = list(Path("/proc/self/fd").iterdir())
    with pytest.raises(MountError, match=f"cannot mount on .*/{name}: .*({why})"):
        device.mount(str(tmp_path / name), MountOptions())
    assert len(before) == len(list(Path("/proc/self/fd").iterdir()))


USER_SCRIPT = """
import os, sys
from regionfs.errors import MountError
from regionfs.wire import device
from regionfs.wire.codec import pack, reply
from regionfs.wire.mounts import list_mounts
from regionfs.wire.options import parse_options
from regionfs.wire.parse import parse
from regionfs.wire.session import negotiate

point, text, fsname = sys.argv[1:]
try:
    fd = device.mount(point, parse_options(text, fsname=fsname))
except MountError as error:
    raise SystemExit(str(error))
try:
    buffer = bytearray(8192)
    request = parse(buffer, device.receive(fd, buffer))
    assert device.send(fd, reply(request.header.unique, pack(negotiate(request.body).reply())))
    mount, = (mount for mount in list_mounts() if mount.mountpoint == point)
    print(os.get_inheritable(fd), mount.fstype, mount.source, mount.options)
finally:
    device.unmount(point)
assert device.receive(fd, bytearray(2 << 20)) == 0
"""


def test_ordinary_user(ordinary_user: User) -> None:
    """Through fusermount3: mounted, answered and unmounted without privileges, odd names intact."""
    assert ordinary_user.directory is not None
    point = ordinary_user.directory / "wire, mnt"
    assert 0 == ordinary_user.run("mkdir", "-p", point).returncode
    done = ordinary_user.run(*ordinary_user.python, "-c", USER_SCRIPT, point, "ro", "a,b\\c d.yaml")
    assert "" == done.stderr
    uid = ordinary_user.process.get("user", os.geteuid())
    assert done.stdout.startswith(f"False fuse.regionfs a,b\\c d.yaml ro,user_id={uid},")
    assert "default_permissions" in done.stdout


def test_ordinary_user_allow_other(ordinary_user: User) -> None:
    """allow_other without user_allow_other in /etc/fuse.conf fails with the remedy."""
    configuration = Path("/etc/fuse.conf")
    lines = configuration.read_text().splitlines() if configuration.exists() else []
    if "user_allow_other" in map(str.strip, lines):
        pytest.skip("/etc/fuse.conf allows it here")
    assert ordinary_user.directory is not None
    point = ordinary_user.directory / "wire-mnt"
    assert 0 == ordinary_user.run("mkdir", "-p", point).returncode
    done = ordinary_user.run(*ordinary_user.python, "-c", USER_SCRIPT, point, "allow_other", "m.yaml")
    assert "add the line user_allow_other to /etc/fuse.conf, or leave out allow_other" in done.stderr


def test_without_helper(ordinary_user: User) -> None:
    """Where fusermount3 is not installed the message names its package."""
    assert ordinary_user.directory is not None
    environment = {**ordinary_user.process.get("env", os.environ), "PATH": "/nowhere"}
    user = User(process={**ordinary_user.process, "env": environment})
    done = user.run(*ordinary_user.python, "-c", USER_SCRIPT, ordinary_user.directory, "", "m.yaml")
    assert "fusermount3 is not installed; install the package fuse3" in done.stderr
