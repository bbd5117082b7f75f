"""-o text -> MountOptions, and their way to fusermount3 and libfuse."""

from __future__ import annotations

import pytest

from regionfs.errors import UsageError
from regionfs.wire.options import (
    FLAGS,
    MS_NOATIME,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MountOptions,
    parse_options,
)

SAFE = MS_NOSUID | MS_NODEV


@pytest.mark.parametrize(("text", "expected"), [
    ("", MountOptions()),
    ("ro", MountOptions(flags=SAFE | MS_RDONLY)),
    ("ro,rw", MountOptions()),
    ("suid,dev", MountOptions(flags=0)),
    ("noexec,,noatime,", MountOptions(flags=SAFE | MS_NOEXEC | MS_NOATIME)),
    ("allow_other,default_permissions", MountOptions(allow_other=True)),
    ("max_read=65536", MountOptions(max_read=65536)),
    ("fsname=a,subtype=b", MountOptions(fsname="a", subtype="b")),
    (r"fsname=a\,b\\c,ro", MountOptions(fsname="a,b\\c", flags=SAFE | MS_RDONLY)),
    ("_netdev,nofail,x-systemd.automount,X-mount.mkdir,comment=hello,defaults,nonempty,users", MountOptions()),
])
def test_options(text: str, expected: MountOptions) -> None:
    """The words of mount(8); the last of a kind wins, those for others are ignored."""
    assert expected == parse_options(text)


def test_own_options() -> None:
    """A caller's own options come back, with an empty value where there is none."""
    assert {"modes": "userspace", "holder": ""} == parse_options("ro,modes=userspace,holder", ("modes", "holder")).own


def test_default_name() -> None:
    """The source's name is the caller's unless fsname says otherwise."""
    assert ["m.yaml", "x"] == [parse_options(text, fsname="m.yaml").fsname for text in ("", "fsname=x")]


@pytest.mark.parametrize(("text", "why"), [
    ("allow_othr", "unknown mount option 'allow_othr', did you mean allow_other"),
    ("foo=bar", "unknown mount option 'foo=bar'; known are allow_other async"),
    ("ro=1", "unknown mount option 'ro=1'"),
    ("modes=x", "unknown mount option 'modes=x'"),
    ("allow_root", "allow_root: .* use allow_other"),
    ("auto_unmount", "auto_unmount: regionfs unmounts when it ends"),
    ("max_read=", "max_read=: give bytes from 4096 to 1048576"),
    ("max_read=-1", "give bytes"),
    ("max_read=2097152", "give bytes"),
    ("max_read=²", "give bytes"),
])
def test_refused(text: str, why: str) -> None:
    """What is unknown or senseless is refused by name, with what is known."""
    with pytest.raises(UsageError, match=why):
        parse_options(text)


@pytest.mark.parametrize("name", FLAGS)
def test_each_flag_reaches_the_helper(name: str) -> None:
    """The helper gets the same words, so that both ways of mounting agree."""
    assert name in parse_options(name).words()


def test_helper_options() -> None:
    """Commas and backslashes in the name are escaped as fusermount3 undoes them."""
    options = MountOptions(fsname="/a,b\\c", allow_other=True)
    assert r"fsname=/a\,b\\c" in options.words()
    assert options == parse_options(",".join(options.words()))
