# SPDX-License-Identifier: Apache-2.0
"""How the ACK of the peer's FIN went, where the peer closed first.

Who carried it follows from the Reason; this module tells the ACKs that travelled alone
apart. Nobody need have seen them leave: tcp_delack_timer_handler() sets TCP's clock, and
an ACK that tcp_rcv_established() sends for the FIN in hand does not. If nothing else set
the clock between the two FINs, it still shows when the ACK left.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tracer.classify_graceful import select
from tracer.columns import Rows
from tracer.tcp import AckFate, AckFlag, FinAck, Kind, TcpState
from tracer.verdict import RULES

if TYPE_CHECKING:
    from tracer.columns import Mask, Numbers
    from tracer.wire import Records

Fates = npt.NDArray[np.uint8]

TIMER_NS_MAX = 300_000_000
"""TCP_DELACK_MAX (HZ/5) and some for a busy host: a later reading of the clock is another's."""
TICK_NS = 10_000_000
"""The longest tick (HZ=100): what a hook saw leave later than this did not leave at once."""

_ALONE = 255  # of FATE_OF: to be told apart
_CARRIED = {FinAck.FIN: AckFate.MERGED, FinAck.DATA: AckFate.DATA, FinAck.NONE: AckFate.UNKNOWN}

# Plain integers: an operation on an enum's member makes another.
FILLS_HOLE, FULL_FRAME = int(AckFlag.FILLS_HOLE), int(AckFlag.FULL_FRAME)
DATA_UNREAD, ROUTE_QUICK = int(AckFlag.DATA_UNREAD), int(AckFlag.ROUTE_QUICK)
CLOCK_KNOWN, CLOCK_MOVED = int(AckFlag.CLOCK_KNOWN), int(AckFlag.CLOCK_MOVED)
CLOSE_WAIT_SEEN = 1 << TcpState.CLOSE_WAIT


def _by_reason() -> Fates:
    table = np.full(256, AckFate.NONE, np.uint8)
    for reason, rule in RULES.items():
        if rule.kind is Kind.PASSIVE:
            table[reason] = _CARRIED.get(rule.fin_ack, _ALONE)
    return table


FATE_OF = _by_reason()
"""AckFate by Reason, where that says it all."""
IS_ALONE = FATE_OF == _ALONE
"""By Reason: whether fates_alone() must look."""


def ack_fates(records: Records, reasons: npt.NDArray[np.uint8]) -> Fates:
    """Return the AckFate of each record, given what judge() said of it."""
    fates = FATE_OF[reasons]
    index = np.flatnonzero(IS_ALONE[reasons])
    if len(index):
        fates[index] = fates_alone(Rows(records, index))
    return fates


_ALONE_FATES = tuple(
    np.uint8(fate)
    for fate in (
        AckFate.UNKNOWN,
        AckFate.AT_ONCE,
        AckFate.REPEATED_FIN,
        AckFate.QUICK_ROUTE,
        AckFate.HOLE_FILLED,
        AckFate.FULL_FRAME,
        AckFate.AT_ONCE,
        AckFate.TICK,
        AckFate.TIMER,
        AckFate.UNKNOWN,
    )
)


def fates_alone(rows: Rows) -> Fates:
    """Return the AckFate of rows whose ACK of the peer's FIN carried nothing else."""
    # The first condition that holds decides: what forces an ACK at once first, then the clock.
    flags = rows.column("ack_flags")
    sent = rows.counts("at_fin_sent", "segs_out") - rows.counts("at_halfway", "segs_out")
    one, repeated = sent == 1, rows.column("dup_fin") != 0
    at_once = (flags & (CLOCK_KNOWN | CLOCK_MOVED)) == CLOCK_KNOWN
    moved = (flags & (CLOCK_KNOWN | CLOCK_MOVED | DATA_UNREAD)) == CLOCK_KNOWN | CLOCK_MOVED
    timer = _timer_moved_clock(rows, moved & one & ~repeated) | _hook_late(rows, flags)
    return select(
        _ALONE_FATES,
        (
            rows.column("fin_received_ns") == 0,
            ~rows.has("states_seen", CLOSE_WAIT_SEEN),  # tcp_fin() in FIN_WAIT1 waits for no timer
            repeated & one,
            (flags & ROUTE_QUICK) != 0,
            (flags & FILLS_HOLE) != 0,
            at_once & ((flags & FULL_FRAME) != 0),
            at_once,
            timer & (rows.column("ack_ato_jiffies") == 0),
            timer,
        ),
    )


def _timer_moved_clock(rows: Rows, moved: Mask) -> Mask:
    # Others set the clock, too: a segment that comes, data that is read or sent, a
    # keepalive. Where none of them can have been it was the timer.
    came = rows.counts("at_fin_sent", "segs_in") != rows.counts("at_halfway", "segs_in")
    sending = rows.counts("at_halfway", "unsent") | rows.counts("at_halfway", "unacked")
    sending |= rows.counts("at_fin_sent", "unsent")
    in_time = rows.column("fin_clock_10us") <= TIMER_NS_MAX // 10_000
    timer: Mask = moved & in_time & ~came & (sending == 0)
    return timer


def _hook_late(rows: Rows, flags: Numbers) -> Mask:
    # A hook saw it leave, later than the FIN's own handling takes and sooner than a repeat.
    seen = rows.column("ack_sent_ns")
    waited = seen - rows.column("fin_received_ns")
    in_time = (seen != 0) & (waited > TICK_NS) & (waited <= TIMER_NS_MAX)
    late: Mask = in_time & ((flags & DATA_UNREAD) == 0)
    return late
