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

from tracer.classify_evidence import CLOSING, FIN_QUEUED, LAST_ACK, Ending, states
from tracer.classify_graceful import Reasons, codes, select
from tracer.tcp import ConnFlag, FileRef, HostFacts, RstFlag, TcpState
from tracer.verdict import Reason

if TYPE_CHECKING:
    from tracer.columns import Mask, Numbers, Rows

ECONNABORTED, ETIMEDOUT, ECONNREFUSED = 103, 110, 111
ESTABLISHED, CLOSE_WAIT = int(TcpState.ESTABLISHED), int(TcpState.CLOSE_WAIT)
SYN_SENT, SYN_RECV = int(TcpState.SYN_SENT), int(TcpState.SYN_RECV)
HAS_REASON = int(RstFlag.HAS_REASON)
FILE_NONE, FILE_ALIVE = int(FileRef.NONE), int(FileRef.ALIVE)
REPAIR = int(ConnFlag.REPAIR)
MPTCP_SUBFLOW = int(ConnFlag.MPTCP_SUBFLOW)

UNDECIDED = Reason.NOT_A_CLOSE
"""What a group of rules says of a row that none of them fits."""
BOTH_DIRECTIONS = 3
"""SHUTDOWN_MASK of include/net/sock.h."""
ACCEPTABLE = states(ESTABLISHED, CLOSE_WAIT)
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
    silent = _is_silent(rows, ending, reasons)
    reasons[silent] = _SILENT[reasons[silent]]
    return reasons


_SILENT = np.zeros(256, np.uint8)
_SILENT[[Reason.LINGER_ZERO, Reason.DISCONNECT, Reason.SOCK_DESTROY]] = (
    Reason.LINGER_ZERO_SILENT,
    Reason.DISCONNECT_SILENT,
    Reason.SOCK_DESTROY_SILENT,
)


def _is_silent(rows: Rows, ending: Ending, reasons: Reasons) -> Mask:
    # tcp_need_reset() spares who has both FINs behind it. tcp_disconnect() looks at what
    # is unsent, too, and at repair mode before all else; tcp_abort() does not.
    fins_sent: Mask = (ending.old == LAST_ACK) | (ending.old == CLOSING)
    spared = fins_sent & (~ending.unsent | (reasons == Reason.SOCK_DESTROY))
    spared |= rows.has("flags", REPAIR) & (reasons == Reason.DISCONNECT)
    silent: Mask = (_SILENT[reasons] != 0) & spared & ~ending.active
    return silent


_BY_RST = codes(
    Reason.CONTRADICTION,
    Reason.LINGER2_NEGATIVE,
    Reason.DATA_AFTER_CLOSE,
    Reason.DATA_AFTER_CLOSE,
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
            ending.data_refused & refused_with_ack,
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
    Reason.UNSENDABLE,
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
            failed & ending.unsendable,
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
    Reason.REPAIR,
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
            closing & rows.has("flags", REPAIR),
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
    # A child with data from its SYN (Fast Open) is not followed before its first change of
    # state: the tracepoint of the RST came too early. Only tcp_reset() sets this error.
    reset = ending.received | (~syn_sent & ending.reset_errno)
    return select(
        _ATTEMPT,
        (
            refused & ending.received,
            refused,
            reset,
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
