# SPDX-License-Identifier: Apache-2.0
"""Sentences for closes that ended by FINs alone."""

from __future__ import annotations

from typing import Final

from tracer.tcp import AckFate
from tracer.verdict import Reason
from tracer.why_facts import Facts, Sentence, duration, plural, who

DELACK_MIN_US = 40_000
"""TCP_DELACK_MIN (HZ/25): a timer of this length is not shortened further."""
DELACK_MAX_US = 200_000
"""TCP_DELACK_MAX (HZ/5)."""


def _waited(f: Facts) -> str:
    return "an unknown time" if f.close_wait_us is None else duration(f.close_wait_us)


def _delayed_ack(f: Facts) -> str:
    # The timer our FIN was quicker than. Above the minimum the round trip may shorten it.
    if f.ato_us is None:
        return "the delayed ACK"
    if f.ato_us == 0:
        no_data = ", since no data had ever come" if f.rx_bytes == 0 else ""
        return f"the delayed ACK, due at the next timer tick{no_data}"
    if f.ato_us <= DELACK_MIN_US:
        return f"the {duration(f.ato_us)} delayed ACK"
    return f"the delayed ACK, due within {duration(min(f.ato_us, DELACK_MAX_US))}"


def _repeated(f: Facts) -> str:
    return "; the peer repeated its FIN" if f.fin_repeated else ""


def _fin_carried_ack(f: Facts) -> str:
    return (
        f"three segments: the peer's FIN waited {_waited(f)}, nothing was left to send, "
        f"and {who(f)} before {_delayed_ack(f)}"
    )


def _last_data_carried_ack(f: Facts) -> str:
    return (
        f"three segments: the peer's FIN waited {_waited(f)}, and {who(f)} before "
        f"{_delayed_ack(f)}: the last {plural(max(f.unsent_at_fin_bytes, 1), 'byte')}, "
        "our FIN and the ACK left as one segment"
    )


def _fin_carried_ack_resent(f: Facts) -> str:
    return (
        f"three segments: the peer's FIN waited {_waited(f)}, and {who(f)} before "
        f"{_delayed_ack(f)}; our FIN carried the ACK and had to be sent again"
    )


_FATES: Final = {
    AckFate.TIMER: ", by the delayed-ACK timer{after}",
    AckFate.TICK: ", by a timer of one tick{after}, since no data had ever come",
    AckFate.QUICK_ROUTE: ", at once, as the route says quickack",
    AckFate.REPEATED_FIN: ", when the peer repeated it{after}",
    AckFate.HOLE_FILLED: ", at once, as a segment before it had been missing until then",
    AckFate.FULL_FRAME: ", at once, with more than a full-sized segment to acknowledge",
    AckFate.AT_ONCE: ", at once",
}


def _fate(f: Facts) -> str:
    # How an ACK that travelled alone went, as a phrase; nothing where that is not known.
    after = "" if f.ack_after_us is None else f" after {duration(f.ack_after_us)}"
    return _FATES.get(f.ack_fate, "").format(after=after)


def _pure_ack(f: Facts) -> str:
    repeated = "" if f.ack_fate is AckFate.REPEATED_FIN else _repeated(f)
    return (
        f"four segments: the peer's FIN was acknowledged by a segment of its own{_fate(f)}, "
        f"and {who(f)} {_waited(f)} after it came{repeated}"
    )


def _pure_ack_seen(f: Facts) -> str:
    return (
        "four segments: the ACK of the peer's FIN was seen leaving by itself, "
        f"and {who(f)} {_waited(f)} after the FIN came{_repeated(f)}"
    )


def _data_carried_ack(f: Facts) -> str:
    return (
        "four segments: the ACK of the peer's FIN rode on data we still had to send, "
        f"and {who(f)} {_waited(f)} after it came"
    )


def _pure_or_data(f: Facts) -> str:
    return (
        f"four segments: {who(f)} {_waited(f)} after the peer's FIN; data and bare ACKs left "
        f"in between, and which acknowledged the FIN cannot be told{_repeated(f)}"
    )


def _fin_arrival_unseen(f: Facts) -> str:
    return (
        f"four segments: the peer's FIN had been acknowledged before {who(f)}; it came unseen "
        "by the tracer, so what carried the ACK is not known"
    )


def _queued_data(f: Facts) -> str:
    return (
        f"four segments: {who(f)} {_waited(f)} after the peer's FIN with "
        f"{plural(f.unsent_at_fin_bytes, 'byte')} still to send, "
    )


def _queued_data_carried_ack(f: Facts) -> str:
    return _queued_data(f) + "and the first of that data carried the ACK"


def _queued_data_or_pure(f: Facts) -> str:
    return _queued_data(f) + "and whether data or a bare ACK went first cannot be told"


def _extra_segments(f: Facts) -> str:
    return (
        f"the peer closed first; its FIN waited {_waited(f)} unacknowledged until {who(f)}, but "
        f"{plural(f.segments, 'segment')} left after that, so whether our FIN carried the ACK "
        "cannot be told"
    )


def _last_ack_unseen(_: Facts) -> str:
    return (
        "the peer closed first and then our side; both unseen by the tracer, "
        "so how the FINs were acknowledged is not known"
    )


def _passive_counters(f: Facts) -> str:
    return (
        f"the peer closed first, and {who(f)} {_waited(f)} later; the segment counters contradict "
        "each other, so how the FINs were acknowledged is not known"
    )


def _fin_still_queued(f: Facts) -> str:
    # Without data to hold it, this host's own queue does: tcp_small_queue_check().
    data = " with data still to send" if f.unsent_at_fin_bytes else ""
    return (
        f"four segments: {who(f)}{data}, and the peer's FIN came, and was acknowledged by a "
        "segment of its own, before our FIN could leave"
    )


def _hook_contradicts(f: Facts) -> str:
    return (
        f"the peer closed first, and {who(f)} {_waited(f)} later; a hook saw the FIN acknowledged "
        "by a segment of its own and the counters did not, so how is not known"
    )


def _time_wait(f: Facts) -> str:
    # What became of the active side, as a clause.
    if f.time_wait is None:
        return ""
    if not f.peer_fin_seen:
        held = "a mini-socket awaits the peer's FIN" if f.time_wait else "no room was left to await"
        return f"; {held}" + ("" if f.time_wait else " the peer's FIN")
    return "" if f.time_wait else "; no room was left for TIME_WAIT"


def _peer_fin_carried_ack(f: Facts) -> str:
    return (
        f"three segments: {who(f)} first, and the peer's FIN carried the ACK of ours{_time_wait(f)}"
    )


def _peer_pure_ack(f: Facts) -> str:
    then = ", and its own FIN came later" if f.peer_fin_seen else ""
    return (
        f"four segments: {who(f)} first, the peer acknowledged our FIN by a segment of its own"
        f"{then}{_time_wait(f)}"
    )


def _peer_data_carried_ack(f: Facts) -> str:
    then = ", and its FIN came later" if f.peer_fin_seen else ""
    return (
        f"four segments: {who(f)} first, data from the peer carried the ACK of our FIN"
        f"{then}{_time_wait(f)}"
    )


def _peer_pure_or_data(f: Facts) -> str:
    return (
        f"four segments: {who(f)} first, and our FIN was acknowledged before the peer sent its "
        f"own; data came meanwhile, and what carried the ACK cannot be told{_time_wait(f)}"
    )


def _fin_ack_unseen(f: Facts) -> str:
    return (
        "four segments: our side closed first, and our FIN had been acknowledged before the "
        f"tracer saw this socket, so what carried the ACK is not known{_time_wait(f)}"
    )


def _one_skb(f: Facts) -> str:
    return (
        f"{who(f)} first; the ACK of our FIN and the peer's FIN were processed together, but "
        f"{plural(f.segments, 'segment')} came, so three or four segments, or FINs that crossed, "
        "cannot be told"
        f"{_time_wait(f)}"
    )


def _active_counters(f: Facts) -> str:
    return (
        f"{who(f)} first; the segment counters contradict each other, "
        f"so how the FINs were acknowledged is not known{_time_wait(f)}"
    )


def _fin_ack_missed(f: Facts) -> str:
    return (
        f"{who(f)} first; the moment our FIN was acknowledged was missed, so three or four "
        f"segments cannot be told{_time_wait(f)}"
    )


def _peer_fin_out_of_order(f: Facts) -> str:
    return (
        f"{who(f)} first; segments came out of order after that, so whether the peer's FIN brought "
        f"the ACK of ours cannot be told{_time_wait(f)}"
    )


def _peer_fin_may_be_refused(f: Facts) -> str:
    return (
        f"{who(f)} first; data came with the peer's FIN, and this socket had dropped a segment: "
        "if that was the same FIN, sent before, whether it crossed ours or brought its ACK "
        f"cannot be told{_time_wait(f)}"
    )


def _fins_crossed(f: Facts) -> str:
    return (
        f"both sides closed at once: {who(f)}, and the peer's FIN came before it had seen ours"
        f"{_time_wait(f)}"
    )


def _closing_unseen(f: Facts) -> str:
    return (
        "both sides had closed before the tracer saw this socket; our FIN was acknowledged last"
        f"{_time_wait(f)}"
    )


GRACEFUL: dict[Reason, Sentence] = {
    Reason.FIN_CARRIED_ACK: _fin_carried_ack,
    Reason.LAST_DATA_CARRIED_ACK: _last_data_carried_ack,
    Reason.FIN_CARRIED_ACK_RESENT: _fin_carried_ack_resent,
    Reason.PURE_ACK: _pure_ack,
    Reason.PURE_ACK_SEEN: _pure_ack_seen,
    Reason.HOOK_CONTRADICTS: _hook_contradicts,
    Reason.DATA_CARRIED_ACK: _data_carried_ack,
    Reason.PURE_OR_DATA: _pure_or_data,
    Reason.FIN_ARRIVAL_UNSEEN: _fin_arrival_unseen,
    Reason.QUEUED_DATA_CARRIED_ACK: _queued_data_carried_ack,
    Reason.QUEUED_DATA_OR_PURE: _queued_data_or_pure,
    Reason.EXTRA_SEGMENTS: _extra_segments,
    Reason.LAST_ACK_UNSEEN: _last_ack_unseen,
    Reason.PASSIVE_COUNTERS: _passive_counters,
    Reason.FIN_STILL_QUEUED: _fin_still_queued,
    Reason.PEER_FIN_CARRIED_ACK: _peer_fin_carried_ack,
    Reason.PEER_PURE_ACK: _peer_pure_ack,
    Reason.PEER_DATA_CARRIED_ACK: _peer_data_carried_ack,
    Reason.PEER_PURE_OR_DATA: _peer_pure_or_data,
    Reason.FIN_ACK_UNSEEN: _fin_ack_unseen,
    Reason.ONE_SKB: _one_skb,
    Reason.ACTIVE_COUNTERS: _active_counters,
    Reason.FIN_ACK_MISSED: _fin_ack_missed,
    Reason.PEER_FIN_OUT_OF_ORDER: _peer_fin_out_of_order,
    Reason.PEER_FIN_MAY_BE_REFUSED: _peer_fin_may_be_refused,
    Reason.FINS_CROSSED: _fins_crossed,
    Reason.CLOSING_UNSEEN: _closing_unseen,
}
