# SPDX-License-Identifier: Apache-2.0
"""Who leaks CLOSE_WAIT: sockets whose peer has closed, by who holds them and for whom.

A socket by itself is held, sending, or not accepted yet. What a group of held ones is shows in
how far they were read, in their ages, and in what several looks saw come and leave.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from tracer.detectors import close_wait_verdict as verdicts
from tracer.detectors.close_wait_groups import Groups, close_waits, tell_apart
from tracer.detectors.close_wait_history import YOUNG, CloseWaitHistory, When
from tracer.detectors.close_wait_sockets import oldest
from tracer.detectors.close_wait_why import sentence
from tracer.detectors.finding import unit_of

if TYPE_CHECKING:
    from tracer.census import Census
    from tracer.detectors.close_wait_groups import Place
    from tracer.detectors.close_wait_history import Cookies, Trend
    from tracer.detectors.close_wait_sockets import CloseWaitSocket
    from tracer.detectors.close_wait_verdict import Evidence, Verdict
    from tracer.detectors.finding import Severity
    from tracer.detectors.holders import Holder

OLDER_MS: Final = 10_000
GROUPS_MAX: Final = 1_000  # the largest; more are counted, not judged


@dataclass(frozen=True, slots=True)
class CloseWaitFinding:
    """One group of sockets and what it is judged to be."""

    verdict: Verdict
    settled: bool
    """Watched long enough, or plain at once; else judged from the ages of the sockets."""
    severity: Severity
    why: str
    advice: str
    holders: tuple[Holder, ...]
    """The first few by pid; empty: nobody. For the accept queue they are the listener's."""
    holder_count: int
    unit: str | None
    """Unit or container of the first holder."""
    place: Place
    evidence: Evidence
    sockets: tuple[CloseWaitSocket, ...]
    """The oldest, as many as the detector was told to list."""
    cookies: tuple[int, ...]
    """Of the newest, as many as the detector was told to; none of what is no suspect."""
    nofile_soft: int | None
    open_fds: int | None
    nofile_share: float | None
    """How much of the first holder's RLIMIT_NOFILE these sockets take."""
    nofile_reached_s: float | None
    """When the first holder has no descriptor left, if it goes on like this; None: not known,
    or never."""


@dataclass(frozen=True, slots=True)
class CloseWaitReport:
    """All groups, the gravest first; of `sockets` in CLOSE_WAIT, `younger` are in none."""

    findings: tuple[CloseWaitFinding, ...]
    sockets: int
    younger: int
    older_ms: int
    groups_left_out: int


class CloseWaitLeak:
    """Judges censuses as they come, in the order of time; younger sockets are left out."""

    name: Final = "close_wait_leak"

    def __init__(self, older_ms: int = OLDER_MS, *, listed: int = 0, cookies: int = 0) -> None:
        self._older_ms, self._listed, self._cookies = older_ms, listed, cookies
        self._history = CloseWaitHistory()

    def look(self, census: Census) -> CloseWaitReport:
        """Judge a census."""
        sockets = close_waits(census)
        when = When(census.mono_ns, census.mono_ns + census.took_ns)
        seen = self._history.seen(when, sockets["cookie"])
        groups = Groups(census, sockets, tell_apart(census, sockets, seen), self._older_ms)
        trends = self._remember(when, sockets["cookie"], groups)
        findings = [
            _finding(groups, number, trend, self._listed, self._cookies)
            for number, trend in trends.items()
        ]
        findings.sort(key=lambda f: (-f.severity, f.verdict, -f.evidence.count))
        return CloseWaitReport(
            findings=tuple(findings),
            sockets=len(sockets),
            younger=len(sockets) - int(groups.old.sum()),
            older_ms=self._older_ms,
            groups_left_out=len(groups.counts) - len(trends),
        )

    def _remember(self, when: When, cookies: Cookies, groups: Groups) -> dict[int, Trend | None]:
        kept = groups.largest_first(GROUPS_MAX)
        keys = {number: groups.key(number) for number in kept}
        place = np.full(len(groups.counts), YOUNG, np.int64)
        place[kept] = np.arange(len(kept))
        group_of = np.full(len(cookies), YOUNG, np.int64)
        group_of[groups.old] = place[groups.ids]
        self._history.remember(when, cookies, group_of, list(keys.values()))
        return {number: self._history.trend(key) for number, key in keys.items()}


def _finding(
    groups: Groups, number: int, trend: Trend | None, listed: int, cookies: int
) -> CloseWaitFinding:
    evidence = groups.evidence(number, trend)
    reason = verdicts.decide(evidence)
    rule = verdicts.RULES[reason]
    holders, holder_count = groups.holders(number)
    first = holders[0] if holders else None
    share, reached_s = _room(first, evidence)
    return CloseWaitFinding(
        verdict=rule.verdict,
        settled=evidence.settled or rule.verdict in verdicts.PLAIN,
        severity=verdicts.severity(rule, share=share, seconds_to_limit=reached_s),
        why=sentence(reason, evidence),
        advice=rule.advice,
        holders=holders,
        holder_count=holder_count,
        unit=unit_of(first.cgroup if first else None),
        place=groups.place(number),
        evidence=evidence,
        sockets=oldest(groups, number, listed),
        cookies=groups.newest(number, cookies) if rule.verdict in verdicts.SUSPECTS else (),
        nofile_soft=first.nofile_soft if first else None,
        open_fds=first.open_fds if first else None,
        nofile_share=share,
        nofile_reached_s=reached_s,
    )


# What waits in an accept queue has no descriptor yet.
def _room(first: Holder | None, evidence: Evidence) -> tuple[float | None, float | None]:
    if first is None or first.nofile_soft is None or evidence.use == verdicts.Use.QUEUED:
        return None, None
    share = evidence.count / first.nofile_soft if first.nofile_soft else None
    growth = evidence.per_minute
    if first.open_fds is None or growth is None or growth <= 0:
        return share, None
    return share, max(0, first.nofile_soft - first.open_fds) * 60 / growth
