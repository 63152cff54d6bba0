# SPDX-License-Identifier: Apache-2.0
"""What a close's sentence and its JSON object are made of, from one record and its verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracer.close_text import errno_name, state_name
from tracer.close_times import ack_after_us, close_wait_us, lifetime_us
from tracer.tcp import RST_SENT, AckFate, ConnFlag, How, Kind, RstFlag, SkFlag, TcpState
from tracer.verdict import TRISTATES, Reason
from tracer.why_facts import Facts

if TYPE_CHECKING:
    from tracer.close_rows import Row, Verdict
    from tracer.tcp import HostFacts

# By the numbers of a verdict.
_HOWS: Final = tuple(How)
_FATES: Final = tuple(AckFate)
_REASONS: Final = {int(reason): reason for reason in Reason}

# Plain integers: an operation on an enum's member makes another.
_OPENED_ACTIVE, _OPENED_PASSIVE = int(ConnFlag.OPENED_ACTIVE), int(ConnFlag.OPENED_PASSIVE)
_SIGPIPE: Final = int(ConnFlag.SIGPIPE)
_HAS_REASON, _DONE = int(RstFlag.HAS_REASON), int(SkFlag.DONE)
_CLOSE_WAIT_SEEN: Final = 1 << TcpState.CLOSE_WAIT
_CONNECTING: Final = (TcpState.SYN_SENT, TcpState.SYN_RECV)
_FIN_QUEUED: Final = (TcpState.FIN_WAIT1, TcpState.CLOSING, TcpState.LAST_ACK)
_ACTIVE: Final = int(Kind.ACTIVE)


def facts_of(row: Row, verdict: Verdict, host: HostFacts, ato_us: int | None) -> Facts:
    """Return the figures of one record; `ato_us` is None where it was not read."""
    done = bool(row.sk_flags & _DONE)
    unacked_bytes, unsent_bytes = _outstanding_bytes(row)
    return Facts(
        reason=_REASONS[verdict.reason],
        how=_HOWS[verdict.how],
        signal_or_code=verdict.signal_or_code,
        old_state=state_name(row.old_state),
        rst_sent=bool(verdict.rst_sent),
        rst_reason=_rst_reason(row, host),
        err=errno_name(row.sk_err or row.err_told),
        sigpipe=bool(row.flags & _SIGPIPE) or None,
        time_wait=TRISTATES[verdict.time_wait],
        peer_fin_seen=done,
        fin_repeated=bool(row.dup_fin),
        close_wait_us=close_wait_us(row) if was_in_close_wait(row) else None,
        ato_us=ato_us,
        ack_fate=_FATES[verdict.ack_fate],
        ack_after_us=None if ato_us is None else ack_after_us(row, verdict),
        lifetime_us=lifetime_us(row) if opened(row.flags) else None,
        rx_bytes=max(0, row.bytes_received - done),
        to_itself=row.lport == row.rport and row.saddr == row.daddr,
        unread_bytes=row.unread - (done and row.unread > 0),
        unacked_bytes=unacked_bytes,
        unsent_bytes=unsent_bytes,
        data_lost=TRISTATES[verdict.data_lost],
        unsent_at_fin_bytes=row.at_fin_sent__unsent,
        user_timeout_ms=row.user_timeout_ms,
        retransmits=row.retransmits,
        probes_out=row.probes_out,
        segments=_segments(row, verdict),
    )


def was_in_close_wait(row: Row) -> bool:
    """Say whether the peer's FIN came before ours was queued."""
    return bool((row.states_seen | 1 << (row.old_state & 15)) & _CLOSE_WAIT_SEEN)


def _outstanding_bytes(row: Row) -> tuple[int, int]:
    # Sent and not acknowledged, and not sent. Our SYN takes the first sequence number, our
    # FIN the last; a child begins behind its SYN.
    syn = row.old_state in _CONNECTING and not row.flags & _OPENED_PASSIVE
    fin = row.old_state in _FIN_QUEUED
    unacked, unsent = max(0, row.at_close__unacked - syn), row.at_close__unsent
    if unsent:
        return unacked, unsent - fin
    return max(0, unacked - fin), 0


def _segments(row: Row, verdict: Verdict) -> int:
    # Segments that left after our FIN was queued, or came until it was acknowledged.
    if verdict.kind == _ACTIVE:
        more = row.at_halfway__segs_in - row.at_fin_sent__segs_in
    else:
        more = row.at_close__segs_out - row.at_fin_sent__segs_out
    return more & 0xFFFF_FFFF


def opened(flags: int) -> str | None:
    """Return who sent the SYN: active, passive, or None for before the tracer."""
    if flags & _OPENED_ACTIVE:
        return "active"
    return "passive" if flags & _OPENED_PASSIVE else None


def _rst_reason(row: Row, host: HostFacts) -> str | None:
    if row.rst_flags & _HAS_REASON and row.rst_flags & RST_SENT:
        return host.rst_reasons.get(row.rst_reason)
    return None
