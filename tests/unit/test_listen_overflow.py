# SPDX-License-Identifier: Apache-2.0
"""Listeners judged: full, dropping, dropped, filling, and what it proves to be."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.unit import censuses as c
from tracer.detectors.finding import Severity
from tracer.detectors.listen_overflow import ListenOverflow
from tracer.detectors.listen_verdict import RULES, ListenVerdict

if TYPE_CHECKING:
    from tracer.census import Census, Rows
    from tracer.detectors.listen_overflow import ListenerFinding


def taken(
    at_s: float, *listeners: Rows, overflows: int = 0, drops: int = 0, **facts: Any
) -> Census:
    counters = {"ListenOverflows": overflows, "ListenDrops": drops}
    space = replace(c.FACTS, tcp_ext=counters, **facts)
    return c.census(at_s, listeners, namespaces={1: space})


def after(row: Rows, **fields: Any) -> Rows:
    later = row.copy()
    for name, value in fields.items():
        later[name] = value
    return later


def judged(*censuses: Census) -> list[ListenerFinding]:
    detector = ListenOverflow()
    for census in censuses[:-1]:
        detector.look(census)
    return list(detector.look(censuses[-1]).findings)


@pytest.mark.parametrize(
    ("fields", "verdict", "severity"),
    [
        ({}, ListenVerdict.FINE, Severity.OK),
        ({"accept_queue": 64}, ListenVerdict.FINE, Severity.OK),
        ({"accept_queue": 65}, ListenVerdict.FILLING, Severity.NOTICE),
        ({"accept_queue": 128}, ListenVerdict.FILLING, Severity.NOTICE),
        ({"accept_queue": 129}, ListenVerdict.FULL, Severity.CRITICAL),
        ({"accept_queue": 1, "accept_queue_limit": 0}, ListenVerdict.FULL, Severity.CRITICAL),
        ({"drops": 7}, ListenVerdict.DROPPED, Severity.NOTICE),
        ({"syn_queue": 128}, ListenVerdict.SYN_QUEUE_FULL, Severity.WARNING),
        ({"accept_queue": 3, "oldest_wait_ms": 9_999}, ListenVerdict.FINE, Severity.OK),
        ({"accept_queue": 3, "oldest_wait_ms": 10_000}, ListenVerdict.STUCK, Severity.WARNING),
        ({"oldest_wait_ms": 10_000}, ListenVerdict.FINE, Severity.OK),  # it has just left
    ],
)
def test_one_look(fields: dict[str, int], verdict: ListenVerdict, severity: Severity) -> None:
    """A queue is full with one more than its limit: sk_acceptq_is_full()."""
    (finding,) = judged(taken(0, c.listener(**fields)))
    assert (finding.verdict, finding.severity) == (verdict, severity)


@pytest.mark.parametrize(
    ("limit", "somaxconn", "origin", "word"),
    [
        (128, 4096, "listen", "net.core.somaxconn allows 4,096"),
        (4096, 4096, "somaxconn", "raise both"),
        (511, 128, None, "net.core.somaxconn allows 128 to the next"),  # lowered after listen()
        (128, None, None, "raise the limit"),
    ],
)
def test_origin_of_the_limit(
    limit: int, somaxconn: int | None, origin: str | None, word: str
) -> None:
    row = c.listener(accept_queue=limit + 1, accept_queue_limit=limit)
    (finding,) = judged(taken(0, row, somaxconn=somaxconn))
    assert finding.queue.limit_from == origin
    assert word in finding.advice


def test_how_long_the_first_waits_is_told() -> None:
    """Also where the queue is full; not where it is not known."""
    waits = {"accept_queue": 1, "oldest_wait_ms": 192_000}
    (finding,) = judged(taken(0, c.listener(**waits)))
    assert finding.why == "1 connection waits for accept(), the first for 3.2 min."
    assert finding.advice.startswith("See what keeps the process from accept()")
    full = {"accept_queue": 5, "accept_queue_limit": 4}
    (finding,) = judged(taken(0, c.listener(**waits | full)))
    assert "5 wait, the first for 3.2 min:" in finding.why
    (finding,) = judged(taken(0, c.listener(**full)))
    assert "5 wait:" in finding.why


def test_drops_while_watched() -> None:
    row = c.listener(drops=100)
    (finding,) = judged(
        taken(0, row, overflows=100, drops=100),
        taken(30, after(row, drops=115), overflows=115, drops=115),
    )
    assert finding.verdict == ListenVerdict.DROPPING
    assert finding.queue.drops_since == 15
    assert finding.queue.drops_per_minute == 30
    assert finding.queue.overflows == 15
    assert finding.why == "15 drops in 30 s, the accept queue being full."


def test_drops_of_old_are_not_of_now() -> None:
    row = c.listener(drops=100)
    (finding,) = judged(taken(0, row), taken(30, row))
    assert finding.verdict == ListenVerdict.DROPPED
    assert "None of them lately" in finding.why


@pytest.mark.parametrize(
    ("own", "other", "overflows", "drops", "expected"),
    [
        (5, 3, 8, 8, 5),  # every drop was an overflow
        (5, 3, 0, 8, 0),  # none was
        (5, 0, 2, 5, 2),  # it is the only one that drops
        (5, 3, 6, 8, None),  # some were: whose, is not known
        (5, 0, 2, 8, None),  # three more were dropped by one that is gone
        (9, 0, 2, 5, 2),  # four were no connections
        (0, 3, 3, 3, 0),
    ],
)
def test_overflows_as_far_as_proven(
    own: int, other: int, overflows: int, drops: int, expected: int | None
) -> None:
    one, two = c.listener(80, drops=own), c.listener(81, drops=other)
    found = judged(taken(0, one, two, overflows=overflows, drops=drops))
    assert {f.lport: f.queue.overflows for f in found}[80] == expected


def test_drops_with_room_in_the_queue_are_not_for_want_of_accept() -> None:
    """What is to be done follows from what was full."""
    row = c.listener(drops=5)
    (finding,) = judged(taken(0, row, drops=5))
    assert finding.why == "5 drops since listen(), 0 of them the accept queue being full."
    assert "tcp_syncookies" in finding.advice
    (finding,) = judged(taken(0, row, drops=5, overflows=5))
    assert finding.advice.startswith("Call accept() sooner")


def test_peak_outlives_the_queue() -> None:
    row = c.listener(accept_queue=100)
    (finding,) = judged(taken(0, row), taken(10, after(row, accept_queue=0)))
    assert (finding.queue.accept_queue, finding.queue.accept_queue_peak) == (0, 100)
    assert finding.verdict == ListenVerdict.FILLING


def test_a_new_socket_on_an_old_port_has_no_past() -> None:
    (finding,) = judged(taken(0, c.listener(accept_queue=100)), taken(10, c.listener()))
    assert finding.queue.accept_queue_peak == 0
    assert finding.queue.drops_since is None


def test_owners_and_unit() -> None:
    row = c.listener()
    census = replace(taken(0, row), owners=c.held_by(row, 5, 6, 7), processes={5: c.process()})
    (finding,) = judged(census)
    assert ([h.pid for h in finding.holders], finding.unit) == ([5, 6, 7], "server.service")


def test_orphans_near_their_limit() -> None:
    census = taken(0, c.listener(), max_orphans=100, sockstat={"orphan": 60})
    (space,) = ListenOverflow().look(census).namespaces
    assert (space.severity, space.orphans, space.max_orphans) == (Severity.WARNING, 60, 100)


def test_counters_that_are_not_told_are_unknown() -> None:
    census = c.census(0, [c.listener(drops=3)], namespaces={})
    report = ListenOverflow().look(census)
    assert report.namespaces == ()
    assert report.findings[0].queue.overflows is None


def test_every_verdict_has_a_rule() -> None:
    assert set(RULES) == set(ListenVerdict)
