# SPDX-License-Identifier: Apache-2.0
"""`leaks --stacks`: the functions that accepted or connected what leaks, on the running kernel."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.conftest import skip_or_fail
from tests.kernel.test_leaks import visits
from tests.truth.netns import namespace
from tracer.kernel.btf import Btf
from tracer.kernel.facts import knows_sender

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.truth.netns import Namespace

pytestmark = pytest.mark.kernel

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
EVERY_S: Final = 0.05
OVER_S: Final = 3


@pytest.fixture
def ns() -> Iterator[Namespace]:
    """A namespace of its own."""
    with namespace("stacks") as made:
        yield made


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return stacks.c compiled, with frame pointers."""
    cc = shutil.which("cc")
    if not cc:
        skip_or_fail("no C compiler (cc)")
    made = tmp_path_factory.mktemp("stacks") / "stacks"
    words = ["-O1", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls"]
    subprocess.run([str(cc), *words, "-o", made, HERE / "stacks.c"], check=True, timeout=60)
    return made


@contextlib.contextmanager
def running(ns: Namespace, *words: object) -> Iterator[subprocess.Popen[str]]:
    """Run a program in the namespace, its children too, until the block ends."""
    process = subprocess.Popen(
        ns.command(*map(str, words)), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
        Path(f"/tmp/perf-{process.pid}.map").unlink(missing_ok=True)  # noqa: S108 - its fixed place


def port_of(process: subprocess.Popen[str]) -> int:
    """Return the port the program says."""
    assert process.stdout is not None
    return int(process.stdout.readline())


def leaks(ns: Namespace, *words: str) -> list[dict[str, Any]]:
    """Watch for leaks with stacks; return what is told of groups, and the total."""
    command = [sys.executable, "-m", "tracer", "leaks", "--stacks", "--json", "--older", "0.2"]
    command += ["--over", str(OVER_S), "--netns", str(ns.inum), *words]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    if "can give a socket no cookie" in done.stderr:
        pytest.skip("stacks need Linux 5.12 or later")
    assert not done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def stacks_of(told: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the stacks of the largest group of suspects.

    On a busy host others may wait to be accepted, or be on their way from a child to its parent.
    """
    suspects = [one for one in told if one.get("origins")]
    group = max(suspects, key=lambda one: int(one["count"]))
    origins = group["origins"]
    known = sum(stack["count"] for stack in origins["stacks"])
    assert 0 < known <= origins["asked"] == group["count"]
    assert origins["unknown"] + known <= origins["asked"]
    stacks: list[dict[str, Any]] = origins["stacks"]
    return stacks


def symbols(stack: dict[str, Any]) -> list[str | None]:
    """Return the names of a stack's functions."""
    return [frame["symbol"] for frame in stack["frames"]]


def test_who_accepted(ns: Namespace, program: Path) -> None:
    """The functions of a C program, in their order; no more than its sockets that were seen."""
    with running(ns, program, "accept") as leaker, visits(ns, port_of(leaker), EVERY_S):
        (stack,) = stacks_of(leaks(ns))
    assert (stack["how"], stack["pid"], stack["gone"]) == ("accepted", leaker.pid, False)
    names = symbols(stack)
    assert names.index("forget_accepted") < names.index("main")
    if knows_sender(Btf()):  # else the kernel passes it by: libc's accept() has no frame pointer
        assert names[1:3] == ["take_one", "forget_accepted"]
    assert {"symbol": "main", "module": "stacks"}.items() <= stack["frames"][
        names.index("main")
    ].items()


def test_who_connected(ns: Namespace, program: Path) -> None:
    """By the change of state that connect() makes, in the caller's context."""
    with ns.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        with running(ns, program, "connect", port) as leaker, closing_first(server):
            (stack,) = stacks_of(leaks(ns, "--pid", str(leaker.pid)))
    assert (stack["how"], stack["pid"]) == ("connected", leaker.pid)
    assert "forget_connected" in symbols(stack)


@contextlib.contextmanager
def closing_first(server: Any) -> Iterator[None]:
    """Accept and close, again and again."""
    command = "import socket, sys\ns = socket.socket(fileno=int(sys.argv[1]))\n"
    command += "while True: s.accept()[0].close()"
    words = [sys.executable, "-c", command, str(server.fileno())]
    process = subprocess.Popen(words, pass_fds=[server.fileno()])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def test_stripped(ns: Namespace, program: Path, tmp_path: Path) -> None:
    """Without names: the module, and where in it."""
    strip = shutil.which("strip")
    if not strip:
        skip_or_fail("no strip (binutils)")
    bare = tmp_path / "bare"
    subprocess.run([str(strip), "-o", bare, program], check=True, timeout=60)
    with running(ns, bare, "accept") as leaker, visits(ns, port_of(leaker), EVERY_S):
        (stack,) = stacks_of(leaks(ns))
    mine = [frame for frame in stack["frames"] if frame["module"] == "bare"]
    assert len(mine) >= 2
    assert {frame["symbol"] for frame in mine} == {None}
    assert all(0 < frame["offset"] < bare.stat().st_size for frame in mine)


def test_compiled_at_run_time(ns: Namespace, program: Path) -> None:
    """A perf map names it, as Python's trampoline writes one; what it says is escaped."""
    if platform.machine() != "x86_64":
        pytest.skip("the test's machine code is x86-64's")
    with running(ns, program, "jit") as leaker, visits(ns, port_of(leaker), EVERY_S):
        (stack,) = stacks_of(leaks(ns))
    assert r"py::handle:/srv/\x1b[31mapp.py" in symbols(stack)


def test_gone(ns: Namespace, program: Path) -> None:
    """Children that accept, hand over and end: that is said, and no name is made up."""
    with running(ns, program, "hand_over") as leaker, visits(ns, port_of(leaker), EVERY_S):
        stacks = stacks_of(leaks(ns))
    assert all(stack["gone"] and stack["pid"] != leaker.pid for stack in stacks)
    assert {name for stack in stacks for name in symbols(stack)} == {None}


def test_stacks_need_time() -> None:
    """One look can have seen nobody accept."""
    command = [sys.executable, "-m", "tracer", "leaks", "--stacks"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--stacks needs --over or --watch" in done.stderr
