# SPDX-License-Identifier: Apache-2.0
"""Why a group in CLOSE_WAIT was judged as it was: one sentence per Reason."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tracer.detectors.close_wait_verdict import Evidence, Reason
from tracer.why_facts import duration, plural

if TYPE_CHECKING:
    from collections.abc import Callable


US_PER_MS: Final = 1_000


def sentence(reason: Reason, evidence: Evidence) -> str:
    """Return why, in one sentence."""
    return SENTENCES[reason](evidence)


def _oldest(evidence: Evidence) -> str:
    return duration(evidence.oldest_ms * US_PER_MS)


def _reading(evidence: Evidence) -> str:
    """Tell how far they were read; the kinds that occur, most frequent first."""
    kinds = (
        (evidence.eof_read, "read to the end and kept"),
        (evidence.eof_pending, "with the end of stream unread"),
        (evidence.data_pending, f"with {plural(evidence.unread_bytes, 'byte')} unread"),
    )
    there = sorted((kind for kind in kinds if kind[0]), reverse=True)
    if len(there) == 1:
        return there[0][1]
    return ", ".join(f"{count:,} {words}" for count, words in there)


def _watched(evidence: Evidence) -> str:
    return f"in {duration(int(evidence.trend.span_s * 1e6))}" if evidence.trend else ""


def _grows(evidence: Evidence) -> str:
    trend = evidence.trend
    entered, left = (trend.entered, trend.left) if trend else (0, 0)
    beside = f" and {left:,} left" if left else " and none left"
    return f"{entered:,} came{beside} {_watched(evidence)}: {_reading(evidence)}."


# A few may have come since the first look, and no more.
def _rests(evidence: Evidence) -> str:
    trend = evidence.trend
    if trend is None or not trend.entered:
        return f"None came, none left {_watched(evidence)}"
    return f"{trend.entered:,} came, {trend.left:,} left {_watched(evidence)}; it does not go on"


def _together(evidence: Evidence) -> str:
    drop = evidence.trend.emptied if evidence.trend else None
    left, there = (drop.left, drop.there) if drop else (0, 0)
    return f"{left:,} of {there:,} were closed at once: a collector or a sweep does it."


def _one_by_one(evidence: Evidence) -> str:
    trend = evidence.trend
    entered, left = (trend.entered, trend.left) if trend else (0, 0)
    return (
        f"{left:,} left while {entered:,} came {_watched(evidence)}: "
        f"closed late, the oldest after {_oldest(evidence)} or more."
    )


def _by_ages(evidence: Evidence) -> str:
    return (
        f"By their ages they keep coming and stay: {_reading(evidence)}, "
        f"the oldest for {_oldest(evidence)}."
    )


def _stopped(evidence: Evidence) -> str:
    last = duration(evidence.youngest_ms * US_PER_MS)
    return f"None came in the last {last}: the peer closed idle connections, nobody looked since."


SENTENCES: Final[dict[Reason, Callable[[Evidence], str]]] = {
    Reason.NEVER_ACCEPTED: lambda _: "The peer closed before accept() was called; it waits still.",
    Reason.SENT_SINCE: lambda _: "Data was sent, or waits to be, after the peer closed its side.",
    Reason.CLOSED_TOGETHER: _together,
    Reason.CLOSED_ONE_BY_ONE: _one_by_one,
    Reason.GROWS: _grows,
    Reason.GROWS_UNREAD: _grows,
    Reason.FORGOTTEN: lambda e: f"{_rests(e)}: {_reading(e)}.",
    Reason.NEVER_READ: lambda e: f"{_rests(e)}: {_reading(e)}.",
    Reason.POOL_HOLDS: lambda e: (
        f"We connected, the peer closed first, nobody looked since. {_rests(e)}."
    ),
    Reason.STOPPED_UNREAD: lambda e: f"Held for {_oldest(e)} {_reading(e)}: nobody reads.",
    Reason.GROWS_BY_AGES: _by_ages,
    Reason.GROWS_UNREAD_BY_AGES: _by_ages,
    Reason.FORGOTTEN_BY_AGES: lambda e: (
        f"Held for {_oldest(e)} after the peer closed: {_reading(e)}."
    ),
    Reason.STOPPED_BY_AGES: _stopped,
    Reason.LEAK_OR_POOL: lambda _: (
        "We connected, the peer closed first, nobody looked since: "
        "one look cannot tell a leak from a pool."
    ),
}
