# SPDX-License-Identifier: Apache-2.0
"""Closes that a limit of the whole host makes; only where FOURWAVE_HOST_WIDE=1 says it may."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.truth import bench
from tests.truth.host_wide import (
    NO_MEMORY_AT_CLOSE,
    TOO_MANY_ORPHANS,
    TOO_MANY_ORPHANS_IN_TIMER,
)
from tests.truth.sockets import Flavour

if TYPE_CHECKING:
    from pathlib import Path

    from tests.truth.compare import Record
    from tests.truth.netns import Net
    from tests.truth.scenario import Scenario
    from tests.truth.sockets import Made
    from tests.truth.watch import Watch
    from tests.truth.wire import Wire, WiredNet

ALLOWED = os.environ.get("FOURWAVE_HOST_WIDE") == "1"
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(
        not ALLOWED, reason="lowers net.ipv4.tcp_max_orphans and tcp_mem: FOURWAVE_HOST_WIDE=1"
    ),
]

# One of them may be the orphan that is too many.
CONNECTIONS = 8
BOTH_WAYS = pytest.mark.parametrize("server_first", [False, True])


def closed(
    entry: Scenario,
    net: Net,
    watch: Watch,
    folder: Path,
    *,
    server_first: bool,
    wire: Wire | None = None,
) -> list[Record]:
    """Play it; return the records of the ends that ran out of memory, all as the packets say."""

    def traffic() -> list[Made]:
        return entry.run(net, Flavour.V4, CONNECTIONS, server_first=server_first, wire=wire)

    run = bench.run(net, folder, traffic, watch)
    assert run.report.right, run.report.text(limit=3)
    found = [record for record in run.records if record["cause"] == "out_of_memory"]
    assert {record["kind"] for record in found} == {"abort"}
    assert {record["closer"]["how"] for record in found} == {"close"}
    return found


@BOTH_WAYS
def test_too_many_orphans(
    server_first: bool, loopback_net: Net, tracer_watch: Watch, tmp_path: Path
) -> None:
    """close() finds the limit reached: a RST, by the process that closed."""
    entry = TOO_MANY_ORPHANS
    found = closed(entry, loopback_net, tracer_watch, tmp_path, server_first=server_first)
    assert len(found) == CONNECTIONS - 1


@BOTH_WAYS
def test_no_memory_at_close(
    server_first: bool, loopback_net: Net, tracer_watch: Watch, tmp_path: Path
) -> None:
    """The same for memory: what was still to be sent is lost."""
    entry = NO_MEMORY_AT_CLOSE
    found = closed(entry, loopback_net, tracer_watch, tmp_path, server_first=server_first)
    assert len(found) == CONNECTIONS
    assert all(record["data_lost"] and record["unsent_bytes"] for record in found)


@BOTH_WAYS
def test_too_many_orphans_in_a_timer(
    server_first: bool, wired_net: WiredNet, tracer_watch: Watch, tmp_path: Path
) -> None:
    """The retransmission timer of an orphan finds the limit reached; the closer is still known."""
    found = closed(
        TOO_MANY_ORPHANS_IN_TIMER,
        wired_net.net,
        tracer_watch,
        tmp_path,
        server_first=server_first,
        wire=wired_net.wire,
    )
    assert len(found) == CONNECTIONS
