# SPDX-License-Identifier: Apache-2.0
"""Every row of the decision table that records can express, and what contradicts itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import pytest

from tests.unit import builders as b
from tracer.classify import classify
from tracer.tcp import (
    ActorFlag,
    Cause,
    ConnFlag,
    Evidence,
    FileRef,
    FinAck,
    Handshake,
    HostFacts,
    How,
    Kind,
    RstFlag,
    SkFlag,
)
from tracer.tcp import TcpState as S
from tracer.verdict import FALSE, NULL, RULES, TRUE, VERDICT_DTYPE, Reason
from tracer.wire import CLOSE_DTYPE, decode_closes, encode_closes

if TYPE_CHECKING:
    from tracer.wire import Records

Made: TypeAlias = Callable[[], "Records"]

HAS_REASON = RstFlag.HAS_REASON
DEAD_DONE = SkFlag.DEAD | SkFlag.DONE
LINGER_ZERO = {"sk_flags": SkFlag.LINGER, "lingertime_jiffies": 0}
IN_CLOSE = b.by_process(flags=b.OPENED | b.OWNED, sk_shutdown=3)
LAST_ACK = {
    "states_seen": b.mask(S.ESTABLISHED, S.CLOSE_WAIT, S.LAST_ACK),
    "old_state": S.LAST_ACK,
    "fin_received_ns": b.FIN_NS,
    "fin_sent_ns": b.FIN_NS,
    "at_close__unacked": 1,
}
IN_CLOSING = b.fin_wait1(
    states_seen=b.mask(S.ESTABLISHED, S.FIN_WAIT1, S.CLOSING),
    old_state=S.CLOSING,
    fin_received_ns=b.FIN_NS,
)
FIN_WAIT2 = b.fin_wait1(
    states_seen=b.mask(S.ESTABLISHED, S.FIN_WAIT1, S.FIN_WAIT2),
    old_state=S.FIN_WAIT2,
    fin_acked_ns=b.FIN_NS,
    at_close__unacked=0,
)
QUEUED = {"at_fin_sent__unsent": 5_000, "at_close__data_segs_out": 4, "at_close__segs_out": 11}

PASSIVE: list[tuple[str, Made, Reason]] = [
    ("5/13 FIN alone", b.passive, Reason.FIN_CARRIED_ACK),
    (
        "6/13 FIN on the last data",
        lambda: b.passive(at_fin_sent__unsent=10, at_close__data_segs_out=1),
        Reason.LAST_DATA_CARRIED_ACK,
    ),
    (
        "13 our FIN was repeated",
        lambda: b.passive(at_close__segs_out=10, at_close__total_retrans=2),
        Reason.FIN_CARRIED_ACK_RESENT,
    ),
    (
        "13 our FIN was repeated, older data in flight was not",
        lambda: b.passive(
            at_close__segs_out=9, at_close__total_retrans=1, at_fin_sent__unacked=500
        ),
        Reason.FIN_CARRIED_ACK_RESENT,
    ),
    (
        "13 older data in flight was repeated, perhaps before the FIN left",
        lambda: b.passive(
            at_close__segs_out=9,
            at_close__total_retrans=1,
            at_close__data_segs_out=1,
            at_fin_sent__unacked=500,
        ),
        Reason.EXTRA_SEGMENTS,
    ),
    (
        "13 the last data and our FIN were repeated",
        lambda: b.passive(
            at_fin_sent__unsent=10,
            at_close__segs_out=9,
            at_close__data_segs_out=2,
            at_close__total_retrans=1,
        ),
        Reason.FIN_CARRIED_ACK_RESENT,
    ),
    (
        "5 the window was shut: a bare ACK may have gone first",
        lambda: b.passive(at_fin_sent__snd_wnd=0, at_close__segs_out=9, at_close__total_retrans=1),
        Reason.EXTRA_SEGMENTS,
    ),
    ("5 segments nobody can place", lambda: b.passive(at_close__segs_out=9), Reason.EXTRA_SEGMENTS),
    (
        "6 queued data went first",
        lambda: b.passive(**QUEUED),
        Reason.QUEUED_DATA_CARRIED_ACK,
    ),
    (
        "6 queued data and a bare ACK",
        lambda: b.passive(**(QUEUED | {"at_close__segs_out": 12})),
        Reason.QUEUED_DATA_OR_PURE,
    ),
    (
        "6 one new data segment and a bare ACK",
        lambda: b.passive(at_fin_sent__unsent=9, at_close__data_segs_out=1, at_close__segs_out=9),
        Reason.EXTRA_SEGMENTS,
    ),
    ("5 nothing left at all", lambda: b.passive(at_close__segs_out=7), Reason.PASSIVE_COUNTERS),
    ("7 a bare ACK", b.passive_four, Reason.PURE_ACK),
    (
        "7 data",
        lambda: b.passive_four(at_fin_sent__data_segs_out=1),
        Reason.DATA_CARRIED_ACK,
    ),
    (
        "7 a bare ACK, then data, too soon for anything else",
        lambda: b.passive_four(
            at_fin_sent__segs_out=10,
            at_fin_sent__data_segs_out=2,
            fin_sent_ns=b.FIN_NS + 199 * b.MS,
            at_halfway__snd_wnd=0,
        ),
        Reason.PURE_ACK,
    ),
    (
        "7 both, with time for a window probe, and the window was never shut",
        lambda: b.passive_four(
            at_fin_sent__segs_out=10,
            at_fin_sent__data_segs_out=2,
            fin_sent_ns=b.FIN_NS + 999 * b.MS,
            bytes_sent=60_000,
        ),
        Reason.PURE_ACK,
    ),
    (
        "7 both, with time for a window probe",
        lambda: b.passive_four(
            at_fin_sent__segs_out=10,
            at_fin_sent__data_segs_out=2,
            fin_sent_ns=b.FIN_NS + 999 * b.MS,
            bytes_sent=66_000,
        ),
        Reason.PURE_OR_DATA,
    ),
    (
        "7 both, with time for keepalives",
        lambda: b.passive_four(
            at_fin_sent__segs_out=10,
            at_fin_sent__data_segs_out=2,
            fin_sent_ns=b.FIN_NS + 1_000 * b.MS,
        ),
        Reason.PURE_OR_DATA,
    ),
    (
        "7 both, and the peer repeated its FIN",
        lambda: b.passive_four(at_fin_sent__segs_out=10, at_fin_sent__data_segs_out=2, dup_fin=1),
        Reason.PURE_OR_DATA,
    ),
    (
        "7 both, and the peer repeated data",
        lambda: b.passive_four(
            at_fin_sent__segs_out=10,
            at_fin_sent__data_segs_out=2,
            at_fin_sent__data_segs_in=b.passive_four()["at_halfway"]["data_segs_in"][0] + 1,
        ),
        Reason.PURE_OR_DATA,
    ),
    (
        "7 both, and an old ACK was answered",
        lambda: b.passive_four(
            at_fin_sent__segs_out=10,
            at_fin_sent__data_segs_out=2,
            flags=b.OPENED | ConnFlag.OLD_ANSWERED,
        ),
        Reason.PURE_OR_DATA,
    ),
    (
        "7 a hook saw the ACK",
        lambda: b.passive_four(ack_sent_ns=b.FIN_NS + 40 * b.MS),
        Reason.PURE_ACK_SEEN,
    ),
    (
        "7 both, and a hook saw which came first",
        lambda: b.passive_four(
            at_fin_sent__segs_out=10,
            at_fin_sent__data_segs_out=2,
            dup_fin=1,
            ack_sent_ns=b.FIN_NS + 40 * b.MS,
        ),
        Reason.PURE_ACK_SEEN,
    ),
    (
        "5 a hook saw an ACK that the counters did not",
        lambda: b.passive(ack_sent_ns=b.FIN_NS + 40 * b.MS),
        Reason.HOOK_CONTRADICTS,
    ),
    (
        "7 acknowledged by nothing",
        lambda: b.passive_four(at_fin_sent__segs_out=7),
        Reason.PASSIVE_COUNTERS,
    ),
    (
        "7 first seen in CLOSE_WAIT",
        lambda: b.passive_four(
            fin_received_ns=0, flags=0, states_seen=b.mask(S.CLOSE_WAIT, S.LAST_ACK)
        ),
        Reason.FIN_ARRIVAL_UNSEEN,
    ),
    (
        "5/13 first seen in CLOSE_WAIT",
        lambda: b.passive(fin_received_ns=0, flags=0, states_seen=b.mask(S.CLOSE_WAIT, S.LAST_ACK)),
        Reason.FIN_CARRIED_ACK,
    ),
    (
        "first seen in LAST_ACK",
        lambda: b.passive(
            fin_received_ns=0, fin_sent_ns=0, flags=0, states_seen=b.mask(S.LAST_ACK)
        ),
        Reason.LAST_ACK_UNSEEN,
    ),
    (
        "an old ICMP error does not make it a timeout",
        lambda: b.passive(sk_err=113),
        Reason.FIN_CARRIED_ACK,
    ),
]

ACTIVE: list[tuple[str, Made, Reason]] = [
    ("10 one segment", b.active, Reason.PEER_FIN_CARRIED_ACK),
    (
        "10 one segment, from the backlog, with data",
        lambda: b.active(flags=b.OPENED | ConnFlag.FIN_ACKED_OWNED, at_halfway__data_segs_in=1),
        Reason.PEER_FIN_CARRIED_ACK,
    ),
    (
        "10 a bare ACK of older data, then one segment",
        lambda: b.active(at_halfway__segs_in=7),
        Reason.PEER_FIN_CARRIED_ACK,
    ),
    (
        "11 the backlog may have joined two",
        lambda: b.active(flags=b.OPENED | ConnFlag.FIN_ACKED_OWNED, at_halfway__segs_in=7),
        Reason.ONE_SKB,
    ),
    (
        "11 GRO may have joined two",
        lambda: b.active(at_halfway__segs_in=7, at_halfway__data_segs_in=2),
        Reason.ONE_SKB,
    ),
    (
        "11 when our FIN left was not seen",
        lambda: b.active(fin_sent_ns=0, flags=0, states_seen=b.mask(S.FIN_WAIT1, S.FIN_WAIT2)),
        Reason.ONE_SKB,
    ),
    ("12 a bare ACK", b.active_four, Reason.PEER_PURE_ACK),
    (
        "12 a bare ACK, from the backlog",
        lambda: b.active_four(flags=b.OPENED | ConnFlag.FIN_ACKED_OWNED, at_halfway__segs_in=8),
        Reason.PEER_PURE_ACK,
    ),
    (
        "12 nothing but data came",
        lambda: b.active_four(
            flags=b.OPENED | ConnFlag.FIN_ACKED_OWNED,
            at_halfway__segs_in=8,
            at_halfway__data_segs_in=3,
        ),
        Reason.PEER_DATA_CARRIED_ACK,
    ),
    (
        "12 data first, and none after it",
        lambda: b.active_four(
            at_halfway__segs_in=7,
            at_halfway__data_segs_in=1,
            at_halfway__rcv_nxt=1_100,
            at_close__rcv_nxt=1_101,
            at_close__data_segs_in=1,
        ),
        Reason.PEER_PURE_ACK,
    ),
    (
        "12 the acknowledging segment brought the data",
        lambda: b.active_four(
            at_halfway__segs_in=7,
            at_halfway__data_segs_in=1,
            at_close__rcv_nxt=1_101,
            at_close__data_segs_in=3,
        ),
        Reason.PEER_DATA_CARRIED_ACK,
    ),
    (
        "12 the same from the backlog: a bare ACK may have been joined to the data",
        lambda: b.active_four(
            flags=b.OPENED | ConnFlag.FIN_ACKED_OWNED,
            at_halfway__segs_in=7,
            at_halfway__data_segs_in=1,
            at_close__rcv_nxt=1_101,
            at_close__data_segs_in=1,
        ),
        Reason.PEER_PURE_OR_DATA,
    ),
    (
        "12 data before and after",
        lambda: b.active_four(
            at_halfway__segs_in=8,
            at_halfway__data_segs_in=2,
            at_halfway__rcv_nxt=1_100,
            at_close__rcv_nxt=1_201,
            at_close__data_segs_in=3,
        ),
        Reason.PEER_PURE_OR_DATA,
    ),
    (
        "12 data before, and the last in the acknowledging segment",
        lambda: b.active_four(
            at_halfway__segs_in=8,
            at_halfway__data_segs_in=2,
            at_halfway__rcv_nxt=1_100,
            at_close__rcv_nxt=1_201,
            at_close__data_segs_in=2,
        ),
        Reason.PEER_DATA_CARRIED_ACK,
    ),
    (
        "12 data that brought nothing new",
        lambda: b.active_four(at_halfway__segs_in=7, at_halfway__data_segs_in=1),
        Reason.PEER_PURE_OR_DATA,
    ),
    (
        "12 acknowledged by nothing",
        lambda: b.active_four(at_halfway__segs_in=5),
        Reason.ACTIVE_COUNTERS,
    ),
    ("15 orphan, the peer's FIN still to come", b.orphan, Reason.PEER_PURE_ACK),
    (
        "15 the peer's FIN reached the mini-socket before we looked",
        lambda: b.orphan(tw_substate=S.TIME_WAIT),
        Reason.PEER_PURE_ACK,
    ),
    (
        "19 no room for a mini-socket",
        lambda: b.orphan(tw_substate=0),
        Reason.PEER_PURE_ACK,
    ),
    (
        "first seen in FIN_WAIT2",
        lambda: b.active(fin_sent_ns=0, fin_acked_ns=0, flags=0, states_seen=b.mask(S.FIN_WAIT2)),
        Reason.FIN_ACK_UNSEEN,
    ),
    (
        "FIN_WAIT1 was seen, its end was not, and no gap was reported",
        lambda: b.active(fin_acked_ns=0),
        Reason.CONTRADICTION,
    ),
]

CLOSING: list[tuple[str, Made, Reason]] = [
    ("14 the FINs crossed", b.crossing, Reason.FINS_CROSSED),
    (
        "14 ours was still queued when the peer's came",
        lambda: b.crossing(at_halfway__unsent=3_000),
        Reason.FIN_STILL_QUEUED,
    ),
    (
        "first seen in CLOSING",
        lambda: b.crossing(
            fin_sent_ns=0, fin_received_ns=0, flags=0, states_seen=b.mask(S.CLOSING)
        ),
        Reason.CLOSING_UNSEEN,
    ),
]

ABORTIVE: list[tuple[str, Made, Reason]] = [
    (
        "16 TCP_LINGER2 negative, in close()",
        lambda: b.aborted(**FIN_WAIT2, linger2=-1, sk_flags=SkFlag.DEAD),
        Reason.LINGER2_NEGATIVE,
    ),
    (
        "16 TCP_LINGER2 negative, on the ACK",
        lambda: b.aborted(
            **FIN_WAIT2,
            linger2=-1,
            sk_flags=SkFlag.DEAD,
            flags=b.OPENED,
            rst_flags=b.REPLY_AFTER,
            tw_substate=0,
        ),
        Reason.LINGER2_NEGATIVE,
    ),
    (
        "17 data in the segment that acknowledged an orphan's FIN",
        lambda: b.aborted(
            **FIN_WAIT2, sk_flags=SkFlag.DEAD, flags=b.OPENED, rst_flags=b.REPLY_AFTER
        ),
        Reason.DATA_AFTER_CLOSE,
    ),
    (
        "17 the same, where the RST left after tcp_destroy_sock",
        lambda: b.orphan(
            tw_substate=0,
            sk_shutdown=3,
            at_halfway__data_segs_in=1,
            at_close__data_segs_in=1,
        ),
        Reason.DATA_AFTER_CLOSE,
    ),
    (
        "27 an orphan in FIN_WAIT1 that data came for",
        lambda: b.reset(
            **b.fin_wait1(),
            sk_flags=SkFlag.DEAD,
            sk_shutdown=3,
            rst_flags=RstFlag.RECEIVED | b.REPLY_AFTER,
            at_close__data_segs_in=1,
        ),
        Reason.DATA_AFTER_CLOSE,
    ),
    (
        "27 a FIN behind a hole, which comes without data",
        lambda: b.reset(**FIN_WAIT2, sk_shutdown=3, rst_flags=RstFlag.RECEIVED | b.REPLY_AFTER),
        Reason.DATA_AFTER_CLOSE,
    ),
    (
        "26 an orphan in FIN_WAIT1 that none came for",
        lambda: b.reset(**b.fin_wait1(), sk_flags=SkFlag.DEAD, sk_shutdown=3),
        Reason.RST_RECEIVED,
    ),
    (
        "26 an orphan that a copy of old data came for: we answered nothing",
        lambda: b.reset(
            **b.fin_wait1(), sk_flags=SkFlag.DEAD, sk_shutdown=3, at_close__data_segs_in=1
        ),
        Reason.RST_RECEIVED,
    ),
    (
        "26 an orphan in LAST_ACK: a copy of the peer's last data and FIN had come",
        lambda: b.reset(
            **b.fin_wait1(old_state=S.LAST_ACK, states_seen=b.mask(S.CLOSE_WAIT, S.LAST_ACK)),
            sk_flags=SkFlag.DEAD | SkFlag.DONE,
            sk_shutdown=3,
            at_close__data_segs_in=1,
        ),
        Reason.RST_RECEIVED,
    ),
    (
        "18 FIN_WAIT2 timer",
        lambda: b.record(**FIN_WAIT2, sk_flags=SkFlag.DEAD, rst_flags=RstFlag.SENT_ACTIVE),
        Reason.FIN_WAIT2_TIMER,
    ),
    ("20 unread data", lambda: b.aborted(unread=5), Reason.UNREAD_DATA),
    (
        "20 unread data behind the peer's FIN, seen by no RST hook",
        lambda: b.aborted(
            unread=6,
            rst_flags=0,
            old_state=S.CLOSE_WAIT,
            states_seen=b.mask(S.ESTABLISHED, S.CLOSE_WAIT),
            sk_flags=SkFlag.DONE,
        ),
        Reason.UNREAD_DATA,
    ),
    (
        "20 unread data comes before SO_LINGER 0",
        lambda: b.aborted(unread=5, **LINGER_ZERO),
        Reason.UNREAD_DATA,
    ),
    ("21 SO_LINGER 0", lambda: b.aborted(**LINGER_ZERO), Reason.LINGER_ZERO),
    (
        "21 an unread FIN alone is not unread data",
        lambda: b.aborted(unread=1, lingertime_jiffies=0, sk_flags=SkFlag.LINGER | SkFlag.DONE),
        Reason.LINGER_ZERO,
    ),
    (
        "21 SO_LINGER 0 in LAST_ACK: no RST",
        lambda: b.record(**(IN_CLOSE | LAST_ACK | LINGER_ZERO)),
        Reason.LINGER_ZERO_SILENT,
    ),
    (
        "21 SO_LINGER 0 in CLOSING: no RST",
        lambda: b.record(**(IN_CLOSE | IN_CLOSING | LINGER_ZERO)),
        Reason.LINGER_ZERO_SILENT,
    ),
    (
        "21 SO_LINGER 0 in LAST_ACK, the FIN still unsent: a RST, whose report was lost",
        lambda: b.record(**(IN_CLOSE | LAST_ACK | LINGER_ZERO), at_close__unsent=1),
        Reason.LINGER_ZERO,
    ),
    (
        "21 SO_LINGER 0 in LAST_ACK, the FIN still unsent",
        lambda: b.aborted(**(IN_CLOSE | LAST_ACK | LINGER_ZERO), at_close__unsent=1),
        Reason.LINGER_ZERO,
    ),
    (
        "22 connect(AF_UNSPEC) in LAST_ACK: no RST",
        lambda: b.record(**(IN_CLOSE | LAST_ACK | {"close_actor_file_ref": FileRef.ALIVE})),
        Reason.DISCONNECT_SILENT,
    ),
    (
        "22 connect(AF_UNSPEC) in repair mode: no RST",
        lambda: b.record(
            flags=b.OPENED | b.OWNED | ConnFlag.REPAIR, close_actor_file_ref=FileRef.ALIVE
        ),
        Reason.DISCONNECT_SILENT,
    ),
    (
        "28 ss -K in LAST_ACK: no RST, sent or not",
        lambda: b.record(**LAST_ACK, sk_err=103, at_close__unsent=1),
        Reason.SOCK_DESTROY_SILENT,
    ),
    (
        "22 connect(AF_UNSPEC)",
        lambda: b.aborted(close_actor_file_ref=FileRef.ALIVE, sk_shutdown=0),
        Reason.DISCONNECT,
    ),
    (
        "23 listener closed",
        lambda: b.aborted(flags=ConnFlag.OPENED_PASSIVE, close_actor_file_ref=FileRef.NONE),
        Reason.LISTENER_CLOSED,
    ),
    (
        "20 in repair mode what is unread moves elsewhere",
        lambda: b.aborted(flags=b.OPENED | b.OWNED | ConnFlag.REPAIR, unread=5, rst_flags=0),
        Reason.REPAIR,
    ),
    (
        "24 orphan limit at close",
        lambda: b.aborted(**b.fin_wait1(), sk_flags=SkFlag.DEAD),
        Reason.OUT_OF_MEMORY_AT_CLOSE,
    ),
    (
        "25 orphan limit in a timer",
        lambda: b.record(**b.fin_wait1(), sk_flags=SkFlag.DEAD, rst_flags=RstFlag.SENT_ACTIVE),
        Reason.OUT_OF_MEMORY_IN_TIMER,
    ),
    (
        "25 the namespace goes away",
        lambda: b.record(**b.fin_wait1(), sk_flags=SkFlag.DEAD),
        Reason.NO_ERROR_NO_RST,
    ),
    (
        "27 data after close",
        lambda: b.aborted(
            **b.fin_wait1(),
            sk_err=104,
            flags=b.OPENED,
            rst_flags=b.REPLY_AFTER | RstFlag.RECEIVED,
        ),
        Reason.DATA_AFTER_CLOSE,
    ),
    (
        "28 ss -K",
        lambda: b.record(sk_err=103, rst_flags=RstFlag.SENT_ACTIVE, flags=b.OPENED | b.OWNED),
        Reason.SOCK_DESTROY,
    ),
    (
        "the kernel's own reason comes first: unread",
        lambda: b.aborted(rst_flags=b.ACTIVE_AFTER | HAS_REASON, rst_reason=11, **LINGER_ZERO),
        Reason.UNREAD_DATA,
    ),
    (
        "the kernel's own reason comes first: memory, in a timer",
        lambda: b.record(
            **b.fin_wait1(),
            sk_flags=SkFlag.DEAD,
            rst_flags=RstFlag.SENT_ACTIVE | HAS_REASON,
            rst_reason=13,
        ),
        Reason.OUT_OF_MEMORY_IN_TIMER,
    ),
    (
        "a subflow's bytes are read elsewhere",
        lambda: b.aborted(unread=5, flags=b.OPENED | b.OWNED | ConnFlag.MPTCP_SUBFLOW),
        Reason.ABORT_UNEXPLAINED,
    ),
    (
        "a RST that answered our SYN's answer ended nothing",
        lambda: b.aborted(rst_flags=b.ACTIVE_AFTER | RstFlag.SENT_REPLY, unread=5),
        Reason.UNREAD_DATA,
    ),
    (
        "nor did it in FIN_WAIT1",
        lambda: b.aborted(**b.fin_wait1(), rst_flags=b.ACTIVE_AFTER | RstFlag.SENT_REPLY, unread=5),
        Reason.UNREAD_DATA,
    ),
    (
        "tcp_disconnect() sets ECONNRESET for a RST of its own",
        lambda: b.aborted(sk_err=104, **LINGER_ZERO),
        Reason.LINGER_ZERO,
    ),
    (
        "an old ICMP error does not hide an abort",
        lambda: b.aborted(unread=5, sk_err=113),
        Reason.UNREAD_DATA,
    ),
]

PEER_OR_TIMER: list[tuple[str, Made, Reason]] = [
    ("26 RST", b.reset, Reason.RST_RECEIVED),
    (
        "26 RST in CLOSE_WAIT",
        lambda: b.reset(
            sk_err=32, old_state=S.CLOSE_WAIT, states_seen=b.mask(S.ESTABLISHED, S.CLOSE_WAIT)
        ),
        Reason.RST_RECEIVED,
    ),
    ("26 somebody read SO_ERROR meanwhile", lambda: b.reset(sk_err=0), Reason.RST_RECEIVED),
    ("26 RST in LAST_ACK", lambda: b.reset(**LAST_ACK), Reason.RST_RECEIVED),
    ("26 without the tracepoint", lambda: b.reset(rst_flags=0), Reason.RST_INFERRED),
    (
        "29 keepalive",
        lambda: b.timeout(
            at_close__unacked=0,
            probes_out=3,
            sk_flags=SkFlag.KEEPOPEN,
            rst_flags=RstFlag.SENT_ACTIVE | HAS_REASON,
            rst_reason=15,
        ),
        Reason.KEEPALIVE,
    ),
    (
        "29 keepalive, no reset reason",
        lambda: b.timeout(
            at_close__unacked=0,
            probes_out=3,
            sk_flags=SkFlag.KEEPOPEN,
            rst_flags=RstFlag.SENT_ACTIVE,
        ),
        Reason.KEEPALIVE,
    ),
    (
        "29 TCP_USER_TIMEOUT while idle",
        lambda: b.timeout(
            at_close__unacked=0,
            probes_out=3,
            sk_flags=SkFlag.KEEPOPEN,
            user_timeout_ms=500,
            rst_flags=RstFlag.SENT_ACTIVE | HAS_REASON,
            rst_reason=15,
        ),
        Reason.USER_TIMEOUT,
    ),
    ("30 retransmissions", b.timeout, Reason.RETRANSMIT_TIMEOUT),
    ("30 with an ICMP error", lambda: b.timeout(sk_err=113), Reason.RETRANSMIT_TIMEOUT),
    ("30 TCP_USER_TIMEOUT", lambda: b.timeout(user_timeout_ms=500), Reason.USER_TIMEOUT),
    (
        "30 orphan",
        lambda: b.timeout(**LAST_ACK, sk_flags=DEAD_DONE),
        Reason.RETRANSMIT_TIMEOUT,
    ),
    (
        "31 zero window",
        lambda: b.timeout(at_close__unacked=0, at_close__unsent=9, probes_out=8),
        Reason.ZERO_WINDOW_TIMEOUT,
    ),
    (
        "31 the window has room, and nothing could leave",
        lambda: b.timeout(at_close__unacked=0, at_close__unsent=9, at_close__snd_wnd=9),
        Reason.UNSENDABLE,
    ),
    (
        "31 the window has room for less",
        lambda: b.timeout(at_close__unacked=0, at_close__unsent=9, at_close__snd_wnd=8),
        Reason.ZERO_WINDOW_TIMEOUT,
    ),
    (
        "no timer could have done it",
        lambda: b.timeout(at_close__unacked=0),
        Reason.TIMEOUT_UNEXPLAINED,
    ),
]

ATTEMPTS: list[tuple[str, Made, Reason]] = [
    (
        "32 refused by a RST",
        lambda: b.attempt(sk_err=111, rst_flags=RstFlag.RECEIVED),
        Reason.SYN_REFUSED,
    ),
    ("32 refused by ICMP", lambda: b.attempt(sk_err=111), Reason.SYN_UNREACHABLE),
    ("32 timed out", lambda: b.attempt(sk_err=110, retransmits=6), Reason.SYN_TIMEOUT),
    (
        "32 TCP_USER_TIMEOUT",
        lambda: b.attempt(sk_err=110, user_timeout_ms=100),
        Reason.SYN_USER_TIMEOUT,
    ),
    ("32 no route", lambda: b.attempt(sk_err=113), Reason.SYN_ERROR),
    ("32 close() while connecting", lambda: b.attempt(**IN_CLOSE), Reason.SYN_CLOSED),
    (
        "32 given up while connecting",
        lambda: b.attempt(flags=b.OPENED | b.OWNED),
        Reason.SYN_DISCONNECT,
    ),
    (
        "32 local failure",
        lambda: b.attempt(flags=b.OPENED | b.OWNED, at_close__segs_out=0),
        Reason.SYN_NEVER_SENT,
    ),
    ("28 in SYN_SENT", lambda: b.attempt(sk_err=103), Reason.SYN_DESTROYED),
    ("nothing tells why", b.attempt, Reason.SYN_UNEXPLAINED),
    (
        "26 in SYN_RECV",
        lambda: b.attempt(old_state=S.SYN_RECV, sk_err=104, rst_flags=RstFlag.RECEIVED),
        Reason.SYN_RECV_RESET,
    ),
    (
        "26 in SYN_RECV, a child not followed yet when the RST came",
        lambda: b.attempt(old_state=S.SYN_RECV, sk_err=104),
        Reason.SYN_RECV_RESET,
    ),
    (
        "23 in SYN_RECV",
        lambda: b.attempt(
            old_state=S.SYN_RECV, rst_flags=b.ACTIVE_AFTER, close_actor_file_ref=FileRef.NONE
        ),
        Reason.SYN_LISTENER_CLOSED,
    ),
]

CONTRADICTIONS: list[tuple[str, Made, Reason]] = [
    (
        "12 the peer's FIN brought the ACK, ahead of data that came again",
        lambda: b.active_four(out_of_order=1, at_close__segs_in=7, at_close__data_segs_in=1),
        Reason.PEER_FIN_CARRIED_ACK,
    ),
    (
        "12 the same, unless data was out of order behind a bare ACK",
        lambda: b.active_four(out_of_order=1, at_close__segs_in=9, at_close__data_segs_in=2),
        Reason.PEER_FIN_OUT_OF_ORDER,
    ),
    (
        "12 the same from a backlog, whose segments are counted before",
        lambda: b.active_four(
            flags=b.OPENED | ConnFlag.FIN_ACKED_OWNED, out_of_order=1, at_close__segs_in=6
        ),
        Reason.PEER_FIN_OUT_OF_ORDER,
    ),
    (
        "12 data came with the peer's FIN, and a segment was dropped: perhaps the first copy",
        lambda: b.active_four(flags=b.OPENED | ConnFlag.DROPPED, at_close__rcv_nxt=1_011),
        Reason.PEER_FIN_MAY_BE_REFUSED,
    ),
    (
        "10 the same in one segment with the ACK: an earlier copy may have crossed our FIN",
        lambda: b.active(flags=b.OPENED | ConnFlag.DROPPED, at_close__rcv_nxt=1_011),
        Reason.PEER_FIN_MAY_BE_REFUSED,
    ),
    (
        "12 a segment was dropped, but no data came after our FIN: a bare FIN is never refused",
        lambda: b.active_four(flags=b.OPENED | ConnFlag.DROPPED),
        Reason.PEER_PURE_ACK,
    ),
    (
        "15 the same, and the FIN is left to a mini-socket",
        lambda: b.orphan(flags=b.OPENED | ConnFlag.DROPPED, at_close__rcv_nxt=1_011),
        Reason.PEER_PURE_ACK,
    ),
    (
        "a gap where our FIN was acknowledged",
        lambda: b.active(flags=ConnFlag.GAP, fin_acked_ns=0),
        Reason.FIN_ACK_MISSED,
    ),
    (
        "the same, handed to a mini-socket",
        lambda: b.orphan(flags=ConnFlag.GAP, fin_acked_ns=0),
        Reason.FIN_ACK_MISSED,
    ),
    (
        "the same, and no mini-socket: no room, or data came",
        lambda: b.orphan(flags=ConnFlag.GAP, fin_acked_ns=0, tw_substate=0),
        Reason.GAP,
    ),
    (
        "a gap where the FINs crossed, or did not",
        lambda: b.crossing(flags=ConnFlag.GAP, fin_received_ns=0),
        Reason.GAP,
    ),
    (
        "a gap that the ACK of the peer's FIN does not depend on",
        lambda: b.passive(flags=ConnFlag.GAP, established_ns=0),
        Reason.FIN_CARRIED_ACK,
    ),
    (
        "a gap where our FIN was queued",
        lambda: b.passive(flags=ConnFlag.GAP, fin_sent_ns=0),
        Reason.LAST_ACK_UNSEEN,
    ),
    ("a gap before a reset", lambda: b.reset(flags=ConnFlag.GAP), Reason.RST_RECEIVED),
    (
        "a gap, and nothing that tells",
        lambda: b.record(flags=ConnFlag.GAP),
        Reason.GAP,
    ),
    ("an amendment alone", lambda: b.record(type=2), Reason.NOT_A_CLOSE),
    ("from LISTEN", lambda: b.record(old_state=S.LISTEN), Reason.NOT_A_CLOSE),
    ("from CLOSE", lambda: b.record(old_state=S.CLOSE), Reason.NOT_A_CLOSE),
    ("from no state", lambda: b.record(old_state=200), Reason.NOT_A_CLOSE),
    (
        "both sides were first",
        lambda: b.passive(states_seen=b.mask(S.FIN_WAIT1, S.CLOSE_WAIT, S.LAST_ACK)),
        Reason.CONTRADICTION,
    ),
    (
        "a RST after the last ACK",
        lambda: b.passive(rst_flags=RstFlag.RECEIVED, sk_err=104),
        Reason.CONTRADICTION,
    ),
    (
        "a RST received, and one sent for another reason",
        lambda: b.reset(rst_flags=b.ACTIVE_AFTER | RstFlag.RECEIVED),
        Reason.CONTRADICTION,
    ),
    ("nobody did it", b.record, Reason.UNEXPLAINED),
    (
        "half a teardown",
        lambda: b.record(**FIN_WAIT2, close_actor_file_ref=FileRef.ALIVE),
        Reason.UNEXPLAINED,
    ),
]

TABLE = (*PASSIVE, *ACTIVE, *CLOSING, *ABORTIVE, *PEER_OR_TIMER, *ATTEMPTS, *CONTRADICTIONS)


@pytest.mark.parametrize(
    ("made", "reason"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_row(made: Made, reason: Reason) -> None:
    """One row of the table, one reason; kind and all else follow from its rule."""
    records = made()
    assert b.reason_of(records) == reason
    verdict = classify(records, b.HOST)[0]
    rule = RULES[reason]
    assert (
        verdict["kind"],
        verdict["handshake"],
        verdict["fin_ack"],
        verdict["cause"],
        verdict["evidence"],
    ) == (rule.kind, rule.handshake, rule.fin_ack, rule.cause, rule.evidence)


def test_every_reason_is_reached_by_a_row() -> None:
    """No rule without a record that proves it."""
    assert {reason for _, _, reason in TABLE} == set(Reason) == set(RULES)


def test_rows_are_judged_alike_one_by_one_and_together() -> None:
    """Order and company do not matter, nor do the ring's headers in between."""
    records = np.concatenate([made() for _, made, _ in TABLE])
    shuffled = np.random.default_rng(4).permutation(len(records))
    together = classify(decode_closes(encode_closes(records[shuffled])), b.HOST)
    assert together["reason"].tolist() == [int(TABLE[i][2]) for i in shuffled]


def test_no_records_no_verdicts() -> None:
    assert classify(np.zeros(0, CLOSE_DTYPE), b.HOST).tolist() == []


@pytest.mark.parametrize(
    ("reason", "kind", "handshake", "fin_ack"),
    [
        (Reason.FIN_CARRIED_ACK, Kind.PASSIVE, Handshake.THREE_WAY, FinAck.FIN),
        (Reason.PURE_ACK, Kind.PASSIVE, Handshake.FOUR_WAY, FinAck.PURE),
        (Reason.DATA_CARRIED_ACK, Kind.PASSIVE, Handshake.FOUR_WAY, FinAck.DATA),
        (Reason.PEER_FIN_CARRIED_ACK, Kind.ACTIVE, Handshake.THREE_WAY, FinAck.FIN),
        (Reason.PEER_PURE_ACK, Kind.ACTIVE, Handshake.FOUR_WAY, FinAck.PURE),
        (Reason.FINS_CROSSED, Kind.SIMULTANEOUS, Handshake.SIMULTANEOUS, FinAck.PURE),
        (Reason.FIN_STILL_QUEUED, Kind.PASSIVE, Handshake.FOUR_WAY, FinAck.PURE),
        (Reason.ONE_SKB, Kind.ACTIVE, Handshake.NONE, FinAck.NONE),
        (Reason.GAP, Kind.UNKNOWN, Handshake.NONE, FinAck.NONE),
    ],
)
def test_what_the_rules_say(
    reason: Reason, kind: Kind, handshake: Handshake, fin_ack: FinAck
) -> None:
    """The table itself, for the closes that matter most."""
    rule = RULES[reason]
    assert (rule.kind, rule.handshake, rule.fin_ack) == (kind, handshake, fin_ack)


@pytest.mark.parametrize(
    ("reason", "kind", "cause"),
    [
        (Reason.UNREAD_DATA, Kind.ABORT, Cause.UNREAD_DATA),
        (Reason.DATA_AFTER_CLOSE, Kind.ABORT, Cause.DATA_AFTER_CLOSE),
        (Reason.LISTENER_CLOSED, Kind.ABORT, Cause.NO_LISTENER),
        (Reason.RST_RECEIVED, Kind.RESET, Cause.PEER),
        (Reason.KEEPALIVE, Kind.TIMEOUT, Cause.KEEPALIVE),
        (Reason.FIN_WAIT2_TIMER, Kind.TIMEOUT, Cause.FIN_WAIT2_TIMEOUT),
        (Reason.SYN_REFUSED, Kind.REFUSED, Cause.NO_LISTENER),
        (Reason.SYN_TIMEOUT, Kind.ATTEMPT_FAILED, Cause.RETRANSMIT_TIMEOUT),
        (Reason.UNEXPLAINED, Kind.UNKNOWN, Cause.UNKNOWN),
    ],
)
def test_what_the_rules_call_a_cause(reason: Reason, kind: Kind, cause: Cause) -> None:
    assert (RULES[reason].kind, RULES[reason].cause) == (kind, cause)


def test_a_handshake_has_evidence_and_nothing_else_has() -> None:
    for rule in RULES.values():
        assert (rule.evidence == Evidence.NONE) == (rule.handshake == Handshake.NONE)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (b.active, TRUE),
        (b.orphan, TRUE),
        (b.crossing, TRUE),
        (lambda: b.active(tw_substate=0), FALSE),
        (lambda: b.active(tw_substate=255), NULL),
        (lambda: b.orphan(tw_substate=255), NULL),
        (b.passive, FALSE),
        (b.reset, FALSE),
        (b.attempt, FALSE),
        (lambda: b.aborted(**FIN_WAIT2, unread=5), FALSE),
        (lambda: b.active(flags=ConnFlag.GAP), TRUE),
        (lambda: b.record(flags=ConnFlag.GAP), NULL),
    ],
)
def test_time_wait(made: Made, expected: int) -> None:
    """Only FIN_WAIT2 and CLOSING lead to it; without a lookup nobody knows."""
    assert classify(made(), b.HOST)["time_wait"][0] == expected


ACTORS = [
    (ActorFlag.VALID, FileRef.DEAD, 0, How.CLOSE, 0, 1),
    (ActorFlag.VALID, FileRef.ALIVE, 0, How.SHUTDOWN, 0, 1),
    (ActorFlag.VALID, FileRef.NONE, 0, How.KERNEL, 0, 1),
    (ActorFlag.VALID | ActorFlag.KTHREAD, FileRef.DEAD, 0, How.KERNEL, 0, 1),
    (ActorFlag.VALID | ActorFlag.EXITING, FileRef.DEAD, 3 << 8, How.EXIT, 3, 1),
    (ActorFlag.VALID | ActorFlag.EXITING, FileRef.DEAD, 9, How.SIGNAL, 9, 1),
    (ActorFlag.VALID | ActorFlag.EXITING, FileRef.DEAD, 0x8B, How.SIGNAL, 11, 1),
    (ActorFlag.VALID | ActorFlag.IN_SOFTIRQ, FileRef.DEAD, 0, How.NONE, 0, 0),
    (ActorFlag(0), FileRef.DEAD, 0, How.NONE, 0, 0),
]


@pytest.mark.parametrize(("flags", "file", "code", "how", "number", "known"), ACTORS)
def test_how_our_fin_was_queued(
    flags: ActorFlag, file: FileRef, code: int, how: How, number: int, known: int
) -> None:
    """close(), shutdown(), a death with its signal or status; a bystander never."""
    made = b.passive(closer__flags=flags, closer__file_ref=file, closer__exit_code=code)
    verdict = classify(made, b.HOST)[0]
    assert (verdict["how"], verdict["signal_or_code"], verdict["closer_known"]) == (
        how,
        number,
        known,
    )


@pytest.mark.parametrize(
    ("made", "how", "known"),
    [
        (lambda: b.reset(**b.by_process()), How.NONE, 0),
        (lambda: b.timeout(**b.by_process()), How.NONE, 0),
        (lambda: b.reset(**(b.by_process() | LAST_ACK)), How.CLOSE, 1),
        (lambda: b.aborted(unread=1), How.CLOSE, 1),
        (
            lambda: b.record(**b.by_process(flags=b.OWNED, sk_err=103)),
            How.NONE,
            1,
        ),
        (lambda: b.passive(fin_sent_ns=0), How.NONE, 0),
    ],
)
def test_who_is_blamed(made: Made, how: How, known: int) -> None:
    """Whoever was in the way of the peer's RST or a timer is not named."""
    verdict = classify(made(), b.HOST)[0]
    assert (verdict["how"], verdict["closer_known"]) == (how, known)


def test_noise_never_crashes_and_stays_in_the_table() -> None:
    """Any bytes get a verdict whose parts belong together."""
    verdicts = classify(b.noise(np.random.default_rng(1), 20_000), b.HOST)
    assert verdicts.dtype == VERDICT_DTYPE
    seen = {Reason(code) for code in np.unique(verdicts["reason"])}
    assert len(seen) > 30
    for reason in seen:
        rows = verdicts[verdicts["reason"] == reason]
        assert set(rows["kind"].tolist()) == {int(RULES[reason].kind)}


def test_what_was_missed_is_never_judged() -> None:
    """Without the moment of the ACK of our FIN no active close tells three from four."""
    made = b.noise(np.random.default_rng(2), 20_000)
    made["flags"] |= np.uint32(ConnFlag.GAP)
    made["fin_acked_ns"] = 0
    verdicts = classify(made, b.HOST)
    active = verdicts[verdicts["kind"] == Kind.ACTIVE]
    assert len(active) > 100
    assert not active["handshake"].any()
    assert not active["fin_ack"].any()


def test_records_are_left_as_they_are() -> None:
    made = b.noise(np.random.default_rng(3), 1_000)
    before = made.tobytes()
    classify(made, HostFacts(hz=1000))
    assert made.tobytes() == before
