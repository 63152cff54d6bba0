# SPDX-License-Identifier: Apache-2.0
"""Every RST that the kernel counts is in a record or among those without a connection."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.bench import load
from tests.truth.netns import namespace
from tests.truth.watch import ROOT
from tracer.recording import RecordingSource
from tracer.runs import host_facts
from tracer.session import Session
from tracer.tcp import RST_SENT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.truth.netns import Namespace
    from tracer.aggregator import Snapshot
    from tracer.classify_graceful import Reasons
    from tracer.wire import Records

pytestmark = pytest.mark.kernel

SECONDS = 3


@pytest.fixture
def ns() -> Iterator[Namespace]:
    """A namespace with ports enough."""
    load.build()
    with namespace("late") as made:
        made.sysctl("ipv4/ip_local_port_range", "1024 65000")
        yield made


def resets_sent(ns: Namespace) -> int:
    """Return OutRsts of /proc/net/snmp."""
    with ns.entered():
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, values = (line.split()[1:] for line in lines if line.startswith("Tcp:"))
    return int(dict(zip(names, values, strict=True))["OutRsts"])


def recorded(path: Path, ns: Namespace, orders: str) -> int:
    """Record while the load runs in the namespace; return how many connections it made."""
    command = [sys.executable, "-m", "tracer", "record", str(path)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            assert process.stderr.readline().startswith("ready")
            options = (
                "--host-netns",
                "--port=9",
                "--request=64",
                f"--seconds={SECONDS}",
                f"--order={orders}",
            )
            made = load.run(*options, prefix=ns.command())
        finally:
            process.send_signal(signal.SIGINT)
        process.stderr.read()
    assert (process.returncode, made["errors"]) == (0, 0)
    return int(made["connections"])


def replayed(path: Path, inum: int) -> tuple[int, int, Snapshot]:
    """Return closes of the namespace, those of them with a RST of ours, and all counts."""
    closes = sent = 0

    def count(records: Records, _reasons: Reasons) -> None:
        nonlocal closes, sent
        mine = records["netns"] == inum
        closes += int(np.count_nonzero(mine))
        sent += int(np.count_nonzero(mine & ((records["rst_flags"] & int(RST_SENT)) != 0)))

    with RecordingSource(str(path)) as source:
        session = Session(host_facts(source), counted=count)
        for batch in source:
            session.feed(batch)
        snapshot = session.finish()
    return closes, sent, snapshot


def test_late_resets_at_full_load(ns: Namespace, tmp_path: Path) -> None:
    """SO_LINGER 0 at either end: each RST leaves after its record, and both are joined."""
    path, before = tmp_path / "closes.rec", resets_sent(ns)
    made = recorded(path, ns, "reset,server-reset")
    closes, sent, snapshot = replayed(path, ns.inum)
    strays = sum(stray.resets for stray in snapshot.strays if stray.netns == ns.inum)
    lost = snapshot.lost_total + snapshot.kernel["resets_lost"] + snapshot.resets_unmatched
    out = resets_sent(ns) - before
    assert made > 1_000
    assert 0 <= 2 * made - closes <= lost
    assert 0 <= out - sent - strays <= lost, (out, sent, strays, lost)
