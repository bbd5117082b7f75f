"""The frame of a test run: its session directory, the watchdog, what it exercised, and the fixtures.

A test below tests/mounted, or that asks for one of the fixtures that mount, carries the mark `mounted`:
it is skipped with the reason where nothing can be mounted, and with CI set a skipped one fails the run.
No test may take longer than its mark `timeout(seconds)`, 60 by default; see tests/sweep.py.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from tests import harness, sweep
from tests.worker import Worker

MOUNTING = {"engine", "mount", "ordinary_user"}
SECONDS = 60
PATIENCE = float(os.environ.get("REGIONFS_TEST_PATIENCE", "1"))  # how many times slower than usual this run is

SESSION = pytest.StashKey[Path]()
LOCK = pytest.StashKey[int]()
WATCHDOG = pytest.StashKey["subprocess.Popen[str]"]()
SKIPPED = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "timeout(seconds): how long the test may take, 60 by default")
    config.addinivalue_line("markers", "both_paths: the native engine with and without its compiled loop")
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in the background of a shell; commands would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    sweep.sweep_dead_sessions()
    session, config.stash[LOCK] = sweep.new_session()
    config.stash[SESSION], config.stash[SKIPPED] = session, []
    os.environ[sweep.VARIABLE] = str(session)
    os.environ["XDG_STATE_HOME"] = str(session / "state")  # what mounts of this run remember is gone with it
    config.option.basetemp = config.option.basetemp or str(session / "tests")
    # without the variable: whoever ends the session's processes must not end their watchdog
    environment = {name: value for name, value in os.environ.items() if name != sweep.VARIABLE}
    config.stash[WATCHDOG] = subprocess.Popen(
        [sys.executable, "-m", "tests.sweep", session], stdin=subprocess.PIPE, text=True, bufsize=1,
        start_new_session=True, pass_fds=[config.stash[LOCK]], cwd=harness.PROJECT, env=environment)


def pytest_unconfigure(config: pytest.Config) -> None:
    watchdog = config.stash.get(WATCHDOG, None)
    if watchdog is not None:
        watchdog.communicate(timeout=120)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test of what a user can observe runs on both engines, with the mark `both_paths` on each path of native."""
    both = metafunc.definition.get_closest_marker("both_paths") is not None
    fixed = any("engine" in mark.args[0] for mark in metafunc.definition.iter_markers("parametrize"))
    if "engine" not in metafunc.fixturenames or fixed:
        if both:
            metafunc.parametrize("fast", [True, False], ids=["fast", "slow"])
    elif both:
        metafunc.parametrize(("engine", "fast"), [("native", True), ("native", False), ("pyfuse3", True)],
                             ids=["native", "native-slow", "pyfuse3"])
    else:
        metafunc.parametrize("engine", harness.ENGINES, indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "mounted" in item.path.parts or MOUNTING & set(getattr(item, "fixturenames", ())):
            item.add_marker("mounted")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    mark = item.get_closest_marker("timeout")
    pipe = item.config.stash[WATCHDOG].stdin
    assert pipe is not None
    pipe.write(f"arm {PATIENCE * (mark.args[0] if mark else SECONDS):.0f} {item.nodeid}\n")
    result = yield
    pipe.write("disarm\n")
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    needy = item.get_closest_marker("mounted") or "loop_device" in getattr(item, "fixturenames", ())
    if report.skipped and not hasattr(report, "wasxfail") and needy:
        item.config.stash[SKIPPED].append(f"{item.nodeid}: {_reason(report)}")
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if report.skipped and "mounted" in collector.path.parts:
        collector.config.stash[SKIPPED].append(f"{collector.nodeid}: {_reason(report)}")
    return report


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    skipped = session.config.stash[SKIPPED] or _fast_path_missed()
    if os.environ.get("CI") and skipped and exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _fast_path_missed() -> bool:
    return "engine native" in harness.exercised and "fast path" not in harness.exercised


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    terminalreporter.section("exercised")
    for what, count in sorted(harness.exercised.items()):
        terminalreporter.line(f"{what}: {count}")
    for name in (*(f"engine {engine}" for engine in harness.ENGINES), "fast path", "mounts by root",
                 "mounts by an ordinary user", "loop devices"):
        if name not in harness.exercised:
            terminalreporter.line(f"{name}: not exercised", yellow=True)
    if _fast_path_missed():
        terminalreporter.line("native mounts, and none with the fast path: with CI set the run fails", red=True)
    for skipped in config.stash[SKIPPED]:
        terminalreporter.line(f"skipped: {skipped}", red=bool(os.environ.get("CI")))
    if config.stash[SKIPPED] and os.environ.get("CI"):
        terminalreporter.line("CI is set: a skipped mounted test fails the run", red=True)


@pytest.fixture(scope="session")
def session_directory(pytestconfig: pytest.Config) -> Path:
    """This run's directory, which every user can enter; swept at the end."""
    return pytestconfig.stash[SESSION]


@pytest.fixture(scope="session")
def why_no_mounts(session_directory: Path) -> str:
    return harness.why_no_mounts(session_directory)


@pytest.fixture(autouse=True)
def _mounted(request: pytest.FixtureRequest) -> Iterator[None]:
    """A mounted test is skipped where nothing can be mounted, and leaves nothing mounted behind."""
    if request.node.get_closest_marker("mounted") is None:
        yield
        return
    if reason := request.getfixturevalue("why_no_mounts"):
        pytest.skip(reason)
    yield
    session = request.getfixturevalue("session_directory")
    if left := sweep.mounts_below(session):
        sweep.end_processes(session)
        sweep.unmount_all(session)
        pytest.fail(f"left mounted: {left}")


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> str:
    """The engine that serves, by pytest_generate_tests."""
    return str(request.param)


@pytest.fixture
def fast() -> bool:
    """Whether the native engine may use its compiled loop; see the mark `both_paths`."""
    return True


@pytest.fixture
def mount(tmp_path: Path, engine: str, fast: bool) -> Callable[..., harness.Mount]:
    """mount(manifest, **arguments of harness.Mount): a Mount below tmp_path, for a `with` block."""
    def make(manifest: Any, **arguments: Any) -> harness.Mount:
        return harness.Mount(tmp_path, manifest, **{"engine": engine, "fast": fast, **arguments})
    return make


@pytest.fixture
def ordinary_user(session_directory: Path) -> Iterator[harness.User]:
    """A user without privileges: nobody when the tests run as root, else who runs them."""
    if os.geteuid() != 0:
        yield harness.User(directory=session_directory)
        return
    with harness.fuse_for_all():
        yield harness.make_user(session_directory)


@pytest.fixture
def loop_device() -> Callable[..., AbstractContextManager[Path]]:
    """loop_device(path, *options of losetup): a context manager that gives the device."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("loop devices need root and /dev/loop-control")
    return harness.loop_device


@pytest.fixture
def worker() -> Iterator[Worker]:
    """Another process to do I/O in."""
    with Worker() as process:
        yield process
