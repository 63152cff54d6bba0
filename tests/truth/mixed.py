# SPDX-License-Identifier: Apache-2.0
"""Many connections of every kind at once, from a seed."""

from __future__ import annotations

import random
import threading
from typing import TYPE_CHECKING

from tests.truth import (
    abortive,
    backlog,
    descriptors,
    forged,
    graceful,
    handshakes,
    oddities,
    process,
    refusals,
    resets,
    time_wait,
    timers,
)
from tests.truth.scenario import SCENARIOS
from tests.truth.sockets import Flavour

if TYPE_CHECKING:
    from tests.truth.netns import Net
    from tests.truth.sockets import Made

__all__ = ["SCENARIOS", "mixed"]
# Importing a family of scenarios is what enters it.
FAMILIES = (
    *(graceful, abortive, process, descriptors),
    *(forged, backlog, resets, refusals, timers, time_wait, handshakes, oddities),
)
BATCH = 8


class _Mix:
    """The shared counter and the results of the threads of one mix."""

    def __init__(self, net: Net, count: int, seed: int) -> None:
        self.net, self.left, self.seed = net, count, seed
        self.made: list[Made] = []
        self.failures: list[BaseException] = []
        self._lock = threading.Lock()

    def _take(self) -> int:
        with self._lock:
            size = 0 if self.failures else min(BATCH, self.left)
            self.left -= size
            return size

    def work(self, index: int) -> None:
        """Run random scenarios until the count is used up."""
        rng = random.Random(f"{self.seed}/{index}")
        choices = [entry for entry in SCENARIOS.values() if entry.mixable]
        flavours = list(Flavour)
        try:
            while size := self._take():
                entry = rng.choice(choices)
                server_first = entry.both_ways and rng.random() < 0.5
                flavour = rng.choice(flavours)
                made = entry.run(self.net, flavour, size, server_first=server_first)
                with self._lock:
                    self.made += made
        except BaseException as failure:  # noqa: BLE001  a thread cannot raise; mixed() does
            self.failures.append(failure)


def mixed(net: Net, count: int, *, seed: int, threads: int = 8) -> list[Made]:
    """Make `count` connections of all kinds on `threads` threads; raises what a thread raised."""
    mix = _Mix(net, count, seed)
    workers = [threading.Thread(target=mix.work, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for failure in mix.failures:
        raise failure
    return mix.made
