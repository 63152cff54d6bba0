# SPDX-License-Identifier: Apache-2.0
"""Closes that need a limit of the whole host lowered for a moment: not among SCENARIOS.

While the limit is low every close of the host that leaves an orphan is answered with a RST. So
these run only where that harms nobody: see tests/kernel/test_host_wide.py.
"""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.truth.abortive import RESET, await_reset
from tests.truth.scenario import Expect, Scenario, Stage
from tests.truth.sockets import TcpState, read_eof, wait_state
from tests.truth.timers import FIN_WAIT2_S

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_ORPHANS = Path("/proc/sys/net/ipv4/tcp_max_orphans")
# The kernel counts orphans ten times a second: TCP_ORPHAN_TIMER_PERIOD.
COUNTED_S = 0.25


@contextlib.contextmanager
def no_orphans_allowed() -> Iterator[None]:
    """Set net.ipv4.tcp_max_orphans to 0 for a while."""
    before = MAX_ORPHANS.read_text()
    MAX_ORPHANS.write_text("0")
    try:
        yield
    finally:
        MAX_ORPHANS.write_text(before)


def too_many_orphans(stage: Stage) -> None:
    """close() while there are more orphans than net.ipv4.tcp_max_orphans allows."""
    (parked, *pairs) = stage.talked()
    # An orphan that stays one: see timers.fin_wait2_by_timer.
    parked.first.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, FIN_WAIT2_S + 1)
    parked.first.close()
    read_eof(parked.second)
    wait_state(parked.second, TcpState.CLOSE_WAIT)
    time.sleep(COUNTED_S)
    with no_orphans_allowed():
        for pair in pairs:
            pair.first.close()
    for pair in pairs:
        await_reset(pair.second)


TOO_MANY_ORPHANS = Scenario(
    name="too_many_orphans",
    act=too_many_orphans,
    first=Expect("abort", how="close", cause="out_of_memory"),
    second=RESET,
    wired=False,
    both_ways=True,
    mixable=False,
    no_time_wait=False,
    blurred=False,
)
