# SPDX-License-Identifier: Apache-2.0
"""Write dashboards/grafana/*.json and the table of docs/dashboards.md: `python -m dashboards.make`.

Fails, and writes nothing, where a panel names a metric, a label or a label value that
tracer/metrics.py does not declare, or a recorded series that no rule records.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import yaml
from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from dashboards import fleet, leaks, listeners, overview, ports, tracer_health
from dashboards.panels import SOURCE
from dashboards.promql import check
from tracer.metrics import BUILD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dashboards.panels import Panel

HERE: Final = Path(__file__).parent
PAGE: Final = HERE.parent / "docs" / "dashboards.md"
BEGIN: Final = "<!-- panels: written by `make docs` -->\n"
END: Final = "<!-- end of panels -->\n"
ALERTS: Final = 'ALERTS{alertname=~"Fourwave.*",alertstate="firing",job=~"$job"}'


class Board(NamedTuple):
    """One dashboard; `rows` are (title, panels)."""

    name: str
    title: str
    text: str
    rows: tuple[tuple[str, tuple[Panel, ...]], ...]
    hosts: bool = True
    """Whether single hosts can be chosen."""


BOARDS: Final = (
    Board(
        "overview",
        "Overview",
        "How TCP connections end, and whether anything is wrong.",
        overview.ROWS,
    ),
    Board("leaks", "Leaks", "Sockets in CLOSE_WAIT, and who forgets to close them.", leaks.ROWS),
    Board("ports", "Ports", "Local ports towards each destination, and TIME_WAIT.", ports.ROWS),
    Board("listeners", "Listeners", "Accept queues, and who drops connections.", listeners.ROWS),
    Board("tracer", "Tracer", "Whether the other dashboards can be believed.", tracer_health.ROWS),
    Board(
        "fleet",
        "Fleet",
        "Many hosts, from the series that dashboards/rules/fleet.yml records.",
        fleet.ROWS,
        hosts=False,
    ),
)


def made(board: Board) -> model.Dashboard:
    """Return a dashboard. Raises UndeclaredError."""
    names = recorded()
    builder = dashboard.Dashboard(f"fourwave / {board.title}").uid(f"fourwave-{board.name}")
    builder = builder.description(board.text).tags(["fourwave", "tcp"]).readonly()
    builder = builder.time("now-3h", "now").refresh("1m").timezone("browser")
    builder = builder.tooltip(model.DashboardCursorSync.CROSSHAIR).variables(_variables(board))
    builder = builder.annotation(_firing()).link(_others())
    for title, panels in board.rows:
        builder = builder.with_row(dashboard.Row(title))
        for panel in panels:
            builder = builder.with_panel(panel)
    result = builder.build()
    for number, place in enumerate(result.panels or [], 1):
        place.id_val = number
    for panel in panels_of(result):
        for target in panel.targets or []:
            check(target.expr, names, target.legend_format)
    return result


def panels_of(made: model.Dashboard) -> list[Any]:
    """Return the panels in reading order, rows left out."""
    return [panel for panel in made.panels or [] if isinstance(panel, model.Panel)]


def recorded() -> list[str]:
    """Return the names that the rules record."""
    return [
        rule["record"]
        for path in sorted((HERE / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
        if "record" in rule
    ]


def as_json(made: model.Dashboard) -> str:
    """Return the text of a file."""
    return json.dumps(made, cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def as_table() -> str:
    """Return all panels and what they tell, as Markdown."""
    return "\n".join(line for board in BOARDS for line in _section(board)) + "\n"


def page() -> str:
    """Return docs/dashboards.md with the table as it should be."""
    before, rest = PAGE.read_text().split(BEGIN)
    return before + BEGIN + as_table() + END + rest.split(END)[1]


def files() -> dict[Path, str]:
    """Return all that is written."""
    boards = {HERE / "grafana" / f"{board.name}.json": as_json(made(board)) for board in BOARDS}
    return {**boards, PAGE: page()}


def _section(board: Board) -> Iterator[str]:
    yield from (
        "",
        f"### {board.title}",
        "",
        board.text,
        "",
        "| panel | what it tells |",
        "|---|---|",
    )
    for panel in panels_of(made(board)):
        yield f"| {panel.title} | {panel.description} |"


def _variables(board: Board) -> list[Any]:
    data = dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")
    jobs = _choice("job", "Job", f"label_values({BUILD.name}, job)")
    hosts = _choice("instance", "Host", f'label_values({BUILD.name}{{job=~"$job"}}, instance)')
    return [data, jobs, hosts] if board.hosts else [data, jobs]


def _choice(name: str, label: str, query: str) -> dashboard.QueryVariable:
    choice = dashboard.QueryVariable(name).label(label).query(query).datasource(SOURCE)
    choice = choice.multi(multi=True).include_all(include_all=True).all_value(".+")
    choice = choice.current(model.VariableOption(text="All", value="$__all", selected=True))
    refresh = model.VariableRefresh.ON_TIME_RANGE_CHANGED
    return choice.refresh(refresh).sort(model.VariableSort.ALPHABETICAL_ASC)


def _firing() -> dashboard.AnnotationQuery:
    firing = dashboard.AnnotationQuery().name("Alerts").datasource(SOURCE).expr(ALERTS)
    return firing.enable(enable=True).icon_color("red")


def _others() -> dashboard.DashboardLink:
    link = dashboard.DashboardLink("fourwave").type(model.DashboardLinkType.DASHBOARDS)
    link = link.tags(["fourwave"]).as_dropdown(as_dropdown=True)
    return link.include_vars(include_vars=True).keep_time(keep_time=True)


def main() -> None:
    """Write what differs."""
    for path, text in files().items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


if __name__ == "__main__":
    main()
