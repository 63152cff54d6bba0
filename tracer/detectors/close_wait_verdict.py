# SPDX-License-Identifier: Apache-2.0
"""What a group of sockets in CLOSE_WAIT can be judged to be: rules, verdicts, what to do.

decide() finds the Reason; verdict and advice follow from RULES, the sentence from
close_wait_why.py. A new rule is a member, a row, a condition and a sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final, NamedTuple

from tracer.detectors.finding import Severity

if TYPE_CHECKING:
    from tracer.detectors.close_wait_history import Trend

SETTLING_LOOKS: Final = 3
SETTLING_S: Final = 10.0
STOPPED_GAPS: Final = 5
"""Arrivals have stopped when the last is this many mean gaps ago: e^-5 by chance alone."""
STOPPED_SHARE: Final = 0.2
"""And at least this part of the time in which they came: they may come in bursts."""
BURST_SHARE: Final = 0.5
BURST_LEAST: Final = 3
LATE_SHARE: Final = 0.5
DOOMED_S: Final = 3600.0
DOOMED_SHARE: Final = 0.8


class Use(IntEnum):
    """What one socket in CLOSE_WAIT is, taken by itself."""

    HELD = 0
    """Accepted or connected, nothing sent since the peer closed."""
    SENDING = 1
    """Sent since the peer closed, or has something to send."""
    QUEUED = 2
    """Never accepted."""


class Verdict(IntEnum):
    """What becomes of a group."""

    LEAK = 0
    IDLE_POOL = 1
    AWAITS_GC = 2
    LATE_CLOSE = 3
    HALF_CLOSE = 4
    ACCEPT_QUEUE = 5
    UNSETTLED = 6

    @property
    def label(self) -> str:
        """JSON value and metric label."""
        return self.name.lower()


class Reason(IntEnum):
    """Which rule decided."""

    NEVER_ACCEPTED = 0
    SENT_SINCE = 1
    CLOSED_TOGETHER = 2
    CLOSED_ONE_BY_ONE = 3
    GROWS = 4
    FORGOTTEN = 5
    NEVER_READ = 6
    POOL_HOLDS = 7
    STOPPED_UNREAD = 8
    GROWS_BY_AGES = 9
    FORGOTTEN_BY_AGES = 10
    STOPPED_BY_AGES = 11
    LEAK_OR_POOL = 12
    GROWS_UNREAD = 13
    GROWS_UNREAD_BY_AGES = 14


class Rule(NamedTuple):
    """What goes with a Reason."""

    verdict: Verdict
    advice: str
    severity: Severity


_CLOSE: Final = (
    "Close the socket on every path, errors included, as soon as recv() returns 0; "
    "a restart frees what is held."
)
_READ: Final = (
    "Find what keeps the process from reading: a stuck worker, or sockets nobody polls; "
    "read to the end, then close."
)
_POOL: Final = (
    "Harmless while bounded; let the pool drop idle connections before the peer does "
    "(idle timeout below the peer's)."
)
_AGAIN: Final = "Look again over a minute: fourwave leaks --over 60."

RULES: Final[dict[Reason, Rule]] = {
    Reason.NEVER_ACCEPTED: Rule(
        Verdict.ACCEPT_QUEUE,
        "Make the process call accept() sooner: fourwave listeners shows its queue.",
        Severity.WARNING,
    ),
    Reason.SENT_SINCE: Rule(
        Verdict.HALF_CLOSE, "Nothing: the peer closed its side only, and reads on.", Severity.OK
    ),
    Reason.CLOSED_TOGETHER: Rule(
        Verdict.AWAITS_GC,
        "Close explicitly (with, defer, try-with-resources), do not leave it to the collector.",
        Severity.NOTICE,
    ),
    Reason.CLOSED_ONE_BY_ONE: Rule(
        Verdict.LATE_CLOSE,
        "Close when recv() returns 0 instead of at a timeout or after the work is done.",
        Severity.NOTICE,
    ),
    Reason.GROWS: Rule(Verdict.LEAK, _CLOSE, Severity.WARNING),
    Reason.GROWS_UNREAD: Rule(Verdict.LEAK, _READ, Severity.WARNING),
    Reason.FORGOTTEN: Rule(Verdict.LEAK, _CLOSE, Severity.NOTICE),
    Reason.NEVER_READ: Rule(Verdict.LEAK, _READ, Severity.NOTICE),
    Reason.POOL_HOLDS: Rule(Verdict.IDLE_POOL, _POOL, Severity.OK),
    Reason.STOPPED_UNREAD: Rule(Verdict.LEAK, _READ, Severity.NOTICE),
    Reason.GROWS_BY_AGES: Rule(Verdict.LEAK, _CLOSE, Severity.WARNING),
    Reason.GROWS_UNREAD_BY_AGES: Rule(Verdict.LEAK, _READ, Severity.WARNING),
    Reason.FORGOTTEN_BY_AGES: Rule(Verdict.LEAK, _CLOSE, Severity.NOTICE),
    Reason.STOPPED_BY_AGES: Rule(Verdict.IDLE_POOL, _POOL, Severity.OK),
    Reason.LEAK_OR_POOL: Rule(Verdict.UNSETTLED, _AGAIN, Severity.NOTICE),
}


SUSPECTS: Final = (Verdict.LEAK, Verdict.AWAITS_GC, Verdict.LATE_CLOSE, Verdict.UNSETTLED)
"""What some code is to be found for."""
PLAIN: Final = (Verdict.HALF_CLOSE, Verdict.ACCEPT_QUEUE)
"""What one look settles."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of the old sockets of one group."""

    use: Use
    inbound: bool
    count: int
    eof_read: int
    """Read to the end."""
    eof_pending: int
    """Only the end is left to read."""
    data_pending: int
    """Data and the end are left to read."""
    unread_bytes: int
    """Without the end, which the kernel counts as one."""
    oldest_ms: int
    """At least so long in CLOSE_WAIT."""
    oldest_at_most_ms: int | None
    """None: it was there at the first look, and may be there for much longer."""
    youngest_ms: int
    limit_ms: int
    """Younger ones are not counted."""
    last_minute: int
    """How many became old within the last minute."""
    trend: Trend | None

    @property
    def settled(self) -> bool:
        """Whether it was watched long enough to trust what was seen, rather than the ages."""
        trend = self.trend
        return trend is not None and trend.looks >= SETTLING_LOOKS and trend.span_s >= SETTLING_S

    @property
    def arriving(self) -> bool | None:
        """Whether sockets still arrive, by their ages alone; None for too few to tell."""
        if self.count < 3:
            return None
        spread_ms = self.oldest_ms - self.youngest_ms
        usual_ms = max(STOPPED_GAPS * spread_ms / (self.count - 1), STOPPED_SHARE * spread_ms)
        return self.youngest_ms - self.limit_ms <= usual_ms

    @property
    def per_minute(self) -> float | None:
        """Net growth: as watched, else by the ages; None when neither tells."""
        if self.settled and self.trend is not None:
            stopped = self.arriving is False and not self.trend.left
            return 0.0 if stopped else self.trend.per_minute
        if self.arriving is False:
            return 0.0
        span_ms = min(60_000, self.oldest_ms - self.limit_ms)
        if self.arriving is None or span_ms < 1_000:
            return None
        return 60_000 * self.last_minute / span_ms


def decide(evidence: Evidence) -> Reason:
    """Return the first rule that holds."""
    if evidence.use == Use.QUEUED:
        return Reason.NEVER_ACCEPTED
    if evidence.use == Use.SENDING:
        return Reason.SENT_SINCE
    if evidence.settled and evidence.trend is not None:
        return _watched(evidence, evidence.trend)
    return _by_ages(evidence)


def _watched(evidence: Evidence, trend: Trend) -> Reason:
    drop = trend.emptied
    if drop is not None and drop.left >= max(BURST_LEAST, BURST_SHARE * drop.there):
        return Reason.CLOSED_TOGETHER
    if trend.left and trend.left >= LATE_SHARE * trend.entered:
        return Reason.CLOSED_ONE_BY_ONE
    if trend.entered > trend.left and evidence.arriving:
        return Reason.GROWS if _mostly_read(evidence) else Reason.GROWS_UNREAD
    if _mostly_read(evidence):
        return Reason.FORGOTTEN
    if evidence.inbound or evidence.data_pending > evidence.eof_pending:
        return Reason.NEVER_READ
    return Reason.POOL_HOLDS


def _by_ages(evidence: Evidence) -> Reason:
    if _mostly_read(evidence):
        return Reason.GROWS_BY_AGES if evidence.arriving else Reason.FORGOTTEN_BY_AGES
    if evidence.inbound or evidence.data_pending > evidence.eof_pending:
        return Reason.GROWS_UNREAD_BY_AGES if evidence.arriving else Reason.STOPPED_UNREAD
    return Reason.STOPPED_BY_AGES if evidence.arriving is False else Reason.LEAK_OR_POOL


def _mostly_read(evidence: Evidence) -> bool:
    return 2 * evidence.eof_read >= evidence.count


def severity(rule: Rule, *, share: float | None, seconds_to_limit: float | None) -> Severity:
    """Return how grave: whatever it is, running out of descriptors is."""
    if rule.verdict in (Verdict.HALF_CLOSE, Verdict.IDLE_POOL):
        return rule.severity
    near = seconds_to_limit is not None and seconds_to_limit <= DOOMED_S
    return Severity.CRITICAL if near or (share or 0) >= DOOMED_SHARE else rule.severity
