# SPDX-License-Identifier: Apache-2.0
"""Commands that count closes by process and connection: top, report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from tracer import cli_options

if TYPE_CHECKING:
    from tracer import runs_top

COUNT_OPTIONS: Final = (
    *cli_options.FILTER_OPTIONS,
    click.option(
        "--sort",
        type=click.Choice(("closes", "resets", "failed", "active")),
        default="closes",
        show_default=True,
        help="Order.",
    ),
    cli_options.rows_limit(),
    click.option("--json", "as_json", is_flag=True, help="One JSON object per row."),
    cli_options.COLOR,
)


def wishes(options: dict[str, Any]) -> runs_top.Wishes:
    """Return a command's options as plain values."""
    from tracer import runs_top  # noqa: PLC0415 - each command imports what it needs

    asked = cli_options.wishes(options)
    names = ("every_s", "duration_s", "sort", "limit", "as_json")
    given = {name: options[name] for name in names if name in options}
    return runs_top.Wishes(filters=asked.filters, color=asked.color, **given)


@click.command()
@click.option(
    "--every",
    "every_s",
    type=cli_options.Seconds(0.2, 3_600),
    default=2,
    show_default=True,
    metavar="SECONDS",
    help="Count anew after so long.",
)
@cli_options.options((cli_options.DURATION,), COUNT_OPTIONS)
def top(**options: Any) -> None:
    """Show who ends how many connections, and how, again and again. Needs root.

    WE 1ST: of the closes by FIN, those where our FIN was first; they leave TIME_WAIT here.
    3 SEGS: the FINs and their ACKs took three segments. RST: reset by either side.
    """
    from tracer import runs_top  # noqa: PLC0415 - each command imports what it needs

    runs_top.top(wishes(options))


@click.command()
@click.argument("file")
@cli_options.options(COUNT_OPTIONS)
def report(file: str, **options: Any) -> None:
    """Show who ended how many connections in a recording FILE.

    "-" is stdin. The summary follows. Of a damaged file everything before the damage is counted;
    then it exits with 1.
    """
    from tracer import runs_top  # noqa: PLC0415 - each command imports what it needs

    runs_top.report(file, wishes(options))


COMMANDS: Final = (top, report)
