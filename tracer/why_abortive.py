# SPDX-License-Identifier: Apache-2.0
"""Sentences for closes that did not end by FINs alone."""

from __future__ import annotations

from tracer.verdict import Reason
from tracer.why_facts import Facts, Sentence, always, duration, plural, who


def _rst(f: Facts) -> str:
    # What became of the RST of an abort, as a clause.
    if not f.rst_sent:
        return "no RST was seen to leave"
    return "we sent a RST" + (f" ({f.rst_reason})" if f.rst_reason else "")


# What the peer threw away with its RST, this end cannot know.
_BY_PEER = (Reason.RST_RECEIVED, Reason.RST_INFERRED)
# These sentences name the bytes themselves.
_NAMES_UNREAD = (Reason.UNREAD_DATA, Reason.RST_RECEIVED)
_NAMES_UNSENT = (Reason.UNSENDABLE, Reason.ZERO_WINDOW_TIMEOUT)
_NAMES_OUTSTANDING = (Reason.RETRANSMIT_TIMEOUT, *_NAMES_UNSENT)


def lost(f: Facts) -> str:
    """Return what this end lost, as a clause behind the sentence; nothing where unknown."""
    if f.data_lost is None:
        return ""
    if not f.data_lost:
        of_ours = f.reason in _BY_PEER
        return "; all bytes of ours were acknowledged" if of_ours else "; nothing was lost"
    clauses = []
    if f.unread_bytes and f.reason not in _NAMES_UNREAD:
        clauses.append(f"{plural(f.unread_bytes, 'byte')} of the peer's never read")
    if f.unacked_bytes and f.reason not in _NAMES_OUTSTANDING:
        clauses.append(f"{plural(f.unacked_bytes, 'byte')} of ours never acknowledged")
    if f.unsent_bytes and f.reason not in _NAMES_UNSENT:
        clauses.append(f"{plural(f.unsent_bytes, 'byte')} of ours never sent")
    return f"; lost: {', '.join(clauses)}" if clauses else ""


def _error(f: Facts) -> str:
    return f" ({f.err})" if f.err else ""


def _unread_data(f: Facts) -> str:
    unread = plural(f.unread_bytes, "byte") if f.unread_bytes else "data"
    return f"{who(f)} without reading {unread} the peer had sent: {_rst(f)}"


def _linger_zero(f: Facts) -> str:
    return f"{who(f)} with SO_LINGER 0, which throws the connection away: {_rst(f)}"


# What it is for the peer that nobody is left to repeat the FIN.
_NO_RST_NEEDED = (
    "all data and the FIN had been sent, so no RST was needed, and the FIN will not be repeated"
)


def _disconnect_silent(f: Facts) -> str:
    if f.old_state not in {"LAST_ACK", "CLOSING"}:
        return (
            "the application disconnected the socket (connect to AF_UNSPEC) in repair mode "
            "(TCP_REPAIR): the kernel forgets the connection without a word"
        )
    return (
        "the application disconnected the socket (connect to AF_UNSPEC) in "
        f"{f.old_state}: {_NO_RST_NEEDED}"
    )


def _data_after_close(f: Facts) -> str:
    answer = _rst(f) if f.rst_sent else "the kernel answers that with a RST"
    return f"the peer sent more in {f.old_state}, when nobody could read it any more: {answer}"


def _disconnect(f: Facts) -> str:
    return f"the application disconnected the socket (connect to AF_UNSPEC): {_rst(f)}"


def _out_of_memory_at_close(f: Facts) -> str:
    return f"{who(f)} while too many orphans or too much TCP memory were in use: {_rst(f)}"


def _out_of_memory_in_timer(f: Facts) -> str:
    return (
        f"a timer found the orphaned socket in {f.old_state} while too many orphans or too much "
        f"TCP memory were in use: {_rst(f)}"
    )


def _linger2_negative(f: Facts) -> str:
    return f"TCP_LINGER2 is negative, so FIN_WAIT2 was not waited for: {_rst(f)}"


def _sock_destroy(f: Facts) -> str:
    return f"the socket was destroyed from outside in {f.old_state} (ss -K or alike): {_rst(f)}"


def _listener_closed(f: Facts) -> str:
    return f"the listening socket was closed before this connection was accepted: {_rst(f)}"


def _abort_unexplained(f: Facts) -> str:
    return f"{_rst(f)} in {f.old_state}; the evidence does not say why"


def _rst_received(f: Facts) -> str:
    error = f", and the application sees {f.err}" if f.err else ""
    unread = f"; {plural(f.unread_bytes, 'byte')} can still be read" if f.unread_bytes else ""
    return f"the peer sent a RST in {f.old_state}{error}{unread}"


def _rst_inferred(f: Facts) -> str:
    return (
        f"the socket ended with {f.err or 'an error'} in {f.old_state}, as by a RST from the peer"
    )


def _retransmit_timeout(f: Facts) -> str:
    what = plural(f.unacked_bytes, "byte") if f.unacked_bytes else "our FIN"
    return (
        f"the peer did not acknowledge {what} in {f.old_state}; given "
        f"up after {plural(f.retransmits, 'retransmission')}{_error(f)}"
    )


def _unsendable(f: Facts) -> str:
    what = plural(f.unsent_bytes, "byte") if f.unsent_bytes else "our FIN"
    return (
        f"{what} could not leave this host in {f.old_state}, as without a route, though the "
        f"peer's window had room; given up after {plural(f.probes_out, 'attempt')}{_error(f)}"
    )


def _zero_window_timeout(f: Facts) -> str:
    what = plural(f.unsent_bytes, "byte") if f.unsent_bytes else "our FIN"
    return (
        f"{what} could not be sent in {f.old_state}; given up after "
        f"{plural(f.probes_out, 'unanswered window probe')}{_error(f)}"
    )


def _user_timeout(f: Facts) -> str:
    return (
        f"the peer did not answer within TCP_USER_TIMEOUT, "
        f"{duration(f.user_timeout_ms * 1_000)}, in {f.old_state}{_error(f)}"
    )


def _keepalive(f: Facts) -> str:
    return (
        f"the idle peer did not answer {plural(f.probes_out, 'keepalive probe')} "
        f"in {f.old_state}{_error(f)}"
    )


def _fin_wait2_timer(f: Facts) -> str:
    return f"our FIN was acknowledged, but the peer's did not come before the timeout: {_rst(f)}"


def _timeout_unexplained(f: Facts) -> str:
    return f"a timer ended the socket in {f.old_state}{_error(f)}; which one is not known"


def _syn_error(f: Facts) -> str:
    return f"the connection attempt failed in {f.old_state}{_error(f)}"


def _syn_timeout(f: Facts) -> str:
    segment = "SYN" if f.old_state == "SYN_SENT" else "SYN and ACK"
    return (
        f"the peer did not answer our {segment}; given up after "
        f"{plural(f.retransmits, 'retransmission')}"
    )


def _syn_user_timeout(f: Facts) -> str:
    return (
        "the connection attempt was not answered within TCP_USER_TIMEOUT, "
        f"{duration(f.user_timeout_ms * 1_000)}"
    )


ABORTIVE: dict[Reason, Sentence] = {
    Reason.UNREAD_DATA: _unread_data,
    Reason.LINGER_ZERO: _linger_zero,
    Reason.DATA_AFTER_CLOSE: _data_after_close,
    Reason.DISCONNECT: _disconnect,
    Reason.OUT_OF_MEMORY_AT_CLOSE: _out_of_memory_at_close,
    Reason.OUT_OF_MEMORY_IN_TIMER: _out_of_memory_in_timer,
    Reason.LINGER2_NEGATIVE: _linger2_negative,
    Reason.SOCK_DESTROY: _sock_destroy,
    Reason.REPAIR: lambda f: (
        f"{who(f)} in repair mode (TCP_REPAIR): the kernel forgets the connection without a word"
    ),
    Reason.LINGER_ZERO_SILENT: lambda f: (
        f"{who(f)} with SO_LINGER 0 in {f.old_state}: {_NO_RST_NEEDED}"
    ),
    Reason.DISCONNECT_SILENT: _disconnect_silent,
    Reason.SOCK_DESTROY_SILENT: lambda f: (
        f"the socket was destroyed from outside in {f.old_state} (ss -K or alike): the kernel "
        "sends no RST there, and will not repeat the FIN"
    ),
    Reason.LISTENER_CLOSED: _listener_closed,
    Reason.ABORT_UNEXPLAINED: _abort_unexplained,
    Reason.RST_RECEIVED: _rst_received,
    Reason.RST_INFERRED: _rst_inferred,
    Reason.RETRANSMIT_TIMEOUT: _retransmit_timeout,
    Reason.UNSENDABLE: _unsendable,
    Reason.ZERO_WINDOW_TIMEOUT: _zero_window_timeout,
    Reason.USER_TIMEOUT: _user_timeout,
    Reason.KEEPALIVE: _keepalive,
    Reason.FIN_WAIT2_TIMER: _fin_wait2_timer,
    Reason.TIMEOUT_UNEXPLAINED: _timeout_unexplained,
    Reason.SYN_REFUSED: always(
        "the peer answered our SYN with a RST: nothing listens there, or a firewall said so"
    ),
    Reason.SYN_UNREACHABLE: always(
        "the connection was refused without a RST seen, as by an ICMP port unreachable"
    ),
    Reason.SYN_TIMEOUT: _syn_timeout,
    Reason.SYN_USER_TIMEOUT: _syn_user_timeout,
    Reason.SYN_ERROR: _syn_error,
    Reason.SYN_RECV_RESET: always("the peer sent a RST before the connection was established"),
    Reason.SYN_CLOSED: lambda f: f"{who(f)} before the connection was established",
    Reason.SYN_DISCONNECT: always(
        "the application gave the connection attempt up before it was established"
    ),
    Reason.SYN_NEVER_SENT: always("the SYN never left: connect() failed on this host"),
    Reason.SYN_LISTENER_CLOSED: always(
        "the listening socket was closed before this connection was established"
    ),
    Reason.SYN_DESTROYED: always(
        "the socket was destroyed from outside before it was established (ss -K or alike)"
    ),
    Reason.SYN_UNEXPLAINED: lambda f: (
        f"the connection attempt ended in {f.old_state}, and nothing tells why"
    ),
}
