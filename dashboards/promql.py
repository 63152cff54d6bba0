# SPDX-License-Identifier: Apache-2.0
"""Queries made from the declarations of metrics, and the check that holds any query to them.

Selectors are made for dashboards: they keep to the instances chosen there. The check is for
dashboards and rules alike.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

import promql_parser as promql

from tracer.metrics import METRICS
from tracer.metrics_declaration import OTHER, Metric, Type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SCOPE: Final = 'job=~"$job",instance=~"$instance"'
"""What the variables of a dashboard choose."""
TARGET_LABELS: Final = frozenset({"job", "instance"})
"""Prometheus gives them to every series it scrapes."""
PARTS: Final = {
    "_bucket": frozenset({"le"}),
    "_sum": frozenset[str](),
    "_count": frozenset[str](),
}
"""Of a histogram, with the labels they add."""
OF_PROMETHEUS: Final = {
    "up": frozenset[str](),
    "scrape_duration_seconds": frozenset[str](),
    "scrape_samples_scraped": frozenset[str](),
    "ALERTS": frozenset({"alertname", "alertstate", "severity"}),
}
"""Series that Prometheus makes itself."""
MACROS: Final = {"$__rate_interval": "5m", "$__range": "1h"}
"""What Grafana puts in, and something that parses in its place."""
RECORDED: Final = re.compile(r"(?P<level>[a-z_]+):[a-z_0-9]+:[a-z0-9_]+")
"""A recorded series begins with its labels, joined by underscores: level:metric:operations."""


class UndeclaredError(ValueError):
    """A query names what tracer/metrics.py does not declare."""


class Series(NamedTuple):
    """What is known of a name: its labels, and for some of them all values."""

    labels: frozenset[str]
    values: dict[str, frozenset[str]]


def selector(metric: Metric, part: str = "", **matchers: str) -> str:
    """Return the chosen instances' series of a metric; a value may be a regular expression."""
    rest = [f'{label}=~"{value}"' for label, value in matchers.items()]
    return f"{metric.name}{part}{{{','.join([SCOPE, *rest])}}}"


def each(metric: Metric) -> str:
    """Return them without the series `other`, in which a cap folds what cannot be compared."""
    return f'{metric.name}{{{SCOPE},{metric.labels[0]}!="{OTHER}"}}'


def summed(metric: Metric, by: str = "", **matchers: str) -> str:
    """Return the sum of gauges by labels."""
    return f"sum{_by(by)} ({selector(metric, **matchers)})"


def rate(metric: Metric, by: str = "", part: str = "", **matchers: str) -> str:
    """Return what counters gain each second, by labels."""
    return f"sum{_by(by)} (rate({selector(metric, part, **matchers)}[$__rate_interval]))"


def gained(metric: Metric) -> str:
    """Return what counters gained in the time shown."""
    return f"sum (increase({selector(metric)}[$__range]))"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""


def ratio(part: str, whole: str) -> str:
    """Return a share; nothing, instead of NaN, where the whole is nothing."""
    return f"({part}) / ({whole} > 0)"


def quantile(q: float, metric: Metric) -> str:
    """Return a quantile of a histogram of all chosen instances; nothing where it has none: NaN."""
    return f"histogram_quantile({q}, {rate(metric, 'le', '_bucket')}) >= 0"


def check(query: str, recorded: Iterable[str] = (), legend: str = "") -> None:
    """Raise UndeclaredError for any name, label or label value that nothing declares.

    `recorded` are the names that rules record; `legend` is what Grafana calls the series.
    """
    known = _known(recorded)
    tree = promql.parse(_plain(query))
    nodes = _nodes(tree)
    found = [_checked(node, known) for node in nodes if isinstance(node, promql.VectorSelector)]
    labels = TARGET_LABELS.union(*(series.labels for series in found))
    used = {label for node in nodes for label in _grouped(node)}
    used |= set(re.findall(r"{{\s*(\w+)\s*}}", legend))
    if used - labels:
        raise UndeclaredError(f"no label {', '.join(sorted(used - labels))} in {query}")


def _plain(query: str) -> str:
    for macro, value in MACROS.items():
        query = query.replace(macro, value)
    return query


def _known(recorded: Iterable[str]) -> dict[str, Series]:
    known = {name: Series(labels, {}) for name, labels in OF_PROMETHEUS.items()}
    for metric in METRICS:
        known |= _series_of(metric)
    for name in recorded:
        match = RECORDED.fullmatch(name)
        if not match:
            raise UndeclaredError(f"{name} is not of the form level:metric:operations")
        known[name] = Series(frozenset(match["level"].split("_")), {})
    return known


def _series_of(metric: Metric) -> dict[str, Series]:
    labels = frozenset(metric.labels)
    if metric.type is Type.HISTOGRAM:
        return {metric.name + part: Series(labels | more, {}) for part, more in PARTS.items()}
    columns = list(zip(*metric.series, strict=True)) or [()] * len(metric.labels)
    values = dict(zip(metric.labels, map(frozenset, columns), strict=True))
    return {metric.name: Series(labels, values)}


def _checked(node: promql.VectorSelector, known: dict[str, Series]) -> Series:
    if node.name not in known:
        raise UndeclaredError(f"no metric {node.name}")
    series = known[node.name]
    for matcher in node.matchers.matchers:
        if matcher.name not in series.labels | TARGET_LABELS:
            raise UndeclaredError(f"no label {matcher.name} in {node.name}")
        values = series.values.get(matcher.name)
        if (
            values
            and matcher.op is not promql.MatchOp.NotEqual
            and not any(re.fullmatch(matcher.value, value) for value in values)
        ):
            raise UndeclaredError(f"no {matcher.name} {matcher.value} in {node.name}")
    return series


def _nodes(tree: promql.Expr) -> list[promql.Expr]:
    found: list[promql.Expr] = []
    promql.walk(tree, found.append)
    return found


def _grouped(node: promql.Expr) -> Iterator[str]:
    if isinstance(node, promql.AggregateExpr) and node.modifier:
        yield from node.modifier.labels
    if isinstance(node, promql.BinaryExpr) and node.modifier:
        yield from node.modifier.matching.labels if node.modifier.matching else ()
        yield from node.modifier.group_labels or ()
