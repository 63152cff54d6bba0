# SPDX-License-Identifier: Apache-2.0
"""What stays for as long as the service runs holds what it uses, and no more."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

LOADED = """
import sys
from tracer import serve_resident, serve, exits
serve.import_all()
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def test_no_parser_stays_in_memory() -> None:
    shown = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, check=True)
    loaded = set(shown.stdout.decode().split())
    assert {"tracer", "numpy"} <= loaded
    assert loaded.isdisjoint({"click", "tornado", "prometheus_client", "yaml", "bcrypt"})


@pytest.mark.parametrize(
    ("options", "status", "told"),
    [
        ({"addresses": [["no such host", 1]]}, 2, "cannot listen at no such host:1"),
        ({"addresses": [], "oops": 1}, 1, "FOURWAVE_TRACEBACK=1 fourwave serve"),
    ],
)
def test_its_errors_are_the_commands(options: object, status: int, told: str) -> None:
    """One line and the exit code, as of any other command."""
    words = [sys.executable, "-m", "tracer.serve_resident", json.dumps(options)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == status
    assert told in ended.stderr
    assert ended.stderr.startswith("fourwave: ")
    assert "Traceback" not in ended.stderr
