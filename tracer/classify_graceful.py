# SPDX-License-Identifier: Apache-2.0
"""Closes that ended by FINs alone: who was first, and what carried the first FIN's ACK.

Every counter the rules use counts segments on the wire, GSO and GRO included.
Where a rule cannot prove its answer it says so: no rule guesses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tracer.tcp import ConnFlag
from tracer.verdict import Reason

if TYPE_CHECKING:
    from tracer.columns import Mask, Numbers, Rows

Reasons = npt.NDArray[np.uint8]

OLD_ANSWERED = int(ConnFlag.OLD_ANSWERED)
PURE_ACK = np.uint8(Reason.PURE_ACK)
PURE_OR_DATA = np.uint8(Reason.PURE_OR_DATA)
PURE_ACK_SEEN = np.uint8(Reason.PURE_ACK_SEEN)
HOOK_CONTRADICTS = np.uint8(Reason.HOOK_CONTRADICTS)

SHORTEST_PROBE_NS = 200_000_000
"""TCP_RTO_MIN (HZ/5): no zero-window probe follows data sooner (tcp_probe0_base)."""
SHORTEST_KEEPALIVE_NS = 1_000_000_000
"""TCP_KEEPIDLE is in whole seconds: no keepalive of either side follows data sooner."""


Codes = tuple[np.uint8, ...]


def codes(*reasons: Reason) -> Codes:
    """Return reasons as select() takes them; the last one is for the rows left over.

    Made once: looking up an enum's member costs as much as a mask of a small batch.
    """
    return tuple(np.uint8(reason) for reason in reasons)


def select(reasons: Codes, conditions: tuple[Mask, ...]) -> Reasons:
    """Return for every row the reason of the first condition that holds.

    np.select() says the same; its checks cost more than the rules of a small batch.
    """
    chosen = np.empty(len(conditions[0]), np.uint8)
    chosen.fill(reasons[-1])
    for condition, reason in zip(conditions[::-1], reasons[-2::-1], strict=True):
        np.copyto(chosen, reason, where=condition)
    return chosen


def since(rows: Rows, earlier: str, later: str, name: str) -> Numbers:
    """Return how far one field of a struct tcp_counts went from one moment to another."""
    difference: Numbers = rows.counts(later, name) - rows.counts(earlier, name)
    return difference


_PASSIVE = codes(
    Reason.FIN_CARRIED_ACK,
    Reason.LAST_DATA_CARRIED_ACK,
    Reason.LAST_ACK_UNSEEN,
    Reason.PASSIVE_COUNTERS,
)


def passive(rows: Rows) -> Reasons:
    """Judge LAST_ACK->CLOSE with everything acknowledged.

    tcp_select_window() sets rcv_wup := rcv_nxt for every segment that leaves, and
    nothing follows the peer's FIN in sequence: rcv_unacked != 0 when our FIN was
    queued means that no segment had acknowledged the peer's FIN by then.
    """
    fin_unacked = rows.counts("at_fin_sent", "rcv_unacked") != 0
    one_segment = since(rows, "at_fin_sent", "at_close", "segs_out") == 1
    alone = rows.counts("at_fin_sent", "unsent") == 0
    seen = rows.column("fin_sent_ns") != 0
    merged = seen & fin_unacked & one_segment
    reasons = select(
        _PASSIVE,
        (
            merged & alone,
            merged,
            ~seen,
        ),
    )
    separate = seen & ~fin_unacked
    if separate.any():
        reasons[separate] = _acked_before_our_fin(rows.only(separate))
    several = seen & fin_unacked & ~one_segment
    if several.any():
        reasons[several] = _several_segments(rows.only(several))
    hooked = seen & (rows.column("ack_sent_ns") != 0)
    if hooked.any():
        _agree_with_hook(reasons, hooked)
    return reasons


def _agree_with_hook(reasons: Reasons, hooked: Mask) -> None:
    # The hook saw a bare segment leave in CLOSE_WAIT that was the first to acknowledge
    # the peer's FIN. Where the counters had two answers this is the one.
    agreed = (reasons == PURE_ACK) | (reasons == PURE_OR_DATA)
    reasons[hooked & agreed] = PURE_ACK_SEEN
    reasons[hooked & ~agreed] = HOOK_CONTRADICTS


_ACKED_BEFORE = codes(
    Reason.FIN_ARRIVAL_UNSEEN,
    Reason.PASSIVE_COUNTERS,
    Reason.PURE_ACK,
    Reason.PURE_OR_DATA,
    Reason.DATA_CARRIED_ACK,
)


def _acked_before_our_fin(rows: Rows) -> Reasons:
    # Four segments. What left between the peer's FIN and ours tells the carrier.
    segments = since(rows, "at_halfway", "at_fin_sent", "segs_out")
    data = since(rows, "at_halfway", "at_fin_sent", "data_segs_out")
    mixed = (data > 0) & (data < segments)
    reasons = select(
        _ACKED_BEFORE,
        (
            rows.column("fin_received_ns") == 0,
            (segments == 0) | (data > segments),
            data == 0,
            mixed,
        ),
    )
    untold = reasons == PURE_OR_DATA
    if untold.any():
        pure = _pure_came_first(rows.only(untold))
        reasons[untold] = np.where(pure, PURE_ACK, PURE_OR_DATA)
    return reasons


def _pure_came_first(rows: Rows) -> Mask:
    # Both bare ACKs and data left in CLOSE_WAIT. Had data been first it would have
    # cleared the pending ACK, and another bare segment needs another cause: a
    # repeated FIN or data, an ACK that older ones overtook (tcp_send_dupack), a
    # zero-window probe of ours, a keepalive of either side.
    waited_ns = rows.column("fin_sent_ns") - rows.column("fin_received_ns")
    window = rows.counts("at_halfway", "snd_wnd").astype(np.int64)
    room = window - rows.counts("at_halfway", "unacked")
    payload = rows.column("bytes_sent")
    never_blocked = (room > 0) & (payload <= np.maximum(room, 0).astype(np.uint64))
    too_soon_for_others = (waited_ns < SHORTEST_PROBE_NS) | (
        (waited_ns < SHORTEST_KEEPALIVE_NS) & never_blocked
    )
    repeated = (rows.column("dup_fin") != 0) | rows.has("flags", OLD_ANSWERED)
    repeated |= since(rows, "at_halfway", "at_fin_sent", "data_segs_in") != 0
    pure: Mask = too_soon_for_others & ~repeated
    return pure


_SEVERAL = codes(
    Reason.PASSIVE_COUNTERS,
    Reason.FIN_CARRIED_ACK_RESENT,
    Reason.QUEUED_DATA_CARRIED_ACK,
    Reason.QUEUED_DATA_OR_PURE,
    Reason.EXTRA_SEGMENTS,
)


def _several_segments(rows: Rows) -> Reasons:
    # The peer's FIN was unacknowledged when ours was queued, and more than one
    # segment left after that: retransmissions, queued data, or bare ACKs.
    left = since(rows, "at_fin_sent", "at_close", "segs_out")
    data = since(rows, "at_fin_sent", "at_close", "data_segs_out")
    resent = since(rows, "at_fin_sent", "at_close", "total_retrans")
    unsent = rows.counts("at_fin_sent", "unsent")
    in_flight = rows.counts("at_fin_sent", "unacked")
    window_open = rows.counts("at_fin_sent", "snd_wnd") > 0
    # Only our FIN was left: what was resent is that FIN, unless older data was in
    # flight and was resent too, perhaps before the FIN could leave.
    lone_fin = (unsent == 0) & window_open & (left == resent + 1)
    fin_resent = lone_fin & ((in_flight == 0) | (data == 0))
    # tcp_send_fin() puts the FIN on the last queued data: every new segment has data.
    tail_resent = (unsent > 0) & (in_flight == 0) & (left == data) & (data == resent + 1)
    queued_first = (unsent > 0) & (data >= resent + 2)
    return select(
        _SEVERAL,
        (
            (left == 0) | (data > left),
            fin_resent | tail_resent,
            queued_first & (left == data),
            queued_first,
        ),
    )


_CLOSING = codes(
    Reason.CLOSING_UNSEEN,
    Reason.FIN_STILL_QUEUED,
    Reason.FINS_CROSSED,
)


def closing(rows: Rows) -> Reasons:
    """Judge CLOSING->CLOSE with everything acknowledged.

    A FIN still queued when the peer's came did not cross it: on the wire the
    peer's was first, and tcp_fin() acknowledged it by itself before ours left.
    """
    return select(
        _CLOSING,
        (
            rows.column("fin_received_ns") == 0,
            rows.counts("at_halfway", "unsent") != 0,
        ),
    )
