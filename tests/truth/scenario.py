# SPDX-License-Identifier: Apache-2.0
"""What a scenario is: a named way to end connections, and what each end must then show.

A scenario function gets a `Stage`, opens its connections there and ends them. The decorator
`scenario` enters it in `SCENARIOS` with the expectation for the end that acts first and for the
other one. Most run both ways round: the client first, and the server first.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.truth.sockets import DELAYED_ACK_S, Flavour, Made, Opener, Pair, plain

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from tests.truth.netns import Net
    from tests.truth.wire import Direction, Wire


@dataclass(frozen=True, slots=True)
class Expect:
    """What the record of one end must say; None: whatever the packets say."""

    kind: str
    handshake: str | None = None
    fin_ack: str | None = None
    how: str | None = None
    cause: str | None = None


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
            self._pairs.append(self.opener.pair(server_first=self.server_first))
        return list(self._pairs)

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
) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    """Enter the decorated function in `SCENARIOS` under its own name."""

    def enter(act: Callable[[Stage], None]) -> Callable[[Stage], None]:
        name = act.__name__
        mix = mixable and not wired
        SCENARIOS[name] = Scenario(name, act, first, second, wired, both_ways, mix)
        return act

    return enter
