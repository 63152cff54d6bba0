# SPDX-License-Identifier: Apache-2.0
"""Records as the kernel side writes them, one builder per row of the decision table.

Times are nanoseconds on a clock that starts at the connection's SYN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tracer.classify import classify
from tracer.close import Close, closes_from
from tracer.tcp import TW_NOT_LOOKED, ActorFlag, ConnFlag, FileRef, HostFacts, RstFlag, SkFlag
from tracer.tcp import TcpState as S
from tracer.verdict import Reason
from tracer.wire import CLOSE_DTYPE, Records

MS = 1_000_000
OPENED_NS = 5_000 * MS
FIN_NS = OPENED_NS + 1_000 * MS
CLOSED_NS = FIN_NS + 1 * MS

RST_REASONS = {
    0: "SK_RST_REASON_NOT_SPECIFIED",
    8: "SK_RST_REASON_TCP_ABORT_ON_DATA",
    11: "SK_RST_REASON_TCP_ABORT_ON_CLOSE",
    12: "SK_RST_REASON_TCP_ABORT_ON_LINGER",
    13: "SK_RST_REASON_TCP_ABORT_ON_MEMORY",
    14: "SK_RST_REASON_TCP_STATE",
    15: "SK_RST_REASON_TCP_KEEPALIVE_TIMEOUT",
}
HOST = HostFacts(hz=250, rst_reasons=RST_REASONS)

ACTIVE_AFTER = RstFlag.SENT_ACTIVE | RstFlag.SENT_AFTER_CLOSE
REPLY_AFTER = RstFlag.SENT_REPLY | RstFlag.SENT_AFTER_CLOSE
OWNED = ConnFlag.CLOSE_OWNED
OPENED = ConnFlag.OPENED_ACTIVE


def mask(*states: S) -> int:
    """Return states_seen for these states."""
    return sum(1 << state for state in states)


def record(**fields: Any) -> Records:
    """Return one record; `at_close__unsent=1` names a field of a nested struct."""
    made = np.zeros(1, CLOSE_DTYPE)
    base: dict[str, Any] = {
        "type": 1,
        "flags": OPENED,
        "opened_ns": OPENED_NS,
        "established_ns": OPENED_NS + 30_000,
        "closed_ns": CLOSED_NS,
        "states_seen": mask(S.SYN_SENT, S.ESTABLISHED),
        "state": S.CLOSE,
        "old_state": S.ESTABLISHED,
        "tw_substate": TW_NOT_LOOKED,
        "family": 4,
        "lport": 40_000,
        "rport": 80,
        "at_fin_sent__snd_wnd": 65_535,
        "at_halfway__snd_wnd": 65_535,
    }
    for name, value in (base | fields).items():
        outer, _, inner = name.partition("__")
        field = made[outer][inner] if inner else made[outer]
        if field.ndim > 1:
            field[0, : len(value)] = list(value)
        else:
            field[0] = int(value)
    return made


def by_process(file_ref: FileRef = FileRef.DEAD, **fields: Any) -> dict[str, Any]:
    """Return the fields of a closer that may be named."""
    return {
        "closer__tgid": 4711,
        "closer__uid": 1000,
        "closer__flags": ActorFlag.VALID,
        "closer__file_ref": file_ref,
        "close_actor_file_ref": file_ref,
    } | fields


def passive(**fields: Any) -> Records:
    """Return LAST_ACK->CLOSE, the peer's FIN unacknowledged when ours was queued: row 5, 13."""
    base = {
        "flags": ConnFlag.OPENED_PASSIVE,
        "states_seen": mask(S.SYN_RECV, S.ESTABLISHED, S.CLOSE_WAIT, S.LAST_ACK),
        "old_state": S.LAST_ACK,
        "sk_flags": SkFlag.DEAD | SkFlag.DONE,
        "fin_received_ns": FIN_NS,
        "fin_sent_ns": FIN_NS + 34_000,
        "bytes_received": 101,
        "ack_ato_jiffies": 10,
        "at_halfway__segs_out": 7,
        "at_halfway__rcv_unacked": 1,
        "at_fin_sent__segs_out": 7,
        "at_fin_sent__rcv_unacked": 1,
        "at_close__segs_out": 8,
    }
    return record(**(base | by_process() | fields))


def accepted(waited_us: int, **fields: Any) -> Records:
    """The same of which a hook saw the accept()."""
    flags = ActorFlag.VALID | ActorFlag.ACCEPTED
    opener = {"opener__flags": flags, "opener__tgid": 321, "opener__comm": b"nginx"}
    times = {"opened_ns": OPENED_NS, "established_ns": OPENED_NS, "flags": ConnFlag.OPENED_PASSIVE}
    return passive(**(opener | times | {"opener__uid": waited_us} | fields))


def passive_four(**fields: Any) -> Records:
    """Return LAST_ACK->CLOSE, the peer's FIN acknowledged by one bare segment: row 7."""
    base = {"at_fin_sent__rcv_unacked": 0, "at_fin_sent__segs_out": 8, "at_close__segs_out": 9}
    return passive(**(base | fields))


def active(**fields: Any) -> Records:
    """Return FIN_WAIT2->CLOSE by the segment that acknowledged our FIN: row 10."""
    base = {
        "states_seen": mask(S.SYN_SENT, S.ESTABLISHED, S.FIN_WAIT1, S.FIN_WAIT2),
        "old_state": S.FIN_WAIT2,
        "sk_flags": SkFlag.DEAD | SkFlag.DONE,
        "tw_substate": S.TIME_WAIT,
        "fin_sent_ns": FIN_NS,
        "fin_acked_ns": CLOSED_NS,
        "fin_received_ns": CLOSED_NS,
        "bytes_received": 101,
        "at_fin_sent__segs_in": 5,
        "at_halfway__segs_in": 6,
        "at_fin_sent__rcv_nxt": 1_000,
        "at_halfway__rcv_nxt": 1_000,
        "at_close__rcv_nxt": 1_001,
    }
    return record(**(base | by_process() | fields))


def active_four(**fields: Any) -> Records:
    """Return FIN_WAIT2->CLOSE by a later segment: row 12."""
    return active(**({"fin_acked_ns": FIN_NS + 50_000} | fields))


def orphan(**fields: Any) -> Records:
    """Return FIN_WAIT2->CLOSE into a mini-socket that awaits the peer's FIN: row 15."""
    base = {
        "sk_flags": SkFlag.DEAD,
        "tw_substate": S.FIN_WAIT2,
        "fin_received_ns": 0,
        "at_close__rcv_nxt": 1_000,
    }
    return active(**(base | fields))


def crossing(**fields: Any) -> Records:
    """Return CLOSING->CLOSE with everything acknowledged: rows 8 and 14."""
    base = {
        "states_seen": mask(S.SYN_SENT, S.ESTABLISHED, S.FIN_WAIT1, S.CLOSING),
        "old_state": S.CLOSING,
        "sk_flags": SkFlag.DEAD | SkFlag.DONE,
        "tw_substate": S.TIME_WAIT,
        "fin_sent_ns": FIN_NS,
        "fin_received_ns": FIN_NS + 20_000,
    }
    return record(**(base | by_process() | fields))


def aborted(**fields: Any) -> Records:
    """Return ESTABLISHED->CLOSE inside close(), with the RST that followed."""
    base = {
        "flags": OPENED | OWNED,
        "sk_shutdown": 3,
        "rst_flags": ACTIVE_AFTER,
        "rst_sent_ns": CLOSED_NS + 2_000,
        "rst_sent_state": S.CLOSE,
    }
    return record(**(base | by_process() | fields))


def fin_wait1(**fields: Any) -> dict[str, Any]:
    """Return the fields of a socket that queued its FIN and got no ACK of it."""
    return {
        "states_seen": mask(S.ESTABLISHED, S.FIN_WAIT1),
        "old_state": S.FIN_WAIT1,
        "fin_sent_ns": FIN_NS,
        "at_close__unacked": 1,
    } | fields


def reset(**fields: Any) -> Records:
    """Return ESTABLISHED->CLOSE by the peer's RST: row 26."""
    base = {
        "sk_err": 104,
        "rst_flags": RstFlag.RECEIVED,
        "rst_received_ns": CLOSED_NS,
        "rst_received_state": S.ESTABLISHED,
        "close_actor_file_ref": FileRef.ALIVE,
    }
    return record(**(base | fields))


def timeout(**fields: Any) -> Records:
    """Return ESTABLISHED->CLOSE by a timer: rows 29 to 31."""
    base = {
        "sk_err": 110,
        "retransmits": 15,
        "at_close__unacked": 1_000,
        "close_actor_file_ref": FileRef.ALIVE,
    }
    return record(**(base | fields))


def attempt(**fields: Any) -> Records:
    """Return SYN_SENT->CLOSE: row 32."""
    base = {
        "states_seen": mask(S.SYN_SENT),
        "old_state": S.SYN_SENT,
        "established_ns": 0,
        "at_close__unacked": 1,
        "at_close__segs_out": 1,
        "close_actor_file_ref": FileRef.ALIVE,
    }
    return record(**(base | fields))


def reason_of(made: Records, host: HostFacts = HOST) -> Reason:
    """Judge one record."""
    return Reason(int(classify(made, host)["reason"][0]))


def close_of(
    made: Records,
    host: HostFacts = HOST,
    names: dict[int, str | None] | None = None,
    clock: int = 0,
) -> Close:
    """Judge and show one record."""
    (close,) = closes_from(made, classify(made, host), host, names or {}, clock)
    return close


def noise(rng: np.random.Generator, count: int) -> Records:
    """Return records of random bytes, most of them near enough to real ones to be judged."""
    raw = rng.integers(0, 256, (count, CLOSE_DTYPE.itemsize), np.uint8)
    made = raw.view(CLOSE_DTYPE).reshape(count)
    likely = rng.random(count) < 0.9
    made["type"][likely] = 1
    made["flags"][likely] &= ~np.uint32(ConnFlag.GAP)
    made["old_state"][likely] = rng.integers(1, 12, count, np.uint8)[likely]
    made["states_seen"][likely] = (1 << made["old_state"][likely]).astype(np.uint16)
    for moment in ("at_halfway", "at_fin_sent", "at_close"):
        for name in made[moment].dtype.names or ():
            made[moment][name][likely] &= np.uint32(3)
    made["rst_flags"] &= rng.integers(0, 256, count, np.uint8)
    made["sk_err"][likely] = rng.choice([0, 0, 32, 103, 104, 110, 113], count)[likely]
    return made
