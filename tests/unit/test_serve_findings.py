# SPDX-License-Identifier: Apache-2.0
"""What detectors find becomes metrics; a detector that fails takes back only its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from tests.unit import censuses as c
from tracer import metrics
from tracer.census import STATES
from tracer.samples import Samples
from tracer.serve_findings import OF, Findings, Present
from tracer.tcp import TcpState

if TYPE_CHECKING:
    from tracer.census import Census

NAMES = set(OF)


def a_census(at_s: float = 0) -> Census:
    """Return one with sockets in two states and a destination."""
    states = np.zeros(2, STATES)
    states["state"] = [TcpState.ESTABLISHED, TcpState.TIME_WAIT]
    states["substate"] = [TcpState.ESTABLISHED, TcpState.FIN_WAIT2]
    states["count"] = [5, 7]
    return c.census(at_s, states=states, ports=[c.ports(in_use=30, time_wait=12)])


def put(present: Present) -> Samples:
    made = Samples(0.0)
    present.put(made)
    return made


def test_without_a_census_everything_is_down_and_states_are_zero() -> None:
    made = put(Present())
    up = made.series[metrics.DETECTOR_UP.name]
    assert {name for (name,), value in up.items() if value} == {"closes"}
    assert set(made.series[metrics.SOCKETS.name].values()) == {0}
    assert made.series[metrics.CENSUS_SECONDS.name] == {}


def test_a_census_becomes_metrics() -> None:
    made = put(Findings().look(a_census(), 1.5e9))
    series = made.series
    assert set(series[metrics.DETECTOR_UP.name].values()) == {1.0}
    sockets = series[metrics.SOCKETS.name]
    assert (sockets["established",], sockets["fin_wait2",], sockets["time_wait",]) == (5, 7, 0)
    towards = ("10.0.0.9", "5432")
    assert series[metrics.LOCAL_PORTS_USED.name] == {towards: 42}
    assert series[metrics.TIME_WAIT_SOCKETS.name] == {towards: 12}
    assert series[metrics.LOCAL_PORTS_AVAILABLE.name][towards] > 0
    assert series[metrics.CENSUS_TIMESTAMP.name] == {(): 1.5e9}


@pytest.mark.parametrize("broken", ["_leaks", "_ports", "_waits", "_listeners"])
def test_a_detector_that_fails_leaves_the_others(
    broken: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    findings = Findings()
    first = findings.look(a_census(), 1.0)

    class Broken:
        def look(self, _census: Census) -> None:
            raise ZeroDivisionError("by design")

    monkeypatch.setattr(findings, broken, Broken())
    second = findings.look(a_census(30), 31.0)
    findings.look(a_census(60), 61.0)
    down = {name for (name,), value in second.up.items() if not value}
    assert len(down) == 1
    gone = {metric.name for metric in OF[next(iter(down))]}
    assert set(first.values) - set(second.values) == gone & set(first.values)
    assert capsys.readouterr().err.count("by design") == 1  # told once, not every half minute


def test_a_census_that_fails_takes_all_back(capsys: pytest.CaptureFixture[str]) -> None:
    findings = Findings()
    findings.look(a_census(), 1.0)
    present = findings.fail(OSError(11, "no"))
    assert set(present.up.values()) == {0.0}
    assert not present.values
    assert present.took_s is None
    assert "detector census" in capsys.readouterr().err
    assert set(findings.look(a_census(30), 31.0).up.values()) == {1.0}


def test_many_destinations_are_capped() -> None:
    rows = [c.ports(raddr=f"10.1.{n}.1", in_use=100 - n) for n in range(40)]
    present = Findings().look(c.census(0, ports=rows), 1.0)
    used = present.values[metrics.LOCAL_PORTS_USED.name]
    cap = metrics.LOCAL_PORTS_USED.cap or 0
    assert len(used) == cap + 1
    assert sum(used.values()) == sum(range(61, 101))
    assert present.dropped[metrics.LOCAL_PORTS_USED.name] == 40 - cap
    free = present.values[metrics.LOCAL_PORTS_AVAILABLE.name]
    assert set(free) == set(used)
