# SPDX-License-Identifier: Apache-2.0
"""Local ports per destination: how many are left, and when none is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.unit import censuses as c
from tracer.census import REMAINING_STEPS
from tracer.detectors.finding import Severity
from tracer.detectors.local_port_range import capacity_of
from tracer.detectors.local_ports import LocalPorts, PortVerdict
from tracer.detectors.time_wait import TimeWait

if TYPE_CHECKING:
    from tracer.census import Rows
    from tracer.detectors.local_ports import PortsFinding

SMALL = replace(c.FACTS, port_range=(1, 1000), tw_reuse=0)
STEADY = [50] * REMAINING_STEPS


def row(remaining: list[int], **fields: Any) -> Rows:
    return c.ports(time_wait=sum(remaining), remaining=remaining, **fields)


def only(ports: Rows, facts: Any = SMALL) -> PortsFinding:
    (finding,) = LocalPorts().look(c.census(ports=[ports], namespaces={1: facts}))
    return finding


def test_what_ends_is_replaced_by_what_begins() -> None:
    """Ten a second for a minute are six hundred: they are there already, and stay."""
    finding = only(row(STEADY, in_use=100))
    assert finding.verdict == PortVerdict.FINE
    assert finding.exhausted_in_s is None
    assert (finding.capacity, finding.available) == (1000, 300)
    assert finding.entered_per_s == 10


@pytest.mark.parametrize(
    ("remaining", "in_use", "expected"),
    [
        # 20 a second began five seconds ago: 900 are left.
        ([0] * 11 + [100], 0, 45),
        # The same, of 500 that are left.
        ([0] * 11 + [100], 400, 25),
        # Old ones end as fast as new ones begin, until they are all gone.
        ([100] * 5 + [0] * 6 + [100], 300, 30),
        # 300 began at once, and it goes on like this.
        ([0] * 11 + [300], 0, 35 / 3),
    ],
)
def test_forecast(remaining: list[int], in_use: int, expected: float) -> None:
    """The known ends of all TIME_WAITs, and the rate of now."""
    finding = only(row(remaining, in_use=in_use))
    assert finding.verdict == PortVerdict.RUNS_OUT
    assert finding.severity == Severity.WARNING
    assert finding.exhausted_in_s == pytest.approx(expected, abs=0.01)


def test_forecast_is_what_a_simulation_says() -> None:
    """Second by second, with the same rate: the same time."""
    rng = np.random.default_rng(7)
    for _ in range(50):
        remaining = rng.integers(0, 120, REMAINING_STEPS).tolist()
        in_use = int(rng.integers(0, 300))
        finding = only(row(remaining, in_use=in_use))
        level = [
            in_use + sum(remaining[k:]) + k * remaining[-1] for k in range(REMAINING_STEPS + 1)
        ]
        first = next((k for k, n in enumerate(level) if n >= 1000), None)
        assert (finding.exhausted_in_s is None) == (first is None)
        if finding.exhausted_in_s is not None and first is not None:
            assert 5 * (first - 1) <= finding.exhausted_in_s <= 5 * first


def test_exhausted() -> None:
    finding = only(row([0] * 11 + [600], in_use=400))
    assert finding.verdict == PortVerdict.EXHAUSTED
    assert finding.severity == Severity.CRITICAL
    assert finding.available == 0
    assert finding.exhausted_in_s == 0
    assert "tcp_tw_reuse" in finding.advice


def test_connections_alone_exhaust_ports_whatever_is_reused() -> None:
    finding = only(c.ports(in_use=1000), replace(SMALL, tw_reuse=1))
    assert finding.verdict == PortVerdict.EXHAUSTED
    assert "more addresses" in finding.advice


@pytest.mark.parametrize(
    ("setting", "raddr", "family", "verdict"),
    [
        (0, "10.0.0.9", 4, PortVerdict.EXHAUSTED),
        (1, "10.0.0.9", 4, PortVerdict.FINE),
        (2, "10.0.0.9", 4, PortVerdict.EXHAUSTED),
        (2, "127.0.0.1", 4, PortVerdict.FINE),
        (2, "::1", 6, PortVerdict.FINE),
        (None, "10.0.0.9", 4, PortVerdict.EXHAUSTED),
    ],
)
def test_reuse(setting: int | None, raddr: str, family: int, verdict: PortVerdict) -> None:
    """What tcp_twsk_unique() allows, connect() may take."""
    ports = row([0] * 5 + [1000] + [0] * 6, raddr=raddr, family=family)
    assert only(ports, replace(SMALL, tw_reuse=setting)).verdict == verdict


def test_reserved_ports_are_none() -> None:
    facts = replace(SMALL, reserved_ports=((0, 10), (500, 509), (990, 2000)))
    assert capacity_of(facts) == 1000 - 10 - 10 - 11


def test_ports_somebody_listens_on_are_none() -> None:
    """Once each, within the range, and not a second time where they are reserved."""
    facts = replace(SMALL, port_range=(40_000, 40_099), reserved_ports=((40_000, 40_009),))
    listening = [c.listener(port) for port in (40_009, 40_010, 40_010, 80)]
    listening.append(c.listener(40_011, netns=2))
    census = c.census(sockets=listening, ports=[c.ports(in_use=89)], namespaces={1: facts})
    (finding,) = LocalPorts().look(census)
    assert (finding.capacity, finding.available) == (89, 0)
    assert finding.verdict == PortVerdict.EXHAUSTED


def test_unknown_range_is_unknown() -> None:
    finding = only(row(STEADY), replace(SMALL, port_range=None))
    assert finding.verdict == PortVerdict.UNKNOWN
    assert (finding.capacity, finding.available, finding.reusable) == (None, None, None)


def test_ports_beside_the_range_take_none_of_it() -> None:
    assert only(c.ports(in_use=500, in_range=100)).available == 900


def test_tight_ports_are_told() -> None:
    assert only(c.ports(in_use=900)).verdict == PortVerdict.TIGHT


def test_gravest_first() -> None:
    rows = [
        c.ports(in_use=950, rport=1),
        row([0] * 11 + [600], in_use=400, rport=2),
        c.ports(in_use=10, rport=3),
        row([0] * 11 + [100], rport=4),
    ]
    found = LocalPorts().look(c.census(ports=rows, namespaces={1: SMALL}))
    assert [f.rport for f in found] == [2, 4, 1, 3]


def test_users_are_named_by_their_connections() -> None:
    """The busiest first, three at most; another destination's are not among them."""
    users = [c.user(1, 6), c.user(3, 5, b"busy"), c.user(9, 7, raddr="10.0.0.8"), c.user(2, 8)]
    census = c.census(
        users=[*users, c.user(1, 9)], ports=[c.ports(in_use=7)], namespaces={1: SMALL}
    )
    (finding,) = LocalPorts().look(census)
    assert [(u.holder.pid, u.holder.comm, u.count) for u in finding.users] == [
        (5, "busy", 3),
        (8, "server", 2),
        (6, "server", 1),
    ]


def test_who_pays() -> None:
    """Services and destinations apart; the share is of the namespace."""
    service = c.ports(inbound=1, lport=80, rport=0, time_wait=30, remaining=[0] * 11 + [30])
    census = c.census(ports=[service, row([10] + [0] * 11)])
    findings, (total,) = TimeWait().look(census)
    assert [(f.lport, f.rport, f.time_wait, f.share) for f in findings] == [
        (80, None, 30, 0.75),
        (None, 5432, 10, 0.25),
    ]
    assert (total.served, total.connected) == (30, 10)
    assert "75 % belong to our services" in total.why


def test_who_has_the_service_that_pays() -> None:
    """All who listen on its port, each once; a destination is nobody's."""
    listening = [c.listener(80), c.listener(80), c.listener(81)]
    owners = [
        c.held_by(one, *pids) for one, pids in zip(listening, [(5, 7), (7, 6), (8,)], strict=True)
    ]
    service = c.ports(inbound=1, lport=80, rport=0, time_wait=900)
    census = c.census(0, listening, owners, [service, row(STEADY)])
    (there, towards), _ = TimeWait(held=True).look(census)
    assert ([holder.pid for holder in there.holders], there.holder_count) == ([5, 6, 7], 3)
    assert (towards.holders, towards.holder_count) == ((), 0)
    (there, _), _ = TimeWait().look(census)
    assert there.holder_count == 0


def test_limit_of_time_waits() -> None:
    facts = replace(c.FACTS, max_tw_buckets=40, tcp_ext={"TCPTimeWaitOverflow": 9})
    _, (total,) = TimeWait().look(c.census(ports=[row(STEADY)], namespaces={1: facts}))
    assert total.severity == Severity.WARNING
    assert total.overflowed == 9
    assert "tcp_max_tw_buckets" in total.advice
