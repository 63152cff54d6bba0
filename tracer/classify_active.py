# SPDX-License-Identifier: Apache-2.0
"""Closes in which our FIN was first: what carried its ACK, and did the peer's FIN with it come.

The rules count segments as those of the other side do: see classify_graceful.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tracer.classify_graceful import Reasons, codes, select, since
from tracer.tcp import ConnFlag, SkFlag, TcpState
from tracer.verdict import Reason

if TYPE_CHECKING:
    from tracer.columns import Mask, Rows

FIN_ACKED_OWNED = int(ConnFlag.FIN_ACKED_OWNED)
DROPPED = int(ConnFlag.DROPPED)
DONE = int(SkFlag.DONE)
FIN_WAIT1_SEEN = 1 << TcpState.FIN_WAIT1

PEER_PURE_OR_DATA = np.uint8(Reason.PEER_PURE_OR_DATA)
PEER_FIN_MAY_BE_REFUSED = np.uint8(Reason.PEER_FIN_MAY_BE_REFUSED)
CONTRADICTION = np.uint8(Reason.CONTRADICTION)

_ACTIVE = codes(
    Reason.FIN_ACK_UNSEEN,
    Reason.ACTIVE_COUNTERS,
    Reason.PEER_FIN_CARRIED_ACK,
    Reason.ONE_SKB,
    Reason.PEER_PURE_OR_DATA,
    Reason.PEER_PURE_ACK,
    Reason.PEER_DATA_CARRIED_ACK,
    Reason.PEER_PURE_OR_DATA,
)


def active(rows: Rows) -> Reasons:
    """Judge FIN_WAIT2->CLOSE, on the peer's FIN or handed to a mini-socket.

    tcp_clock_cache is refreshed once per skb that tcp_rcv_state_process() sees:
    equal clocks mean that one skb acknowledged our FIN and carried the peer's.
    One skb may still be two segments, coalesced in the socket's backlog or by GRO: the ACK
    and the FIN after it, or a FIN that crossed ours and the ACK that followed it.
    """
    segments = since(rows, "at_fin_sent", "at_halfway", "segs_in")
    data = since(rows, "at_fin_sent", "at_halfway", "data_segs_in")
    acked_ns = rows.column("fin_acked_ns")
    acked_seen, sent_seen = acked_ns != 0, rows.column("fin_sent_ns") != 0
    done = rows.has("sk_flags", DONE)
    one_skb = done & (acked_ns == rows.column("closed_ns"))
    # GRO joins only segments with payload, so outside the backlog a skb without
    # payload was one segment.
    flags = rows.column("flags")
    one_segment = (segments == 1) | ((data == 0) & ((flags & FIN_ACKED_OWNED) == 0))
    reasons = select(
        _ACTIVE,
        (
            ~acked_seen,
            sent_seen & ((segments == 0) | (data > segments)),
            one_skb & sent_seen & one_segment,
            one_skb,
            ~sent_seen,
            data == 0,
            data == segments,
        ),
    )
    untold = (reasons == PEER_PURE_OR_DATA) & sent_seen
    if untold.any():
        reasons[untold] = _mixed_arrivals(rows.only(untold))
    apart = acked_seen & ~one_skb & done
    if apart.any():
        disordered = apart & (rows.column("out_of_order") != 0)
        reasons[disordered] = _out_of_order(rows.only(disordered))
    dropped = (flags & DROPPED) != 0
    if dropped.any():
        reasons[_maybe_refused(rows, dropped) & acked_seen & sent_seen] = PEER_FIN_MAY_BE_REFUSED
    if not acked_seen.all():
        reasons[~acked_seen & rows.has("states_seen", FIN_WAIT1_SEEN)] = CONTRADICTION
    return reasons


def _maybe_refused(rows: Rows, dropped: Mask) -> Mask:
    # Without memory for its data a segment is dropped, and its FIN with it; the ACK in it
    # was taken before. The FIN that ended the connection came with data after ours, then,
    # and says nothing of its first copy. tcp_data_queue() refuses no FIN without data.
    data = since(rows, "at_fin_sent", "at_close", "rcv_nxt") > 1
    refused: Mask = data & rows.has("sk_flags", DONE) & dropped
    return refused


_DISORDERED = codes(
    Reason.PEER_FIN_CARRIED_ACK,
    Reason.PEER_FIN_OUT_OF_ORDER,
)


def _out_of_order(rows: Rows) -> Reasons:
    # The peer's FIN may have come ahead of data that was lost, and have brought the
    # ACK of ours: then it waited in the queue until the data came again. The segment
    # that ended the connection was in order. Were more out of order than the others
    # that came after the ACK, the acknowledging one was: without data, it was the FIN.
    later = since(rows, "at_halfway", "at_close", "segs_in")
    no_data = since(rows, "at_fin_sent", "at_halfway", "data_segs_in") == 0
    in_step = ~rows.has("flags", FIN_ACKED_OWNED) & (rows.column("fin_sent_ns") != 0)
    return select(
        _DISORDERED,
        (in_step & no_data & (rows.column("out_of_order") >= later),),
    )


_MIXED = codes(
    Reason.PEER_PURE_ACK,
    Reason.PEER_DATA_CARRIED_ACK,
    Reason.PEER_PURE_OR_DATA,
)


def _mixed_arrivals(rows: Rows) -> Reasons:
    # Segments with and without payload came between our FIN and its ACK.
    # tcp_rcv_state_process() takes the ACK before it queues the segment's data:
    # at_halfway.rcv_nxt does not count the acknowledging segment's own bytes.
    fin = rows.has("sk_flags", DONE).astype(np.uint32)
    before = since(rows, "at_fin_sent", "at_halfway", "rcv_nxt")
    after = since(rows, "at_halfway", "at_close", "rcv_nxt") - fin
    no_more_data = since(rows, "at_halfway", "at_close", "data_segs_in") == 0
    # The backlog runs behind its counters and joins a segment with the next.
    in_step = ~rows.has("flags", FIN_ACKED_OWNED)
    return select(
        _MIXED,
        (
            (after == 0) & (before > 0),
            in_step & (after > 0) & (no_more_data | (before == 0)),
        ),
    )
