# SPDX-License-Identifier: Apache-2.0
"""Did bytes get lost by this end? Told from the socket's own sequence numbers at CLOSE.

Lost are bytes of ours that the peer's TCP never acknowledged, and bytes of the peer's that
were thrown away unread. What the peer's application made of acknowledged bytes no host can
tell from outside, nor what the peer still had to send.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tracer.classify_abortive import unread_bytes
from tracer.columns import Rows
from tracer.tcp import ConnFlag, Kind, SkFlag, TcpState
from tracer.verdict import FALSE, NULL, RULES, TRUE, Reason

if TYPE_CHECKING:
    from tracer.columns import Mask, Numbers
    from tracer.wire import Records

Losses = npt.NDArray[np.uint8]

DEAD, DONE = int(SkFlag.DEAD), int(SkFlag.DONE)
DATA_AFTER_CLOSE = int(Reason.DATA_AFTER_CLOSE)
ELSEWHERE = int(ConnFlag.MPTCP_SUBFLOW | ConnFlag.REPAIR)
"""Bytes of an MPTCP subflow can travel by another one, and are read by another socket; what is
in repair mode may live on in another process or on another host."""

# Our FIN is queued in these states, and takes the last sequence number.
_FIN_QUEUED = np.zeros(256, np.uint32)
_FIN_QUEUED[[TcpState.FIN_WAIT1, TcpState.CLOSING, TcpState.LAST_ACK]] = 1

# What a Reason says by itself. Attempts never had a connection to lose from.
_LOOK = 255
_BY_KIND = {
    Kind.ACTIVE: FALSE,  # by FINs alone: each byte was acknowledged
    Kind.PASSIVE: FALSE,
    Kind.SIMULTANEOUS: FALSE,
    Kind.ABORT: _LOOK,
    Kind.RESET: _LOOK,
    Kind.TIMEOUT: _LOOK,
}


def _by_reason() -> Losses:
    table = np.full(256, NULL, np.uint8)
    for reason, rule in RULES.items():
        table[reason] = _BY_KIND.get(rule.kind, NULL)
    return table


# After these the socket is gone, or emptied; after the others what came can still be read.
_UNREAD_IS_GONE = np.zeros(256, np.bool_)
_UNREAD_IS_GONE[[reason for reason, rule in RULES.items() if rule.kind is Kind.ABORT]] = True
_UNREAD_IS_GONE[[Reason.SOCK_DESTROY, Reason.SOCK_DESTROY_SILENT]] = False

_BY_REASON = _by_reason()


def data_lost(records: Records, reasons: npt.NDArray[np.uint8]) -> Losses:
    """Return TRUE, FALSE or NULL for each record, given what judge() said of it."""
    lost = _BY_REASON[reasons]
    by_fins = lost == FALSE
    orphans = (records["old_state"] == TcpState.FIN_WAIT2) & ((records["sk_flags"] & DONE) == 0)
    lost[orphans & by_fins] = NULL  # a mini-socket saw the rest
    let_go = by_fins & (records["unread"] != 0) & ((records["sk_flags"] & DEAD) != 0)
    if let_go.any():
        index = np.flatnonzero(let_go)
        lost[index[_is_thrown_away(Rows(records, index))]] = TRUE
    index = np.flatnonzero(lost == _LOOK)
    if len(index):
        lost[index] = lost_early(Rows(records, index), reasons[index])
    return lost


def _is_thrown_away(rows: Rows) -> Mask:
    # close() with unread data sends a RST. But where a sockmap's program had taken the data
    # out of TCP's own queue, a FIN leaves all the same.
    unread = unread_bytes(rows.column("unread"), rows.has("sk_flags", DONE))
    thrown_away: Mask = (unread != 0) & ~rows.has("flags", ELSEWHERE)
    return thrown_away


def lost_early(rows: Rows, reasons: npt.NDArray[np.uint8]) -> Losses:
    """Return the same for rows that are aborts, resets or timeouts."""
    unread = unread_bytes(rows.column("unread"), rows.has("sk_flags", DONE))
    gone: Mask = (_outstanding(rows) != 0) | (_UNREAD_IS_GONE[reasons] & (unread != 0))
    gone |= reasons == DATA_AFTER_CLOSE  # at least what was answered with the RST
    return np.where(rows.has("flags", ELSEWHERE), np.uint8(NULL), gone.astype(np.uint8))


def _outstanding(rows: Rows) -> Numbers:
    # Bytes of ours that were not acknowledged, sent or not; our FIN is none of them.
    total = rows.counts("at_close", "unacked") + rows.counts("at_close", "unsent")
    outstanding: Numbers = total - np.minimum(total, _FIN_QUEUED[rows.column("old_state")])
    return outstanding
