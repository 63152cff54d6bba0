# SPDX-License-Identifier: Apache-2.0
"""A close as a person or a program reads it: the JSON object of the output contract.

Only what will be displayed comes here; a batch that is only counted never does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from json.encoder import encode_basestring as _quoted
from operator import attrgetter
from types import NoneType
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from tracer.close_facts import facts_of, opened, was_in_close_wait
from tracer.close_rows import Row, Verdict, rows_of
from tracer.close_text import address, cgroup_path, comm, wall_time
from tracer.close_times import ack_after_us, teardown_us, timeline_us
from tracer.tcp import (
    AckFate,
    ActorFlag,
    Cause,
    Evidence,
    FinAck,
    Handshake,
    HostFacts,
    How,
    Kind,
)
from tracer.why import why

if TYPE_CHECKING:
    from tracer.verdict import Verdicts
    from tracer.wire import Records

CgroupNames: TypeAlias = Mapping[int, str | None]
"""cgroup_id -> path in the hierarchy."""

CONTRACT_VERSION = 1

# By the numbers of a verdict.
_KINDS: Final = tuple(str(kind.label) for kind in Kind)
_HANDSHAKES: Final = tuple(handshake.label for handshake in Handshake)
_FIN_ACKS: Final = tuple(fin_ack.label for fin_ack in FinAck)
_EVIDENCE: Final = tuple(evidence.label for evidence in Evidence)
_CAUSES: Final = tuple(cause.label for cause in Cause)
_FATE_LABELS: Final = tuple(fate.label for fate in AckFate)
_HOW_LABELS: Final = tuple(how.label for how in How)

# Plain integers: an operation on an enum's member makes another.
_ACTOR_VALID, _IN_SOFTIRQ = int(ActorFlag.VALID), int(ActorFlag.IN_SOFTIRQ)
_SIGNAL: Final = int(How.SIGNAL)


@dataclass(frozen=True, slots=True)
class Opener:
    """Who called connect(), or accept() where a hook saw it."""

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
    """The receiver's delayed-ACK state when the peer's FIN was in hand, and what came of it.

    `fate` is an AckFate, null where the peer did not close first; `after_us` is how long
    after the FIN its ACK left, null where that is not known.
    """

    ato_us: int
    pingpong: bool
    quick: int
    fate: str | None
    after_us: int | None


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
    sigpipe: bool | None
    time_wait: bool | None
    opener: Opener | None
    closer: Closer | None
    cgroup: str | None
    tx_bytes: int
    rx_bytes: int
    unread_bytes: int
    unacked_bytes: int
    unsent_bytes: int
    data_lost: bool | None
    delayed_ack: DelayedAck | None
    timeline_us: dict[str, int]
    close_wait_us: int | None
    teardown_us: int | None
    lifetime_us: int | None
    why: str


def to_json(close: Close) -> str:
    """Return the one-line JSON object of the contract."""
    return _json_object(close)


def _json_object(part: Close | Opener | Closer | DelayedAck) -> str:
    template, values = _TEMPLATES[type(part)]
    return template % tuple([_JSON_OF[type(value)](value) for value in values(part)])


def _json_timeline(timeline: dict[str, int]) -> str:
    return "{" + ",".join([f'"{event}":{us}' for event, us in timeline.items()]) + "}"


def _template(part: type) -> tuple[str, attrgetter[tuple[Any, ...]]]:
    names = [field.name for field in fields(part)]
    return "{" + ",".join(f"{_quoted(name)}:%s" for name in names) + "}", attrgetter(*names)


# What json.dumps(asdict(close)) would write, in a sixth of the time: the keys are known.
_TEMPLATES: Final = {part: _template(part) for part in (Close, Opener, Closer, DelayedAck)}
_JSON_OF: Final[dict[type, Callable[[Any], str]]] = {
    int: int.__repr__,
    str: _quoted,
    bool: {False: "false", True: "true"}.__getitem__,
    NoneType: lambda _: "null",
    dict: _json_timeline,
    Opener: _json_object,
    Closer: _json_object,
    DelayedAck: _json_object,
}


def closes_from(
    records: Records,
    verdicts: Verdicts,
    host: HostFacts,
    names: CgroupNames,
    clock: int,
) -> list[Close]:
    """Return a Close per record; `clock` is CLOCK_REALTIME minus CLOCK_MONOTONIC in ns."""
    return [_close(row, verdict, host, names, clock) for row, verdict in rows_of(records, verdicts)]


def _close(row: Row, verdict: Verdict, host: HostFacts, names: CgroupNames, clock: int) -> Close:
    delayed_ack = _delayed_ack(row, verdict, host)
    ato_us = None if delayed_ack is None else delayed_ack.ato_us
    facts = facts_of(row, verdict, host, ato_us)
    return Close(
        v=CONTRACT_VERSION,
        at=wall_time(row.closed_ns + clock),
        family=row.family,
        netns=row.netns,
        laddr=address(row.saddr, row.family),
        lport=row.lport,
        raddr=address(row.daddr, row.family),
        rport=row.rport,
        opened=opened(row.flags),
        kind=_KINDS[verdict.kind],
        handshake=_HANDSHAKES[verdict.handshake],
        fin_ack=_FIN_ACKS[verdict.fin_ack],
        evidence=_EVIDENCE[verdict.evidence],
        cause=_CAUSES[verdict.cause],
        rst_reason=facts.rst_reason,
        err=facts.err,
        sigpipe=facts.sigpipe,
        time_wait=facts.time_wait,
        opener=_opener(row),
        closer=_closer(row, verdict),
        cgroup=cgroup_path(names.get(row.cgroup_id)),
        tx_bytes=row.bytes_sent,
        rx_bytes=facts.rx_bytes,
        unread_bytes=facts.unread_bytes,
        unacked_bytes=facts.unacked_bytes,
        unsent_bytes=facts.unsent_bytes,
        data_lost=facts.data_lost,
        delayed_ack=delayed_ack,
        timeline_us=timeline_us(row, verdict),
        close_wait_us=facts.close_wait_us,
        teardown_us=teardown_us(row, verdict),
        lifetime_us=facts.lifetime_us,
        why=why(facts),
    )


def _opener(row: Row) -> Opener | None:
    # In softirq `current` is a bystander.
    if row.opener__flags & (_ACTOR_VALID | _IN_SOFTIRQ) != _ACTOR_VALID:
        return None
    return Opener(row.opener__tgid, comm(row.opener__comm))


def _closer(row: Row, verdict: Verdict) -> Closer | None:
    if not verdict.closer_known:
        return None
    signalled = verdict.how == _SIGNAL
    how = f"signal:{verdict.signal_or_code}" if signalled else _HOW_LABELS[verdict.how]
    return Closer(row.closer__tgid, comm(row.closer__comm), row.closer__uid, how)


def _delayed_ack(row: Row, verdict: Verdict, host: HostFacts) -> DelayedAck | None:
    # Read at ->CLOSE_WAIT only.
    if not (row.fin_received_ns and was_in_close_wait(row)):
        return None
    return DelayedAck(
        ato_us=row.ack_ato_jiffies * 1_000_000 // host.hz,
        pingpong=bool(row.ack_pingpong),
        quick=row.ack_quick,
        fate=_FATE_LABELS[verdict.ack_fate],
        after_us=ack_after_us(row, verdict),
    )
