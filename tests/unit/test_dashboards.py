# SPDX-License-Identifier: Apache-2.0
"""Dashboards are what the declarations make of them, and show what is there in every case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards import make
from dashboards.promql import MACROS, UndeclaredError, check
from tests.promtool import promtool
from tracer.metrics import METRICS
from tracer.metrics_declaration import Metric, Type

PATHS = sorted((make.HERE / "grafana").glob("*.json"))
PANELS = [
    pytest.param(panel, id=f"{board.name}: {panel.title}")
    for board in make.BOARDS
    for panel in make.panels_of(make.made(board))
]


@pytest.mark.parametrize(("path", "text"), make.files().items(), ids=lambda it: Path(it).name[:20])
def test_the_files_are_up_to_date(path: Path, text: str) -> None:
    """`make docs` writes them again."""
    assert path.read_text() == text


def test_there_are_no_other_files() -> None:
    assert {path.stem for path in PATHS} == {board.name for board in make.BOARDS}


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_grafanas_own_schema_knows_every_key(path: Path) -> None:
    """Read and written again by Grafana's library, nothing is lost."""
    content = json.loads(path.read_text())
    again = json.loads(json.dumps(Dashboard.from_json(content), cls=JSONEncoder))
    assert again == content


@pytest.mark.parametrize("panel", PANELS)
def test_a_panel_says_what_to_do_and_what_nothing_means(panel: Any) -> None:
    assert len(panel.description) > 20
    assert panel.field_config.defaults.unit
    assert panel.field_config.defaults.no_value
    assert panel.datasource.uid == "${datasource}"
    assert all(target.datasource.uid == "${datasource}" for target in panel.targets)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_panels_cover_the_grid_without_holes(path: Path) -> None:
    """No two overlap, and every line is filled."""
    taken = [
        (x, y)
        for panel in json.loads(path.read_text())["panels"]
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(taken) == len(set(taken))
    assert len(taken) == 24 * (1 + max(y for _, y in taken))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_ids_are_unique(path: Path) -> None:
    ids = [panel["id"] for panel in json.loads(path.read_text())["panels"]]
    assert len(ids) == len(set(ids))


def test_every_metric_is_shown() -> None:
    """What is measured and not shown is measured in vain."""
    text = "".join(path.read_text() for path in PATHS)
    names = {m.name + ("_bucket" if m.type is Type.HISTOGRAM else "") for m in METRICS}
    assert {name for name in names if name not in text} == set()


@pytest.mark.parametrize(
    "query",
    [
        "fourwave_no_such_metric",
        "fourwave_teardown_seconds",
        'fourwave_closes_total{reason="x"}',
        'fourwave_closes_total{kind="no_such_kind"}',
        'fourwave_closes_total{kind=~"no|such"}',
        "sum by (cause) (fourwave_closes_total)",
        "sum without (cause) (fourwave_closes_total)",
        "fourwave_closes_total / on (cause) group_left () up",
        "no:such:recording",
        "rate(up[5m]) + sum(increase(fourwave_closed[$__range]))",
    ],
)
def test_what_is_not_declared_cannot_be_asked_for(query: str) -> None:
    with pytest.raises(UndeclaredError):
        check(query)


def test_a_legend_names_labels_that_are_there() -> None:
    check("sum by (kind) (fourwave_closes_total)", legend="{{kind}} {{instance}}")
    with pytest.raises(UndeclaredError):
        check("sum by (kind) (fourwave_closes_total)", legend="{{ cause }}")


@pytest.mark.parametrize(
    "query",
    [
        "sum by (le) (rate(fourwave_teardown_seconds_bucket[$__rate_interval]))",
        'fourwave_closes_total{kind=~"act.*", instance="a", job="b"}',
        'fourwave_closes_total{kind!="no_such_kind"}',
        "max by (raddr) (instance_raddr_rport:fourwave_local_ports_taken:ratio)",
    ],
)
def test_what_is_declared_can_be_asked_for(query: str) -> None:
    check(query, make.recorded())


def zeros() -> list[dict[str, str]]:
    """Return every series there can be, at 0 all the time, as promtool wants them."""
    found = []
    for metric in METRICS:
        for values in metric.series or (("a",) * len(metric.labels),):
            labels = {"job": "j", "instance": "i", **dict(zip(metric.labels, values, strict=True))}
            found += _zeros(metric, labels)
    return [{"series": series, "values": "0x60"} for series in found]


def _zeros(metric: Metric, labels: dict[str, str]) -> list[str]:
    if metric.type is not Type.HISTOGRAM:
        return [metric.name + json_labels(labels)]
    bounds = [*map(str, metric.buckets), "+Inf"]
    return [f"{metric.name}_bucket{json_labels({**labels, 'le': bound})}" for bound in bounds]


def json_labels(labels: dict[str, str]) -> str:
    """Return them in braces."""
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def test_where_all_is_zero_no_panel_divides_by_it(tmp_path: Path) -> None:
    """NaN alone differs from itself."""
    chosen = {**MACROS, "$job": ".+", "$instance": ".+"}
    panels: list[Any] = [param.values[0] for param in PANELS]
    queries = [target.expr for panel in panels for target in panel.targets]
    for name, value in chosen.items():
        queries = [query.replace(name, value) for query in queries]
    asked = [f"({query}) != ({query})" for query in queries]
    asked += [f"abs({query}) == Inf" for query in queries]
    cases = [{"eval_time": "50m", "expr": text, "exp_samples": []} for text in asked]
    rules = [str(path) for path in (make.HERE / "rules").glob("*.yml")]
    tests = [{"interval": "1m", "input_series": zeros(), "promql_expr_test": cases}]
    content = {"rule_files": rules, "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "zero.yml").write_text(json.dumps(content))  # JSON is YAML
    promtool("test", "rules", str(tmp_path / "zero.yml"))
