# SPDX-License-Identifier: Apache-2.0
"""The load generator closes.c: built once, run in a network namespace of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tracer.kernel.netns_facts import sockstat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.truth.netns import Namespace

SOURCE: Final = Path(__file__).with_name("closes.c")
PROGRAM: Final = SOURCE.with_suffix("")
FILLS_MAX: Final = 4


def build() -> None:
    """Compile the generator unless the binary is newer than its source."""
    if PROGRAM.exists() and PROGRAM.stat().st_mtime > SOURCE.stat().st_mtime:
        return
    subprocess.run(["cc", "-O2", "-pthread", "-o", PROGRAM, SOURCE], check=True)


def run(*options: str, timeout_seconds: float = 300, prefix: Sequence[str] = ()) -> dict[str, Any]:
    """Run it, behind `prefix`, and return what it prints; every connection has ended by then."""
    done = subprocess.run(
        [*prefix, PROGRAM, *options],
        check=True,
        capture_output=True,
        text=True,
        timeout=timeout_seconds,
    )
    return dict(json.loads(done.stdout))


def fill_time_wait(ns: Namespace, count: int) -> None:
    """Leave so many sockets in TIME_WAIT, all within its minute; fewer where that is too short.

    Over loopback connect() takes a TIME_WAIT again after a second (tcp_tw_reuse is 2): it is
    told not to, and goes to more addresses instead. Of a thousand one or two are ended by a
    segment that was overtaken: others are made for them.
    """
    ns.sysctl("ipv4/tcp_max_tw_buckets", "4000000")
    ns.sysctl("ipv4/ip_local_port_range", "1024 65000")
    ns.sysctl("ipv4/tcp_tw_reuse", "0")
    options = ("--host-netns", "--order=client", f"--addresses={2 + count // 25_000}")
    for _ in range(FILLS_MAX):
        if (missing := count - mini_sockets(ns)) > 0:
            run(*options, f"--connections={missing}", prefix=ns.command())


def mini_sockets(ns: Namespace) -> int:
    """Count the sockets in TIME_WAIT."""
    with ns.entered():
        return sockstat()["tw"]
