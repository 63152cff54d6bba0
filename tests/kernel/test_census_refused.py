# SPDX-License-Identifier: Apache-2.0
"""Where the kernel refuses BPF the census is taken by sock_diag, and everybody says so."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import skip_or_fail

pytestmark = pytest.mark.kernel

ROOT = Path(__file__).parents[2]
LOST = "-bpf,-perfmon,-sys_admin"


def refused(*words: str) -> subprocess.CompletedProcess[str]:
    """Run fourwave as root without the capabilities that BPF asks for."""
    setpriv = shutil.which("setpriv")
    if not setpriv:
        skip_or_fail("no setpriv (util-linux)")
    command = [str(setpriv), "--bounding-set", LOST, "--inh-caps", LOST]
    command += [sys.executable, "-m", "tracer", *words]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_views_work_by_sock_diag_and_say_why() -> None:
    """The own namespace is counted; what could not be entered is told as left out."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        done = refused("listeners", "--json", "--port", str(listener.getsockname()[1]))
        told = [json.loads(line) for line in done.stdout.splitlines()]
        assert done.returncode == 0
        assert [one["lport"] for one in told if one["type"] == "listener"] == [
            listener.getsockname()[1]
        ]
        assert told[-1]["mechanism"] == "sock_diag"
        table = refused("census").stdout
        assert "Taken by sock_diag: cannot attach: this process lacks CAP_BPF" in table


def test_ages_are_bounds_and_that_is_said() -> None:
    """Closes cannot be followed either: leaks looks several times all the same."""
    done = refused("leaks", "--over", "0.5")
    assert done.returncode == 0
    assert "ages in CLOSE_WAIT are lower bounds: cannot attach" in done.stderr


def test_doctor_names_the_second_choice() -> None:
    """And what it costs."""
    shown = " ".join(refused("doctor").stdout.split())
    assert "part census sock_diag, a hundred times slower: no iterators" in shown
