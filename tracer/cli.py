# SPDX-License-Identifier: Apache-2.0
"""The command line: parse, hand over to runs, turn every error into a line and an exit code."""

from __future__ import annotations

import io
import sys
from typing import Any

import click

from tracer import __version__, cli_census, cli_kill, cli_options, cli_top, exits, runs
from tracer.exits import PROG


class Verbs(click.Group):
    """Keeps the order of definition, and is the one place where errors end."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the commands in the order a newcomer needs them."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a known error becomes its message and its exit code."""
        with exits.known_errors():
            return super().invoke(ctx)


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name=PROG, message="%(prog)s %(version)s")
def cli() -> None:
    """Watch every TCP connection of this host say goodbye."""


@cli.command()
@cli_options.options(
    cli_options.FILTER_OPTIONS, (cli_options.COUNT, cli_options.DURATION), cli_options.VIEW_OPTIONS
)
def watch(**options: Any) -> None:
    """Show every close as it happens. Needs root.

    LPORT<REMOTE: it connected to us, LPORT>REMOTE: we to it. SEGS: how many segments the FINs and
    their ACKs took. WAIT: how long the peer's FIN waited for the application to close. LIFE: since
    it was opened. For the rest the cause is named.
    """
    runs.watch(cli_options.wishes(options))


@cli.command()
@click.argument("file")
@click.option("-f", "--force", is_flag=True, help="Overwrite FILE.")
@cli_options.options((cli_options.COUNT, cli_options.DURATION))
def record(file: str, *, force: bool, **options: Any) -> None:
    """Record raw closes into FILE ("-": stdout), to replay anywhere. Needs root.

    A close takes 384 bytes. The file holds addresses of peers: it is made readable for you alone.
    """
    runs.record(file, cli_options.wishes(options), force=force)


@cli.command()
@click.argument("file")
@cli_options.options(cli_options.FILTER_OPTIONS, (cli_options.COUNT,), cli_options.VIEW_OPTIONS)
def replay(file: str, **options: Any) -> None:
    """Show a recording FILE ("-": stdin) as watch would have. Needs no root, no kernel.

    Of a damaged file everything before the damage is shown; then it says where, and exits with 1.
    """
    runs.replay(file, cli_options.wishes(options))


for command in (*cli_top.COMMANDS, *cli_census.COMMANDS, *cli_kill.COMMANDS):
    cli.add_command(command)


@cli.command()
@click.argument("topics", nargs=-1, metavar="[TOPIC]...")
@cli_options.options(cli_options.EXPLAIN_OPTIONS, cli_options.FILTER_OPTIONS, (cli_options.COLOR,))
def explain(topics: tuple[str, ...], *, path: str | None, last: bool, **options: Any) -> None:
    """Tell what a word means and what to do, or draw a real close.

    TOPIC is a kind, a handshake or a cause, as watch shows it; without any, all are listed.
    With --in or --last a connection is drawn segment by segment, with its times and why. Exits
    with 1 when none matched.
    """
    from tracer.explain import explain as tell  # noqa: PLC0415

    tell(topics, path=path, last=last, wishes=cli_options.wishes(options))


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object per scenario.")
@cli_options.COLOR
def demo(*, as_json: bool, color: str) -> None:
    """Make every kind of close on loopback, and show each. Needs root, takes a few seconds.

    Exits with 1 when a verdict differs from what was made.
    """
    from tracer.demo.run import demonstrate  # noqa: PLC0415

    sys.exit(demonstrate(as_json=as_json, color=cli_options.want_color(color)))


@cli.command()
@cli_options.options(cli_options.SERVE_OPTIONS)
def serve(**options: Any) -> None:
    """Serve metrics of all closes to Prometheus. Needs root to start, and gives it up.

    /metrics is for Prometheus, / for people, /-/healthy and /-/ready for supervisors. SIGHUP reads
    the web configuration file again.
    """
    from tracer.serve_resident import become  # noqa: PLC0415

    become(options)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object per fact.")
@cli_options.COLOR
def doctor(*, as_json: bool, color: str) -> None:
    """Tell what this host allows, with a remedy for each "no".

    Exits with 0 when watch can run here, 3 when not.
    """
    sys.exit(runs.doctor(as_json=as_json, color=cli_options.want_color(color)))


def main() -> None:
    """Entry point of the `fourwave` command."""
    exits.open_streams()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal without UTF-8 gets "?", not an error
            stream.reconfigure(errors="replace")
    with exits.bugs(sys.argv[1:]), exits.known_errors():
        cli.main(prog_name=PROG)
