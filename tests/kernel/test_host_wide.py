# SPDX-License-Identifier: Apache-2.0
"""Closes that a limit of the whole host makes; only where FOURWAVE_HOST_WIDE=1 says it may."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.truth import bench
from tests.truth.host_wide import TOO_MANY_ORPHANS
from tests.truth.sockets import Flavour

if TYPE_CHECKING:
    from pathlib import Path

    from tests.truth.netns import Net
    from tests.truth.watch import Watch

pytestmark = pytest.mark.kernel

ALLOWED = os.environ.get("FOURWAVE_HOST_WIDE") == "1"
# One of them is the orphan that is too many.
CONNECTIONS = 8


@pytest.mark.skipif(not ALLOWED, reason="lowers net.ipv4.tcp_max_orphans: FOURWAVE_HOST_WIDE=1")
@pytest.mark.parametrize("server_first", [False, True])
def test_too_many_orphans(
    server_first: bool, loopback_net: Net, tracer_watch: Watch, tmp_path: Path
) -> None:
    """close() finds the limit reached: a RST, out_of_memory, by the process that closed."""

    def traffic() -> list[bench.Made]:
        return TOO_MANY_ORPHANS.run(
            loopback_net, Flavour.V4, CONNECTIONS, server_first=server_first
        )

    run = bench.run(loopback_net, tmp_path, traffic, tracer_watch)
    report = run.report
    assert report.right, report.text(limit=3)
    aborts = [record for record in run.records if record["kind"] == "abort"]
    assert len(aborts) == CONNECTIONS - 1
    assert {record["cause"] for record in aborts} == {"out_of_memory"}
    assert {record["closer"]["how"] for record in aborts} == {"close"}
