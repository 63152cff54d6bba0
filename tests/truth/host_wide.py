# SPDX-License-Identifier: Apache-2.0
"""Closes that need a limit of the whole host lowered for a moment: not among SCENARIOS.

While the limit is low other closes of the host that leave an orphan end with a RST, and other
sockets get no memory. So these run only where that harms nobody: tests/kernel/test_host_wide.py.
"""

from __future__ import annotations

import contextlib
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.truth.abortive import RESET, await_reset
from tests.truth.scenario import Expect, Scenario, Stage
from tests.truth.sockets import TcpState, read_eof, set_linger_zero, wait_state
from tests.truth.timers import FIN_WAIT2_S, THROWN_AWAY, fill
from tests.truth.wire import Mode, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_ORPHANS = Path("/proc/sys/net/ipv4/tcp_max_orphans")
MEMORY = Path("/proc/sys/net/ipv4/tcp_mem")
# The kernel counts orphans ten times a second: TCP_ORPHAN_TIMER_PERIOD.
COUNTED_S = 0.25
# Shorter than TCP_RTO_MIN: no retransmission timer has fired.
BEFORE_RTO_S = 0.15
OUT_OF_MEMORY = Expect("abort", how="close", cause="out_of_memory")


@contextlib.contextmanager
def lowered(limit: Path, value: str) -> Iterator[None]:
    """Write a limit for a while."""
    before = limit.read_text()
    limit.write_text(value)
    try:
        yield
    finally:
        limit.write_text(before)


def too_many_orphans(stage: Stage) -> None:
    """close() while there are more orphans than net.ipv4.tcp_max_orphans allows."""
    (parked, *pairs) = stage.talked()
    # An orphan that stays one: see timers.fin_wait2_by_timer.
    parked.first.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, FIN_WAIT2_S + 1)
    parked.first.close()
    read_eof(parked.second)
    wait_state(parked.second, TcpState.CLOSE_WAIT)
    time.sleep(COUNTED_S)
    with lowered(MAX_ORPHANS, "0"):
        for pair in pairs:
            pair.first.close()
    for pair in pairs:
        await_reset(pair.second)


def no_memory_at_close(stage: Stage) -> None:
    """close() with much to send while net.ipv4.tcp_mem allows none."""
    pairs = stage.pairs()
    for pair in pairs:
        fill(pair.first, pair.second)
    with lowered(MEMORY, "0 0 0"):
        for pair in pairs:
            pair.first.close()
    for pair in pairs:
        await_reset(pair.second)


def too_many_orphans_in_timer(stage: Stage) -> None:
    """The path dies under the FIN; its retransmission timer finds too many orphans."""
    pairs, wire = stage.quiet(), stage.wire
    wire.set_mode(Mode.DROP)
    for pair in pairs:
        pair.first.close()
    time.sleep(BEFORE_RTO_S)
    first = stage.first_side.ns
    with lowered(MAX_ORPHANS, "0"):
        wait_until(lambda: not first.busy_sockets(), "the orphans to be given up")
    for pair in pairs:
        set_linger_zero(pair.second)
        pair.second.close()
    wire.drain()
    wire.set_mode(Mode.PASS)


def _scenario(act: Callable[[Stage], None], second: Expect, *, wired: bool = False) -> Scenario:
    return Scenario(
        name=act.__name__,
        act=act,
        first=OUT_OF_MEMORY,
        second=second,
        wired=wired,
        both_ways=True,
        mixable=False,
        no_time_wait=False,
        blurred=False,
    )


TOO_MANY_ORPHANS = _scenario(too_many_orphans, RESET)
NO_MEMORY_AT_CLOSE = _scenario(no_memory_at_close, RESET)
TOO_MANY_ORPHANS_IN_TIMER = _scenario(too_many_orphans_in_timer, THROWN_AWAY, wired=True)
