# SPDX-License-Identifier: Apache-2.0
"""What listeners drop is a counter: whatever comes, goes and is folded, no series ever falls."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from tests.unit import censuses as c
from tracer import metrics, serve_totals
from tracer.detectors import listen_history
from tracer.detectors.listen_overflow import ListenOverflow
from tracer.metrics import ACCEPT_QUEUE_OVERFLOWS
from tracer.serve_findings import Findings
from tracer.serve_totals import Totals

if TYPE_CHECKING:
    import pytest

    from tracer.census import Census, Rows
    from tracer.samples import Labels

CAP = ACCEPT_QUEUE_OVERFLOWS.cap or 0
OTHER = ("other", "other")


def dropped(row: Rows, drops: int) -> Rows:
    later = row.copy()
    later["drops"] = drops
    return later


def grown(*censuses: Census) -> list[int]:
    """Return what all listeners dropped between each two looks."""
    detector = ListenOverflow()
    return [sum(detector.look(census).grown.values()) for census in censuses]


def test_drops_before_the_first_look_do_not_count() -> None:
    old = c.listener(drops=100)
    assert grown(c.census(0, [old]), c.census(30, [dropped(old, 103)])) == [0, 3]


def test_who_is_new_in_a_namespace_that_was_seen_began_with_none() -> None:
    old, new = c.listener(drops=100), c.listener(81, drops=7)
    assert grown(c.census(0, [old]), c.census(30, [old, new]), c.census(60, [new])) == [0, 7, 0]


def test_who_may_have_been_there_before_does_not_count_at_once() -> None:
    old, new = c.listener(drops=1), c.listener(81, netns=2, drops=7)
    unseen = c.census(30, [old, new], namespaces={1: c.FACTS, 2: c.FACTS})
    assert grown(c.census(0, [old]), unseen) == [0, 0]
    left_out = c.census(0, [old], truncated={"sockets": 1})
    assert grown(left_out, c.census(30, [old, c.listener(82, drops=7)])) == [0, 0]


def test_more_listeners_than_are_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen_history, "LISTENERS_MAX", 1)
    first, second = c.listener(drops=5), c.listener(81, drops=50)
    assert grown(c.census(0, [first, second]), c.census(30, [second, first])) == [0, 0]


def overflows(findings: Findings, census: Census) -> dict[Labels, float]:
    return dict(findings.look(census, 1.0).values[ACCEPT_QUEUE_OVERFLOWS.name])


def test_a_restart_between_two_censuses_is_no_fall() -> None:
    findings = Findings()
    at = ("0.0.0.0", "80")  # noqa: S104
    assert overflows(findings, c.census(0, [c.listener(drops=1000)])) == {at: 0}
    assert overflows(findings, c.census(30, [c.listener(drops=4)])) == {at: 4}
    assert overflows(findings, c.census(60, [c.listener(drops=1)])) == {at: 5}


def test_no_series_falls_and_all_of_them_are_all_drops() -> None:
    """Listeners come, go and drop at random, far more than may have a series."""
    chance, findings = random.Random(4), Findings()
    alive = [c.listener(1000 + n, drops=chance.randrange(9)) for n in range(3 * CAP)]
    seen = overflows(findings, c.census(0, alive))
    assert len(seen) == CAP + 1
    assert not sum(seen.values())
    happened, highest = 0, dict(seen)
    for at in range(1, 30):
        alive = chance.sample(alive, len(alive) - 20)
        gains = [chance.choice([0, 0, 0, 5]) for _ in alive]
        alive = [
            dropped(row, int(row["drops"][0]) + n) for row, n in zip(alive, gains, strict=True)
        ]
        new = [
            c.listener(chance.randrange(1000, 1200), drops=chance.randrange(3)) for _ in range(20)
        ]
        alive += new
        happened += sum(gains) + sum(int(row["drops"][0]) for row in new)
        seen = overflows(findings, c.census(30 * at, alive))
        assert len(seen) <= CAP + 1
        assert {labels for labels in seen if seen[labels] < highest.get(labels, 0)} == set()
        highest |= seen
    assert happened
    assert sum(highest.values()) == happened


def test_listeners_beyond_the_findings_count_in_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracer.detectors.listen_overflow.FINDINGS_MAX", 1)
    findings = Findings()
    rows = [c.listener(80), c.listener(81)]
    overflows(findings, c.census(0, rows))
    seen = overflows(findings, c.census(30, [dropped(rows[0], 9), dropped(rows[1], 2)]))
    assert seen == {("0.0.0.0", "80"): 9, OTHER: 2}  # noqa: S104
    assert overflows(findings, c.census(60, [dropped(rows[0], 9)]))[OTHER] == 2


def test_memory_is_bounded_and_forgets_the_longest_unseen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(serve_totals, "REMEMBERED_MAX", 3)
    totals = Totals(metrics.ACCEPT_QUEUE_OVERFLOWS)
    totals.add([(("a", "1"), 5)], rest=2)
    for port in "234":
        totals.add([(("a", port), 5)])
    assert totals.add([(("a", "4"), 1)])[0] == {("a", "4"): 6, OTHER: 2}
    assert totals.add([(("a", "1"), 1)])[0][("a", "1")] == 1
