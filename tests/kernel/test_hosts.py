# SPDX-License-Identifier: Apache-2.0
"""Hosts that lack something: fourwave works without it, or ends with what to do.

Each lack is made in a mount namespace of its own, so that nobody else sees it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from typing import Any, Final

import pytest

from tests.truth.watch import ROOT

pytestmark = pytest.mark.kernel

SECONDS: Final = 180.0
FOURWAVE: Final = f"{sys.executable} -m tracer"
LACKS: Final = {
    "no tracefs and no debugfs": "umount -l /sys/kernel/tracing /sys/kernel/debug 2>&- || :",
    "processes hidden from others": "mount -t proc -o hidepid=2 proc /proc",
    "no cgroup2": "umount -lR /sys/fs/cgroup",
    "an empty /sys/fs": "mount -t tmpfs none /sys/fs",
}
HOST_LACKS: Final = 3


def run_in_namespace(script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script that may change mounts for itself alone."""
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def facts(output: str) -> dict[str, dict[str, Any]]:
    """Return doctor's facts by name."""
    return {fact["name"]: fact for fact in map(json.loads, output.splitlines())}


@pytest.mark.parametrize("lack", LACKS)
def test_watch_works_without(lack: str) -> None:
    """What only names things may be missing: doctor says so, and the programs attach."""
    done = run_in_namespace(f"{LACKS[lack]}; exec {FOURWAVE} doctor --json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert facts(done.stdout)["attach"]["ok"]
    if "cgroup" in lack:
        cgroup = facts(done.stdout)["cgroup2"]
        assert cgroup["ok"] is None
        assert cgroup["remedy"]


def test_without_types_it_says_what_is_missing() -> None:
    """No BTF, as on a kernel built without or a /sys that is not there."""
    done = run_in_namespace(f"mount -t tmpfs none /sys/kernel; exec {FOURWAVE} watch --count 1")
    assert done.returncode == HOST_LACKS, done.stderr
    assert "CONFIG_DEBUG_INFO_BTF" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(
    shutil.which("setpriv") is None, reason="setpriv (package util-linux) is missing"
)
def test_without_privilege_it_says_what_to_do() -> None:
    """An ordinary user, and root without a single capability."""
    for how in ("--reuid=65534 --clear-groups", "--bounding-set=-all --inh-caps=-all"):
        done = run_in_namespace(f"exec setpriv {how} {FOURWAVE} watch --count 1")
        assert done.returncode == HOST_LACKS, f"{how}: {done.stderr}"
        assert "sudo" in done.stderr
        assert "Traceback" not in done.stderr
