# SPDX-License-Identifier: Apache-2.0
"""A close as a person or a program reads it: the JSON object of the output contract.

Only what will be displayed comes here; a batch that is only counted never does.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from tracer.close_text import address, errno_name, harmless, state_name, wall_time
from tracer.close_times import Record, Times, timeline_us
from tracer.tcp import (
    ActorFlag,
    Cause,
    ConnFlag,
    Evidence,
    FinAck,
    Handshake,
    HostFacts,
    How,
    Kind,
    RstFlag,
    SkFlag,
    TcpState,
)
from tracer.verdict import NULL, TRUE, Reason, Verdicts
from tracer.why import why
from tracer.why_facts import Facts

if TYPE_CHECKING:
    import numpy as np

CgroupNames: TypeAlias = Mapping[int, str | None]
"""cgroup_id -> path in the hierarchy."""

CONTRACT_VERSION = 1
CGROUP_PATH_CHARS_MAX = 1024
"""A cgroup path is cut to this: names are the host's, a line must stay a line."""


@dataclass(frozen=True, slots=True)
class Opener:
    """Who called connect()."""

    pid: int
    comm: str


@dataclass(frozen=True, slots=True)
class Closer:
    """Who closed; `how` is close, shutdown, exit, signal:N, kernel or null."""

    pid: int
    comm: str
    uid: int
    how: str | None


@dataclass(frozen=True, slots=True)
class DelayedAck:
    """The receiver's delayed-ACK state when the peer's FIN was in hand."""

    ato_us: int
    pingpong: bool
    quick: int


@dataclass(frozen=True, slots=True)
class Close:
    """One closed socket. The fields are the keys of the JSON contract, in its order."""

    v: int
    at: str
    family: int
    netns: int
    laddr: str
    lport: int
    raddr: str
    rport: int
    opened: str | None
    kind: str
    handshake: str | None
    fin_ack: str | None
    evidence: str | None
    cause: str | None
    rst_reason: str | None
    err: str | None
    time_wait: bool | None
    opener: Opener | None
    closer: Closer | None
    cgroup: str | None
    tx_bytes: int
    rx_bytes: int
    unread_bytes: int
    delayed_ack: DelayedAck | None
    timeline_us: dict[str, int]
    close_wait_us: int | None
    teardown_us: int | None
    lifetime_us: int | None
    why: str


def to_json(close: Close) -> str:
    """Return the one-line JSON object of the contract."""
    return json.dumps(dataclasses.asdict(close), separators=(",", ":"), ensure_ascii=False)


def closes_from(
    records: np.ndarray[Any, np.dtype[np.void]],
    verdicts: Verdicts,
    host: HostFacts,
    names: CgroupNames,
    clock: int,
) -> list[Close]:
    """Return a Close per record; `clock` is CLOCK_REALTIME minus CLOCK_MONOTONIC in ns."""
    return [
        _close(record, verdict, host, names, clock)
        for record, verdict in zip(records, verdicts, strict=True)
    ]


def _close(
    record: Record, verdict: Record, host: HostFacts, names: CgroupNames, clock: int
) -> Close:
    times = Times.of(record)
    facts = _facts(record, verdict, host, times)
    return Close(
        v=CONTRACT_VERSION,
        at=wall_time(times.closed + clock),
        family=int(record["family"]),
        netns=int(record["netns"]),
        laddr=address(record["saddr"], int(record["family"])),
        lport=int(record["lport"]),
        raddr=address(record["daddr"], int(record["family"])),
        rport=int(record["rport"]),
        opened=_opened(int(record["flags"])),
        kind=str(Kind(verdict["kind"]).label),
        handshake=Handshake(verdict["handshake"]).label,
        fin_ack=FinAck(verdict["fin_ack"]).label,
        evidence=Evidence(verdict["evidence"]).label,
        cause=Cause(verdict["cause"]).label,
        rst_reason=facts.rst_reason,
        err=facts.err,
        time_wait=facts.time_wait,
        opener=_opener(record["opener"]),
        closer=_closer(record["closer"], verdict),
        cgroup=_cgroup(int(record["cgroup_id"]), names),
        tx_bytes=max(0, int(record["bytes_sent"]) - int(record["bytes_retrans"])),
        rx_bytes=facts.rx_bytes,
        unread_bytes=facts.unread_bytes,
        delayed_ack=_delayed_ack(record, host),
        timeline_us=timeline_us(times, verdict, record),
        close_wait_us=facts.close_wait_us,
        teardown_us=times.teardown_us(),
        lifetime_us=facts.lifetime_us,
        why=why(facts),
    )


def _seen(record: Record, state: TcpState) -> bool:
    states = int(record["states_seen"]) | 1 << (int(record["old_state"]) & 15)
    return bool(states & 1 << state)


def _facts(record: Record, verdict: Record, host: HostFacts, times: Times) -> Facts:
    done = bool(int(record["sk_flags"]) & SkFlag.DONE)
    unread = int(record["unread"])
    delayed_ack = _delayed_ack(record, host)
    at_close, at_fin_sent = record["at_close"], record["at_fin_sent"]
    flags = int(record["flags"])
    return Facts(
        reason=Reason(verdict["reason"]),
        how=How(verdict["how"]),
        signal_or_code=int(verdict["signal_or_code"]),
        old_state=state_name(int(record["old_state"])),
        rst_sent=bool(verdict["rst_sent"]),
        rst_reason=_rst_reason(record, host),
        err=errno_name(int(record["sk_err"])),
        time_wait=_tristate(int(verdict["time_wait"])),
        peer_fin_seen=done,
        fin_repeated=bool(record["dup_fin"]),
        close_wait_us=times.close_wait_us() if _seen(record, TcpState.CLOSE_WAIT) else None,
        ato_us=None if delayed_ack is None else delayed_ack.ato_us,
        lifetime_us=times.lifetime_us() if _opened(flags) else None,
        rx_bytes=max(0, int(record["bytes_received"]) - done),
        unread_bytes=unread - (1 if done and unread else 0),
        unacked_bytes=int(at_close["unacked"]),
        unsent_bytes=int(at_close["unsent"]),
        unsent_at_fin_bytes=int(at_fin_sent["unsent"]),
        user_timeout_ms=int(record["user_timeout_ms"]),
        retransmits=int(record["retransmits"]),
        probes_out=int(record["probes_out"]),
        segments=_segments(record, Kind(verdict["kind"])),
    )


def _segments(record: Record, kind: Kind) -> int:
    # Segments that left after our FIN was queued, or came until it was acknowledged.
    at_fin_sent = record["at_fin_sent"]
    if kind == Kind.ACTIVE:
        later, name = record["at_fin_acked"], "segs_in"
    else:
        later, name = record["at_close"], "segs_out"
    return (int(later[name]) - int(at_fin_sent[name])) & 0xFFFF_FFFF


def _opened(flags: int) -> str | None:
    if flags & ConnFlag.OPENED_ACTIVE:
        return "active"
    return "passive" if flags & ConnFlag.OPENED_PASSIVE else None


def _trusted(flags: int) -> bool:
    return bool(flags & ActorFlag.VALID) and not flags & ActorFlag.IN_SOFTIRQ


def _opener(actor: Record) -> Opener | None:
    if not _trusted(int(actor["flags"])):
        return None
    return Opener(int(actor["tgid"]), harmless(actor["comm"].tobytes()))


def _closer(actor: Record, verdict: Record) -> Closer | None:
    if not verdict["closer_known"]:
        return None
    return Closer(
        pid=int(actor["tgid"]),
        comm=harmless(actor["comm"].tobytes()),
        uid=int(actor["uid"]),
        how=how_label(How(verdict["how"]), int(verdict["signal_or_code"])),
    )


def how_label(how: How, signal: int) -> str | None:
    """Return the contract's word: signal:9 for a signal."""
    return f"signal:{signal}" if how == How.SIGNAL else how.label


def _cgroup(cgroup_id: int, names: CgroupNames) -> str | None:
    path = names.get(cgroup_id)
    if path is None:
        return None
    return harmless(path[:CGROUP_PATH_CHARS_MAX].encode("utf-8", "surrogateescape"))


def _rst_reason(record: Record, host: HostFacts) -> str | None:
    rst_flags = int(record["rst_flags"])
    sent = rst_flags & (RstFlag.SENT_ACTIVE | RstFlag.SENT_REPLY)
    if not (rst_flags & RstFlag.HAS_REASON and sent):
        return None
    return host.rst_reasons.get(int(record["rst_reason"]))


def _tristate(value: int) -> bool | None:
    return None if value == NULL else value == TRUE


def _delayed_ack(record: Record, host: HostFacts) -> DelayedAck | None:
    # Read at ->CLOSE_WAIT only.
    if not (record["fin_received_ns"] and _seen(record, TcpState.CLOSE_WAIT)):
        return None
    return DelayedAck(
        ato_us=int(record["ack_ato_jiffies"]) * 1_000_000 // host.hz,
        pingpong=bool(record["ack_pingpong"]),
        quick=int(record["ack_quick"]),
    )
