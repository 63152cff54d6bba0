# SPDX-License-Identifier: Apache-2.0
"""The few kinds of panel that fourwave's dashboards are made of, in one look.

Widths are in the 24 columns of Grafana's grid. Every panel has a unit, says what to do in its
description, and says in words what it means when there is nothing to show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

from grafana_foundation_sdk.builders import (
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import heatmap as heat
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

if TYPE_CHECKING:
    from collections.abc import Iterable

    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.cog.variants import Dataquery

    Panel = Builder[model.Panel]

Kind = TypeVar(
    "Kind", heatmap.Panel, stat.Panel, statetimeline.Panel, table.Panel, timeseries.Panel
)
SOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, YELLOW, ORANGE, RED, BLUE = "green", "yellow", "orange", "red", "blue"
HEIGHT: Final = 8
SMALL: Final = 4


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, and what Grafana calls its series; in a table `legend` names the value's column."""

    text: str
    legend: str = ""


@dataclass(frozen=True, slots=True)
class About:
    """What every panel says of itself. `limits` are (from which value, colour), in rising order."""

    title: str
    unit: str
    text: str
    limits: tuple[tuple[float, str], ...] = ()
    empty: str = "Nothing happened"
    width: int = 12
    top: float | None = None


def lines(about: About, *queries: Query, stacked: bool = False) -> Panel:
    """Return values over time; limits are dashed lines."""
    panel = _described(timeseries.Panel(), about, HEIGHT).targets(_targets(queries))
    panel = panel.color_scheme(_color(model.FieldColorModeId.PALETTE_CLASSIC_BY_NAME))
    panel = panel.line_width(1).fill_opacity(60 if stacked else 10).min(0)
    panel = panel.show_points(looks.VisibilityMode.NEVER)
    if about.top is not None:
        panel = panel.max(about.top)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL))
    if about.limits:
        dashed = common.GraphThresholdsStyleConfig().mode(looks.GraphThresholdsStyleMode.DASHED)
        panel = panel.thresholds_style(dashed)
    legend = common.VizLegendOptions().show_legend(show_legend=True)
    legend = legend.display_mode(looks.LegendDisplayMode.TABLE)
    legend = legend.placement(looks.LegendPlacement.RIGHT).calcs(["lastNotNull", "max"])
    tooltip = common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI)
    return panel.legend(legend).tooltip(tooltip.sort(looks.SortOrder.DESCENDING))


def number(about: About, query: Query) -> Panel:
    """Return one number, coloured by the limits."""
    panel = _described(stat.Panel(), about, SMALL).targets(_targets([query]))
    shown = looks.BigValueColorMode.BACKGROUND if about.limits else looks.BigValueColorMode.NONE
    panel = panel.color_mode(shown).graph_mode(looks.BigValueGraphMode.AREA)
    return panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))


def heat_map(about: About, query: Query) -> Panel:
    """Return how durations are spread, of the buckets of a histogram by `le`."""
    panel = _described(heatmap.Panel(), about, HEIGHT)
    panel = panel.with_target(_target(query, "A").format(PromQueryFormat.HEATMAP))
    colors = heatmap.HeatmapColorOptions().mode(heat.HeatmapColorMode.SCHEME)
    colors = colors.scheme("Oranges").scale(heat.HeatmapColorScale.EXPONENTIAL)
    panel = panel.calculate(calculate=False).color(colors.exponent(0.5).steps(64))
    panel = panel.y_axis(heatmap.YAxisConfig().unit("s"))
    panel = panel.cell_values(heatmap.CellValues().unit(about.unit)).show_legend()
    return panel.mode(looks.TooltipDisplayMode.SINGLE)


def switches(about: About, query: Query) -> Panel:
    """Return what was up (1) and down (0) over time."""
    panel = _described(statetimeline.Panel(), about, HEIGHT).targets(_targets([query]))
    words = {
        "0": model.ValueMappingResult(text="down", color=RED, index=0),
        "1": model.ValueMappingResult(text="up", color=GREEN, index=1),
    }
    panel = panel.mappings([model.ValueMap(options=words)])
    return (
        panel.show_value(looks.VisibilityMode.NEVER).row_height(0.9).merge_values(merge_values=True)
    )


def rows(about: About, *queries: Query, units: dict[str, str] | None = None) -> Panel:
    """Return a table of the present: a row for each label set, a column for each query.

    `units` are those of columns that have another than the panel's.
    """
    panel = _described(table.Panel(), about, HEIGHT)
    for index, query in enumerate(queries):
        target = _target(query, chr(ord("A") + index))
        panel = panel.with_target(target.instant().format(PromQueryFormat.TABLE))
    for name, unit in (units or {}).items():
        panel = panel.override_by_name(name, [model.DynamicConfigValue("unit", unit)])
    # Grafana calls the value of the only query without a letter.
    letters = [f" #{chr(ord('A') + index)}" for index in range(len(queries))]
    names = {f"Value{letter}": query.legend for letter, query in zip(letters, queries, strict=True)}
    if len(queries) == 1:
        names["Value"] = queries[0].legend
    hidden = dict.fromkeys(("Time", "__name__"), True)
    organized = {"excludeByName": hidden, "renameByName": names, "indexByName": {}}
    panel = panel.with_transformation(_step("merge", {}))
    panel = panel.with_transformation(_step("organize", organized))
    if queries[0].legend:
        first = common.TableSortByFieldState().display_name(queries[0].legend).desc(desc=True)
        panel = panel.sort_by([first])
    return panel


def _described(panel: Kind, about: About, height: int) -> Kind:
    base = GREEN if about.limits else BLUE
    steps = [model.Threshold(None, base)]
    steps += [model.Threshold(value, color) for value, color in about.limits]
    config = dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
    panel = panel.title(about.title).description(about.text).unit(about.unit).datasource(SOURCE)
    return panel.thresholds(config).no_value(about.empty).span(about.width).height(height)


def _color(mode: model.FieldColorModeId) -> dashboard.FieldColor:
    return dashboard.FieldColor().mode(mode)


def _step(name: str, options: object) -> model.DataTransformerConfig:
    return model.DataTransformerConfig(id_val=name, options=options)


def _targets(queries: Iterable[Query]) -> list[Builder[Dataquery]]:
    return [_target(query, chr(ord("A") + index)) for index, query in enumerate(queries)]


def _target(query: Query, letter: str) -> prometheus.Dataquery:
    made = prometheus.Dataquery().expr(query.text).ref_id(letter).datasource(SOURCE)
    made = made.legend_format(query.legend or "__auto")
    # What is gained in all the time shown has one value, not a course.
    return made.instant() if "$__range]" in query.text else made.range()
