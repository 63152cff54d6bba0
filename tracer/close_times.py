# SPDX-License-Identifier: Apache-2.0
"""The moments of a record and what lies between them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, TypeAlias

from tracer.tcp import Kind, SkFlag, TcpState
from tracer.verdict import Reason

_NS_PER_US = 1_000

Record: TypeAlias = Any
"""One element of a CLOSE_DTYPE array as numpy gives it: fields by name."""


@dataclass(frozen=True, slots=True)
class Times:
    """The moments of a record, CLOCK_MONOTONIC ns, 0 never seen."""

    opened: int
    established: int
    fin_received: int
    fin_sent: int
    fin_acked: int
    rst_sent: int
    rst_received: int
    closed: int

    @classmethod
    def of(cls, record: Record) -> Times:
        """Read them from a record."""
        return cls(*(int(record[f"{f.name}_ns"]) for f in dataclasses.fields(cls)))

    def teardown_us(self) -> int | None:
        """Return the time from the first FIN or RST to CLOSE, None without either."""
        firsts = (self.fin_received, self.fin_sent, self.rst_sent, self.rst_received)
        first = min((t for t in firsts if t), default=None)
        return None if first is None else _span_us(first, self.closed)

    def lifetime_us(self) -> int | None:
        """Return the time from the SYN, else from ESTABLISHED, to CLOSE."""
        first = self.opened or self.established
        return _span_us(first, self.closed) if first else None

    def close_wait_us(self) -> int | None:
        """Return how long the peer's FIN waited for ours, or for CLOSE."""
        end = self.fin_sent or self.closed
        return _span_us(self.fin_received, end) if self.fin_received else None


def _span_us(start_ns: int, end_ns: int) -> int:
    # A RST may follow CLOSE by microseconds: never negative.
    return max(0, end_ns - start_ns) // _NS_PER_US


def timeline_us(times: Times, verdict: Record, record: Record) -> dict[str, int]:
    """Return {event: offset} in the order of the events, from the first moment known."""
    events = {
        "established": times.established,
        "fin_sent": times.fin_sent,
        "fin_acked": times.fin_acked or _acked_by_closing(times, verdict, record),
        "fin_received": times.fin_received,
        "ack_sent": _ack_sent(times, verdict, record),
        "rst_sent": times.rst_sent,
        "rst_received": times.rst_received,
        "closed": times.closed,
    }
    known = {name: t for name, t in events.items() if t}
    base = min([*known.values(), *([times.opened] if times.opened else [])], default=0)
    in_order = sorted(known.items(), key=lambda item: item[1])
    return {name: _span_us(base, t) for name, t in in_order}


def _acked_by_closing(times: Times, verdict: Record, record: Record) -> int:
    # LAST_ACK and CLOSING end with the ACK of our FIN.
    ended_by_it = record["old_state"] in {TcpState.LAST_ACK, TcpState.CLOSING}
    graceful = verdict["kind"] in {Kind.PASSIVE, Kind.SIMULTANEOUS}
    return times.closed if ended_by_it and graceful else 0


def _ack_sent(times: Times, verdict: Record, record: Record) -> int:
    # When our ACK of the peer's FIN left, where that is known without seeing it:
    # tcp_fin() sends it at once in FIN_WAIT1 and FIN_WAIT2; a FIN alone carries it.
    reason = int(verdict["reason"])
    if reason in {Reason.FIN_CARRIED_ACK, Reason.FIN_CARRIED_ACK_RESENT}:
        return times.fin_sent if not record["at_fin_sent"]["unsent"] else 0
    at_once = reason in {Reason.FINS_CROSSED, Reason.FIN_STILL_QUEUED} or (
        verdict["kind"] == Kind.ACTIVE and int(record["sk_flags"]) & SkFlag.DONE
    )
    return times.fin_received if at_once else 0
