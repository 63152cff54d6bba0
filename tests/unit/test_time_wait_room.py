# SPDX-License-Identifier: Apache-2.0
"""The fullest namespace is found, and what all refused adds up, whoever comes and goes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.unit import censuses as c
from tracer import metrics
from tracer.detectors.time_wait import TimeWait
from tracer.detectors.time_wait_room import TimeWaitRoom, TimeWaitWatch
from tracer.serve_findings import Findings

if TYPE_CHECKING:
    from tracer.census import NetnsFacts


def facts(overflowed: int | None = None, limit: int | None = 100) -> NetnsFacts:
    counters = {} if overflowed is None else {"TCPTimeWaitOverflow": overflowed}
    return replace(c.FACTS, max_tw_buckets=limit, tcp_ext=counters)


def rooms(*looks: dict[int, NetnsFacts], **waiting: int) -> list[TimeWaitRoom]:
    """Look at namespaces; `waiting` are TIME_WAITs by `netnsN`."""
    rows = [c.ports(netns=int(name[5:]), time_wait=count) for name, count in waiting.items()]
    detector, watch = TimeWait(), TimeWaitWatch()
    return [
        watch.look(detector.look(c.census(30 * at, ports=rows, namespaces=spaces))[1])
        for at, spaces in enumerate(looks)
    ]


def test_the_fullest_is_that_nearest_to_its_own_limit() -> None:
    (room,) = rooms({1: facts(limit=1000), 2: facts(limit=10)}, netns1=500, netns2=6)
    assert (room.used, room.limit) == (6, 10)


def test_mini_sockets_in_fin_wait2_count() -> None:
    census = c.census(ports=[c.ports(time_wait=3, fin_wait2=4)], namespaces={1: facts()})
    assert TimeWaitWatch().look(TimeWait().look(census)[1]).used == 7


def test_a_limit_of_none_hides_nobody() -> None:
    (room,) = rooms({1: facts(limit=0), 2: facts(limit=10)}, netns2=6)
    assert (room.used, room.limit) == (6, 10)


def test_what_nobody_tells_is_not_known() -> None:
    assert rooms({1: facts(limit=None)}, netns1=5) == [TimeWaitRoom(None, None, None)]


@pytest.mark.parametrize(
    ("looks", "gained"),
    [
        ([{1: 500}, {1: 500}, {1: 507}], [0, 0, 7]),
        ([{1: 5, 2: 90}, {1: 6}, {1: 8}], [0, 1, 3]),  # 2 went: what it counted stays out
        ([{1: 5, 2: 90}, {1: 6, 2: 93}, {1: 6}], [0, 4, 4]),
        ([{1: 5}, {1: 5, 2: 40}, {1: 5, 2: 41}], [0, 0, 1]),  # 2 came, as old as it may be
        ([{1: 50}, {1: 3}, {1: 4}], [0, 3, 4]),  # another one under the same number
        ([{1: 5}, {}, {1: 9}], [0, 0, 0]),
        ([{1: None}, {1: 5}], [None, 0]),
    ],
)
def test_overflows_never_fall(looks: list[dict[int, int | None]], gained: list[int | None]) -> None:
    seen = rooms(*({netns: facts(count) for netns, count in look.items()} for look in looks))
    assert [room.overflowed for room in seen] == gained


def test_they_become_metrics_and_outlive_a_census_that_fails(
    capsys: pytest.CaptureFixture[str],
) -> None:
    findings = Findings()
    waiting = [c.ports(time_wait=60, fin_wait2=5)]

    def overflows(at_s: float, count: int) -> float:
        census = c.census(at_s, ports=waiting, namespaces={1: facts(count)})
        values = findings.look(census, at_s).values
        assert values[metrics.TIME_WAIT_USED.name] == {(): 65}
        assert values[metrics.TIME_WAIT_LIMIT.name] == {(): 100}
        return values[metrics.TIME_WAIT_OVERFLOWS.name][()]

    assert overflows(0, 1000) == 0
    assert overflows(30, 1004) == 4
    assert metrics.TIME_WAIT_OVERFLOWS.name not in findings.fail(OSError(11, "no")).values
    assert overflows(90, 1005) == 5
    assert "detector census" in capsys.readouterr().err
