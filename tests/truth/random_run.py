# SPDX-License-Identifier: Apache-2.0
"""Random connections, many at a time: each end is a thread of its own, so that they race."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.truth.random_end import Facts, RandomEnd
from tests.truth.random_plan import plan_of
from tests.truth.sockets import Address, Flavour, Made, Opener, plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.truth.compare import Key
    from tests.truth.netns import Net
    from tests.truth.random_plan import Plan

WORKERS = 24
# A mini-socket in FIN_WAIT2 acknowledges window probes and never opens the window: the other end
# is stuck until it goes.
FIN_TIMEOUT_S = 2


@dataclass(frozen=True, slots=True)
class Played:
    """A plan that was carried out, and what its ends remember."""

    plan: Plan
    made: Made
    client: Facts
    server: Facts

    def ends(self) -> Iterator[tuple[Key, Facts]]:
        """Yield the 4-tuple of each end, as records have it, with its facts."""
        family, client, server = self.made.family, self.made.client, self.made.server
        yield (family, *client, *server), self.client
        yield (family, *server, *client), self.server


class _Server(threading.Thread):
    """Accepts one connection and carries out the server's part of its plan."""

    def __init__(self, opener: Opener, plan: Plan, meeting: threading.Barrier) -> None:
        super().__init__()
        self._opener, self._plan, self._meeting = opener, plan, meeting
        self.client_address: Address = ("", 0)
        self.facts = Facts()

    def run(self) -> None:
        sock, address = self._opener.listener.accept()
        self.client_address = plain(address)
        end = RandomEnd(sock, self._plan.server, self._meeting)
        self.facts = end.facts
        end.run()


class _Worker:
    """Carries out one plan after the other, on listeners of its own."""

    def __init__(self, net: Net) -> None:
        self._openers = {flavour: Opener(net, flavour) for flavour in Flavour}

    def play(self, plan: Plan) -> Played:
        opener, meeting = self._openers[plan.flavour], threading.Barrier(2)
        server = _Server(opener, plan, meeting)
        server.start()
        sock = opener.client()
        # The server may have reset it before connect() comes back.
        with contextlib.suppress(ConnectionError):
            sock.connect(opener.target)
        client = RandomEnd(sock, plan.client, meeting)
        client.run()
        server.join()
        made = Made(plan.flavour.family, server.client_address, plain(opener.target))
        return Played(plan, made, client.facts, server.facts)

    def close(self) -> None:
        for opener in self._openers.values():
            opener.listener.close()


class _Run:
    """The plans that are left and what became of the others."""

    def __init__(self, net: Net, plans: Iterable[Plan]) -> None:
        self._net, self._plans = net, iter(plans)
        self._lock = threading.Lock()
        self.played: list[Played] = []
        self.failures: list[BaseException] = []

    def _take(self) -> Plan | None:
        with self._lock:
            return None if self.failures else next(self._plans, None)

    def work(self) -> None:
        """Carry out plans until none is left."""
        try:
            with contextlib.closing(_Worker(self._net)) as worker:
                while plan := self._take():
                    self.played.append(worker.play(plan))
        except BaseException as failure:  # noqa: BLE001  a thread cannot raise; play() does
            self.failures.append(failure)


def play(net: Net, seed: int, indices: Iterable[int], workers: int = WORKERS) -> list[Played]:
    """Carry out the plans of these indices; raises what a worker raised."""
    for ns in {net.client.ns, net.server.ns}:
        ns.sysctl("ipv4/tcp_fin_timeout", str(FIN_TIMEOUT_S))
    run = _Run(net, (plan_of(seed, index) for index in indices))
    threads = [threading.Thread(target=run.work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for failure in run.failures:
        raise failure
    return run.played
