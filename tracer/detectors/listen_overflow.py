# SPDX-License-Identifier: Apache-2.0
"""Which listener overflows: its queue now and at most, the limit and its origin, and its drops.

A listener's `drops` are its own, the counters of overflows are the namespace's: why a listener
dropped connections is told only as far as both together prove it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tracer.detectors import listen_namespace
from tracer.detectors.finding import Severity, unit_of
from tracer.detectors.holders import Holders
from tracer.detectors.listen_history import DROPS, NS_PER_S, OVERFLOWS, ListenHistory
from tracer.detectors.listen_verdict import RULES, ListenVerdict, Queue, advice, decide
from tracer.detectors.rows import in_state, text_of
from tracer.tcp import TcpState

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

    from tracer.census import Census, Rows
    from tracer.detectors.holders import Holder
    from tracer.detectors.listen_namespace import ListenNamespace

MS_PER_S: Final = 1_000
FINDINGS_MAX: Final = 1_000  # listeners that become objects; those that drop, then the fullest


@dataclass(frozen=True, slots=True)
class ListenerFinding:
    """One listening socket."""

    verdict: ListenVerdict
    severity: Severity
    why: str
    advice: str
    netns: int
    laddr: str
    lport: int
    cookie: int
    holders: tuple[Holder, ...]
    """The first few by pid."""
    holder_count: int
    unit: str | None
    queue: Queue


@dataclass(frozen=True, slots=True)
class ListenReport:
    """The listeners, the gravest first, and their namespaces."""

    findings: tuple[ListenerFinding, ...]
    listeners: int
    namespaces: tuple[ListenNamespace, ...]
    grown: Mapping[int, int]
    """Drops since the look before, by cookie, of all listeners that had any."""


class ListenOverflow:
    """Judges censuses as they come, in the order of time."""

    name: Final = "listen_overflow"

    def __init__(self) -> None:
        self._history = ListenHistory()

    def look(self, census: Census) -> ListenReport:
        """Judge a census."""
        listeners = in_state(census.sockets, TcpState.LISTEN)
        self._history.look(census, listeners)
        namespaces = listen_namespace.look(census, self._history)
        counts = _Counts(census, listeners, self._history)
        holders = Holders(census)
        order = np.lexsort((-listeners["accept_queue"].astype(np.int64), -counts.drops))
        findings = [
            _finding(row, counts.queue(row), holders) for row in listeners[order[:FINDINGS_MAX]]
        ]
        findings.sort(key=lambda f: (-f.severity, -f.verdict, f.netns, f.lport, f.laddr, f.cookie))
        return ListenReport(tuple(findings), len(listeners), namespaces, self._history.grown)


class _Counts:
    """The queues of listeners, with what their namespace's counters add."""

    def __init__(self, census: Census, listeners: Rows, history: ListenHistory) -> None:
        self._census, self._history = census, history
        pasts = [history.of(cookie) for cookie in listeners["cookie"].tolist()]
        first = np.array([past.drops if past else 0 for past in pasts], np.int64)
        self._watched = any(past and past.since_ns < census.mono_ns for past in pasts)
        self.drops = listeners["drops"].astype(np.int64) - (first if self._watched else 0)
        self._netns = listeners["netns"]

    def queue(self, row: npt.NDArray[np.void]) -> Queue:
        """Return the queues of one listener."""
        past = self._history.of(int(row["cookie"]))
        watched_ns = self._census.mono_ns - past.since_ns if past else 0
        drops, limit = int(row["drops"]), int(row["accept_queue_limit"])
        since = drops - past.drops if past and watched_ns else None
        facts = self._census.namespaces.get(int(row["netns"]))
        somaxconn = facts.somaxconn if facts else None
        return Queue(
            accept_queue=int(row["accept_queue"]),
            accept_queue_peak=past.peak if past else int(row["accept_queue"]),
            limit=limit,
            limit_from=_limit_from(limit, somaxconn),
            somaxconn=somaxconn,
            syn_queue=int(row["syn_queue"]),
            drops=drops,
            drops_since=since,
            watched_s=watched_ns / NS_PER_S,
            oldest_wait_s=_oldest_wait_s(row),
            overflows=self._overflows(int(row["netns"]), drops if since is None else since),
        )

    # All drops of the namespace were overflows, or none was, or one listener had them all; those of
    # a listener that is gone are the namespace's, too.
    def _overflows(self, netns: int, own: int) -> int | None:
        overflows, dropped = self._counted(netns, OVERFLOWS), self._counted(netns, DROPS)
        if own == 0 or overflows == 0:
            return 0
        if overflows is None or dropped is None:
            return None
        here = self.drops[self._netns == netns].sum()
        if dropped <= here == own or here <= dropped == overflows:
            return min(own, overflows)
        return None

    def _counted(self, netns: int, name: str) -> int | None:
        facts = self._census.namespaces.get(netns)
        if facts is None:
            return None
        if self._watched:
            return self._history.counted(netns, name, facts.tcp_ext)
        return facts.tcp_ext.get(name)


def _oldest_wait_s(row: npt.NDArray[np.void]) -> float | None:
    waited_ms = int(row["oldest_wait_ms"])
    return waited_ms / MS_PER_S if row["accept_queue"] and waited_ms >= 0 else None


# __sys_listen(): sk_max_ack_backlog is the smaller of both when listen() is called. Whether it was
# cut by a somaxconn that was lowered since, nobody knows.
def _limit_from(limit: int, somaxconn: int | None) -> str | None:
    if somaxconn is None or limit > somaxconn:
        return None
    return "somaxconn" if limit == somaxconn else "listen"


def _finding(row: npt.NDArray[np.void], queue: Queue, holders: Holders) -> ListenerFinding:
    verdict = decide(queue)
    named, count = holders.of(int(row["ino"]))
    return ListenerFinding(
        verdict=verdict,
        severity=RULES[verdict].severity,
        why=RULES[verdict].why(queue),
        advice=advice(verdict, queue),
        netns=int(row["netns"]),
        laddr=text_of(row["laddr"], int(row["family"])),
        lport=int(row["lport"]),
        cookie=int(row["cookie"]),
        holders=named,
        holder_count=count,
        unit=unit_of(named[0].cgroup if named else None),
        queue=queue,
    )
