# SPDX-License-Identifier: Apache-2.0
"""What was counted of closes arrives in the families that are declared for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.unit import builders as b
from tracer import metrics
from tracer.aggregator import Aggregator
from tracer.classify import judge
from tracer.serve_samples import Composer
from tracer.tcp import Stray

if TYPE_CHECKING:
    from tracer.metrics_declaration import Metric
    from tracer.samples import Labels
    from tracer.wire import Records

MANIFEST: dict[str, Any] = {
    "mechanism": "tp_btf",
    "hooks": [],
    "left_out": {"signal": "load signal: Permission denied"},
    "bcc_version": "0",
}
TIMER = {"ack_flags": 0x30, "fin_clock_10us": 4_000}
FROM_CLOSES = (
    metrics.STRAY_RESETS,
    metrics.DATA_LOST_CLOSES,
    metrics.FIN_ACK_FATES,
    metrics.TIME_WAIT_ENTRIES,
)


def samples_of(*records: Records, **more: Any) -> dict[str, dict[Labels, float]]:
    made = np.concatenate([b.active()[:0], *records])
    totals = {"closes": len(made), "missed": 0, "programs": {}, **more}
    aggregator = Aggregator(records=len(made))
    aggregator.add(made, judge(made, b.HOST))
    aggregator.add_counters(totals)
    return Composer(MANIFEST, b.HOST, 0.0).samples(aggregator.snapshot(), totals).series


def counted(metric: Metric, series: dict[str, dict[Labels, float]]) -> dict[str, float]:
    """Return what is not 0 of a family with one label."""
    return {label: count for (label,), count in series[metric.name].items() if count}


def test_all_series_are_there_before_anything_closes() -> None:
    series = samples_of()
    for metric in FROM_CLOSES:
        assert series[metric.name] == dict.fromkeys(metric.series, 0)


def test_reports_of_resets_that_amended_nothing() -> None:
    records = b.reset()
    aggregator = Aggregator(records=1, resets_unmatched=3)
    aggregator.add(records, judge(records, b.HOST))
    totals = {"closes": 1, "missed": 0, "programs": {}, "resets_lost": 2}
    aggregator.add_counters(totals)
    series = Composer(MANIFEST, b.HOST, 0.0).samples(aggregator.snapshot(), totals).series
    assert counted(metrics.LOST_RESET_REPORTS, series) == {"ring_full": 2, "no_close": 3}


def test_fates_losses_and_time_wait() -> None:
    series = samples_of(
        *[b.passive()] * 5,
        *[b.passive_four(**TIMER)] * 3,
        *[b.active()] * 4,
        b.active(tw_substate=5),
        b.active(tw_substate=0),
        b.active(tw_substate=255),
        *[b.reset(at_close__unacked=5)] * 2,
        b.reset(),
        b.aborted(unread=5),
    )
    assert counted(metrics.FIN_ACK_FATES, series) == {"merged": 5, "timer": 3}
    assert counted(metrics.DATA_LOST_CLOSES, series) == {"reset": 2, "abort": 1}
    ends = {"entered": 4, "orphaned": 1, "refused": 1, "unknown": 1}
    assert counted(metrics.TIME_WAIT_ENTRIES, series) == ends
    for metric in FROM_CLOSES:
        assert set(series[metric.name]) == set(metric.series)


def test_strays_are_summed_by_cause_whatever_the_port() -> None:
    strays = [
        [1, 80, Stray.NO_SOCKET, 2, 10],
        [1, 81, Stray.NO_SOCKET, 0, 5],
        [2, 443, Stray.HANDSHAKE, 0, 3],
    ]
    series = samples_of(strays=strays, strays_lost=7)
    expected = {"no_socket": 15, "handshake": 3, "unknown": 7}
    assert counted(metrics.STRAY_RESETS, series) == expected
    assert set(series[metrics.STRAY_RESETS.name]) == set(metrics.STRAY_RESETS.series)


def test_what_became_of_time_wait_is_absent_without_a_hook() -> None:
    assert samples_of()[metrics.TIME_WAIT_CHANGES.name] == {}
    series = samples_of(time_waits=[3, 1, 0, 0, 0, 0, 7, 0])
    assert set(series[metrics.TIME_WAIT_CHANGES.name]) == set(metrics.TIME_WAIT_CHANGES.series)
    changes = {"peer_fin": 3, "restarted_by_fin": 1, "reused": 7}
    assert counted(metrics.TIME_WAIT_CHANGES, series) == changes


def test_what_evidence_rests_on_is_told_with_what_is_left_out() -> None:
    told = samples_of()[metrics.HOOK.name]
    assert ("socket_errors", "tp_btf", "") in told
    assert ("sigpipe", "none", "load signal: Permission denied") in told


@pytest.mark.parametrize("mechanism", ["fentry", "none"])
def test_the_wait_for_accept_is_counted_where_it_is_seen(mechanism: str) -> None:
    hook = {"hook": "accepted", "mechanism": mechanism, "functions": [], "reason": ""}
    composer = Composer({**MANIFEST, "hooks": [hook]}, b.HOST, 0.0)
    made = np.concatenate([b.accepted(20), b.accepted(5_000), b.passive()])
    composer.tally.add(made, judge(made, b.HOST))
    totals = {"closes": 3, "missed": 0, "programs": {}}
    waits = composer.samples(Aggregator().snapshot(), totals).histograms
    buckets = waits[metrics.ACCEPT_WAIT.name]
    seen = mechanism == "fentry"
    assert (sum(buckets.counts), round(buckets.sum, 6)) == ((2, 0.00502) if seen else (0, 0))
