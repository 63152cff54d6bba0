# SPDX-License-Identifier: Apache-2.0
"""The declarations keep the contract and the rules of naming, and foresee every verdict."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tracer.metrics import CLOSES, METRICS, RESETS
from tracer.metrics_declaration import NAMESPACE, Metric, Type, label_of
from tracer.outputs import metrics_page
from tracer.tcp import Cause
from tracer.verdict import RULES

# What dashboards and rules of users build on, by its labels.
CONTRACT = {
    "fourwave_closes_total": {"kind", "handshake"},
    "fourwave_fin_acks_total": {"carrier"},
    "fourwave_fin_ack_fates_total": {"fate"},
    "fourwave_time_wait_entries_total": {"how"},
    "fourwave_resets_total": {"direction", "cause"},
    "fourwave_stray_resets_total": {"cause"},
    "fourwave_data_lost_closes_total": {"kind"},
    "fourwave_teardown_seconds": set(),
    "fourwave_close_wait_seconds": set(),
    "fourwave_sockets": {"state"},
    "fourwave_close_wait_suspects": {"unit", "comm"},
    "fourwave_close_wait_oldest_seconds": {"unit", "comm"},
    "fourwave_time_wait_sockets": {"raddr", "rport"},
    "fourwave_time_wait_used": set(),
    "fourwave_time_wait_limit": set(),
    "fourwave_time_wait_overflows_total": set(),
    "fourwave_local_ports_used": {"raddr", "rport"},
    "fourwave_local_ports_available": {"raddr", "rport"},
    "fourwave_local_ports_exhausted_total": set(),
    "fourwave_accept_queue_length": {"laddr", "lport"},
    "fourwave_accept_queue_limit": {"laddr", "lport"},
    "fourwave_accept_queue_overflows_total": {"laddr", "lport"},
    "fourwave_lost_records_total": {"where"},
    "fourwave_program_run_seconds_total": {"program"},
    "fourwave_program_runs_total": {"program"},
    "fourwave_hook_info": {"hook", "mechanism", "reason"},
    "fourwave_detector_up": {"detector"},
    "fourwave_series_dropped_total": {"metric"},
}


def test_the_contract_is_kept() -> None:
    declared = {metric.name: set(metric.labels) for metric in METRICS}
    assert {name: declared.get(name) for name in CONTRACT} == CONTRACT
    assert "fourwave_build_info" in declared


def test_every_name_is_there_once() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_names_follow_the_conventions(metric: Metric) -> None:
    assert re.fullmatch(rf"{NAMESPACE}_[a-z_]+[a-z]", metric.name)
    assert metric.name.endswith("_total") == (metric.type is Type.COUNTER)
    assert metric.name.endswith("_info") == (metric.type is Type.INFO)
    assert metric.help.endswith(".")
    assert bool(metric.buckets) == (metric.type is Type.HISTOGRAM)
    assert list(metric.buckets) == sorted(set(metric.buckets))


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_labels_cannot_grow_without_bound(metric: Metric) -> None:
    """Values come from an enumeration, from a cap, or from our own program text."""
    ours = {"program", "hook", "mechanism", "reason", "metric"}
    ours |= {"version", "kernel", "bcc", "python"}
    assert metric.series or metric.cap or set(metric.labels) <= ours
    assert "pid" not in metric.labels
    assert all(len(values) == len(metric.labels) for values in metric.series)


def test_every_verdict_has_its_series() -> None:
    """What a rule can decide is there from the start, at 0."""
    possible = {(label_of(rule.kind), label_of(rule.handshake)) for rule in RULES.values()}
    assert possible <= set(CLOSES.series)
    unsent = {("sent", label_of(cause)) for cause in Cause} - set(RESETS.series)
    assert unsent == {("sent", "peer")}


def test_the_page_is_up_to_date() -> None:
    """`make docs` writes it again."""
    page = Path(__file__).parents[2] / "docs" / "metrics.md"
    assert page.read_text() == metrics_page.as_markdown()
