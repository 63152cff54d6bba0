# SPDX-License-Identifier: Apache-2.0
"""System calls that were given up; each trial in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Final

import pytest

from tests.conftest import ROOT, skip_or_fail
from tracer import confinement_syscalls

TRIALS: Final = """
import ctypes, json, os, socket, ssl, threading
from tracer.confinement_syscalls import REFUSED, confine
libc = ctypes.CDLL(None, use_errno=True)
seccomp = ctypes.CDLL("libseccomp.so.2")
server = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(server.getsockname())
failed = confine()
def outcome(trial):
    try:
        trial()
    except OSError as error:
        return error.errno
    return 0
def refused(name):
    # No call could do anything: a pointer is none, a descriptor is closed.
    ctypes.set_errno(0)
    libc.syscall(seccomp.seccomp_syscall_resolve_name(name.encode()), -1, -1, -1, -1, -1, -1)
    return ctypes.get_errno()
def in_thread():
    errors = []
    other = threading.Thread(target=lambda: errors.append(outcome(socket.socket)))
    other.start()
    other.join()
    return errors[0]
print(json.dumps({
    "confined": failed,
    "run": outcome(lambda: os.execv("/bin/true", ["true"])),
    "socket": outcome(socket.socket),
    "thread": in_thread(),
    "accept": outcome(server.accept),
    "pair": outcome(socket.socketpair),
    "read": outcome(lambda: open("/etc/passwd").close()),
    "tls": outcome(ssl.create_default_context),
    "mode": next(line for line in open("/proc/self/status") if line.startswith("Seccomp:")),
    "others": {name: refused(name) for name in ("setns", "bpf", "keyctl", "io_uring_enter")},
}))
"""
EPERM: Final = 1


@pytest.fixture(scope="module")
def outcomes() -> dict[str, object]:
    """Errno by what was tried."""
    reason = confinement_syscalls.missing()
    if reason is not None:
        skip_or_fail(reason)
    words = [sys.executable, "-c", TRIALS]
    run = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    told: dict[str, object] = json.loads(run.stdout)
    return told


def test_what_is_never_needed_is_refused(outcomes: dict[str, object]) -> None:
    """In threads that are started later, too."""
    assert outcomes["confined"] is None
    assert outcomes["mode"] == "Seccomp:\t2\n"
    assert [outcomes[what] for what in ("run", "socket", "thread")] == [EPERM] * 3
    assert outcomes["others"] == dict.fromkeys(["setns", "bpf", "keyctl", "io_uring_enter"], EPERM)


def test_a_server_goes_on(outcomes: dict[str, object]) -> None:
    assert [outcomes[what] for what in ("accept", "pair", "read", "tls")] == [0] * 4


def test_without_the_library_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confinement_syscalls, "LIBRARY", "libnosuch.so.2")
    assert confinement_syscalls.confine() == "libnosuch.so.2 is not installed"
    subprocess.run(["true"], check=True)
