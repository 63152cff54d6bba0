# SPDX-License-Identifier: Apache-2.0
"""The state of a socket at its end, as masks over many rows: what the rules for resets share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tracer.classify_graceful import since
from tracer.tcp import TW_NONE, ConnFlag, RstFlag, SkFlag, TcpState

if TYPE_CHECKING:
    from tracer.columns import Mask, Rows

# Plain integers: numpy takes them as they are, an enum's member costs a conversion.
EPIPE, ECONNRESET = 32, 104
FIN_WAIT1, FIN_WAIT2, CLOSING = (int(TcpState[n]) for n in ("FIN_WAIT1", "FIN_WAIT2", "CLOSING"))
LAST_ACK = int(TcpState.LAST_ACK)
RECEIVED, AFTER_CLOSE = int(RstFlag.RECEIVED), int(RstFlag.SENT_AFTER_CLOSE)
ACTIVE, REPLY = int(RstFlag.SENT_ACTIVE), int(RstFlag.SENT_REPLY)
DEAD, DONE = int(SkFlag.DEAD), int(SkFlag.DONE)
KEEPOPEN, LINGER = int(SkFlag.KEEPOPEN), int(SkFlag.LINGER)
CLOSE_OWNED = int(ConnFlag.CLOSE_OWNED)
RCV_SHUTDOWN = 1
"""include/net/sock.h."""


def states(*members: int) -> Mask:
    """Return a table to be indexed by state."""
    table = np.zeros(256, np.bool_)
    table[list(members)] = True
    return table


FIN_QUEUED = states(FIN_WAIT1, FIN_WAIT2, CLOSING, LAST_ACK)


class Ending:
    """The evidence of every row that several rules look at, as masks."""

    def __init__(self, rows: Rows) -> None:
        rst = rows.column("rst_flags")
        flags = rows.column("sk_flags")
        self.old = rows.column("old_state")
        self.err = rows.column("sk_err")
        self.received: Mask = (rst & RECEIVED) != 0
        self.after_close: Mask = (rst & AFTER_CLOSE) != 0
        self.active: Mask = (rst & ACTIVE) != 0
        # A RST that answered a bad ACK in SYN_SENT ended nothing.
        answered = (rst & REPLY) != 0
        self.reply: Mask = answered & self.after_close & ~self.active
        self.dead: Mask = (flags & DEAD) != 0
        self.done: Mask = (flags & DONE) != 0
        self.keepopen: Mask = (flags & KEEPOPEN) != 0
        self.owned = rows.has("flags", CLOSE_OWNED)
        self.file = rows.column("close_actor_file_ref")
        self.unacked: Mask = rows.counts("at_close", "unacked") != 0
        self.unsent: Mask = rows.counts("at_close", "unsent") != 0
        # What the peer's window has room for leaves at once, if it can leave at all.
        in_window = rows.counts("at_close", "unsent") <= rows.counts("at_close", "snd_wnd")
        self.unsendable: Mask = self.unsent & in_window
        self.user_timeout: Mask = rows.column("user_timeout_ms") != 0
        self.reset_errno: Mask = (self.err == ECONNRESET) | (self.err == EPIPE)
        self.lingers_not: Mask = ((flags & LINGER) != 0) & (rows.column("lingertime_jiffies") == 0)
        self.fin_wait2: Mask = self.old == FIN_WAIT2
        self.no_mini_socket: Mask = rows.column("tw_substate") == TW_NONE
        # An orphan takes no data. The report of its answer, a RST, may be lost on
        # the way; the data itself is counted.
        shut = (rows.column("sk_shutdown") & RCV_SHUTDOWN) != 0
        came = since(rows, "at_fin_sent", "at_close", "data_segs_in") != 0
        taken = since(rows, "at_fin_sent", "at_close", "rcv_nxt") != 0
        fin_seen = rows.column("fin_sent_ns") != 0
        self.data_refused: Mask = self.dead & shut & fin_seen & came & ~taken
        self.linger2_negative: Mask = self.fin_wait2 & (rows.column("linger2") < 0)
