# SPDX-License-Identifier: Apache-2.0
"""Commands that show the present: leaks, ports, listeners, census."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from tracer import cli_options

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracer import runs_census

HOLDER_PID: Final = click.option(
    "--pid", "pids", type=click.IntRange(1), multiple=True, help="Process that holds it."
)
SOCKET_OPTIONS: Final = (
    cli_options.PORT,
    HOLDER_PID,
    cli_options.COMM,
    cli_options.RADDR,
    cli_options.NETNS,
)
LOOK_OPTIONS: Final = (
    click.option(
        "--over",
        "over_s",
        type=cli_options.Seconds(0, 86_400),
        default=0,
        metavar="SECONDS",
        help="Look twelve times within so long, then judge.  [default: one look]",
    ),
    click.option(
        "--watch",
        "watch_s",
        type=cli_options.Seconds(0.1, 86_400),
        metavar="SECONDS",
        help="Show it again and again, until interrupted.",
    ),
    cli_options.rows_limit(),
    click.option("--json", "as_json", is_flag=True, help="One JSON object per row, and totals."),
    cli_options.COLOR,
)


def _sort(*keys: str) -> Callable[[cli_options.Command], cli_options.Command]:
    return click.option(
        "--sort", type=click.Choice(keys), default="severity", show_default=True, help="Order."
    )


def wishes(options: dict[str, Any]) -> runs_census.Wishes:
    """Return a command's options as plain values."""
    from tracer import runs_census  # noqa: PLC0415 - each command imports what it needs

    color = cli_options.want_color(options.pop("color"))
    filters = cli_options.take_filters(options)
    return runs_census.Wishes(filters=filters, color=color, **options)


@click.command()
@click.option(
    "--older",
    "older_s",
    type=cli_options.Seconds(0, 1e9),
    default=10,
    show_default=True,
    metavar="SECONDS",
    help="Leave sockets out that are younger in CLOSE_WAIT.",
)
@click.option(
    "--sockets",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="Of each group list the N oldest sockets: fd, ends, age, unread.",
)
@click.option(
    "--stacks",
    is_flag=True,
    help="Show which user stacks accepted or connected suspects (with --over or --watch).",
)
@cli_options.options(SOCKET_OPTIONS, LOOK_OPTIONS)
@_sort("severity", "count", "growth", "age", "unread")
def leaks(**options: Any) -> None:
    """Tell who leaks CLOSE_WAIT: a verdict per process and peer. Needs root.

    A peer has closed, we have not. leak: kept for good. idle pool: outbound, harmless while
    bounded. awaits gc, late close: closed in the end. half close: still sending. in accept queue:
    nobody took it yet. One look judges by ages ("?"); --over 60 sees who comes and leaves.
    """
    from tracer import runs_leaks  # noqa: PLC0415 - each command imports what it needs

    runs_leaks.leaks(wishes(options))


@click.command()
@cli_options.options(SOCKET_OPTIONS, LOOK_OPTIONS)
@_sort("severity", "taken", "available", "time_wait", "rate")
def ports(**options: Any) -> None:
    """Tell where local ports run out, and who owns the TIME_WAITs. Needs root.

    Ports are counted per source address and destination, as connect() does. LEFT: free now.
    PER S: TIME_WAITs that began lately. OUT IN: when none is left if it goes on like this.
    """
    from tracer import runs_census  # noqa: PLC0415 - each command imports what it needs

    runs_census.ports(wishes(options))


@click.command()
@cli_options.options(SOCKET_OPTIONS, LOOK_OPTIONS)
@_sort("severity", "queue", "peak", "drops", "port")
def listeners(**options: Any) -> None:
    """Tell which listener overflows: queue, limit and drops of each. Needs root.

    QUEUE: connections that wait for accept(), PEAK: at most while watched. BY: what sets LIMIT,
    the argument of listen() or net.core.somaxconn. SYN: handshakes under way.
    WAIT: 99 of 100 waited no longer for accept(), where a hook sees that (--over, --watch).
    """
    from tracer import runs_census  # noqa: PLC0415 - each command imports what it needs

    runs_census.listeners(wishes(options))


@click.command()
@cli_options.options((cli_options.NETNS,), LOOK_OPTIONS[1:])
@click.option(
    "--sort",
    type=click.Choice(("sockets", "established", "close_wait", "time_wait")),
    default="sockets",
    show_default=True,
    help="Order of namespaces and cgroups.",
)
def census(**options: Any) -> None:
    """Count all sockets by state, network namespace and cgroup. Needs root.

    IN: on the local port of a service, OUT: all others. "FIN_WAIT2 (mini)": closed by its
    process, waits for the peer's FIN; ss and /proc/net/tcp count these as FIN_WAIT2.
    """
    from tracer import runs_census  # noqa: PLC0415 - each command imports what it needs

    runs_census.states(wishes(options))


COMMANDS: Final = (leaks, ports, listeners, census)
