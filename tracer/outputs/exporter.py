# SPDX-License-Identifier: Apache-2.0
"""Samples in the formats Prometheus reads, as the declarations say."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from tracer.metrics import METRICS
from tracer.metrics_declaration import Metric, Type

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prometheus_client.metrics_core import Metric as Family

    from tracer.samples import Samples


class Exposition(NamedTuple):
    """A body and what to call it."""

    text: bytes
    content_type: str


def expose(samples: Samples, accept: str) -> Exposition:
    """Return the samples in the format that suits an Accept header best."""
    encode, content_type = choose_encoder(accept)
    # The older format has no place for them but one more gauge for each counter.
    created_s = samples.created_s if content_type.startswith("application/openmetrics") else None
    return Exposition(encode(SamplesCollector(samples, created_s)), content_type)


class SamplesCollector(Collector):
    """Every declared family, in the order of the declarations."""

    def __init__(self, samples: Samples, created_s: float | None) -> None:
        """With `created_s` counters and histograms say since when they count."""
        self._samples = samples
        self._created_s = created_s

    def collect(self) -> Iterator[Family]:
        """Yield the families; the client library calls this."""
        for metric in METRICS:
            if metric.type is Type.HISTOGRAM:
                yield self._histogram(metric)
            elif metric.type is Type.COUNTER:
                yield self._counter(metric)
            elif metric.type is Type.INFO:
                yield self._info(metric)
            else:
                yield self._gauge(metric)

    def _counter(self, metric: Metric) -> Family:
        name = metric.name.removesuffix("_total")
        family = CounterMetricFamily(name, metric.help, labels=metric.labels)
        for labels, value in self._series(metric):
            family.add_metric(labels, value, created=self._created_s)
        return family

    def _gauge(self, metric: Metric) -> Family:
        family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, value in self._series(metric):
            family.add_metric(labels, value)
        return family

    def _info(self, metric: Metric) -> Family:
        family = InfoMetricFamily(metric.name.removesuffix("_info"), metric.help)
        for labels, _ in self._series(metric):
            family.add_metric([], dict(zip(metric.labels, labels, strict=True)))
        return family

    def _histogram(self, metric: Metric) -> Family:
        family = HistogramMetricFamily(metric.name, metric.help)
        buckets = self._samples.histograms.get(metric.name)
        if buckets is not None:
            bounds = [*map(floatToGoString, metric.buckets), "+Inf"]
            pairs = list(zip(bounds, accumulate(buckets.counts), strict=True))
            family.add_metric([], pairs, buckets.sum)
            if self._created_s is not None:
                family.add_sample(f"{metric.name}_created", {}, self._created_s)
        return family

    def _series(self, metric: Metric) -> Iterator[tuple[list[str], float]]:
        for labels, value in self._samples.series.get(metric.name, {}).items():
            yield list(labels), value
