# SPDX-License-Identifier: Apache-2.0
"""The moments of a record, CLOCK_MONOTONIC ns and 0 never seen, and what lies between them."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Final

from tracer.tcp import WAITED_MAX_US, AckFate, AckFlag, ActorFlag, Kind, SkFlag, TcpState
from tracer.verdict import Reason

if TYPE_CHECKING:
    from tracer.close_rows import Row, Verdict

_NS_PER_US: Final = 1_000

# Plain integers: they are compared once per record, an enum's members take their time.
_ENDED_BY_ACK: Final = frozenset(map(int, (TcpState.LAST_ACK, TcpState.CLOSING)))
_ANSWERED: Final = frozenset(map(int, (Kind.PASSIVE, Kind.SIMULTANEOUS)))
_FIN_CARRIED_ACK: Final = frozenset(
    map(int, (Reason.FIN_CARRIED_ACK, Reason.FIN_CARRIED_ACK_RESENT))
)
_ACKED_AT_ONCE: Final = frozenset(map(int, (Reason.FINS_CROSSED, Reason.FIN_STILL_QUEUED)))
_BY_CLOCK: Final = frozenset(map(int, (AckFate.TIMER, AckFate.TICK, AckFate.REPEATED_FIN)))
_AT_ONCE: Final = frozenset(
    map(
        int,
        (AckFate.QUICK_ROUTE, AckFate.HOLE_FILLED, AckFate.FULL_FRAME, AckFate.AT_ONCE),
    )
)
_MERGED: Final = int(AckFate.MERGED)
_DATA_UNREAD: Final = int(AckFlag.DATA_UNREAD)
_CLOCK_MAX: Final = 0xFFFF
_ACCEPTED: Final = int(ActorFlag.ACCEPTED)
_ACTIVE: Final = int(Kind.ACTIVE)
_SYN_RECV_RESET: Final = int(Reason.SYN_RECV_RESET)
_DATA_AFTER_CLOSE: Final = int(Reason.DATA_AFTER_CLOSE)
_DONE: Final = int(SkFlag.DONE)


def teardown_us(row: Row, verdict: Verdict) -> int | None:
    """Return the time from the first FIN or RST to CLOSE, None without either."""
    received = _rst_received(row, verdict)
    firsts = [t for t in (row.fin_received_ns, row.fin_sent_ns, row.rst_sent_ns, received) if t]
    return _span_us(min(firsts), row.closed_ns) if firsts else None


def lifetime_us(row: Row) -> int | None:
    """Return the time from the SYN, else from ESTABLISHED, to CLOSE."""
    first = row.opened_ns or row.established_ns
    return _span_us(first, row.closed_ns) if first else None


def accepted_ns(row: Row) -> int:
    """Return when a process accepted the connection, 0 where no hook saw it."""
    # Microseconds after opened_ns: struct conn_record, opener.
    if not row.opener__flags & _ACCEPTED or row.opener__uid == WAITED_MAX_US:
        return 0
    return row.opened_ns + row.opener__uid * _NS_PER_US


def close_wait_us(row: Row) -> int | None:
    """Return how long the peer's FIN waited for ours, or for CLOSE."""
    start = row.fin_received_ns
    return _span_us(start, row.fin_sent_ns or row.closed_ns) if start else None


def ack_after_us(row: Row, verdict: Verdict) -> int | None:
    """Return how long after the peer's FIN its ACK left, as far as that is known."""
    if row.ack_sent_ns:
        return _span_us(row.fin_received_ns, row.ack_sent_ns)
    if verdict.ack_fate == _MERGED:
        return None if row.at_fin_sent__unsent else close_wait_us(row)
    if verdict.ack_fate in _AT_ONCE:
        return 0
    if verdict.ack_fate not in _BY_CLOCK or row.fin_clock_10us == _CLOCK_MAX:
        return None
    # After a repeated FIN others may have set the clock, too.
    came = (row.at_fin_sent__segs_in - row.at_halfway__segs_in) & 0xFFFF_FFFF
    set_later = came > 1 or row.ack_flags & _DATA_UNREAD
    return None if set_later else row.fin_clock_10us * 10


def _span_us(start_ns: int, end_ns: int) -> int:
    # A RST may follow CLOSE by microseconds: never negative.
    return (end_ns - start_ns) // _NS_PER_US if end_ns > start_ns else 0


def timeline_us(row: Row, verdict: Verdict) -> dict[str, int]:
    """Return {event: offset} in the order of the events, from the first moment known."""
    events = (
        ("established", row.established_ns),
        ("accepted", accepted_ns(row)),
        ("fin_sent", row.fin_sent_ns),
        ("fin_acked", row.fin_acked_ns or _acked_by_closing(row, verdict)),
        ("fin_received", row.fin_received_ns),
        ("ack_sent", _ack_sent(row, verdict)),
        ("rst_sent", row.rst_sent_ns),
        ("rst_received", _rst_received(row, verdict)),
        ("closed", row.closed_ns),
    )
    known = sorted([event for event in events if event[1]], key=itemgetter(1))
    if not known:
        return {}
    first = known[0][1]
    base = min(first, row.opened_ns or first)
    return {name: (t - base) // _NS_PER_US for name, t in known}


def _acked_by_closing(row: Row, verdict: Verdict) -> int:
    # LAST_ACK and CLOSING end with the ACK of our FIN.
    return row.closed_ns if row.old_state in _ENDED_BY_ACK and verdict.kind in _ANSWERED else 0


def _ack_sent(row: Row, verdict: Verdict) -> int:
    # When our ACK of the peer's FIN left: seen by a hook, or known without seeing it.
    # tcp_fin() sends it at once in FIN_WAIT1 and FIN_WAIT2; a FIN alone carries it;
    # in CLOSE_WAIT TCP's clock can tell.
    if row.ack_sent_ns:
        return row.ack_sent_ns
    if verdict.reason in _FIN_CARRIED_ACK:
        return 0 if row.at_fin_sent__unsent else row.fin_sent_ns
    if verdict.ack_fate in _BY_CLOCK | _AT_ONCE:
        after_us = ack_after_us(row, verdict)
        return 0 if after_us is None else row.fin_received_ns + _NS_PER_US * after_us
    at_once = verdict.reason in _ACKED_AT_ONCE or (verdict.kind == _ACTIVE and row.sk_flags & _DONE)
    return row.fin_received_ns if at_once else 0


def _rst_received(row: Row, verdict: Verdict) -> int:
    # To data after close the kernel answers with a RST and calls tcp_reset() on itself:
    # none came from the peer. One whose tracepoint came too early made CLOSE at once.
    if verdict.reason == _SYN_RECV_RESET:
        return row.rst_received_ns or row.closed_ns
    return 0 if verdict.reason == _DATA_AFTER_CLOSE else row.rst_received_ns
