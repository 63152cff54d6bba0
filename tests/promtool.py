# SPDX-License-Identifier: Apache-2.0
"""Prometheus' own judge of rules."""

from __future__ import annotations

import shutil
import subprocess

from tests.conftest import skip_or_fail


def promtool(*words: str) -> None:
    """Run it. Fails the test with what it says when it finds fault; skips where it is missing."""
    if not shutil.which("promtool"):
        skip_or_fail("this host lacks promtool (package prometheus)")
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
