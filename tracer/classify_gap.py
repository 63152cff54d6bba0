# SPDX-License-Identifier: Apache-2.0
"""Records of sockets with a change of state that nobody saw: what still holds.

The old state of the last change is the kernel's own, and every moment that was
seen is as good as ever. The moment that was missed has no time and no counters:
a verdict that rests on it, or on its absence, is taken back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tracer.tcp import Kind, SkFlag, TcpState
from tracer.verdict import Reason, column_of

if TYPE_CHECKING:
    from tracer.classify_graceful import Reasons
    from tracer.columns import Mask, Rows

_KIND = column_of("kind")
FIN_WAIT2, TIME_WAIT, DONE = int(TcpState.FIN_WAIT2), int(TcpState.TIME_WAIT), int(SkFlag.DONE)
UNKNOWN, ACTIVE = int(Kind.UNKNOWN), int(Kind.ACTIVE)
CLOSING_UNSEEN, CONTRADICTION = int(Reason.CLOSING_UNSEEN), int(Reason.CONTRADICTION)


def past_a_gap(rows: Rows, reasons: Reasons) -> Reasons:
    """Return what is left of `reasons`, decided as if nothing had been missed."""
    kind = _KIND[reasons]
    # FIN_WAIT1->CLOSING unseen: whether our FIN had left is not known.
    lost = (kind == UNKNOWN) | (reasons == CLOSING_UNSEEN)
    kept = np.where(lost, np.uint8(Reason.GAP), reasons)
    unacked = (rows.column("fin_acked_ns") == 0) & ((kind == ACTIVE) | (reasons == CONTRADICTION))
    ended = _ended_in_fin_wait2(rows)[unacked]
    kept[unacked] = np.where(ended, np.uint8(Reason.FIN_ACK_MISSED), np.uint8(Reason.GAP))
    return kept


def _ended_in_fin_wait2(rows: Rows) -> Mask:
    # The peer's FIN came, or a mini-socket awaits it.
    mini = np.isin(rows.column("tw_substate"), (FIN_WAIT2, TIME_WAIT))
    ended: Mask = (rows.column("old_state") == FIN_WAIT2) & (rows.has("sk_flags", DONE) | mini)
    return ended
