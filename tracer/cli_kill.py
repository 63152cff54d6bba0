# SPDX-License-Identifier: Apache-2.0
"""`fourwave kill`: end sockets that were left over, never more than what is named."""

from __future__ import annotations

import sys
from typing import Any, Final

import click

from tracer import cli_census, cli_options
from tracer.errors import UsageError
from tracer.tcp import TcpState

STATES: Final = {"close_wait": TcpState.CLOSE_WAIT, "fin_wait2": TcpState.FIN_WAIT2}


@click.command()
@click.option(
    "--state",
    "states",
    type=click.Choice(list(STATES)),
    multiple=True,
    default=("close_wait",),
    show_default="close_wait",
    help="State of what is to be ended.",
)
@click.option(
    "--older",
    "older_s",
    type=cli_options.Seconds(0, 1e9),
    default=60,
    show_default=True,
    metavar="SECONDS",
    help="Leave alone what heard or sent anything since.",
)
@cli_options.options(cli_census.SOCKET_OPTIONS)
@click.option("--execute", is_flag=True, help="End them, after asking.")
@click.option("--yes", is_flag=True, help="With --execute: do not ask.")
@cli_options.rows_limit("Show no more rows; all that are named are ended.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per socket.")
@cli_options.COLOR
def kill(*, states: tuple[str, ...], yes: bool, **options: Any) -> None:
    """End stale sockets in CLOSE_WAIT or FIN_WAIT2, as ss -K does. Needs root.

    Shows what would be ended and what both sides will see, and does nothing without --execute.
    At least one filter is needed. Each socket is looked at again right before.
    """
    from tracer import runs_kill  # noqa: PLC0415 - each command imports what it needs

    if yes and not options["execute"]:
        raise UsageError("--yes answers what --execute asks: give both")
    color = cli_options.want_color(options.pop("color"))
    filters = cli_options.take_filters(options)
    chosen = tuple(STATES[name] for name in dict.fromkeys(states))
    wishes = runs_kill.Wishes(states=chosen, filters=filters, color=color, **options)
    sys.exit(runs_kill.kill(wishes, _agrees(yes=yes)))


def _agrees(*, yes: bool) -> Any:
    def ask(question: str) -> bool:
        if not yes and not sys.stdin.isatty():
            raise UsageError("nobody can be asked here: add --yes to --execute")
        return yes or click.confirm(question, err=True)

    return ask


COMMANDS: Final = (kill,)
