# SPDX-License-Identifier: Apache-2.0
"""What Prometheus reads is what happened."""

from __future__ import annotations

import gzip
import subprocess
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.serve.crowd import ROOM, crowded
from tests.serve.served import (
    make_closes,
    make_every_kind,
    make_every_kind_until,
    refused,
    until,
)
from tracer.metrics import METRICS
from tracer.tcp import Kind

if TYPE_CHECKING:
    from tests.serve.conftest import Prometheus
    from tests.serve.served import Served

pytestmark = pytest.mark.kernel

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
SIZE_MAX_BYTES = 200_000


def test_every_kind_reaches_prometheus(served: Served, prometheus: Prometheus) -> None:
    """A close of every kind, made for real, is counted as that kind by a real Prometheus."""
    kinds = {str(kind.label) for kind in Kind} - {"unknown"}

    def missing() -> set[str]:
        rows = prometheus.query("sum by (kind) (fourwave_closes_total) > 0")
        return kinds - {row["metric"]["kind"] for row in rows}

    assert make_every_kind_until(lambda: not missing()), (missing(), served.said())
    assert prometheus.target()["health"] == "up"
    assert prometheus.value('sum(fourwave_resets_total{direction="sent"})')
    assert prometheus.value('sum(fourwave_resets_total{direction="received"})')
    assert prometheus.value("fourwave_teardown_seconds_count")
    assert prometheus.value("fourwave_close_wait_seconds_count")


ON_THEIR_WAY: Final = 0.02  # of all closes: what closes within two seconds


def test_totals_add_up(prometheus: Prometheus) -> None:
    """Closes seen by the kernel are those counted and those lost, in one scrape."""
    make_closes(500)
    seen = "fourwave_closes_seen_total"
    parts = "sum(fourwave_closes_total) + sum(fourwave_lost_records_total)"
    assert until(lambda: (prometheus.value(seen) or 0) >= 1000)
    # Records wait for a RST, totals do not: on a host that never rests, a few are on their way.
    apart = f"abs(sum({seen}) - ({parts})) / sum({seen})"
    assert until(lambda: (prometheus.value(apart) or 0) < ON_THEIR_WAY, 30)


def test_what_became_of_acks_data_and_time_wait(served: Served) -> None:
    """Each of these counters moves with a close made for it."""
    make_every_kind()
    refused(20)
    told = {
        "fourwave_fin_ack_fates_total": {"fate": "merged"},
        "fourwave_time_wait_entries_total": {"how": "entered"},
        "fourwave_data_lost_closes_total": {"kind": "abort"},
    }
    for name, labels in told.items():
        assert until(partial(served.total, name, **labels)), name
    strays = "fourwave_stray_resets_total"
    assert until(lambda: served.total(strays, cause="no_socket") >= 20), served.said()


def test_a_namespace_without_room_for_time_wait(served: Served) -> None:
    """What is refused while it is watched counts, and stays when the namespace goes."""
    overflows = "fourwave_time_wait_overflows_total"
    before = served.total(overflows)
    with crowded() as crowd:
        crowd.close(30)
        assert until(lambda: served.total("fourwave_time_wait_limit") == ROOM), served.said()
        crowd.close(30)
        assert until(lambda: served.total(overflows) >= before + 30), served.said()
        assert served.total("fourwave_time_wait_used") == ROOM
        gained = served.total(overflows)
    assert until(lambda: served.total("fourwave_time_wait_limit") > ROOM)
    assert served.total(overflows) >= gained


def test_every_family_is_declared_and_every_declared_series_is_there(served: Served) -> None:
    """Nothing appears that the documentation does not have; enumerations are complete."""
    assert until(lambda: served.total("fourwave_detector_up") == 6), served.said()
    series = served.series()
    names, unhooked = {name for name, _ in series}, served.unhooked()
    for metric in METRICS:
        for values in metric.series:
            one = (metric.name, frozenset(zip(metric.labels, values, strict=True)))
            assert (one in series) is (metric.name not in unhooked)
    declared = {metric.name for metric in METRICS}
    histograms = {metric.name for metric in METRICS if metric.buckets}
    parts = {f"{name}{part}" for name in histograms for part in ("_bucket", "_count", "_sum")}
    assert names <= declared | parts


def test_promtool_finds_no_fault(served: Served) -> None:
    """Names, types, help and units as Prometheus' own linter wants them."""
    checked = subprocess.run(
        ["promtool", "check", "metrics"], input=served.get()[0], capture_output=True, check=False
    )
    assert (checked.returncode, checked.stdout + checked.stderr) == (0, b"")


def test_openmetrics_with_creation_times_and_gzip(served: Served) -> None:
    body, headers = served.get(Accept=OPENMETRICS, Accept_Encoding="gzip")
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Content-Type"].startswith("application/openmetrics-text")
    text = gzip.decompress(body).decode()
    assert len(text) < SIZE_MAX_BYTES
    parsed = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    families = {family.name: family for family in parsed}
    created = {s.value for s in families["fourwave_closes"].samples if s.name.endswith("_created")}
    assert len(created) == 1
