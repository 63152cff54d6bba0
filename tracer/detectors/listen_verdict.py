# SPDX-License-Identifier: Apache-2.0
"""What a listening socket can be judged to be: rules in one table, with a sentence each."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from tracer.detectors.finding import Severity
from tracer.why_facts import duration, plural

if TYPE_CHECKING:
    from collections.abc import Callable

FILLING_SHARE: Final = 0.5
STUCK_S: Final = 10.0
"""Busy workers take a connection within moments: this one is waited for by nobody."""
US_PER_S: Final = 1_000_000


class ListenVerdict(IntEnum):
    """How a listener does."""

    FINE = 0
    FILLING = 1
    SYN_QUEUE_FULL = 2
    DROPPED = 3
    STUCK = 4
    DROPPING = 5
    FULL = 6

    @property
    def label(self) -> str:
        """JSON value and metric label."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Queue:
    """The queues of one listening socket, now and since it was first looked at."""

    accept_queue: int
    accept_queue_peak: int
    limit: int
    """One more fits: sk_acceptq_is_full() asks whether there are more than that."""
    limit_from: str | None
    """"listen": the argument of listen(); "somaxconn": it was at least that; None: not known, or
    somaxconn was lowered since."""
    somaxconn: int | None
    syn_queue: int
    drops: int
    """Since listen(): SYNs and connections, for whatever reason."""
    drops_since: int | None
    """Since the first look, None at the first."""
    watched_s: float
    oldest_wait_s: float | None
    """How long the first in the accept queue has waited; None: nobody waits, or not known."""
    overflows: int | None
    """Of `drops_since`, at the first look of `drops`: those proven to be overflows."""

    @property
    def drops_per_minute(self) -> float | None:
        """None at the first look."""
        if self.drops_since is None or not self.watched_s:
            return None
        return 60 * self.drops_since / self.watched_s


class Rule(NamedTuple):
    """What goes with a verdict."""

    severity: Severity
    why: Callable[[Queue], str]


def decide(queue: Queue) -> ListenVerdict:
    """Return the first that holds, the gravest first."""
    return next(
        (verdict for verdict, holds in CONDITIONS.items() if holds(queue)), ListenVerdict.FINE
    )


CONDITIONS: Final[dict[ListenVerdict, Callable[[Queue], bool]]] = {
    ListenVerdict.FULL: lambda q: q.accept_queue > q.limit,
    ListenVerdict.DROPPING: lambda q: bool(q.drops_since),
    ListenVerdict.STUCK: lambda q: (q.oldest_wait_s or 0.0) >= STUCK_S,
    ListenVerdict.SYN_QUEUE_FULL: lambda q: q.syn_queue >= max(q.limit, 1),
    ListenVerdict.DROPPED: lambda q: q.drops > 0,
    ListenVerdict.FILLING: lambda q: q.accept_queue_peak > FILLING_SHARE * q.limit,
}


def _dropping(queue: Queue) -> str:
    count = queue.drops_since or 0
    return (
        f"{plural(count, 'drop')} in {duration(int(queue.watched_s * US_PER_S))}"
        f"{_cause(count, queue.overflows)}."
    )


def _dropped(queue: Queue) -> str:
    cause = _cause(queue.drops, queue.overflows) if queue.drops_since is None else ""
    lately = " None of them lately." if queue.drops_since == 0 else ""
    return f"{plural(queue.drops, 'drop')} since listen(){cause}.{lately}"


def _stuck(queue: Queue) -> str:
    waiting = "connection waits" if queue.accept_queue == 1 else "connections wait"
    return f"{queue.accept_queue:,} {waiting} for accept(){_for(queue)}."


def _full(queue: Queue) -> str:
    waiting = f"{queue.accept_queue:,} wait{_for(queue)}"
    return f"The accept queue is full, {waiting}: there is no room for new connections."


def _for(queue: Queue) -> str:
    if queue.oldest_wait_s is None:
        return ""
    return f", the first for {duration(int(queue.oldest_wait_s * US_PER_S))}"


def _cause(count: int, overflows: int | None) -> str:
    if overflows is None:
        return ""
    if overflows >= count:
        return ", the accept queue being full"
    return f", {overflows:,} of them the accept queue being full"


RULES: Final[dict[ListenVerdict, Rule]] = {
    ListenVerdict.FINE: Rule(Severity.OK, lambda _: "The queue has room, nothing was dropped."),
    ListenVerdict.FILLING: Rule(
        Severity.NOTICE,
        lambda q: f"{q.accept_queue_peak:,} connections waited for accept(), {q.limit + 1:,} fit.",
    ),
    ListenVerdict.SYN_QUEUE_FULL: Rule(
        Severity.WARNING,
        lambda q: (
            f"{plural(q.syn_queue, 'handshake')} under way: clients do not answer the SYN,ACK."
        ),
    ),
    ListenVerdict.DROPPED: Rule(Severity.NOTICE, _dropped),
    ListenVerdict.DROPPING: Rule(Severity.WARNING, _dropping),
    ListenVerdict.STUCK: Rule(Severity.WARNING, _stuck),
    ListenVerdict.FULL: Rule(Severity.CRITICAL, _full),
}


def advice(verdict: ListenVerdict, queue: Queue) -> str:
    """Return what to do, in one sentence; empty where nothing is to be done."""
    if verdict == ListenVerdict.FINE:
        return ""
    if verdict == ListenVerdict.STUCK:
        return (
            "See what keeps the process from accept(): stopped or hanging (STAT in ps), out of "
            "descriptors, too few workers."
        )
    if verdict == ListenVerdict.SYN_QUEUE_FULL:
        return "Keep net.ipv4.tcp_syncookies on, and look where the SYNs come from."
    if verdict in (ListenVerdict.DROPPED, ListenVerdict.DROPPING) and queue.overflows == 0:
        return (
            "The accept queue had room: look for handshakes that pile up (keep "
            "net.ipv4.tcp_syncookies on), and for a lack of memory."
        )
    return f"Call accept() sooner (more workers, less work between){_limit(queue)}"


def _limit(queue: Queue) -> str:
    if queue.somaxconn is None:
        return ", or raise the limit."
    allowed = f"net.core.somaxconn allows {queue.somaxconn:,}"
    if queue.limit_from == "listen":
        return f"; listen() asked for {queue.limit:,}, {allowed}."
    if queue.limit_from == "somaxconn":
        return f"; net.core.somaxconn ({queue.limit:,}) cuts what listen() asks for: raise both."
    return f"; the limit is of an earlier time, {allowed} to the next listen()."
