# SPDX-License-Identifier: Apache-2.0
"""What a network namespace counts of all its listeners, and orphans against their limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tracer.detectors.finding import Severity
from tracer.detectors.listen_history import DROPS, OVERFLOWS

if TYPE_CHECKING:
    from tracer.census import Census, NetnsFacts
    from tracer.detectors.listen_history import ListenHistory

ORPHAN_SHARE: Final = 0.5
"""tcp_too_many_orphans() halves the limit for a socket that retransmits, then quarters it."""


@dataclass(frozen=True, slots=True)
class ListenNamespace:
    """One network namespace; None where it was not told. `…_since`: since the first look."""

    severity: Severity
    netns: int
    overflows: int | None
    """ListenOverflows: accept queue full."""
    overflows_since: int | None
    drops: int | None
    """ListenDrops: for whatever reason, overflows included."""
    drops_since: int | None
    syncookies_sent: int | None
    syn_queue_full: int | None
    """TCPReqQFullDrop and TCPReqQFullDoCookies."""
    somaxconn: int | None
    orphans: int | None
    """Of the whole host, as their limit."""
    max_orphans: int | None


def look(census: Census, history: ListenHistory) -> tuple[ListenNamespace, ...]:
    """Return every namespace of the census."""
    return tuple(
        _namespace(netns, facts, history) for netns, facts in sorted(census.namespaces.items())
    )


def _namespace(netns: int, facts: NetnsFacts, history: ListenHistory) -> ListenNamespace:
    counters, orphans = facts.tcp_ext, facts.sockstat.get("orphan")
    many = facts.max_orphans and orphans and orphans >= ORPHAN_SHARE * facts.max_orphans
    full = [counters[name] for name in _SYN_QUEUE_FULL if name in counters]
    return ListenNamespace(
        severity=Severity.WARNING if many else Severity.OK,
        netns=netns,
        overflows=counters.get(OVERFLOWS),
        overflows_since=history.counted(netns, OVERFLOWS, counters),
        drops=counters.get(DROPS),
        drops_since=history.counted(netns, DROPS, counters),
        syncookies_sent=counters.get("SyncookiesSent"),
        syn_queue_full=sum(full) if full else None,
        somaxconn=facts.somaxconn,
        orphans=orphans,
        max_orphans=facts.max_orphans,
    )


_SYN_QUEUE_FULL: Final = ("TCPReqQFullDrop", "TCPReqQFullDoCookies")
