# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share; a wrong one is told before numpy or anything loads."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from tracer import runs
from tracer.tcp import Handshake, Kind

if TYPE_CHECKING:
    import ipaddress
    from collections.abc import Callable

    Command = Callable[..., Any]

T = TypeVar("T")

NETNS_DIR: Final = "/run/netns"  # where ip-netns(8) keeps its names
KINDS: Final = {kind.name.lower(): kind for kind in Kind}
HANDSHAKES: Final = {shake.name.lower(): shake for shake in Handshake}


# IPv4 is mapped into IPv6 like in the records.
def _network(text: str) -> ipaddress.IPv6Network:
    import ipaddress  # noqa: PLC0415 - 10 ms that only this option needs

    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        message = f"{text!r} is not an address or a network like 10.0.0.0/8"
        raise click.BadParameter(message) from None
    if isinstance(network, ipaddress.IPv6Network):
        return network
    return ipaddress.IPv6Network((f"::ffff:{network.network_address}", 96 + network.prefixlen))


def _netns(text: str) -> int:
    if text.isdecimal():
        return int(text)
    path = text if "/" in text else f"{NETNS_DIR}/{text}"
    try:
        return Path(path).stat().st_ino
    except (OSError, ValueError) as error:
        message = f"no network namespace {text!r}: {path}: {getattr(error, 'strerror', error)}"
        raise click.BadParameter(message) from None


def _each(convert: Callable[[str], T]) -> Callable[..., tuple[T, ...]]:
    return lambda _ctx, _param, texts: tuple(convert(text) for text in texts)


# [::1]:9742, 10.0.0.1:9742, or :9742 for every address.
def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not port.isdecimal() or int(port) > 65535 or (":" in bare and bare == host):
        message = f"{text!r} is not an address and a port like 127.0.0.1:9742 or [::1]:9742"
        raise click.BadParameter(message)
    return bare, int(port)


class Seconds(click.FloatRange):
    """A number of seconds in a range. Python's nan is in every range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; fail for what is none."""
        number = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value!r} is no number of seconds", param, ctx)
        return number


PORT: Final = click.option(
    "--port",
    "ports",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    multiple=True,
    help="Local or remote port.",
)
PID: Final = click.option(
    "--pid",
    "pids",
    type=click.IntRange(1),
    metavar="PID",
    multiple=True,
    help="Process that opened or closed.",
)
COMM: Final = click.option(
    "--comm",
    "comms",
    metavar="COMM",
    multiple=True,
    help="Its name, or a pattern like 'nginx*'.",
)
RADDR: Final = click.option(
    "--raddr",
    "raddrs",
    callback=_each(_network),
    metavar="ADDR[/BITS]",
    multiple=True,
    help="Remote address or network.",
)
NETNS: Final = click.option(
    "--netns",
    "netns",
    callback=_each(_netns),
    metavar="INUM|NAME|PATH",
    multiple=True,
    help="Network namespace.",
)
KIND: Final = click.option(
    "--kind",
    "kinds",
    type=click.Choice(list(KINDS)),
    metavar="KIND",
    multiple=True,
    help=f"How it ended: {', '.join(KINDS)}.",
)
HANDSHAKE: Final = click.option(
    "--handshake",
    "handshakes",
    type=click.Choice(list(HANDSHAKES)),
    metavar="HANDSHAKE",
    multiple=True,
    help=f"How the FINs were exchanged: {', '.join(HANDSHAKES)}.",
)
FILTER_OPTIONS: Final = (PORT, PID, COMM, RADDR, NETNS, KIND, HANDSHAKE)
COUNT: Final = click.option(
    "--count", type=click.IntRange(1), metavar="N", help="Stop after N closes."
)
DURATION: Final = click.option(
    "--duration",
    "duration_s",
    type=Seconds(0, min_open=True),
    metavar="SECONDS",
    help="Stop after so long.",
)
COLOR: Final = click.option(
    "--color",
    type=click.Choice(("auto", "always", "never")),
    default="auto",
    show_default=True,
    help="NO_COLOR is respected.",
)
EXPLAIN_OPTIONS: Final = (
    click.option("--in", "path", metavar="FILE", help='The last of a recording ("-": stdin).'),
    click.option("--last", is_flag=True, help="The next one that ends on this host. Needs root."),
    click.option("--count", type=click.IntRange(1), metavar="N", help="Draw N.  [default: 1]"),
    click.option(
        "--duration",
        "duration_s",
        type=Seconds(0, min_open=True),
        metavar="SECONDS",
        help="With --last: wait no longer.",
    ),
    click.option("--json", "as_json", is_flag=True, help="One JSON object per topic or close."),
)
SERVE_OPTIONS: Final = (
    click.option(
        "--listen",
        "addresses",
        callback=_each(_address),
        metavar="ADDR:PORT",
        multiple=True,
        default=("127.0.0.1:9742",),
        show_default=True,
        help="Where to serve; may be given more than once.",
    ),
    click.option(
        "--web-config-file",
        "web_config",
        metavar="FILE",
        help="TLS, client certificates and passwords, in the format of Prometheus' exporters.",
    ),
    click.option(
        "--user",
        metavar="NAME",
        help="Whom to become once attached.  [default: fourwave, else nobody]",
    ),
    click.option(
        "--census",
        "census_s",
        type=Seconds(0),
        default=30.0,
        metavar="SECONDS",
        show_default=True,
        help="How often to look at all sockets, for leaks, ports and listeners; half as often "
        "while nothing closes; 0: never.",
    ),
    click.option(
        "--ring-bytes",
        type=click.IntRange(4096, 1 << 30),
        metavar="N",
        help="Kernel memory for closes not yet fetched.  [default: 8 MiB]",
    ),
)
VIEW_OPTIONS: Final = (
    click.option("-w", "--wide", is_flag=True, help="Every column, and why; any width."),
    click.option("--json", "as_json", is_flag=True, help="One JSON object per close."),
    click.option("--summary", "summary_only", is_flag=True, help="No lines, only the summary."),
    COLOR,
)


def rows_limit(words: str = "Show no more rows.") -> Callable[[Command], Command]:
    """Return --limit of a table."""
    return click.option(
        "--limit",
        type=click.IntRange(1),
        default=20,
        show_default=True,
        metavar="N",
        help=words,
    )


def options(*groups: tuple[Command, ...]) -> Callable[[Command], Command]:
    """Return a decorator that adds the options in the order given."""

    def decorate(command: Command) -> Command:
        for option in reversed([option for group in groups for option in group]):
            command = option(command)
        return command

    return decorate


def want_color(choice: str) -> bool:
    """Decide on colour: as told, else when stdout is a terminal that can and NO_COLOR is unset."""
    if choice != "auto":
        return choice == "always"
    capable = os.environ.get("TERM", "dumb") != "dumb" and not os.environ.get("NO_COLOR")
    return capable and sys.stdout.isatty()


SOCKET_FILTERS: Final = ("ports", "pids", "comms", "raddrs")


def take_filters(options: dict[str, Any]) -> dict[str, Any]:
    """Take what says which sockets are meant out of a command's options."""
    return {name: options.pop(name, ()) for name in SOCKET_FILTERS}


def wishes(options: dict[str, Any]) -> runs.Wishes:
    """Return a command's options as plain values."""
    filters = {name: options.get(name, ()) for name in (*SOCKET_FILTERS, "netns")}
    filters["kinds"] = tuple(KINDS[label] for label in options.get("kinds", ()))
    filters["handshakes"] = tuple(HANDSHAKES[label] for label in options.get("handshakes", ()))
    return runs.Wishes(
        filters=filters,
        count=options.get("count"),
        duration_s=options.get("duration_s"),
        wide=options.get("wide", False),
        as_json=options.get("as_json", False),
        summary_only=options.get("summary_only", False),
        color=want_color(options.get("color", "never")),
    )
