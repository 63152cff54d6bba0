# SPDX-License-Identifier: Apache-2.0
"""What a scenario is: a named way to end connections, and what each end must then show.

A scenario function gets a `Stage`, opens its connections there and ends them. The decorator
`scenario` enters it in `SCENARIOS` with the expectation for the end that acts first and for the
other one. Most run both ways round: the client first, and the server first.
"""

from __future__ import annotations

import contextlib
import socket
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.truth.sockets import (
    DELAYED_ACK_S,
    TIMEOUT_S,
    Flavour,
    Made,
    Opener,
    Pair,
    plain,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.truth.netns import Net, Side
    from tests.truth.wire import Direction, Wire


@dataclass(frozen=True, slots=True)
class Expect:
    """What the record of one end must say; None: whatever the packets say."""

    kind: str
    handshake: str | None = None
    fin_ack: str | None = None
    how: str | None = None
    cause: str | None = None
    time_wait: bool | None = None


class Stage:
    """Where one run of a scenario happens: a network, a flavour, how many, which way round."""

    def __init__(
        self,
        net: Net,
        flavour: Flavour,
        count: int,
        *,
        server_first: bool = False,
        wire: Wire | None = None,
    ) -> None:
        """Make a listener; `wire` only where the network has one."""
        self.opener = Opener(net, flavour)
        self.count = count
        self.server_first = server_first
        self._wire = wire
        self._pairs: list[Pair] = []
        self._made: list[Made] = []

    @property
    def wire(self) -> Wire:
        """The wire under control; a scenario that uses it is marked `wired`."""
        assert self._wire is not None, "this scenario needs a wired network"
        return self._wire

    @property
    def first_side(self) -> Side:
        """Where the end lives that acts first."""
        net = self.opener.net
        return net.server if self.server_first else net.client

    @property
    def from_first(self) -> Direction:
        """The way across from the end that acts first."""
        return self.wire.to_client if self.server_first else self.wire.to_server

    @property
    def to_first(self) -> Direction:
        """The way back."""
        return self.wire.to_server if self.server_first else self.wire.to_client

    def pairs(self) -> list[Pair]:
        """Open and accept `count` connections."""
        for _ in range(self.count):
            self.adopt(self.opener.connect())
        return self.joined

    def talked(self) -> list[Pair]:
        """Open `count` connections and let both ends say something."""
        pairs = self.pairs()
        for pair in pairs:
            pair.exchange()
        return pairs

    def quiet(self) -> list[Pair]:
        """As `talked`, and wait until every delayed ACK has crossed the wire."""
        pairs = self.talked()
        time.sleep(DELAYED_ACK_S)
        self.wire.drain()
        return pairs

    @contextlib.contextmanager
    def sysctl(self, key: str, value: int) -> Iterator[None]:
        """Set net.ipv4.`key` on both ends for a while."""
        ends = {self.opener.net.client.ns, self.opener.net.server.ns}
        before = [(ns, ns.sysctl(f"ipv4/{key}", str(value))) for ns in ends]
        try:
            yield
        finally:
            for ns, old in before:
                ns.sysctl(f"ipv4/{key}", old)

    def adopt(self, client: socket.socket, listener: socket.socket | None = None) -> Pair:
        """Accept the connection of a client that was made by hand."""
        server, peer = (listener or self.opener.listener).accept()
        server.settimeout(TIMEOUT_S)
        names = plain(peer), plain(server.getsockname())
        pair = Pair(client, server, names, self.opener.flavour.family, self.server_first)
        self._pairs.append(pair)
        return pair

    def unanswered(self) -> list[socket.socket]:
        """Begin `count` connections that nobody will accept."""
        clients = [self.opener.client() for _ in range(self.count)]
        for client in clients:
            client.setblocking(False)
            client.connect_ex(self.opener.target)
            self.note(client, self.opener.target, ends=1)
        return clients

    def join(self, client: socket.socket, server: socket.socket) -> None:
        """Take over two sockets that connect to each other: nobody accepts."""
        names = plain(client.getsockname()), plain(server.getsockname())
        family = self.opener.flavour.family
        self._pairs.append(Pair(client, server, names, family, self.server_first))

    @property
    def joined(self) -> list[Pair]:
        """All connections of which both ends are here."""
        return list(self._pairs)

    @property
    def client_address(self) -> str:
        """The client's own address in the notation of its socket."""
        flavour = self.opener.flavour
        host = self.opener.net.client.address[flavour.family]
        mapped = flavour.client_family == socket.AF_INET6 and flavour.family == 4
        return f"::ffff:{host}" if mapped else host

    def note(self, client: socket.socket, remote: tuple[object, ...], *, ends: int) -> None:
        """Account for a connection that nobody accepted."""
        local, family = plain(client.getsockname()), self.opener.flavour.family
        self._made.append(Made(family, local, plain(remote), ends=ends))

    @property
    def made(self) -> list[Made]:
        """All that was made here."""
        return [*self._made, *(pair.made for pair in self._pairs)]

    def close(self) -> None:
        """Close whatever the scenario left open."""
        with contextlib.closing(self.opener.listener):
            for pair in self._pairs:
                pair.close()


@dataclass(frozen=True, slots=True)
class Scenario:
    """One entry of `SCENARIOS`."""

    name: str
    act: Callable[[Stage], None] = field(repr=False)
    first: Expect
    second: Expect | None
    wired: bool
    both_ways: bool
    mixable: bool
    no_time_wait: bool
    blurred: bool
    waits: bool = False

    def expected(self, *, server_first: bool) -> tuple[Expect | None, Expect | None]:
        """Return the expectations for (client, server)."""
        return (self.second, self.first) if server_first else (self.first, self.second)

    def run(
        self,
        net: Net,
        flavour: Flavour,
        count: int,
        *,
        server_first: bool = False,
        wire: Wire | None = None,
    ) -> list[Made]:
        """Make `count` connections and end them this way."""
        stage = Stage(net, flavour, count, server_first=server_first, wire=wire)
        with contextlib.closing(stage):
            self.act(stage)
            return stage.made


SCENARIOS: dict[str, Scenario] = {}


def scenario(
    *,
    first: Expect,
    second: Expect | None,
    wired: bool = False,
    both_ways: bool = True,
    mixable: bool = True,
    no_time_wait: bool = False,
    blurred: bool = False,
    waits: bool = False,
) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    """Enter the decorated function in `SCENARIOS` under its own name.

    `no_time_wait`: where TIME_WAIT is due there is none, which no packet shows. `blurred`: the
    packets show what the socket cannot know, so that null is right. `waits`: for seconds, for a
    timer of the kernel or on purpose.
    """

    def enter(act: Callable[[Stage], None]) -> Callable[[Stage], None]:
        name = act.__name__
        mix = mixable and not wired
        SCENARIOS[name] = Scenario(
            *(name, act, first, second, wired, both_ways, mix),
            *(no_time_wait, blurred, waits),
        )
        return act

    return enter
