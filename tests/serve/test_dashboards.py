# SPDX-License-Identifier: Apache-2.0
"""Every query of every panel and rule, asked of a real Prometheus that scrapes a real serve.

The host then has closes of every kind, a leak, a listener that drops, and connections.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, Final

import pytest

from dashboards import make
from dashboards.promql import MACROS, RECORDED, TARGET_LABELS
from tests.serve.served import make_every_kind, until
from tests.serve.trouble import trouble

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.serve.conftest import Prometheus
    from tests.serve.served import Served

pytestmark = [pytest.mark.kernel, pytest.mark.slow]

CHOSEN: Final = {**MACROS, "$job": ".+", "$instance": ".+", "$__rate_interval": "1m"}
PANELS: Final = {
    f"{board.name}: {panel.title} {target.ref_id}": target
    for board in make.BOARDS
    for panel in make.panels_of(make.made(board))
    for target in panel.targets
}
EMPTY: Final = {
    "tracer: Time of one run A": "the sysctl kernel.bpf_stats_enabled is not the test's to set",
    "ports: Ports run out in A": "no destination loses ports",
    "tracer: Series folded into other A": "this host has not so many listeners",
}
"""Panels that show on a sound host what they mean by nothing."""
SETTLED_S: Final = 90.0


@pytest.fixture(scope="module")
def busy(served: Served, prometheus: Prometheus) -> Iterator[Prometheus]:
    """Give Prometheus everything to see."""
    assert until(lambda: served.total("fourwave_detector_up") == 6, 30), served.said()
    assert until(lambda: prometheus.value("sum(fourwave_detector_up)") == 6)
    with trouble():
        make_every_kind()
        assert until(lambda: prometheus.query("fourwave_close_wait_suspects >= 10"), SETTLED_S)
        make_every_kind()
        yield prometheus


def asked(target: Any) -> str:
    """Return the query as Grafana sends it."""
    query: str = target.expr
    for name, value in CHOSEN.items():
        query = query.replace(name, value)
    return query


def test_every_panel_has_data(busy: Prometheus, served: Served) -> None:
    """And none of it is NaN. Where a hook is not allowed there is nothing to show."""
    unhooked = served.unhooked()
    shown = {
        name
        for name, target in PANELS.items()
        if not any(metric in target.expr for metric in unhooked)
    }
    missing = shown - set(EMPTY)

    def have_come() -> bool:
        missing.difference_update([name for name in missing if busy.query(asked(PANELS[name]))])
        return not missing

    assert until(have_come, SETTLED_S), missing
    for name, target in PANELS.items():
        values = [float(row["value"][1]) for row in busy.query(asked(target))]
        assert all(map(math.isfinite, values)), name


@pytest.mark.parametrize("name", PANELS)
def test_a_panel_over_time(name: str, busy: Prometheus) -> None:
    """What is drawn over time is asked for over time."""
    target, now_s = PANELS[name], time.time()
    words = {"start": now_s - 60, "end": now_s, "step": 5}
    answer = busy.get("query_range", query=asked(target), **words)
    assert answer["resultType"] == "matrix"


def test_legends_tell_series_apart(busy: Prometheus) -> None:
    """No two series of a query have the same labels where Grafana shows their names."""
    for name, target in PANELS.items():
        shown = [
            tuple(row["metric"].get(label) for label in row["metric"] if f"{{{label}}}" in legend)
            for legend in [target.legend_format]
            if "{{" in legend
            for row in busy.query(asked(target))
        ]
        assert len(shown) == len(set(shown)), name


@pytest.mark.parametrize("label", ["job", "instance"])
def test_variables_have_something_to_choose(label: str, busy: Prometheus) -> None:
    words = {"match[]": 'fourwave_build_info{job=~".+"}'}
    assert busy.get(f"label/{label}/values", **words)


def test_every_rule_evaluates(busy: Prometheus) -> None:
    rules = [rule for group in busy.get("rules")["groups"] for rule in group["rules"]]
    assert {rule["name"]: rule["lastError"] for rule in rules if rule.get("lastError")} == {}
    assert {rule["health"] for rule in rules} == {"ok"}


def test_every_recorded_series_is_there_with_its_labels(busy: Prometheus) -> None:
    """Its name says which."""
    missing = set(make.recorded())

    def have_come() -> bool:
        missing.difference_update([name for name in missing if busy.query(name)])
        return not missing

    assert until(have_come, SETTLED_S), missing
    for name in make.recorded():
        match = RECORDED.fullmatch(name)
        assert match
        labels = set(busy.query(name)[0]["metric"]) - {"__name__"} - TARGET_LABELS
        assert labels == set(match["level"].split("_")) - TARGET_LABELS


def test_alerts_see_the_trouble_and_nothing_else(busy: Prometheus) -> None:
    """What waits for its time is what was made; the tracer itself is well."""

    def pending() -> set[str]:
        return {row["metric"]["alertname"] for row in busy.query("ALERTS")}

    made = {"FourwaveCloseWaitLeak", "FourwaveAcceptQueueOverflow", "FourwaveAcceptQueueFull"}
    assert until(lambda: made <= pending(), SETTLED_S), pending()
    # FourwaveLosesRecords is up to what else the host does; ten minutes of it are not.
    tracer = {"Down", "Absent", "DetectorDown", "CensusStale"}
    assert pending() & {f"Fourwave{name}" for name in tracer} == set()
