# SPDX-License-Identifier: Apache-2.0
"""Hosts that lack something: fourwave works without it, or ends with what to do.

Each lack is made in a mount namespace of its own, so that nobody else sees it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from tests.pace import allowed_s
from tests.truth.watch import ROOT

pytestmark = pytest.mark.kernel

SECONDS: Final = allowed_s(60.0)
FOURWAVE: Final = f"{sys.executable} -m tracer"
LACKS: Final = {
    "no tracefs and no debugfs": "umount -l /sys/kernel/tracing /sys/kernel/debug 2>&- || :",
    "processes hidden from others": "mount -t proc -o hidepid=2 proc /proc",
    "no cgroup2": "umount -lR /sys/fs/cgroup",
    "cgroup v1 alone": "umount -lR /sys/fs/cgroup; "
    "mount -t cgroup -o none,name=fourwave v1 /sys/fs/cgroup",
    "an empty /sys/fs": "mount -t tmpfs none /sys/fs",
}
HOST_LACKS: Final = 3
# As a container has them that was given CAP_BPF and more, and as a rootless one has them.
CONTAINER: Final = "unshare --pid --fork --mount-proc --net --ipc --uts --cgroup"
HOSTS_NAMESPACES: Final = "unshare --ipc --uts --cgroup"  # of --pid=host --network=host
ROOTLESS: Final = "unshare --user --map-root-user --pid --fork --mount-proc --net"
LOCKDOWN: Final = Path("/sys/kernel/security/lockdown")


def run_in_namespace(script: str) -> subprocess.CompletedProcess[str]:
    """Run a shell script that may change mounts for itself alone."""
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False
    )


def refuses(how: str, words: str) -> None:
    """Run `watch` behind the words `how`: it must end for want of something, and say what."""
    done = run_in_namespace(f"{how} {FOURWAVE} watch --count 1")
    assert done.returncode == HOST_LACKS, f"{how}: {done.stderr}"
    assert words in done.stderr
    assert "Traceback" not in done.stderr


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
    refuses("mount -t tmpfs none /sys/kernel; exec", "CONFIG_DEBUG_INFO_BTF")


@pytest.mark.skipif(
    shutil.which("setpriv") is None, reason="setpriv (package util-linux) is missing"
)
def test_without_privilege_it_says_what_to_do() -> None:
    """An ordinary user, and root without a single capability."""
    for how in ("--reuid=65534 --clear-groups", "--bounding-set=-all --inh-caps=-all"):
        refuses(f"exec setpriv {how}", "sudo")


def test_in_a_container_it_works() -> None:
    """Namespaces of its own, the users of the host: it judges its own closes right."""
    script = f"ip link set lo up && exec {FOURWAVE} demo"
    done = run_in_namespace(f"exec {CONTAINER} sh -c '{script}'")
    assert done.returncode == 0, done.stdout + done.stderr


def test_in_a_container_with_the_hosts_namespaces_it_works() -> None:
    """Beside mounts, names and cgroups nothing is its own: it traces and counts as the host."""
    done = run_in_namespace(f"exec {HOSTS_NAMESPACES} {FOURWAVE} doctor --json")
    assert done.returncode == 0, done.stdout + done.stderr
    found = facts(done.stdout)
    assert found["attach"]["ok"]
    assert found["census"]["ok"]


def test_in_a_container_nobody_else_is_named() -> None:
    """Its /proc has other numbers: whoever bears the holder's number there is not the holder."""
    script = f"{sys.executable} -m tests.kernel.contained"
    done = run_in_namespace(f"exec {CONTAINER} {script}")
    assert done.returncode == 0, done.stdout + done.stderr


def test_without_ipv6_it_works() -> None:
    """The demonstration's closes are IPv4's."""
    sysctl = "/proc/sys/net/ipv6/conf/all/disable_ipv6"
    script = f"test ! -e {sysctl} || echo 1 > {sysctl}; ip link set lo up && exec {FOURWAVE} demo"
    done = run_in_namespace(f"exec {CONTAINER} sh -c '{script}'")
    assert done.returncode == 0, done.stdout + done.stderr


def test_in_a_rootless_container_it_says_what_to_do() -> None:
    """Root there has every capability, and may load nothing."""
    refuses(f"exec {ROOTLESS}", "user namespace")


@pytest.mark.skipif(
    "[confidentiality]" not in (LOCKDOWN.read_text() if LOCKDOWN.exists() else ""),
    reason="lockdown=confidentiality is for a guest of `make vm`",
)
def test_confidentiality_is_told() -> None:
    """No program may read the kernel's memory: nothing can be traced, and doctor says why."""
    done = run_in_namespace(f"exec {FOURWAVE} doctor --json")
    assert done.returncode == HOST_LACKS, done.stdout + done.stderr
    found = facts(done.stdout)
    assert found["lockdown"]["ok"] is False
    assert "confidentiality" in found["attach"]["detail"]
    assert "\n" not in found["attach"]["detail"]
    assert "integrity" in found["attach"]["remedy"] == found["lockdown"]["remedy"]
