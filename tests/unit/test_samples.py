# SPDX-License-Identifier: Apache-2.0
"""Whatever a process calls itself, the exposition stays whole, and its size bounded."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from tracer.errors import WireError
from tracer.metrics import CLOSE_WAIT_OLDEST, CLOSE_WAIT_SUSPECTS, LOCAL_PORTS_AVAILABLE, METRICS
from tracer.metrics_declaration import Metric, Type
from tracer.outputs.exporter import expose
from tracer.samples import LABEL_MAX, Buckets, Samples, capped, from_json, harmless

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def filled(labels: list[tuple[str, str]] | None = None) -> Samples:
    """Return samples with every family."""
    made = Samples(1_700_000_000.5)
    for metric in METRICS:
        if metric.type is Type.HISTOGRAM:
            made.histograms[metric.name] = Buckets((1,) * (len(metric.buckets) + 1), 2.5)
        else:
            made.put(metric)
    kept, _ = capped(CLOSE_WAIT_SUSPECTS, [(pair, 1) for pair in labels or []])
    made.put(CLOSE_WAIT_SUSPECTS, kept)
    return made


def test_every_declared_series_is_there_at_zero() -> None:
    text = expose(filled(), OPENMETRICS).text.decode()
    parsed = openmetrics(text)  # type: ignore[no-untyped-call]
    shown = {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in parsed
        for sample in family.samples
    }
    for metric in METRICS:
        for values in metric.series:
            assert shown[metric.name, tuple(sorted(zip(metric.labels, values, strict=True)))] == 0


def test_counters_say_since_when() -> None:
    assert b"fourwave_closes_created{" in expose(filled(), OPENMETRICS).text
    assert b"_created" not in expose(filled(), "text/plain").text


def test_histograms_cumulate() -> None:
    families = {family.name: family for family in prometheus(expose(filled(), "").text.decode())}
    teardown = families["fourwave_teardown_seconds"].samples
    counts = [sample.value for sample in teardown if sample.name.endswith("_bucket")]
    assert counts == list(range(1, len(counts) + 1))
    assert {s.name: s.value for s in teardown}["fourwave_teardown_seconds_count"] == counts[-1]


@given(st.lists(st.tuples(st.binary(max_size=16), st.binary(max_size=200)), max_size=80))
@settings(deadline=None)  # the first exposition takes its time on a busy host
@pytest.mark.parametrize("accept", [OPENMETRICS, "text/plain;version=0.0.4"])
def test_hostile_names_cannot_break_the_exposition(
    accept: str, names: list[tuple[bytes, bytes]]
) -> None:
    """Any bytes, decoded as the kernel's are: two parsers read what was meant, no more."""
    pairs = [
        (unit.decode("utf-8", "surrogateescape"), comm.decode("utf-8", "backslashreplace"))
        for comm, unit in names
    ]
    samples = from_json(filled(pairs).to_json())
    text = expose(samples, accept).text.decode()
    parse = openmetrics if accept is OPENMETRICS else prometheus
    family = next(f for f in parse(text) if f.name == CLOSE_WAIT_SUSPECTS.name)
    total = sum(sample.value for sample in family.samples)
    assert len(family.samples) <= (CLOSE_WAIT_SUSPECTS.cap or 0) + 1
    assert total == len(pairs)
    assert all(len(v) <= LABEL_MAX for s in family.samples for v in s.labels.values())


def test_control_characters_are_escaped() -> None:
    assert harmless('a\n"\x1b\u202e\udcff') == 'a\\n"\\x1b\\u202e\\udcff'


def many(count: int) -> list[tuple[tuple[str, ...], float]]:
    return [((f"10.0.0.{n}", "80"), float(n)) for n in range(count)]


@pytest.mark.parametrize(
    ("metric", "other"),
    [(LOCAL_PORTS_AVAILABLE, 20.0), (CLOSE_WAIT_OLDEST, 59.0), (CLOSE_WAIT_SUSPECTS, 545.0)],
)
def test_what_a_cap_refuses_is_folded_and_counted(metric: Metric, other: float) -> None:
    cap = metric.cap or 0
    kept, dropped = capped(metric, many(60))
    assert dropped == 60 - cap
    assert len(kept) == cap + 1
    assert list(kept)[:cap] == [labels for labels, _ in many(cap)]
    assert math.isclose(kept["other", "other"], other)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"created_s": 1}', b"\xff"])
def test_what_are_no_samples_is_refused(text: bytes) -> None:
    with pytest.raises(WireError):
        from_json(text)


def test_samples_survive_the_way() -> None:
    made = filled([("a.service", "x")])
    made.page["host"] = "h"
    assert from_json(made.to_json()) == made
