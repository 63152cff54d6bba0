# SPDX-License-Identifier: Apache-2.0
"""What a confined process cannot do any more; each trial in a process of its own."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.conftest import ROOT, skip_or_fail
from tracer import confinement

if TYPE_CHECKING:
    from collections.abc import Iterator

TRIALS: Final = """
import json, os, signal, socket, sys
from pathlib import Path
from tracer.confinement import confine
readable, unreadable, port, parent = sys.argv[1:]
listening = socket.create_server(("127.0.0.1", 0))
failed = confine([Path(readable)])
def outcome(trial):
    try:
        trial()
    except OSError as error:
        return error.errno
    return 0
print(json.dumps({
    "confined": failed,
    "read": outcome(lambda: Path(readable, "file").read_bytes()),
    "write": outcome(lambda: Path(readable, "file").write_bytes(b"")),
    "make": outcome(lambda: Path(readable, "new").touch()),
    "elsewhere": outcome(lambda: Path(unreadable, "file").read_bytes()),
    "run": outcome(lambda: os.execv("/bin/true", ["true"])),
    "signal": outcome(lambda: os.kill(int(parent), 0)),
    "connect": outcome(lambda: socket.create_connection(("127.0.0.1", int(port)))),
    "bind": outcome(lambda: socket.create_server(("127.0.0.1", 0))),
    "listening": outcome(listening.getsockname),
}))
"""
EPERM: Final = 1
EACCES: Final = 13


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int | None]]:
    """Errno by what was tried."""
    abi, reason = confinement.version()
    if reason is not None:
        skip_or_fail(reason)
    readable, unreadable = (tmp_path_factory.mktemp(name) for name in ("readable", "unreadable"))
    for folder in (readable, unreadable):
        (folder / "file").write_bytes(b"x")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with subprocess.Popen(["sleep", "60"]) as other:
            words = [str(readable), str(unreadable), str(port), str(other.pid)]
            run = subprocess.run(
                [sys.executable, "-c", TRIALS, *words],
                capture_output=True,
                text=True,
                check=True,
                cwd=ROOT,
            )
            other.kill()
    yield {**json.loads(run.stdout), "abi": abi}
    assert (readable / "file").read_bytes() == b"x"


def test_only_what_is_allowed_can_be_read(outcomes: dict[str, int | None]) -> None:
    assert outcomes["confined"] is None
    assert outcomes["read"] == 0
    assert outcomes["elsewhere"] == EACCES


def test_nothing_is_written_made_or_run(outcomes: dict[str, int | None]) -> None:
    assert [outcomes[what] for what in ("write", "make", "run")] == [EACCES] * 3


def test_the_network_is_what_was_open(outcomes: dict[str, int | None]) -> None:
    assert outcomes["listening"] == 0
    if (outcomes["abi"] or 0) < confinement.NETWORK_ABI:
        skip_or_fail("this kernel's Landlock leaves the network alone (before Linux 6.7)")
    assert outcomes["connect"] == outcomes["bind"] == EACCES


def test_no_other_process_gets_a_signal(outcomes: dict[str, int | None]) -> None:
    if (outcomes["abi"] or 0) < confinement.SCOPE_ABI:
        skip_or_fail("this kernel's Landlock lets signals through (before Linux 6.12)")
    assert outcomes["signal"] == EPERM


def test_without_the_library_nothing_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "landlockpy", None)
    assert confinement.confine([]) == "landlockpy is not installed"
    assert Path("/proc/self/status").read_bytes()


def test_own_code_is_where_modules_come_from() -> None:
    folders = confinement.own_code()
    assert any(Path(json.__file__).is_relative_to(folder) for folder in folders)
    assert any(Path(confinement.__file__).is_relative_to(folder) for folder in folders)
