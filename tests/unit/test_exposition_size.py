# SPDX-License-Identifier: Apache-2.0
"""No load and no name makes the exposition larger than a scraper likes."""

from __future__ import annotations

from typing import Final

import pytest

from tracer import metrics
from tracer.metrics_declaration import Type
from tracer.outputs.exporter import expose
from tracer.samples import Buckets, Samples, capped

LIMIT_BYTES: Final = 200_000
MANY: Final = 1_000
FORMATS: Final = ("", "application/openmetrics-text;version=1.0.0")
LONGEST: Final = {
    "unit": "{:03}" + "\U00020000" * 200,  # printable, and four bytes each
    "comm": "{:03}" + '"' * 12,  # 15 bytes, escaped to twice as many
    "raddr": "2001:0db8:85a3:08d3:1319:8a2e:0370:{:04x}",
    "laddr": "2001:0db8:85a3:08d3:1319:8a2e:0370:{:04x}",
    "rport": "65535",
    "lport": "65535",
}


@pytest.mark.parametrize("accept", FORMATS)
def test_the_largest_exposition(accept: str) -> None:
    """Every family is full, every label as long as what it comes from can be."""
    made = Samples(1_800_000_000.123456)
    for metric in metrics.METRICS:
        if metric.cap is not None:
            names = [LONGEST[label] for label in metric.labels]
            rows = ((tuple(n.format(i) for n in names), 1e15 + i) for i in range(MANY))
            series, dropped = capped(metric, rows)
            assert dropped == MANY - metric.cap
            made.put(metric, series)
        elif metric.type is Type.HISTOGRAM:
            counts = (10**15,) * (len(metric.buckets) + 1)
            made.histograms[metric.name] = Buckets(counts, 1e15)
        else:
            made.put(metric, dict.fromkeys(metric.series, 1e15))
    assert len(expose(made, accept).text) < LIMIT_BYTES
