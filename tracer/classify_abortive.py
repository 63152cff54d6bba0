# SPDX-License-Identifier: Apache-2.0
"""Closes that did not end by FINs: a RST, an error, a timer, or nobody knows.

Conditions are tried in order, the surest evidence first: what the RST
tracepoints saw, the kernel's own reset reason, sk_err, then who held the socket
and what was left in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tracer.classify_graceful import Reasons, codes, select, since
from tracer.tcp import TW_NONE, ConnFlag, FileRef, HostFacts, RstFlag, SkFlag, TcpState
from tracer.verdict import Reason

if TYPE_CHECKING:
    from tracer.columns import Mask, Numbers, Rows

EPIPE, ECONNABORTED, ECONNRESET, ETIMEDOUT, ECONNREFUSED = 32, 103, 104, 110, 111

# Plain integers: numpy takes them as they are, an enum's member costs a conversion.
ESTABLISHED, SYN_SENT, SYN_RECV = (
    int(TcpState[n]) for n in ("ESTABLISHED", "SYN_SENT", "SYN_RECV")
)
FIN_WAIT1, FIN_WAIT2, CLOSING = (int(TcpState[n]) for n in ("FIN_WAIT1", "FIN_WAIT2", "CLOSING"))
CLOSE_WAIT, LAST_ACK = int(TcpState.CLOSE_WAIT), int(TcpState.LAST_ACK)
RECEIVED, AFTER_CLOSE = int(RstFlag.RECEIVED), int(RstFlag.SENT_AFTER_CLOSE)
ACTIVE, REPLY, HAS_REASON = (
    int(RstFlag.SENT_ACTIVE),
    int(RstFlag.SENT_REPLY),
    int(RstFlag.HAS_REASON),
)
DEAD, DONE = int(SkFlag.DEAD), int(SkFlag.DONE)
KEEPOPEN, LINGER = int(SkFlag.KEEPOPEN), int(SkFlag.LINGER)
FILE_NONE, FILE_ALIVE = int(FileRef.NONE), int(FileRef.ALIVE)
CLOSE_OWNED, MPTCP_SUBFLOW = int(ConnFlag.CLOSE_OWNED), int(ConnFlag.MPTCP_SUBFLOW)

UNDECIDED = Reason.NOT_A_CLOSE
"""What a group of rules says of a row that none of them fits."""
RCV_SHUTDOWN, BOTH_DIRECTIONS = 1, 3
"""RCV_SHUTDOWN and SHUTDOWN_MASK of include/net/sock.h."""


def _states(*states: int) -> Mask:
    # A table to be indexed by state.
    table = np.zeros(256, np.bool_)
    table[list(states)] = True
    return table


FIN_QUEUED = _states(FIN_WAIT1, FIN_WAIT2, CLOSING, LAST_ACK)
ACCEPTABLE = _states(ESTABLISHED, CLOSE_WAIT)
"""States of a child that waits to be accepted."""

REASONS_BY_KERNEL_NAME = {
    "TCP_ABORT_ON_CLOSE": Reason.UNREAD_DATA,
    "TCP_ABORT_ON_LINGER": Reason.LINGER2_NEGATIVE,
    "TCP_ABORT_ON_MEMORY": Reason.OUT_OF_MEMORY_AT_CLOSE,
    "TCP_KEEPALIVE_TIMEOUT": Reason.KEEPALIVE,
}
"""enum sk_rst_reason names that leave no doubt; values move between kernels."""


def unread_bytes(unread: Numbers, done: Mask) -> Numbers:
    """Return bytes the application never read: an unread FIN counts one in `unread`."""
    fin: Numbers = ((unread != 0) & done).astype(unread.dtype)
    difference: Numbers = unread - fin
    return difference


def kernel_reasons(host: HostFacts) -> npt.NDArray[np.uint8]:
    """Return Reason by value of this kernel's enum sk_rst_reason, UNDECIDED for no opinion."""
    table = np.full(256, UNDECIDED, np.uint8)
    for value, name in host.rst_reasons.items():
        for suffix, reason in REASONS_BY_KERNEL_NAME.items():
            if name.endswith(suffix) and 0 <= value < len(table):
                table[value] = reason
    return table


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
        self.user_timeout: Mask = rows.column("user_timeout_ms") != 0
        self.reset_errno: Mask = (self.err == ECONNRESET) | (self.err == EPIPE)
        self.lingers_not: Mask = ((flags & LINGER) != 0) & (rows.column("lingertime_jiffies") == 0)
        self.fin_wait2: Mask = self.old == FIN_WAIT2
        self.no_mini_socket: Mask = rows.column("tw_substate") == TW_NONE
        # An orphan takes no data. The report of its answer, a RST, may be lost on
        # the way; the data itself is counted.
        shut = (rows.column("sk_shutdown") & RCV_SHUTDOWN) != 0
        self.deaf: Mask = self.dead & shut & FIN_QUEUED[self.old]
        came = since(rows, "at_fin_sent", "at_close", "data_segs_in") != 0
        taken = since(rows, "at_fin_sent", "at_close", "rcv_nxt") > 1
        fin_seen = rows.column("fin_sent_ns") != 0
        self.data_refused: Mask = self.deaf & fin_seen & came & ~taken
        self.data_perhaps_refused: Mask = self.deaf & ((came & taken) | ~fin_seen)
        self.linger2_negative: Mask = self.fin_wait2 & (rows.column("linger2") < 0)


def abortive(rows: Rows, host: HostFacts) -> Reasons:
    """Judge whatever did not end by FINs alone."""
    ending = Ending(rows)
    attempt = (ending.old == SYN_SENT) | (ending.old == SYN_RECV)
    reasons = _connection(rows, ending, host)
    if attempt.any():
        reasons[attempt] = _attempt(rows, ending)[attempt]
    return reasons


def _connection(rows: Rows, ending: Ending, host: HostFacts) -> Reasons:
    reasons = _by_application(rows, ending)
    surer = (_by_error(ending), _named_by_kernel(rows, ending, host), _by_rst(ending))
    for opinion in surer:
        np.copyto(reasons, opinion, where=opinion != 0)
    return reasons


_BY_RST = codes(
    Reason.CONTRADICTION,
    Reason.LINGER2_NEGATIVE,
    Reason.DATA_AFTER_CLOSE,
    Reason.DATA_AFTER_CLOSE,
    Reason.RESET_EITHER_WAY,
    Reason.RST_RECEIVED,
    UNDECIDED,
)


def _by_rst(ending: Ending) -> Reasons:
    # tcp_rcv_state_process() calls tcp_reset() for data after close: the tracepoint
    # of a received RST fires although we send one, as the answer to that data.
    all_acked = ~ending.unacked & ~ending.unsent
    ended_by_fins = ((ending.old == LAST_ACK) | (ending.old == CLOSING)) & all_acked
    ended_by_fins |= ending.fin_wait2 & ending.done
    fin_queued = FIN_QUEUED[ending.old]
    refused_with_ack = ending.fin_wait2 & ~ending.done & ending.no_mini_socket
    refused_with_ack &= ~ending.active & (ending.err == 0)
    return select(
        _BY_RST,
        (
            ending.received & (ended_by_fins | (ending.active & ending.after_close)),
            ending.reply & ~ending.received & ending.linger2_negative,
            ending.reply & fin_queued,
            ending.data_refused & (ending.received | refused_with_ack),
            ending.data_perhaps_refused & ending.received,
            ending.received,
        ),
    )


def _named_by_kernel(rows: Rows, ending: Ending, host: HostFacts) -> Reasons:
    reasons = np.zeros(len(rows), np.uint8)
    says = np.flatnonzero(rows.has("rst_flags", HAS_REASON) & ending.active)
    if not len(says):
        return reasons
    reasons[says] = kernel_reasons(host)[rows.column("rst_reason")[says]]
    in_timer = (reasons == Reason.OUT_OF_MEMORY_AT_CLOSE) & ~ending.after_close
    reasons[in_timer] = Reason.OUT_OF_MEMORY_IN_TIMER
    reasons[(reasons == Reason.KEEPALIVE) & ending.user_timeout] = Reason.USER_TIMEOUT
    return reasons


_BY_ERROR = codes(
    Reason.SOCK_DESTROY,
    Reason.RST_INFERRED,
    Reason.FIN_WAIT2_TIMER,
    Reason.USER_TIMEOUT,
    Reason.RETRANSMIT_TIMEOUT,
    Reason.ZERO_WINDOW_TIMEOUT,
    Reason.KEEPALIVE,
    Reason.TIMEOUT_UNEXPLAINED,
    Reason.OUT_OF_MEMORY_IN_TIMER,
    UNDECIDED,
)


def _by_error(ending: Ending) -> Reasons:
    # tcp_abort(), keepalive and the timers set sk_err before CLOSE and send their
    # RST, if any, before it; an application's abort leaves sk_err alone. With
    # IP_RECVERR sk_err may be an old ICMP error: a RST after CLOSE overrules it.
    failed = (ending.err != 0) & ~ending.after_close
    waiting = ending.unacked | ending.unsent
    return select(
        _BY_ERROR,
        (
            failed & (ending.err == ECONNABORTED),
            ending.reset_errno & ~ending.active,
            ending.fin_wait2 & ending.dead & ~ending.done & ending.active & ~ending.after_close,
            failed & ending.user_timeout & (waiting | ending.keepopen),
            failed & ending.unacked,
            failed & ending.unsent,
            failed & ending.keepopen,
            failed,
            ending.active & ~ending.after_close & ending.dead,
        ),
    )


_BY_APPLICATION = codes(
    Reason.LINGER2_NEGATIVE,
    Reason.OUT_OF_MEMORY_AT_CLOSE,
    Reason.NO_ERROR_NO_RST,
    Reason.LISTENER_CLOSED,
    Reason.UNREAD_DATA,
    Reason.LINGER_ZERO,
    Reason.DISCONNECT,
    Reason.ABORT_UNEXPLAINED,
    Reason.UNEXPLAINED,
)


def _by_application(rows: Rows, ending: Ending) -> Reasons:
    # What the kernel does inside close(), disconnect and the death of a listener.
    rst_after = ending.active & ending.after_close
    never_accepted = ACCEPTABLE[ending.old] & (ending.file == FILE_NONE)
    closing = ending.owned & ~ending.dead & (ending.file != FILE_ALIVE)
    closing &= rows.column("sk_shutdown") == BOTH_DIRECTIONS
    # The bytes of an MPTCP subflow are read through another socket.
    own_bytes = ~rows.has("flags", MPTCP_SUBFLOW)
    unread = own_bytes & (unread_bytes(rows.column("unread"), ending.done) > 0)
    return select(
        _BY_APPLICATION,
        (
            ending.dead & ending.linger2_negative,
            ending.dead & ending.owned & rst_after,
            ending.dead & ~ending.active & ~ending.reply,
            ~ending.dead & ~ending.owned & never_accepted & rst_after,
            closing & unread,
            closing & ending.lingers_not,
            ~ending.dead & ending.owned & (ending.file == FILE_ALIVE),
            ending.active | ending.reply,
        ),
    )


_ATTEMPT = codes(
    Reason.SYN_REFUSED,
    Reason.SYN_UNREACHABLE,
    Reason.SYN_RECV_RESET,
    Reason.SYN_DESTROYED,
    Reason.SYN_USER_TIMEOUT,
    Reason.SYN_TIMEOUT,
    Reason.SYN_ERROR,
    Reason.SYN_LISTENER_CLOSED,
    Reason.SYN_NEVER_SENT,
    Reason.SYN_DISCONNECT,
    Reason.SYN_CLOSED,
    Reason.SYN_UNEXPLAINED,
)


def _attempt(rows: Rows, ending: Ending) -> Reasons:
    # SYN_SENT or SYN_RECV at the end: it never was a connection.
    syn_sent = ending.old == SYN_SENT
    in_process = ending.owned & (ending.file == FILE_ALIVE)
    refused = syn_sent & (ending.received | (ending.err == ECONNREFUSED))
    timed_out = ending.err == ETIMEDOUT
    orphaned = ~syn_sent & ~ending.owned & (ending.file == FILE_NONE)
    nothing_left = rows.counts("at_close", "segs_out") == 0
    return select(
        _ATTEMPT,
        (
            refused & ending.received,
            refused,
            ending.received,
            ending.err == ECONNABORTED,
            timed_out & ending.user_timeout,
            timed_out,
            ending.err != 0,
            orphaned & ending.active & ending.after_close,
            in_process & syn_sent & nothing_left,
            in_process,
            ending.owned,
        ),
    )
